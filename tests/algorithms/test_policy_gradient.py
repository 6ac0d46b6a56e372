from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.algorithms.ddpo import Ddpo, DdpoSettings
from tdpo_pipeline.algorithms.optimization import GradientSpread, flat_gradient
from tdpo_pipeline.algorithms.policy_gradient import (
    RatioError,
    SurrogateUpdate,
    clipped_surrogate_loss,
    pair_order,
    reinforce_loss,
)
from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import replay, rollout
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny


def test_clipped_surrogate_by_hand():
    # ratio 1.2, A 1: max(-1.2, -1.1) = -1.1     (clipped from above)
    # ratio 1.2, A -1: max(1.2, 1.1) = 1.2       (pessimistic: not clipped)
    # ratio 0.8, A 1: max(-0.8, -0.9) = -0.8
    # ratio 0.8, A -1: max(0.8, 0.9) = 0.9       (clipped from below)
    old = torch.zeros(4)
    log_probs = torch.tensor([1.2, 1.2, 0.8, 0.8]).log()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses = clipped_surrogate_loss(log_probs, old, advantages, 0.1)
    torch.testing.assert_close(losses, torch.tensor([-1.1, 1.2, -0.8, 0.9]))


def test_no_gradient_where_the_clip_holds():
    log_probs = torch.tensor([1.2, 0.8]).log().requires_grad_()
    loss = clipped_surrogate_loss(
        log_probs, torch.zeros(2), torch.tensor([1.0, 1.0]), 0.1
    )
    loss.sum().backward()
    # Second: d(-A exp(l))/dl = -0.8.
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, -0.8]))


def test_reinforce_by_hand():
    # -A log p: -(1.5 x -2) = 3, -(-2 x -3) = -6; its gradient is -A.
    log_probs = torch.tensor([-2.0, -3.0], requires_grad=True)
    losses = reinforce_loss(log_probs, torch.zeros(2), torch.tensor([1.5, -2.0]), 0.1)
    assert losses.tolist() == [3.0, -6.0]
    losses.sum().backward()
    assert log_probs.grad.tolist() == [-1.5, 2.0]


@pytest.mark.parametrize("group_size", [2, 8])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_pair_is_visited_once(group_size, shuffle):
    rng = np.random.default_rng(0)
    pairs = pair_order(rng, 8, 5, group_size=group_size, shuffle_steps=shuffle)
    assert sorted(map(tuple, pairs.tolist())) == [
        (n, t) for n in range(8) for t in range(5)
    ]


def test_timestep_major_columns_hold_every_sample_once():
    rng = np.random.default_rng(0)
    pairs = pair_order(rng, 8, 5, group_size=8, shuffle_steps=False)
    for step, column in enumerate(pairs.split(8)):
        assert sorted(column[:, 0].tolist()) == list(range(8))
        assert set(column[:, 1].tolist()) == {step}
    shuffled = pair_order(rng, 8, 5, group_size=8, shuffle_steps=True)
    assert len(set(shuffled[:8, 1].tolist())) > 1


def test_sample_major_finishes_a_group_before_the_next():
    pairs = pair_order(np.random.default_rng(0), 8, 5, group_size=2, shuffle_steps=True)
    for group in pairs.split(10):
        assert len(set(group[:, 0].tolist())) == 2


def test_gradient_spread_by_hand():
    # Gradients (1, 0) and (3, 0): E|g|^2 = 5, |E g|^2 = 4, spread sqrt(1) / 2.
    spread = GradientSpread()
    spread.add(torch.tensor([1.0, 0.0]))
    spread.add(torch.tensor([3.0, 0.0]))
    assert spread.value() == pytest.approx(0.5)
    assert np.isnan(GradientSpread().value())


def surrogate(**changes):
    config = tiny.run_config(tiny.DDPO | changes.pop("method", {}), **changes)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    assert isinstance(config.algorithm, DdpoSettings)
    return policy, SurrogateUpdate(policy, config.algorithm, config.training)


