"""TDPO under constraints, and TDPO with a replay buffer."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.algorithms.tdpo import Tdpo
from tdpo_pipeline.algorithms.tdpo_constrained import Multiplier, TdpoConstrained
from tdpo_pipeline.algorithms.tdpo_replay import TdpoReplay
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import reevaluate
from tdpo_pipeline.trainer.state import tensor_bytes
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny

CONSTRAINED = tiny.TDPO | {
    "algorithm": "tdpo_constrained",
    "constraints": {"tests.tiny:Brightness": {"slack": 0.0}},
}
REPLAY = tiny.TDPO | {
    "algorithm": "tdpo_replay",
    "policy_neurons": {"reset": "active", "threshold": 0.0, "reset_fraction": 0.5},
    "buffer_epochs": 2,
    "buffer_samples": 4,
}


def build(kind, method):
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    config = tiny.run_config(method)
    return kind(config, policy, tiny.Redness(), Path(), Stopwatch())


def epoch(algorithm, number):
    trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
    rewards = algorithm.reward(trajectory.images, trajectory.prompts).values
    return trajectory, algorithm.update(number, trajectory, rewards)


def test_multiplier_by_hand():
    multiplier = Multiplier(slack=0.5, rate=2.0)
    # The first epoch, 1 and 3, sets mean 2 and deviation 1: violation -0.5.
    assert multiplier.update(torch.tensor([1.0, 3.0])) == -0.5
    assert multiplier.value == 0
    # Mean 0.5 is 1.5 deviations lower, 1 more than the slack: 0 + 2 x 1.
    assert multiplier.update(torch.tensor([0.0, 1.0])) == 1.0
    assert multiplier.value == 2.0
    # Mean 1.75: 0.25 lower, so 0.25 within the slack: 2 + 2 x -0.25.
    assert multiplier.update(torch.tensor([1.75])) == -0.25
    assert multiplier.value == 1.5


def test_negative_slack_asks_for_a_rise_from_the_first_epoch_on():
    multiplier = Multiplier(slack=-0.5, rate=1.0)
    assert multiplier.update(torch.tensor([1.0, 3.0])) == 0.5
    assert multiplier.value == 0.5
    # Mean 2.75 is 0.75 deviations higher, 0.25 more than was asked for.
    assert multiplier.update(torch.tensor([2.75])) == -0.25
    assert multiplier.value == 0.25


def test_without_violation_the_target_is_tdpos():
    free, bound = build(Tdpo, tiny.TDPO), build(TdpoConstrained, CONSTRAINED)
    trajectory = free.sample(1, tiny.PROMPTS * 4)
    rewards = torch.linspace(-1, 1, 8)
    expected = free.targets(trajectory, rewards)
    assert torch.equal(bound.targets(trajectory, rewards), expected)


def test_a_violated_constraint_joins_the_target():
    algorithm = build(TdpoConstrained, CONSTRAINED)
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    algorithm.targets(trajectory, torch.linspace(-1, 1, 8))
    trajectory.images = trajectory.images * 0.5
    found = algorithm.targets(trajectory, torch.zeros(8))
    (multiplier,) = algorithm.multipliers.values()
    assert multiplier.value > 0
    # The trained reward is constant, so its z is 0 but for the first epoch's memory,
    # which the whole batch's statistics stand in for here (8 < 16 rewards a prompt).
    brightness = trajectory.images.mean((1, 2, 3))
    z = (brightness - brightness.mean()) / brightness.std(correction=0)
    weight = multiplier.value
    torch.testing.assert_close(found, weight * z / (1 + weight), rtol=1e-3, atol=1e-3)


def test_constraints_need_normalised_targets_and_known_rewards():
    raw = {"critic": tiny.TDPO["critic"] | {"target": "raw"}}
    with pytest.raises(ValidationError, match="normalised"):
        tiny.run_config(CONSTRAINED | raw)
    with pytest.raises(ValidationError, match="did you mean gold_taste"):
        tiny.run_config(CONSTRAINED | {"constraints": {"gold_tast": {}}})


def test_the_buffer_keeps_the_latest_epochs():
    algorithm = build(TdpoReplay, REPLAY)
    seen = []
    for number in (1, 2, 3):
        seen.append(epoch(algorithm, number)[0])
    assert len(algorithm.buffer) == 2
    for kept, trajectory in zip(algorithm.buffer, seen[1:], strict=True):
        assert len(kept.prompts) == len(kept.latents) == 4
        whole = {x.numpy().tobytes() for x in trajectory.latents}
        assert all(x.numpy().tobytes() in whole for x in kept.latents)
    # 2 epochs x 4 samples x (5 states of 64 numbers, and 4 advantages).
    settings = algorithm.settings
    assert settings.kept_numbers(algorithm.training, 64, 3) == 2592
    assert settings.kept_numbers(algorithm.training, 64, 1) == 2592 / 2
    assert tensor_bytes(algorithm.state_dict()["buffer"]) == 4 * 2592


def test_kept_steps_are_replayed_as_whole_trajectories_are():
    algorithm = build(TdpoReplay, REPLAY)
    trajectory, _ = epoch(algorithm, 1)
    (kept,) = algorithm.buffer
    states = trajectory.latents.tolist()
    samples = torch.tensor([states.index(x.tolist()) for x in kept.latents])
    expected = reevaluate(algorithm.policy, trajectory.select(samples), 4)
    found = algorithm.kept_steps(kept)
    assert torch.equal(found.log_probs, expected.log_probs)


def test_a_reset_is_followed_by_learning_from_the_buffer():
    algorithm = build(TdpoReplay, REPLAY)
    scores = [torch.ones(2) for _ in range(len(algorithm.policy.parameters()) // 2)]
    epoch(algorithm, 1)
    algorithm.after_epoch(1, scores)
    assert algorithm.before_epoch(2) == {}
    epoch(algorithm, 2)
    algorithm.after_epoch(2, scores)
    metrics = algorithm.before_epoch(3)
    # Two kept epochs of 4 samples x 4 steps, 4 pairs an update.
    assert metrics["replay_updates"] == 8
    # All neurons were active and so reset: the policy is the base model plus what it
    # learned from the buffer, which is to make kept good steps likelier than bad ones.
    kept = algorithm.buffer[-1]
    with algorithm.policy.reference():
        base = algorithm.kept_steps(kept).log_probs
    change = algorithm.kept_steps(kept).log_probs - base
    assert (kept.advantages * change).mean() > 0


def test_good_steps_alone_are_replayed(monkeypatch):
    each_epoch = REPLAY["policy_neurons"] | {"reset_fraction": 0.25}
    algorithm = build(TdpoReplay, REPLAY | {"policy_neurons": each_epoch})
    scores = [torch.ones(2) for _ in range(len(algorithm.policy.parameters()) // 2)]
    epoch(algorithm, 1)
    algorithm.after_epoch(1, scores)
    (kept,) = algorithm.buffer
    kept.advantages = torch.tensor([[-1.0, 0.5, 2.0, -3.0]]).expand(4, -1)
    seen = []
    monkeypatch.setattr(
        algorithm.surrogate, "step", lambda steps, pairs, *rest: seen.append(rest)
    )
    algorithm.before_epoch(2)
    # One kept epoch of 4 samples x 4 steps, 4 pairs an update.
    assert len(seen) == 4
    for (gains,) in seen:
        assert gains.tolist() == [[0.0, 0.5, 2.0, 0.0]] * 4


@pytest.mark.parametrize(
    ("reset", "expected"),
    [("dormant", [True, True, False]), ("active", [False] * 2 + [True])],
)
def test_adapter_neurons_are_dormant_at_or_below_the_threshold(reset, expected):
    neurons = {"reset": reset, "threshold": 0.1, "reset_fraction": 0.25}
    algorithm = build(Tdpo, tiny.TDPO | {"policy_neurons": neurons})
    algorithm.after_epoch(1, [torch.tensor([0.0, 0.1, 0.2])])
    (mask,) = algorithm.to_reset
    assert mask.tolist() == expected


def test_a_buffer_without_resets_is_an_error():
    with pytest.raises(ValidationError, match=r"policy_neurons\.reset"):
        tiny.run_config(REPLAY | {"policy_neurons": {"reset": "none"}})
    with pytest.raises(ValidationError, match="group_size 8 must divide"):
        tiny.run_config(REPLAY | {"loop": "sample_major", "group_size": 8})
    with pytest.raises(ValidationError, match="neither kl nor exploration"):
        tiny.run_config(REPLAY | {"kl": {}})
    with pytest.raises(ValidationError, match="more than samples_per_epoch"):
        tiny.run_config(REPLAY | {"buffer_samples": 16})


def test_settings_that_mean_nothing_on_a_task_are_errors():
    itself = {"constraints": {"tests.tiny:Redness": {}}}
    with pytest.raises(ValidationError, match="what is trained on"):
        tiny.run_config(CONSTRAINED | itself)
    own = {"critic": tiny.TDPO["critic"] | {"encoder": "tests.tiny:Redness"}}
    with pytest.raises(ValidationError, match="name another reward's"):
        tiny.run_config(tiny.TDPO | own)
