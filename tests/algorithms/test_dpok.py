import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.algorithms.dpok import Dpok, DpokSettings, ValueFunction
from tdpo_pipeline.algorithms.kl import (
    closed_form_kl,
    epsilon_distance,
    reference_trajectory,
)
from tdpo_pipeline.algorithms.policy_gradient import clamped_surrogate_loss
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import kl_to_base, rollout
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny

VALUE = tiny.DPOK["value"]


def build(**changes):
    config = tiny.run_config(tiny.DPOK | changes)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    return Dpok(config, policy, tiny.Redness(), Path(), Stopwatch())


def epoch(algorithm, number=1):
    trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
    rewards = algorithm.reward(trajectory.images, trajectory.prompts).values
    return trajectory, algorithm.update(number, trajectory, rewards)


def shift(policy, scale=0.3):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * noise)


def test_clamped_surrogate_by_hand():
    # Ratios 1.2, 1.2, 0.8, 0.8, 1.05 with clip 0.1 become 1.1, 1.1, 0.9, 0.9, 1.05;
    # the loss is -A times that. (PPO's pessimistic max would keep 1.2 and 0.8 in the
    # second and third.)
    log_probs = torch.tensor([1.2, 1.2, 0.8, 0.8, 1.05]).log().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    losses = clamped_surrogate_loss(log_probs, torch.zeros(5), advantages, 0.1)
    torch.testing.assert_close(losses, torch.tensor([-1.1, 1.1, -0.9, 0.9, -2.1]))
    # Only the ratio within the clip range has a gradient: d(-A e^l)/dl = -A rho.
    losses.sum().backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([0, 0, 0, 0, -2.1]))


def test_epsilon_distance_by_hand():
    # Differences 1, -2, 0, 3 and 0, 0, 0, 2: mean squares 14/4 and 4/4.
    own = torch.tensor([[1.0, 0.0, 5.0, 4.0], [1.0, 1.0, 1.0, 3.0]]).view(2, 1, 2, 2)
    base = torch.tensor([[0.0, 2.0, 5.0, 1.0], [1.0, 1.0, 1.0, 1.0]]).view(2, 1, 2, 2)
    assert epsilon_distance(own, base).tolist() == [3.5, 1.0]


@pytest.mark.parametrize("kl", ["epsilon", "closed_form"])
def test_the_loss_is_held_to_the_base_model_by_the_weighted_distance(kl):
    algorithm = build(kl=kl, kl_weight=3.0)
    policy = algorithm.policy
    shift(policy)
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    pairs = torch.tensor([[0, 0], [3, 2], [5, 3], [7, 1]])
    at = pairs.unbind(1)
    own = trajectory.noise_preds[at].requires_grad_()
    base = reference_trajectory(policy, trajectory, 4).noise_preds[at]
    found = algorithm.penalty(trajectory)(own, pairs)
    if kl == "epsilon":
        expected = 3.0 * epsilon_distance(own, base)
    else:
        expected = 3.0 * closed_form_kl(policy, trajectory, pairs, own, base)
    assert (found > 0).all()
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), own)
    if kl == "epsilon":
        # d/d own of beta (own - base)^2 / D, at D = 64.
        torch.testing.assert_close(gradient, 3.0 * 2 / 64 * (own - base))
    assert (gradient != 0).any()


def test_the_base_models_noise_is_not_computed_at_weight_0(monkeypatch):
    monkeypatch.setattr("tdpo_pipeline.algorithms.dpok.reference_trajectory", None)
    epoch(build(kl_weight=0.0))


def test_value_function_by_hand():
    # One hidden layer of two neurons on two latents and a prompt number.
    value = ValueFunction(inputs=3, steps=2, hidden=(2,))
    with torch.no_grad():
        value.linears[0].weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]))
        value.linears[0].bias.zero_()
        value.gains[0].copy_(torch.tensor([[1.0, 1.0], [3.0, -1.0]]))
        value.last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        value.last.bias.fill_(0.5)
        latents = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(2, -1, -1, -1)
        found = value(latents, torch.tensor([[4.0], [4.0]]), torch.tensor([0, 1]))
    # Neurons 1 + 4 = 5 and 2 - 4 = -2. Step 0: relu(5), relu(-2): 5 + 0 + 0.5.
    # Step 1: relu(15), relu(2): 15 + 20 + 0.5.
    assert found.tolist() == [5.5, 35.5]