def trajectory_of(policy):
    return rollout(
        policy,
        tiny.PROMPTS * 4,
        seed=0,
        epoch=1,
        guidance_scale=2.0,
        eta=1.0,
        chunk_size=4,
    )


def test_clip_range_is_converted_to_the_latents_dimensions():
    # Stated for 16384 dimensions; the tiny latents have 64: 1e-4 * 256.
    _, update = surrogate()
    assert update.clip_range == pytest.approx(1e-4 * 256)
    settings = update.settings
    assert settings.converted_clip_range(256) == pytest.approx(6.4e-3)


def test_micro_batches_change_nothing_but_the_memory():
    advantages = torch.linspace(-1, 1, 32).view(8, 4)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(4))[:16]
    gradients = []
    for micro in (4, 8, 16):
        policy, update = surrogate(
            method={"updates_per_timestep": None, "updates_per_epoch": 2},
            micro_batch_size=micro,
        )
        trajectory = trajectory_of(policy)
        update.step(trajectory, pairs, advantages)
        gradients.append(flat_gradient(policy.parameters()))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


SAMPLE_MAJOR = {"loop": "sample_major", "group_size": 2}


def test_sample_major_and_timestep_major_sum_to_one_gradient():
    # At learning rate 0 (here: the optimizer never steps) both orders visit the same
    # pairs, so the gradients of an epoch sum to the same.
    advantages = torch.linspace(-1, 1, 32).view(8, 4)
    sums, firsts = [], []
    for method in ({}, SAMPLE_MAJOR):
        policy, update = surrogate(method=method)
        update.optimizer.adamw.step = lambda *_: None
        trajectory = trajectory_of(policy)
        updates = list(update.updates(np.random.default_rng(1), 8, 4))
        for pairs in updates:
            update.step(trajectory, pairs, advantages)
        sums.append(update.optimizer.spread.total)
        firsts.append(torch.cat(updates[:2])[:, 0].unique().tolist())
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-5)
    # A column's two updates have all samples, those of a group two.
    assert firsts[0] == list(range(8))
    assert len(firsts[1]) == 2


def test_timesteps_are_in_order_on_request():
    for order, expected in (("ordered", True), ("shuffled", False)):
        _, update = surrogate(method={"timestep_order": order})
        pairs = torch.cat(list(update.updates(np.random.default_rng(1), 8, 4)))
        assert (pairs[:, 1].view(4, 8) == torch.arange(4)[:, None]).all() == expected


def test_the_score_function_is_importance_sampling_at_the_old_policy():
    advantages = torch.linspace(-1, 1, 32).view(8, 4)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(4))
    once = {"updates_per_timestep": None, "updates_per_epoch": 1}
    gradients = []
    for kind in ("reinforce", "clipped"):
        policy, update = surrogate(method=SAMPLE_MAJOR | once | {"surrogate": kind})
        update.step(trajectory_of(policy), pairs, advantages)
        gradients.append(flat_gradient(policy.parameters()))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_an_update_makes_good_steps_likelier_than_bad_ones():
    policy, update = surrogate()
    trajectory = trajectory_of(policy)
    advantages = torch.where(torch.arange(8) < 4, 1.0, -1.0)[:, None].expand(-1, 4)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(4))
    for _ in range(3):
        update.step(trajectory, pairs, advantages)
    with torch.no_grad():
        change = replay(policy, trajectory, pairs)[1].view(8, 4) - trajectory.log_probs
    assert (advantages * change).mean() > 1e-4


def test_ratio_off_one_stops_the_run():
    policy, update = surrogate()
    trajectory = trajectory_of(policy)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(1))
    trajectory.log_probs += 0.01
    with pytest.raises(RatioError, match="recompute"):
        update.step(trajectory, pairs, torch.ones(8, 4))


