import pytest
import torch

from tdpo_pipeline.algorithms.policy_gradient import pair_order
from tdpo_pipeline.diffusion.ddim import ddim_transition
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory, kl_to_base, replay, rollout
from tests import tiny


@pytest.fixture
def policy() -> Policy:
    return Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)


def shift(policy: Policy, scale: float = 0.3) -> None:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise))


def sample(policy: Policy, *, chunk_size: int = 4, eta: float = 1.0, count: int = 8):
    prompts = (tiny.PROMPTS * count)[:count]
    return rollout(
        policy,
        prompts,
        seed=0,
        epoch=1,
        guidance_scale=2.0,
        eta=eta,
        chunk_size=chunk_size,
    )


def test_shapes_and_dtypes(policy):
    trajectory = sample(policy)
    assert trajectory.latents.shape == (8, 5, 4, 4, 4)
    assert trajectory.noise_preds.shape == (8, 4, 4, 4, 4)
    assert trajectory.log_probs.shape == (8, 4)
    assert trajectory.images.shape == (8, 3, 8, 8)
    assert trajectory.timesteps.tolist() == [751, 501, 251, 1]
    assert trajectory.latents.dtype == trajectory.log_probs.dtype == torch.float32
    assert 0 <= trajectory.images.min() <= trajectory.images.max() <= 1


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_ratio_is_exactly_one_at_equal_batch_shapes(policy, guidance_scale):
    shift(policy)
    trajectory = rollout(
        policy,
        tiny.PROMPTS * 4,
        seed=0,
        epoch=1,
        guidance_scale=guidance_scale,
        eta=1.0,
        chunk_size=4,
    )
    rng = generator(0, "test")
    order = pair_order(rng, 8, 4, group_size=8, shuffle_steps=True)
    for pairs in order.split(4):
        _, log_probs = replay(policy, trajectory, pairs)
        old = trajectory.log_probs[pairs[:, 0], pairs[:, 1]]
        assert torch.equal(torch.exp(log_probs - old), torch.ones(4))


def test_ratio_is_nearly_one_at_other_batch_shapes(policy):
    shift(policy)
    trajectory = sample(policy)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(4))
    _, log_probs = replay(policy, trajectory, pairs)
    ratio = torch.exp(log_probs - trajectory.log_probs.flatten())
    assert (ratio - 1).abs().max() < 1e-5


def test_samples_do_not_depend_on_the_other_chunks(policy):
    whole = sample(policy, count=8)
    part = sample(policy, count=4)
    assert torch.equal(whole.latents[:4], part.latents)
    assert torch.equal(whole.images[:4], part.images)


def test_samples_hardly_depend_on_the_chunk_size(policy):
    torch.testing.assert_close(
        sample(policy, chunk_size=2).latents,
        sample(policy, chunk_size=8).latents,
        rtol=1e-4,
        atol=1e-4,
    )


def test_eta_0_is_deterministic_given_the_initial_noise(policy):
    trajectory = sample(policy, eta=0.0)
    x, eps = trajectory.latents[:, 1], trajectory.noise_preds[:, 1]
    t = trajectory.timesteps[1].expand(8)
    mean = ddim_transition(policy.scheduler, eps, t, x, eta=0.0).mean
    assert torch.equal(trajectory.latents[:, 2], mean)


def test_kl_is_zero_for_the_base_model_and_positive_after_a_change(policy):
    every = torch.arange(8)
    assert kl_to_base(policy, sample(policy, chunk_size=8), every, chunk_size=8) == 0.0
    shift(policy)
    assert kl_to_base(policy, sample(policy, chunk_size=8), every, chunk_size=8) > 0.0


def test_kl_is_a_mean_over_samples_whatever_the_chunks(policy):
    shift(policy)
    trajectory = sample(policy, chunk_size=8)
    each = [
        kl_to_base(policy, trajectory, torch.tensor([i]), chunk_size=1)
        for i in range(5)
    ]
    chunked = kl_to_base(policy, trajectory, torch.arange(5), chunk_size=2)
    assert chunked == pytest.approx(sum(each) / 5, rel=1e-4)


def test_parts_of_trajectories_make_the_whole(policy):
    whole = sample(policy)
    parts = [whole.select(torch.arange(*at)) for at in ((0, 3), (3, 3), (3, 8))]
    joined = Trajectory.cat(parts)
    assert joined.prompts == whole.prompts
    for name in ("latents", "noise_preds", "log_probs", "images"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert torch.equal(joined.embeds.tokens, whole.embeds.tokens)


def test_kl_agrees_with_monte_carlo_over_trajectories(policy):
    # KL = E_policy[sum_t log p_theta - log p_base], log-probs summed over dimensions.
    shift(policy, 0.6)
    trajectory = sample(policy, count=512, chunk_size=64)
    pairs = torch.cartesian_prod(torch.arange(512), torch.arange(4))
    with policy.reference():
        _, base = replay(policy, trajectory, pairs)
    ratios = trajectory.log_probs.sum(1) - base.view(512, 4).sum(1)
    estimates = ratios * policy.latent_dims
    closed = kl_to_base(policy, trajectory, torch.arange(512), chunk_size=512)
    error = estimates.std() / 512**0.5
    assert closed > 5 * error
    assert abs(estimates.mean() - closed) < 4 * error
