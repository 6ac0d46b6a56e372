import torch

from tdpo_pipeline.algorithms.optimization import adamw
from tdpo_pipeline.config import OptimizerSettings
from tdpo_pipeline.diffusion.adapter_neurons import (
    adapter_neuron_scores,
    lora_layers,
    reset_adapter_neurons,
)
from tdpo_pipeline.diffusion.policy import Policy
from tests import tiny


def adapted():
    """A policy whose adapters and Adam moments are all away from 0."""
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    optimizer = adamw(policy.parameters(), OptimizerSettings(learning_rate=0.1))
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return policy, optimizer


def test_scores_come_in_the_order_of_the_modules():
    policy, _ = adapted()
    x = torch.randn(3, 4, 4, 4)
    t = torch.full((3,), 501)
    embeds = policy.encode(["cat", "dog", "cat"])
    scores = adapter_neuron_scores(
        policy.unet, lambda: policy.predict_noise(x, t, embeds, 2.0)
    )
    name, (down, _) = list(lora_layers(policy.unet).items())[-1]
    seen = []
    handle = down.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        policy.predict_noise(x, t, embeds, 2.0)
    handle.remove()
    out = seen[0].movedim(1, -1) if seen[0].ndim == 4 else seen[0]
    means = out.relu().flatten(0, -2).mean(0)
    torch.testing.assert_close(scores[-1], means / (means.mean() + 1e-9))
    assert len(scores) == len(lora_layers(policy.unet)), name


def test_scores_over_several_passes_are_those_over_all_rows():
    policy, _ = adapted()
    x, t = torch.randn(3, 4, 4, 4), torch.full((3,), 501)
    embeds = policy.encode(["cat", "dog", "cat"])

    def passes(*chunks):
        def forward():
            for chunk in chunks:
                policy.predict_noise(x[chunk], t[chunk], embeds[chunk], 2.0)

        return adapter_neuron_scores(policy.unet, forward)

    whole = passes(torch.arange(3))
    parts = passes(torch.tensor([0, 1]), torch.tensor([2]))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    first = passes(torch.tensor([0, 1]))
    assert any(not torch.allclose(a, b) for a, b in zip(whole, first, strict=True))


def test_silent_neurons_of_half_precision_score_zero():
    # In fp16 the 1e-9 that a layer of zeros is divided by would be 0, and the score NaN.
    policy, _ = adapted()
    layers = lora_layers(policy.unet)
    down, _ = next(iter(layers.values()))
    down.register_forward_hook(lambda *args: torch.zeros_like(args[2]).half())

    def forward():
        for layer, _ in layers.values():
            channels = layer.weight.shape[1]
            layer(
                torch.randn(2, channels, 4, 4)
                if layer.weight.ndim == 4
                else torch.randn(2, channels)
            )

    scores = adapter_neuron_scores(policy.unet, forward)
    assert torch.equal(scores[0], torch.zeros(len(scores[0])))


def test_reset_redraws_rows_clears_columns_and_moments():
    policy, optimizer = adapted()
    layers = list(lora_layers(policy.unet).values())
    before = [(a.weight.clone(), b.weight.clone()) for a, b in layers]
    masks = [torch.tensor([True, False]) for _ in layers]
    torch.manual_seed(0)
    assert reset_adapter_neurons(policy.unet, masks, optimizer) == len(layers)
    rows = []
    for (down, up), (old_down, old_up) in zip(layers, before, strict=True):
        assert torch.equal(down.weight[1], old_down[1])
        assert not torch.equal(down.weight[0], old_down[0])
        assert torch.equal(up.weight[:, 1], old_up[:, 1])
        assert up.weight[:, 0].abs().max() == 0
        for weight, cleared, kept in (
            (down.weight, (0,), (1,)),
            (up.weight, (slice(None), 0), (slice(None), 1)),
        ):
            for moment in ("exp_avg", "exp_avg_sq"):
                state = optimizer.state[weight][moment]
                assert state[cleared].abs().max() == 0
                assert state[kept].abs().min() > 0
        rows.append(down.weight[0].flatten())
    # Rank 2: N(0, 1/4), a deviation of 1/2.
    assert abs(torch.cat(rows).std() - 0.5) < 0.1


def test_adams_step_count_starts_anew_if_asked_to():
    for anew in (False, True):
        policy, optimizer = adapted()
        layers = list(lora_layers(policy.unet).values())
        masks = [torch.tensor([False, layer == 0]) for layer in range(len(layers))]
        reset_adapter_neurons(policy.unet, masks, optimizer, reset_adam_step=anew)
        steps = [
            [float(optimizer.state[part.weight]["step"]) for part in layer]
            for layer in layers
        ]
        # One step was taken. A layer that keeps its neurons keeps its count.
        assert steps[0] == ([0, 0] if anew else [1, 1])
        assert all(rest == [1, 1] for rest in steps[1:])


def test_a_policy_with_all_neurons_reset_is_the_base_model():
    policy, optimizer = adapted()
    masks = [torch.tensor([True, True]) for _ in lora_layers(policy.unet)]
    reset_adapter_neurons(policy.unet, masks, optimizer)
    x, t = torch.randn(2, 4, 4, 4), torch.full((2,), 501)
    embeds = policy.encode(["cat", "dog"])
    with torch.no_grad():
        found = policy.predict_noise(x, t, embeds, 2.0)
    with policy.reference():
        expected = policy.predict_noise(x, t, embeds, 2.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