def test_every_pair_of_the_first_update_is_held_to_ratio_1():
    policy, update = surrogate(
        method={"updates_per_timestep": None, "updates_per_epoch": 2}
    )
    trajectory = trajectory_of(policy)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(2))
    trajectory.log_probs[7, 1] += 0.01  # in the last of four micro-batches
    with pytest.raises(RatioError, match="off 1 by 1.0e-02"):
        update.step(trajectory, pairs, torch.ones(8, 4))


def test_later_updates_may_move_the_ratio():
    policy, update = surrogate()
    trajectory = trajectory_of(policy)
    column = torch.cartesian_prod(torch.arange(4), torch.arange(1))
    for _ in range(3):
        update.step(trajectory, column, torch.ones(8, 4))
    assert update.metrics()["ratio_error"] == 0
    assert update.metrics()["approx_kl"] > 0


def test_recomputed_log_probs_repair_it():
    config = tiny.run_config(tiny.DDPO | {"old_log_prob": "recompute"})
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    algorithm = Ddpo(config, policy, tiny.Redness(), Path(), Stopwatch())
    trajectory = trajectory_of(policy)
    expected = trajectory.log_probs.clone()
    trajectory.log_probs += 0.01
    torch.testing.assert_close(algorithm.to_replay(trajectory).log_probs, expected)


def test_updates_and_pairs_are_stated():
    config = tiny.run_config()
    assert isinstance(config.algorithm, DdpoSettings)
    assert config.algorithm.updates(config.training) == 8
    assert config.algorithm.pairs_per_update(config.training) == 4
    assert "8 updates an epoch of 4 pairs" in config.summary()


@pytest.mark.parametrize(
    ("method", "training", "message"),
    [
        ({"updates_per_epoch": 2}, {}, "not both"),
        ({"updates_per_timestep": 3}, {}, "don't divide"),
        ({}, {"micro_batch_size": 3}, "must divide the 4 pairs"),
        ({"loop": "sample_major", "group_size": 3}, {}, "group_size 3"),
        ({"clip_range": -1e-4}, {}, "greater than 0"),
        ({"surrogate": "reinforce"}, {}, "off-policy"),
        ({"exploration": {}}, {}, "guidance, prompt_weighting, or both"),
        ({"clip_rang": 1e-4}, {}, "clip_rang"),
        ({"algorithm": "dppo"}, {}, r"did you mean [a-z ]*ddpo"),
        ({"algorithm": "nowhere:Nothing"}, {}, "can't be imported"),
        ({}, {"samples_per_epoch": 0}, "greater than 0"),
        ({}, {"samples_per_epoch": -8}, "greater than 0"),
        ({}, {"chunk_size": 3}, "must divide samples_per_epoch"),
        ({}, {"eta": 0.0}, "greater than 0"),
        ({}, {"lora": None}, "needs the key 'lora'"),
        ({}, {"kl_samples": 9}, "more than samples_per_epoch"),
        ({}, {"scorer": "asthetic-mini"}, "must have the name"),
        ({}, {"scorer": "asthetic-mini", "reward": "asthetic-mini"}, "did you mean"),
        ({}, {"scorer": "no.where:Reward"}, "can't be imported"),
        ({}, {"monitor": ("gold_tast",)}, "did you mean gold_taste"),
        (
            tiny.TDPO,
            {"scorer": "jpeg_compressibility", "reward": "jpeg_compressibility"},
            "'critic_encoder'",
        ),
        ({"optimizer": {"learning_rate": float("inf")}}, {}, "finite"),
    ],
)
def test_settings_that_do_not_fit_are_errors(method, training, message):
    with pytest.raises(ValidationError, match=message):
        tiny.run_config(tiny.DDPO | method, **training)


def test_a_method_needs_its_algorithm():
    with pytest.raises(ValidationError, match="needs the key 'algorithm'"):
        AlgorithmSettings.model_validate({"loop": "timestep_major"})


def test_config_survives_a_round_trip():
    config = tiny.run_config(tiny.TDPO)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
