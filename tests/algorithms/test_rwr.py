"""Reward-weighted regression."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from tdpo_pipeline.algorithms import rwr as module
from tdpo_pipeline.algorithms.optimization import PolicyOptimizer, flat_gradient
from tdpo_pipeline.algorithms.rwr import (
    Rwr,
    RwrSettings,
    deviation_within,
    drawn_latents,
    effective_fraction,
    encode_images,
    exponential_weights,
    prompt_groups,
    sparse_weights,
    visits,
)
from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny
from tests.conftest import ROOT

RWR = {
    "algorithm": "rwr",
    "rounds": 2,
    "passes": 2,
    "batch_size": 8,
    "optimizer": tiny.OPTIMIZER,
}
METHODS = {
    "rwr": RWR | {"unit": "base_std", "inverse_temperature": 1.0},
    "rwr over all": RWR | {"scope": "all"},
    "rwr_sparse": RWR | {"weighting": "sparse", "percentile": 0.5},
    "rwr_no_cfg": RWR | {"cfg_training": False},
}


def build(micro_batch_size=4, **changes):
    config = tiny.run_config(RWR | changes, micro_batch_size=micro_batch_size)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    shift(policy)
    return Rwr(config, policy, tiny.Redness(), Path(), Stopwatch())


def shift(policy):
    # LoRA begins with zeros, which have no gradient of their own.
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def epoch(algorithm, number=1):
    trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
    rewards = algorithm.reward(trajectory.images, trajectory.prompts).values
    return algorithm.update(number, trajectory, rewards)


# -- weights --


def test_images_are_grouped_by_prompt():
    groups = prompt_groups(["dog", "cat", "dog", "dog", "cat"])
    assert [group.tolist() for group in groups] == [[0, 2, 3], [1, 4]]


def test_weights_by_hand():
    # With beta = log 2 a reward more doubles the weight.
    rewards = torch.tensor([0.0, 1.0, 5.0, 7.0])
    beta = float(np.log(2))
    # Of a prompt: 2 x (1, 2) / 3 and 2 x (1, 4) / 5; the 5 between them is nothing.
    by_prompt = exponential_weights(rewards, prompt_groups(["a", "a", "b", "b"]), beta)
    torch.testing.assert_close(by_prompt, torch.tensor([2 / 3, 4 / 3, 2 / 5, 8 / 5]))
    # Of all: 4 x (1, 2, 32, 128) / 163.
    over_all = exponential_weights(rewards, [torch.arange(4)], beta)
    torch.testing.assert_close(over_all, torch.tensor([1.0, 2, 32, 128]) * 4 / 163)
    assert by_prompt.mean() == pytest.approx(1)
    assert over_all.mean() == pytest.approx(1)


def test_a_prompt_that_was_drawn_once_weighs_1():
    alone = exponential_weights(torch.tensor([3.0]), [torch.arange(1)], 0.2)
    assert alone.tolist() == [1.0]
    assert sparse_weights(torch.tensor([3.0]), [torch.arange(1)], 0.9).tolist() == [1]


def test_sparse_by_hand():
    # Eleven images: the 90th percentile of 0 .. 10 is at place 0.9 x 10 = 9, so 9 and
    # 10 are kept. Four images 1 2 3 4: at place 2.7, 3.7, so 4 alone.
    rewards = torch.cat(
        [torch.arange(11.0).flip(0), torch.tensor([1.0, 4.0, 2.0, 3.0])]
    )
    groups = prompt_groups(["a"] * 11 + ["b"] * 4)
    kept = sparse_weights(rewards, groups, 0.9)
    assert kept.nonzero().flatten().tolist() == [0, 1, 12]
    assert set(kept.tolist()) == {0.0, 1.0}
    # Of all fifteen, at place 12.6: between 8 and 9, the 13th and 14th.
    kept = sparse_weights(rewards, [torch.arange(15)], 0.9)
    assert kept.nonzero().flatten().tolist() == [0, 1]


def test_sparse_keeps_ties():
    kept = sparse_weights(torch.tensor([1.0, 1.0, 0.0, 1.0]), [torch.arange(4)], 0.9)
    assert kept.tolist() == [1, 1, 0, 1]


def test_deviation_within_by_hand():
    # Means 1 and 10: distances 1, 1, 2, 0, 2 with mean square 10 / 5.
    rewards = torch.tensor([0.0, 2.0, 8.0, 10.0, 12.0])
    groups = prompt_groups(["a", "a", "b", "b", "b"])
    assert deviation_within(rewards, groups) == pytest.approx(2**0.5)


def test_effective_fraction_by_hand():
    assert effective_fraction(torch.ones(5)) == 1
    assert effective_fraction(torch.tensor([1.0, 0, 0, 1])) == 0.5
    # (1 + 3)^2 / (2 x (1 + 9))
    assert effective_fraction(torch.tensor([1.0, 3.0])) == pytest.approx(0.8)


def test_beta_is_per_deviation_of_the_first_round():
    algorithm = build(unit="base_std", inverse_temperature=1.0)
    moments = torch.zeros(4, 8, 4, 4)
    algorithm.data.add(["cat"] * 4, torch.tensor([0.0, 4.0, 0.0, 4.0]), moments)
    # The deviation is 2, so the rewards are 2 apart in it: 2 (1, e^2) / (1 + e^2).
    high = 2 * np.e**2 / (1 + np.e**2)
    expected = torch.tensor([2 - high, high, 2 - high, high]).float()
    torch.testing.assert_close(algorithm.image_weights(), expected)
    algorithm._begin_round()
    # A later round has the same unit: 1 is half a deviation.
    algorithm.data.add(["dog"] * 2, torch.tensor([0.0, 1.0]), moments[:2])
    high = 2 * np.e**0.5 / (1 + np.e**0.5)
    torch.testing.assert_close(
        algorithm.image_weights(), torch.tensor([2 - high, high]).float()
    )


def test_equal_rewards_have_no_unit_yet():
    algorithm = build(unit="base_std")
    algorithm.data.add(["cat"] * 2, torch.ones(2), torch.zeros(2, 8, 4, 4))
    assert algorithm.image_weights().tolist() == [1, 1]
    assert not algorithm.base_std


# -- rounds and batches --


def test_epochs_are_dealt_evenly_to_rounds():
    settings = RwrSettings.model_validate(RWR | {"rounds": 5})
    assert settings.round_ends(16) == [3, 6, 9, 12, 16]
    assert settings.round_ends(40) == [8, 16, 24, 32, 40]
    assert settings.round_ends(5) == [1, 2, 3, 4, 5]


def test_batches_are_cut_from_one_stream_of_passes():
    kept = torch.tensor([3, 5, 7])
    rng = np.random.default_rng(0)
    # Three passes over three images: 9 visits, 4 batches of 2, and one left over.
    batches = visits(rng, kept, 3, 2)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]
    stream = torch.cat(batches).tolist()
    assert sorted(stream[:3]) == sorted(stream[3:6]) == [3, 5, 7]
    # Fewer visits than a batch has are one small batch.
    assert [len(batch) for batch in visits(rng, kept, 2, 100)] == [6]


def test_a_round_trains_at_its_end_only():
    algorithm = build()
    before = algorithm.policy.state_dict()
    first = epoch(algorithm, 1)
    assert first["updates"] == 0
    assert all(np.isnan(value) for name, value in first.items() if name != "updates")
    assert len(algorithm.data.rewards) == 8
    for name, weight in algorithm.policy.state_dict().items():
        assert torch.equal(weight, before[name])
    second = epoch(algorithm, 2)
    # Two passes over 16 images in batches of 8.
    assert second["updates"] == 4
    assert np.isfinite(list(second.values())).all()
    assert len(algorithm.data.rewards) == 0
    assert any(
        not torch.equal(weight, before[name])
        for name, weight in algorithm.policy.state_dict().items()
    )


def test_adamw_begins_anew_with_each_round(monkeypatch):
    made = []
    original = PolicyOptimizer.__init__
    monkeypatch.setattr(
        PolicyOptimizer,
        "__init__",
        lambda self, *given: (made.append(self), original(self, *given))[1],
    )
    algorithm = build()
    for number in range(1, 5):
        epoch(algorithm, number)
    trained = [optimizer for optimizer in made if optimizer.norms]
    assert len(trained) == 2
    for optimizer in trained:
        steps = {float(s["step"]) for s in optimizer.adamw.state.values()}
        assert steps == {4.0}


# -- the loss --


def gradients(algorithm, monkeypatch):
    """The gradient of each update of a round of two epochs; nothing is changed."""
    found = []

    def step(self, parts):
        for parameter in self.parameters:
            parameter.grad = None
        for weight, loss in parts:
            (weight * loss).backward()
        found.append(flat_gradient(self.parameters))
        self.norms.append(torch.zeros(()))

    monkeypatch.setattr(PolicyOptimizer, "step", step)
    monkeypatch.setattr(PolicyOptimizer, "metrics", lambda self: {})
    for number in (1, 2):
        trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
        algorithm.update(number, trajectory, torch.ones(8))
    return found


@pytest.mark.parametrize("cfg_training", [True, False])
def test_equal_weights_are_plain_denoising_training(monkeypatch, cfg_training):
    algorithm = build(cfg_training=cfg_training, passes=1)
    policy = algorithm.policy
    draws, batches = [], []
    monkeypatch.setattr(
        Rwr,
        "_draws",
        lambda self, number, places, original=Rwr._draws: (
            draws.append(original(self, number, places)) or draws[-1]
        ),
    )
    monkeypatch.setattr(
        module, "visits", lambda *given: (batches.extend(visits(*given)), batches)[1]
    )
    images = torch.cat(
        [algorithm.sample(number, tiny.PROMPTS * 4).images for number in (1, 2)]
    )
    found = gradients(algorithm, monkeypatch)
    assert len(found) == len(batches) == 2

    # Denoising training as usual: two micro-batches of four are a batch of eight.
    pipeline, prompts = policy.pipeline, tiny.PROMPTS * 8
    abar = pipeline.scheduler.alphas_cumprod
    for number, batch in enumerate(batches):
        timesteps, drawn, noise = (
            torch.cat(pair)
            for pair in zip(*draws[2 * number : 2 * number + 2], strict=True)
        )
        with torch.no_grad():
            latents = pipeline.vae.encode(images[batch] * 2 - 1).latent_dist
            latents = latents.mean + latents.std * drawn
            latents = latents * pipeline.vae.config.scaling_factor
            tokens = pipeline.tokenizer(
                [prompts[i] for i in batch.tolist()] + [""] * 8,
                padding="max_length",
                return_tensors="pt",
            )
            text, null = pipeline.text_encoder(tokens.input_ids)[0].chunk(2)
        a = abar[timesteps].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        predicted = pipeline.unet(noisy, timesteps, text).sample
        if cfg_training:
            empty = pipeline.unet(noisy, timesteps, null).sample
            predicted = empty + 2.0 * (predicted - empty)
        loss = torch.nn.functional.mse_loss(predicted, noise)
        policy.unet.zero_grad()
        loss.backward()
        expected = flat_gradient(policy.parameters())
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found[number], expected, rtol=1e-3, atol=1e-6)


def test_a_weight_multiplies_its_images_loss(monkeypatch):
    # With sparse weights the left-out images have no gradient at all.
    algorithm = build(weighting="sparse", percentile=0.9, scope="all")
    seen = []
    monkeypatch.setattr(
        module,
        "visits",
        lambda rng, kept, *given: (seen.append(kept), visits(rng, kept, *given))[1],
    )
    for number in (1, 2):
        trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
        rewards = torch.arange(8.0) + 8 * (number - 1)
        algorithm.update(number, trajectory, rewards)
    # Place 0.9 x 15 = 13.5 of 0 .. 15: 14 and 15 are kept.
    assert seen[0].tolist() == [14, 15]

    def loss(weight):
        other = build()
        other.data.add(["cat"] * 8, torch.zeros(8), torch.zeros(8, 8, 4, 4))
        losses = []
        parts = other._losses(1, torch.arange(8), 0, weight, losses)
        return [float(part.detach()) for _, part in parts]

    plain, weighted = loss(torch.ones(8)), loss(torch.tensor([3.0] * 4 + [0.5] * 4))
    assert weighted == pytest.approx([3 * plain[0], 0.5 * plain[1]])


def test_without_guidance_only_the_conditional_branch_is_used(monkeypatch):
    algorithm = build(cfg_training=False)
    trajectories = [algorithm.sample(n, tiny.PROMPTS * 4) for n in (1, 2)]
    scales, sizes = [], []
    predict, unet = Policy.predict_noise, Policy._unet
    monkeypatch.setattr(
        Policy,
        "predict_noise",
        lambda self, *given: (scales.append(given[3]), predict(self, *given))[1],
    )
    monkeypatch.setattr(
        Policy,
        "_unet",
        lambda self, *given: (sizes.append(len(given[0])), unet(self, *given))[1],
    )
    for number, trajectory in enumerate(trajectories, 1):
        algorithm.update(number, trajectory, torch.linspace(0, 1, 8))
    # Micro-batches of four, and not eight, go through the UNet.
    assert set(scales) == {1.0}
    assert set(sizes) == {4}


def test_micro_batches_change_nothing():
    found = {}
    for size in (4, 8):
        algorithm = build(micro_batch_size=size)
        for number in (1, 2):
            epoch(algorithm, number)
        found[size] = algorithm.policy.state_dict()
    for name, weight in found[4].items():
        torch.testing.assert_close(weight, found[8][name], rtol=1e-4, atol=1e-5)


def test_images_are_encoded_as_they_were_decoded():
    algorithm = build()
    images = torch.rand(6, 3, 8, 8)
    moments = encode_images(algorithm.policy, images, chunk_size=4)
    vae = algorithm.policy.pipeline.vae
    expected = vae.encode(images * 2 - 1).latent_dist
    torch.testing.assert_close(moments.chunk(2, 1)[0], expected.mean)
    noise = torch.randn(expected.mean.shape)
    found = drawn_latents(algorithm.policy, moments, noise)
    scaled = (expected.mean + expected.std * noise) * vae.config.scaling_factor
    torch.testing.assert_close(found, scaled)


def test_regression_lowers_the_loss():
    algorithm = build(passes=30, optimizer={"learning_rate": 3e-3})
    seen = []
    original = algorithm._losses

    def losses(*given):
        yield from original(*given)
        seen.append(sum(given[-1][-2:]))

    algorithm._losses = losses
    for number in (1, 2):
        epoch(algorithm, number)
    assert np.mean(seen[-15:]) < 0.95 * np.mean(seen[:15])


# -- through the trainer --


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_records(train, method):
    history = train(tiny.run_config(METHODS[method])).history
    assert history["reward_queries"].tolist() == [8, 16, 24, 32]
    trained = history[history["updates"] > 0]
    assert trained["epoch"].tolist() == [2, 4]
    # Weights change where updates were, and the next epoch samples with them.
    assert history["kl_to_base"].tolist()[:2] == pytest.approx([0, 0], abs=1e-8)
    assert (history["kl_to_base"][2:] > 0).all()
    columns = ["loss", "effective_fraction", "policy_grad_norm", "policy_grad_spread"]
    assert np.isfinite(trained[columns]).all().all()
    assert history[history["updates"] == 0][columns].isna().all().all()


@pytest.mark.parametrize(("method", "at"), [("rwr", 1), ("rwr", 3), ("rwr_sparse", 2)])
def test_resume_is_bitwise(train, method, at):
    config = tiny.run_config(METHODS[method])
    whole = train(config, "whole")

    with tiny.killed_after(at):
        train(config, "killed")
    resumed = train(config, "killed")
    for name in ("epoch_0002", "epoch_0004"):
        one, other = (
            (
                result.checkpoints / name / "pytorch_lora_weights.safetensors"
            ).read_bytes()
            for result in (whole, resumed)
        )
        assert one == other
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)


# -- settings --


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 5}, "rounds 5 is more than the 4 epochs"),
        ({"batch_size": 6}, "micro_batch_size 4 must divide batch_size 6"),
        ({"percentile": 1.0}, "less than 1"),
        ({"inverse_temperature": 0}, "greater than 0"),
        (
            {"exploration": {"guidance": {}, "log_prob": "target"}},
            "has no meaning for rwr",
        ),
        ({"round": 2}, "unknown key 'round' .did you mean rounds"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        tiny.run_config(RWR | changes)


def test_the_defaults_are_the_papers():
    settings = RwrSettings.model_validate(
        {"algorithm": "rwr", "optimizer": tiny.OPTIMIZER}
    )
    assert (settings.inverse_temperature, settings.unit) == (0.2, "reward")
    assert (settings.scope, settings.percentile) == ("prompt", 0.9)
    assert (settings.passes, settings.batch_size) == (5, 128)
    assert settings.cfg_training


def test_entries_of_the_configuration():
    def read(name):
        path = ROOT / "conf" / "base" / f"parameters_{name}.yml"
        return yaml.safe_load(path.read_text())[name]

    methods = read("methods")
    names = ["rwr", "rwr_sparse", "rwr_no_cfg", "rwr_sparse_no_cfg"]
    for name in names:
        config = RunConfig.model_validate(
            {
                "method": name,
                "reward": "hps-mini",
                "seed": 0,
                "training": read("training"),
                "algorithm": methods[name],
                "task": read("rewards")["hps-mini"],
            }
        )
        assert "5 rounds of 384 or 512 images" in config.summary()
    plain, sparse, *rest = (AlgorithmSettings.model_validate(methods[n]) for n in names)
    for without, with_cfg in zip(rest, (plain, sparse), strict=True):
        assert without == with_cfg.model_copy(update={"cfg_training": False})
