"""Half precision, and what trades memory for time: the ratio begins at 1."""

from functools import partial

import pytest
import torch
from torch import nn

from tdpo_pipeline.algorithms.exploration import guidance_schedule, weighted_embeds
from tdpo_pipeline.config import (
    ComputeSettings,
    GuidanceScheduleSettings,
    PromptWeightingSettings,
)
from tdpo_pipeline.diffusion import policy as policy_module
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import kl_to_base, replay, rollout
from tests import tiny

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def policy(model="sd", lora=tiny.LORA, **compute):
    made = Policy(
        tiny.PIPELINES[model](),
        num_inference_steps=4,
        lora=lora,
        compute=ComputeSettings(**compute),
    )
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return made


def sample(target, *, guidance=5.0, embeds=None):
    return rollout(
        target,
        tiny.PROMPTS * 4,
        seed=0,
        epoch=1,
        guidance_scale=guidance,
        eta=1.0,
        chunk_size=4,
        embeds=embeds,
    )


def assert_ratio_is_one(target, trajectory):
    """Whatever order pairs come in, four at a time as they were sampled."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    for pairs in trajectory.pairs()[order].split(4):
        _, log_probs = replay(target, trajectory, pairs)
        old = trajectory.log_probs[pairs[:, 0], pairs[:, 1]]
        assert log_probs.requires_grad
        assert torch.equal(torch.exp(log_probs - old), torch.ones(4))


@pytest.mark.parametrize("lora", [tiny.LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_ratio_is_one_in_half_precision(model, precision, lora):
    target = policy(model, lora, precision=precision)
    assert_ratio_is_one(target, sample(target))


@pytest.mark.parametrize("precision", ["fp32", *HALF])
@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_a_unet_that_is_not_trained_is_the_base_model_in_the_precision(
    model, precision
):
    def untouched(**options):
        compute = ComputeSettings(precision=precision)
        pipeline = tiny.PIPELINES[model]()
        return Policy(pipeline, num_inference_steps=4, compute=compute, **options)

    frozen = untouched(lora=None, trained=False)
    assert frozen.parameters() == []
    expected = HALF.get(precision, torch.float32)
    assert {p.dtype for p in frozen.unet.parameters()} == {expected}
    # New adapters add nothing to the base model.
    lora = sample(untouched(lora=tiny.LORA))
    assert torch.equal(sample(frozen).latents, lora.latents)
    with pytest.raises(ValueError, match="keeps no base model"), frozen.reference():
        pass


@pytest.mark.parametrize(
    "switch",
    ["gradient_checkpointing", "channels_last", "attention_slicing", "vae_slicing"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ratio_is_one_whatever_saves_memory(switch, precision):
    target = policy(precision=precision, **{switch: True})
    assert_ratio_is_one(target, sample(target))


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_ratio_is_one_with_exploration(model, precision):
    target = policy(model, precision=precision, gradient_checkpointing=True)
    settings = GuidanceScheduleSettings(threshold=600)
    weights = guidance_schedule(target.timesteps, settings, 5.0)
    assert weights.tolist() == [1.0, 5.0, 5.0, 5.0]
    embeds = weighted_embeds(
        target,
        tiny.PROMPTS * 4,
        generator(0, "test"),
        PromptWeightingSettings(low=1.2, high=1.5),
    )
    assert_ratio_is_one(target, sample(target, guidance=weights, embeds=embeds))
    assert_ratio_is_one(target, sample(target, guidance=1.0, embeds=embeds))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 1e-4), ("bf16", 0.2)])
def test_ratio_is_one_with_a_compiled_unet(precision, rounding):
    target = policy(precision=precision, compile=True)
    trajectory = sample(target)
    assert_ratio_is_one(target, trajectory)
    assert not trajectory.latents.requires_grad
    with target.uncompiled():
        eager = sample(target)
    # It computes the same, but for rounding, which guidance multiplies.
    torch.testing.assert_close(
        trajectory.noise_preds[:, 0], eager.noise_preds[:, 0], rtol=0, atol=rounding
    )


def gradients(target, trajectory):
    replay(target, trajectory, trajectory.pairs()[:4])[1].sum().backward()
    return [p.grad for p in target.parameters()]


@pytest.mark.slow
def test_compiled_checkpointing_gives_the_same_gradients():
    trajectory = sample(policy())
    expected = gradients(policy(), trajectory)
    for checkpointing in (False, True):
        target = policy(compile=True, gradient_checkpointing=checkpointing)
        assert_ratio_is_one(target, sample(target))
        # As uncompiled, but for rounding.
        torch.testing.assert_close(
            gradients(target, trajectory), expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.slow
def test_a_compiled_policy_leaves_a_compiled_base_model():
    target = Policy(
        tiny.pipeline(),
        num_inference_steps=4,
        lora=tiny.LORA,
        compute=ComputeSettings(compile=True),
    )

    def kl():
        return kl_to_base(target, sample(target), torch.arange(8), chunk_size=4)

    assert kl() == pytest.approx(0, abs=1e-6)
    optimizer = torch.optim.AdamW(target.parameters(), lr=0.1)
    gradients(target, sample(target))
    optimizer.step()
    moved = kl()
    with target.uncompiled():
        assert moved == pytest.approx(kl(), rel=1e-3)
    assert moved > 1e-3


@pytest.fixture
def graphs(monkeypatch):
    """Graphs that torch compiles; here they are run as they are, to be quick."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return compiled


