"""What the policy gradients hand to their updates, and that every setting reaches them.

The functions have tests of their own; these watch the calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdpo_pipeline.algorithms.ddpo import Ddpo
from tdpo_pipeline.algorithms.policy_gradient import PolicyGradient
from tdpo_pipeline.algorithms.tdpo import Tdpo
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.trainer.loop import Trainer
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny

REWARDS = torch.tensor([-1.0, 0.5, 2.0, 0.0, 1.0, -2.0, 0.25, 4.0])
Z = (REWARDS - REWARDS.mean()) / REWARDS.std(correction=0)
"""Fewer than 16 rewards a prompt: z-scores among the whole batch."""


def build(method: type[PolicyGradient], **changes: Any) -> PolicyGradient:
    given = tiny.TDPO if method is Tdpo else tiny.DDPO
    config = tiny.run_config(given | changes)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    return method(config, policy, tiny.Redness(), Path(), Stopwatch())


def sampled(algorithm: PolicyGradient) -> Trajectory:
    return algorithm.sample(1, tiny.PROMPTS * 4)


def calls(monkeypatch: pytest.MonkeyPatch, owner: Any) -> list[tuple[Any, ...]]:
    """The arguments of the calls of ``owner.step``, copied, as they are made."""
    seen: list[tuple[Any, ...]] = []
    step = owner.step

    def watched(*arguments: Any) -> None:
        seen.append(tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments))
        step(*arguments)

    monkeypatch.setattr(owner, "step", watched)
    return seen


def test_ddpo_learns_from_the_z_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = build(Ddpo, advantage_clip=1.5)
    seen = calls(monkeypatch, algorithm.surrogate)
    algorithm.update(1, sampled(algorithm), REWARDS)
    assert len(seen) == 8  # two updates for each of four steps
    assert Z.max() > 1.5  # the clip is felt
    expected = Z.clamp(-1.5, 1.5)[:, None].expand(-1, 4)
    for _, _, advantages, *_ in seen:
        torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=1e-5)
    pairs = torch.cat([pairs for _, pairs, *_ in seen])
    assert sorted(map(tuple, pairs.tolist())) == [(n, t) for n in range(8) for t in range(4)]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "final"),
    [
        ({"whiten": False}, Z),
        ({"whiten": False, "gamma": 0.5}, Z),
        ({"whiten": False, "critic": tiny.TDPO["critic"] | {"target": "raw"}}, REWARDS),
    ],
)
def test_tdpo_learns_from_what_the_critic_did_not_foresee(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], final: Tensor
) -> None:
    algorithm = build(Tdpo, **changes)
    assert isinstance(algorithm, Tdpo)
    trajectory = sampled(algorithm)
    inputs = algorithm.critic_inputs(trajectory)
    predictions = algorithm.critic.predict(inputs)
    gamma = changes.get("gamma", 1.0)
    returns = final[:, None] * gamma ** torch.tensor([3.0, 2.0, 1.0, 0.0])
    policy = calls(monkeypatch, algorithm.surrogate)
    critic = calls(monkeypatch, algorithm.critic)
    algorithm.update(1, trajectory, REWARDS)
    assert len(policy) == len(critic) == 8
    for (_, pairs, advantages, *_), given in zip(policy, critic, strict=True):
        close = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(advantages, returns - predictions, **close)
        at = pairs.unbind(1)
        expected = inputs[at], predictions[at], returns[at]
        for found, wanted in zip(given, expected, strict=True):
            torch.testing.assert_close(found, wanted, **close)


def test_tdpo_whitens_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = build(Tdpo)
    assert isinstance(algorithm, Tdpo)
    trajectory = sampled(algorithm)
    left = Z[:, None] - algorithm.critic.predict(algorithm.critic_inputs(trajectory))
    seen = calls(monkeypatch, algorithm.surrogate)
    algorithm.update(1, trajectory, REWARDS)
    expected = (left - left.mean()) / left.std(correction=0)
    torch.testing.assert_close(seen[0][2], expected, rtol=1e-4, atol=1e-4)


def test_the_optimizer_is_as_configured() -> None:
    given = {
        "learning_rate": 3e-4,
        "betas": (0.8, 0.95),
        "eps": 1e-6,
        "weight_decay": 0.5,
    }
    algorithm = build(Ddpo, optimizer=given | {"max_grad_norm": 2.0})
    (group,) = algorithm.surrogate.optimizer.adamw.param_groups
    found = {name: group[name] for name in ("betas", "eps", "weight_decay")}
    assert found | {"learning_rate": group["lr"]} == given


def test_pairs_come_in_another_order_each_epoch() -> None:
    algorithm = build(Ddpo)
    trajectory = sampled(algorithm)
    orders = [torch.cat(list(algorithm.updates(n, trajectory))) for n in (1, 1, 2)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_prompts_are_other_ones_each_epoch() -> None:
    names = [f"animal {i}" for i in range(50)]
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.prompts = tiny.run_config(), names
    drawn = [trainer.draw_prompts(epoch) for epoch in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_statistics_of_a_prompt_need_no_more_rewards_than_are_kept() -> None:
    with pytest.raises(ValueError, match="min_count 16 is more than buffer_size 8"):
        build(Ddpo, per_prompt={"buffer_size": 8, "min_count": 16})


def test_a_controller_can_not_begin_at_0() -> None:
    with pytest.raises(ValueError, match=r"kl\.target steers by multiplying"):
        build(Tdpo, kl={"coefficient": 0.0, "target": 0.1})


def test_z_scores_of_a_prompts_own_rewards() -> None:
    algorithm = build(Ddpo, per_prompt={"buffer_size": 8, "min_count": 4})
    trajectory = sampled(algorithm)
    found = algorithm.z_scores(trajectory, REWARDS).numpy()
    for start in (0, 1):  # "cat", "dog", "cat", "dog", ...
        own = REWARDS[start::2].numpy()
        expected = (own - own.mean()) / own.std()
        np.testing.assert_allclose(found[start::2], expected, rtol=1e-4)