def test_value_begins_at_0_and_learns():
    torch.manual_seed(0)
    value = ValueFunction(inputs=16 + 4, steps=3, hidden=(32, 32))
    latents, prompts = torch.randn(256, 1, 4, 4), torch.randn(256, 4)
    steps = torch.arange(256) % 3
    # A target of latent, prompt and step together.
    target = latents.mean((1, 2, 3)) * 4 + prompts[:, 0] * (steps - 1)
    assert value(latents, prompts, steps).eq(0).all()
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-2)
    for _ in range(150):
        loss = ((value(latents, prompts, steps) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * target.var()


def test_values_are_those_of_the_states_before_the_steps():
    algorithm = build()
    trajectory, _ = epoch(algorithm)
    found = algorithm.values(trajectory)
    assert found.shape == (8, 4)
    with torch.no_grad():
        expected = algorithm.value(
            trajectory.latents[:, 2],
            trajectory.embeds.tokens.mean(1),
            torch.full((8,), 2),
        )
    torch.testing.assert_close(found[:, 2], expected)
    assert found.std() > 0


def test_fitting_the_value_lowers_its_loss():
    algorithm = build(value=VALUE | {"updates_per_epoch": 30})
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    returns = torch.linspace(-1, 1, 8)[:, None].expand(-1, 4)
    first = float(((algorithm.values(trajectory) - returns) ** 2).mean())
    state = torch.random.get_rng_state()
    algorithm.fit_value(1, trajectory, returns)
    assert torch.equal(torch.random.get_rng_state(), state)
    last = float(((algorithm.values(trajectory) - returns) ** 2).mean())
    assert last < 0.5 * first


def test_the_first_advantages_are_the_weighted_returns(monkeypatch):
    algorithm = build(reward_weight=10.0)
    seen = []
    step = algorithm.surrogate.step
    monkeypatch.setattr(
        algorithm.surrogate,
        "step",
        lambda *arguments: (seen.append(arguments[2]), step(*arguments)),
    )
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    rewards = torch.linspace(-1, 1, 8)
    algorithm.update(1, trajectory, rewards)
    # Fewer than 16 rewards a prompt: z-scores among the whole batch.
    z = 10 * (rewards - rewards.mean()) / rewards.std(correction=0)
    torch.testing.assert_close(seen[0], z[:, None].expand(-1, 4), rtol=1e-4, atol=1e-4)


def test_the_target_can_be_the_raw_reward():
    algorithm = build(target="raw")
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    rewards = torch.linspace(2, 3, 8)
    found = algorithm.returns(trajectory, rewards)
    assert torch.equal(found, rewards[:, None].expand(-1, 4))


def test_the_ratio_is_1_before_the_first_update_of_each_epoch():
    algorithm = build()
    for number in (1, 2):
        _, metrics = epoch(algorithm, number)
        assert metrics["ratio_error"] == 0
        assert metrics["approx_kl"] > 0
        assert all(math.isfinite(value) for value in metrics.values())


def kl_after_an_epoch(**changes):
    algorithm = build(**changes)
    epoch(algorithm)
    trajectory = rollout(
        algorithm.policy,
        tiny.PROMPTS * 4,
        seed=9,
        epoch=1,
        guidance_scale=2.0,
        eta=1.0,
        chunk_size=4,
    )
    return kl_to_base(algorithm.policy, trajectory, torch.arange(8), chunk_size=8)


@pytest.mark.parametrize("kl", ["epsilon", "closed_form"])
def test_a_huge_weight_keeps_the_policy_at_the_base_model(kl):
    free = kl_after_an_epoch(kl=kl, kl_weight=0.0)
    held = kl_after_an_epoch(kl=kl, kl_weight=1e9)
    assert held < 0.5 * free


def test_dpoks_defaults_are_its_own():
    settings = build().settings
    assert isinstance(settings, DpokSettings)
    assert settings.surrogate == "clamped"
    assert settings.advantage_clip is None
    assert not settings.whiten
    assert (settings.reward_weight, settings.kl_weight) == (1000.0, 0.1)
    with pytest.raises(ValidationError, match="kl_wait"):
        tiny.run_config(tiny.DPOK | {"kl_wait": 1.0})
