"""Penalties on the distance from the base model, and TDPO under them."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.algorithms.kl import (
    PENALTIES,
    KlPenalty,
    KlSettings,
    closed_form_kl,
    kl_penalties,
    reference_trajectory,
    steered_weight,
)
from tdpo_pipeline.algorithms.tdpo import Tdpo
from tdpo_pipeline.diffusion.ddim import ddim_transition, transition_kl
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import kl_to_base, reevaluate, rollout
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny

# x = log p - log p_base is log 2 and -log 2, of p = 2 against 1 and 1 against 2.
#   kl      log 2, -log 2
#   abs     log 2, log 2
#   square  (log 2)^2 / 2 twice
#   clip    log 2, 0
#   approx  2 - 1 - log 2, 1/2 - 1 + log 2
#   k3      1/2 - 1 + log 2, 2 - 1 - log 2
#   js      m = 3/2; the larger has log(2 / 1.5) = log(4/3), the smaller a negative
#           term that is clipped: log(4/3) / 2 twice
LOG2 = math.log(2)
BY_HAND = {
    "kl": [LOG2, -LOG2],
    "abs": [LOG2, LOG2],
    "square": [LOG2**2 / 2, LOG2**2 / 2],
    "clip": [LOG2, 0.0],
    "approx": [1 - LOG2, LOG2 - 0.5],
    "k2": [LOG2**2 / 2, LOG2**2 / 2],
    "k3": [LOG2 - 0.5, 1 - LOG2],
    "js": [math.log(4 / 3) / 2, math.log(4 / 3) / 2],
}


def test_every_penalty_has_a_test():
    assert BY_HAND.keys() == PENALTIES.keys()


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_by_hand(name):
    own, base = torch.tensor([2.0, 1.0]).log(), torch.tensor([1.0, 2.0]).log()
    torch.testing.assert_close(PENALTIES[name](own, base), torch.tensor(BY_HAND[name]))
    # Nothing is taken off a policy that is the base model.
    assert PENALTIES[name](own, own).abs().max() < 1e-7


@pytest.mark.parametrize("name", ["abs", "square", "clip", "approx", "js", "k2", "k3"])
def test_penalties_but_k1_are_never_negative(name):
    x = torch.cat([-torch.logspace(-8, 1, 200), torch.logspace(-8, 1, 200)])
    assert (PENALTIES[name](x, torch.zeros(400)) >= 0).all()


def shift(policy, scale):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * noise)


def sample(policy, count=4, epoch=1):
    return rollout(
        policy,
        tiny.PROMPTS * (count // 2),
        seed=0,
        epoch=epoch,
        guidance_scale=2.0,
        eta=1.0,
        chunk_size=count,
    )


def shifted(scale=0.1):
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    shift(policy, scale)
    return policy


@pytest.fixture(scope="module")
def policy():
    return shifted()


@pytest.fixture(scope="module")
def pair(policy):
    """Trajectories of a policy off the base model, and the base model along them."""
    trajectory = sample(policy)
    return trajectory, reference_trajectory(policy, trajectory, 4)


def test_closed_form_is_the_kl_of_the_transitions_per_dimension(policy, pair):
    trajectory, reference = pair
    found = kl_penalties(policy, trajectory, reference, "closed_form")
    assert found.shape == (4, 4)
    for step, t in enumerate(trajectory.timesteps):
        transitions = [
            ddim_transition(
                policy.scheduler,
                which.noise_preds[:, step],
                t.expand(4),
                trajectory.latents[:, step],
            )
            for which in (trajectory, reference)
        ]
        expected = transition_kl(*transitions) / 64
        torch.testing.assert_close(found[:, step], expected)
    # Summed over steps and dimensions it is what the trainer records.
    whole = kl_to_base(policy, trajectory, torch.arange(4), chunk_size=4)
    assert float(found.sum(1).mean()) * 64 == pytest.approx(whole, rel=1e-4)


def test_closed_form_by_hand(policy):
    # eps is off by 0.1 in all 64 dimensions. At 751, whose step goes to 501, mu moves
    # by c times that, c = sqrt(1 - a' - sigma^2) - sqrt(a' (1 - a) / a); so the KL of
    # a dimension is (0.1 c)^2 / (2 sigma^2).
    trajectory = sample(policy)
    a, a_prev = (policy.scheduler.alphas_cumprod[t].double() for t in (751, 501))
    variance = (1 - a_prev) / (1 - a) * (1 - a / a_prev)
    c = (1 - a_prev - variance).sqrt() - (a_prev * (1 - a) / a).sqrt()
    own = trajectory.noise_preds[:1, 0]
    found = closed_form_kl(policy, trajectory, torch.tensor([[0, 0]]), own, own + 0.1)
    expected = float((0.1 * c) ** 2 / (2 * variance))
    assert found.tolist() == pytest.approx([expected], rel=1e-4)


def test_log_prob_penalties_are_of_the_log_probs(policy, pair):
    trajectory, reference = pair
    x = trajectory.log_probs - reference.log_probs
    found = kl_penalties(policy, trajectory, reference, "clip")
    torch.testing.assert_close(found, x.clamp(min=0))


def test_k1_and_k3_are_unbiased_for_the_closed_form():
    # Given a state, the mean of either over what the policy does next is the exact KL
    # there, so over many sampled steps the differences are nil on average. The policy
    # is near the base model: k3's spread grows like e^KL with the nats of a step.
    policy = shifted(0.003)
    trajectory = sample(policy, 600)
    reference = reference_trajectory(policy, trajectory, 600)
    exact, k1, k2, k3, approx = (
        kl_penalties(policy, trajectory, reference, penalty)
        for penalty in ("closed_form", "kl", "k2", "k3", "approx")
    )
    # The log-ratio of two Gaussians with a KL of k and one covariance is N(k, 2 k): the
    # mean of half its square is k + k^2 / 2. All are per dimension, of which there are D.
    mean_k2 = exact + policy.latent_dims * exact**2 / 2
    for estimate, expected in ((k1, exact), (k2, mean_k2), (k3, exact)):
        difference = estimate - expected
        error = difference.std(0) / 600**0.5
        assert (difference.mean(0).abs() < 4 * error).all()
        # The third step's KL, the largest, is known to a tenth by either.
        assert error[2] < 0.1 * exact[:, 2].mean()
    assert (error < 0.1 * exact.mean(0)).all()  # k3, at every step
    assert (k3 >= 0).all()
    assert (k3.std(0) < k1.std(0)).all()
    # The official code's e^x - 1 - x of mean log-probs measures something else.
    assert (approx.mean(0) < 0.1 * exact.mean(0)).all()


def test_controller_by_hand():
    # kl / target - 1 is 1, clipped to 0.2, over 500 / 2000: 0.4 x 1.05 = 0.42;
    # then -0.1: 0.42 x (1 - 0.1 / 4) = 0.4095; then -1, clipped: x 0.95.
    assert steered_weight(0.4, 4.0, 2.0, 500, 2000) == pytest.approx(0.42)
    assert steered_weight(0.42, 1.8, 2.0, 500, 2000) == pytest.approx(0.4095)
    last = steered_weight(0.4095, 0.0, 2.0, 500, 2000)
    assert last == pytest.approx(0.4095 * 0.95)


def test_without_a_target_the_weight_is_fixed():
    algorithm = build(penalty="clip", coefficient=0.4)
    shift(algorithm.policy, 0.1)
    assert [epoch(algorithm, number)["kl_weight"] for number in (1, 2)] == [0.4, 0.4]


@pytest.mark.parametrize("lora", [tiny.LORA, None])
def test_the_reference_is_the_base_model_bit_for_bit(lora):
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=lora)
    shift(policy, 0.1)
    trajectory = sample(policy)
    found = reference_trajectory(policy, trajectory, 4)
    fresh = Policy(tiny.pipeline(), num_inference_steps=4, lora=None)
    expected = reevaluate(fresh, trajectory, 4)
    assert torch.equal(found.noise_preds, expected.noise_preds)
    assert torch.equal(found.log_probs, expected.log_probs)
    assert torch.equal(found.latents, trajectory.latents)
    assert not torch.equal(found.noise_preds, trajectory.noise_preds)
    # And the policy is itself again.
    again = reevaluate(policy, trajectory, 4)
    assert torch.equal(again.noise_preds, trajectory.noise_preds)


def build(**kl):
    config = tiny.run_config(tiny.TDPO | {"kl": kl} if kl else tiny.TDPO)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    return Tdpo(config, policy, tiny.Redness(), Path(), Stopwatch())


def epoch(algorithm, number=1):
    trajectory = algorithm.sample(number, tiny.PROMPTS * 4)
    rewards = algorithm.reward(trajectory.images, trajectory.prompts).values
    return algorithm.update(number, trajectory, rewards)


@pytest.mark.parametrize("penalty", ["clip", "closed_form"])
def test_penalties_are_taken_off_the_returns_of_all_earlier_steps(penalty):
    algorithm = build(penalty=penalty, coefficient=0.5)
    shift(algorithm.policy, 0.1)
    trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
    reference = reference_trajectory(algorithm.policy, trajectory, 4)
    seen = []
    algorithm.critic.step = lambda inputs, old, targets: seen.append(targets)
    algorithm.critic.losses = algorithm.critic.norms = [torch.zeros(())]
    algorithm.critic.begin_epoch = lambda: None
    pairs = list(algorithm.updates(1, trajectory))
    rewards = torch.linspace(-1, 1, 8)
    algorithm.update(1, trajectory, rewards)
    z = (rewards - rewards.mean()) / rewards.std(correction=0)
    each = 0.5 * kl_penalties(algorithm.policy, trajectory, reference, penalty)
    # With gamma 1 a step pays for itself and everything after it.
    expected = torch.stack([z - each[:, i:].sum(1) for i in range(4)], 1)
    at = torch.cat(pairs).unbind(1)
    torch.testing.assert_close(torch.cat(seen), expected[at], rtol=1e-4, atol=1e-4)


def test_the_weight_of_an_epoch_is_steered_by_the_epochs_before():
    # A target far below the KL: the weight grows by 1 + 0.2 x 8 / 10 an epoch, and the
    # history has the one that was used.
    algorithm = build(penalty="clip", coefficient=0.5, target=1e-9, horizon=10)
    shift(algorithm.policy, 0.1)
    weights = [epoch(algorithm, number)["kl_weight"] for number in (1, 2, 3)]
    assert weights == pytest.approx([0.5, 0.5 * 1.16, 0.5 * 1.16**2])


@pytest.mark.parametrize(
    ("penalty", "applied_to", "seen_by"),
    [
        ("square", "reward", "kl"),
        ("closed_form", "reward", "closed_form"),
        ("closed_form", "loss", "closed_form"),
    ],
)
def test_the_controller_sees_a_trajectorys_whole_kl(
    policy, pair, penalty, applied_to, seen_by
):
    # 1.1 of the target, so that its clip plays no part: 0.5 x (1 + 0.1 x 4 / 10).
    seen = float(kl_penalties(policy, *pair, seen_by).sum(1).mean())
    settings = {"penalty": penalty, "applied_to": applied_to, "coefficient": 0.5}
    settings |= {"target": seen / 1.1, "horizon": 10}
    kl = KlPenalty(KlSettings.model_validate(settings), policy, 4)
    found = kl.of_epoch(pair[0])
    assert kl.weight == pytest.approx(0.52, rel=1e-4)
    assert found.metrics == {"kl_weight": 0.5}
    assert (found.per_step is None) == (applied_to == "loss")
    assert (found.on_loss is None) == (applied_to == "reward")


def test_a_horizon_that_could_turn_the_sign_is_refused():
    with pytest.raises(ValidationError, match=r"kl.horizon 1.6 must be above 1.6"):
        build(penalty="clip", target=1.0, horizon=1.6)  # of 8 samples an epoch


def kl_after(**kl):
    algorithm = build(**kl)
    epoch(algorithm)
    trajectory = sample(algorithm.policy, 8, epoch=9)
    return kl_to_base(algorithm.policy, trajectory, torch.arange(8), chunk_size=8)


def test_a_huge_penalty_in_the_loss_keeps_the_policy_at_the_base_model():
    held = kl_after(penalty="closed_form", applied_to="loss", coefficient=1e9)
    assert held < 0.5 * kl_after()


def test_a_loss_takes_the_closed_form_alone():
    with pytest.raises(ValidationError, match="closed_form"):
        KlSettings(penalty="clip", applied_to="loss")