@pytest.mark.slow
def test_each_strength_of_a_compiled_unet_has_a_graph(graphs, monkeypatch):
    eager = policy()
    trajectory, pairs = sample(eager), sample(eager).pairs()[:4]
    target = policy(compile=True)
    # More than the eight that torch keeps by itself.
    for count in range(1, 11):
        for each in (eager, target):
            each.set_strength(count / 10)
        found, expected = (replay(each, trajectory, pairs) for each in (target, eager))
        assert torch.equal(found[0], expected[0])
        assert len(graphs) == count
    target.set_strength(0.1)
    replay(target, trajectory, pairs)
    assert len(graphs) == 10
    # The next policy has all of them to itself; beyond them it stops.
    monkeypatch.setattr(policy_module, "_GRAPHS", 2)
    target = policy(compile=True)
    for size in (1, 2):
        replay(target, trajectory, pairs[:size])
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        replay(target, trajectory, pairs[:3])


@pytest.mark.parametrize("lora", [tiny.LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize(("precision", "dtype"), HALF.items())
def test_what_is_trained_and_kept_is_float32(precision, dtype, lora):
    target = policy(lora=lora, precision=precision)
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    frozen = [p for p in target.unet.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == ({dtype} if lora else set())
    assert target.pipeline.vae.dtype == target.pipeline.text_encoder.dtype == dtype
    trajectory = sample(target)
    kept = trajectory.latents, trajectory.log_probs, trajectory.noise_preds
    for tensor in (*kept, trajectory.images, trajectory.embeds.tokens):
        assert tensor.dtype == torch.float32
    # The networks themselves did compute in half precision.
    linear = next(m for m in target.unet.modules() if isinstance(m, nn.Linear))
    seen = []
    linear.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    replay(target, trajectory, trajectory.pairs()[:4])
    assert seen == [dtype]


@pytest.mark.parametrize("precision", HALF)
def test_half_precision_is_near_float32(precision):
    exact, rough = policy(), policy(precision=precision)
    found, expected = sample(rough), sample(exact)
    # The same noise, and so nearly the same picture.
    torch.testing.assert_close(found.latents[:, 0], expected.latents[:, 0])
    torch.testing.assert_close(
        found.noise_preds[:, 0], expected.noise_preds[:, 0], rtol=0, atol=0.1
    )
    assert not torch.equal(found.noise_preds, expected.noise_preds)


def test_checkpointing_recomputes_the_same_gradient():
    found = []
    for checkpointing in (False, True):
        target = policy(gradient_checkpointing=checkpointing)
        found.append(gradients(target, sample(target)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    ("model", "precision", "upcast", "expected"),
    [
        # XL's own VAE overflows in fp16; a mended one says so by force_upcast: false.
        ("sdxl", "fp16", True, torch.float32),
        ("sdxl", "fp16", False, torch.float16),
        ("sdxl", "bf16", True, torch.bfloat16),
        ("sd", "fp16", True, torch.float16),
    ],
)
def test_the_vae_of_xl_stays_in_float32_in_fp16(model, precision, upcast, expected):
    pipeline = tiny.PIPELINES[model]()
    pipeline.vae.register_to_config(force_upcast=upcast)
    target = Policy(
        pipeline,
        num_inference_steps=4,
        lora=tiny.LORA,
        compute=ComputeSettings(precision=precision),
    )
    assert target.pipeline.vae.dtype == expected
    assert target.decode(torch.zeros(1, 4, 4, 4)).dtype == torch.float32
