import math

import pytest
import torch

from tdpo_pipeline.diffusion.ddim import (
    Transition,
    ddim_step_with_log_prob,
    ddim_transition,
    gaussian_log_prob,
    transition_kl,
)
from tests import tiny


def schedule(steps: int):
    scheduler = tiny.scheduler()
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(
    ("timestep", "sigma"),
    [
        (981, 0.4545),
        (501, 0.2948),
        (261, 0.2077),
        (41, 0.0999),
        (21, 0.0395),
        (1, 0.0206),
    ],
)
def test_sigma_of_stable_diffusion_at_50_steps(timestep, sigma):
    x = torch.zeros(1, 4, 2, 2)
    found = ddim_transition(schedule(50), x, torch.tensor([timestep]), x).sigma
    assert found.item() == pytest.approx(sigma, abs=5e-5)


def test_agrees_with_diffusers_own_step():
    scheduler = schedule(10)
    generator = torch.Generator().manual_seed(0)
    x, eps, z = (torch.randn(3, 4, 2, 2, generator=generator) for _ in range(3))
    for eta in (0.3, 1.0):
        for t in scheduler.timesteps:
            theirs = scheduler.step(eps, int(t), x, eta=eta, variance_noise=z)
            ours, _ = ddim_step_with_log_prob(
                scheduler, eps, t.expand(3), x, eta=eta, noise=z
            )
            torch.testing.assert_close(ours, theirs.prev_sample, rtol=1e-5, atol=1e-5)


def test_log_prob_is_a_mean_over_dimensions():
    # Two dimensions, mean 0, sigma 2. log N(2; 0, 2) = -1/2 - log 2 - 1/2 log 2pi
    # = -0.5 - 0.693147 - 0.918939 = -2.112086; log N(0; 0, 2) = -1.612086.
    # Their mean: -1.862086.
    transition = Transition(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1, 1), 2.0))
    value = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    assert gaussian_log_prob(value, transition).item() == pytest.approx(-1.862086)


def test_sampled_log_prob_by_hand():
    # x' = mu + sigma z, so logp = mean(-z^2 / 2) - log sigma - log(2 pi) / 2.
    scheduler = schedule(50)
    z = torch.tensor([1.0, -2.0, 0.5, 0.0]).view(1, 4, 1, 1)  # mean z^2 = 5.25 / 4
    x = torch.ones(1, 4, 1, 1)
    t = torch.tensor([501])
    _, log_prob = ddim_step_with_log_prob(scheduler, 0.1 * x, t, x, noise=z)
    expected = -5.25 / 8 - math.log(0.2948) - 0.5 * math.log(2 * math.pi)
    assert log_prob.item() == pytest.approx(expected, abs=3e-4)


def test_replay_gives_the_sampled_log_prob_exactly():
    scheduler = schedule(10)
    x, eps, z = (torch.randn(5, 4, 8, 8) for _ in range(3))
    t = torch.tensor([901, 501, 1, 101, 301])
    sampled, log_prob = ddim_step_with_log_prob(scheduler, eps, t, x, noise=z)
    same, replayed = ddim_step_with_log_prob(scheduler, eps, t, x, prev_sample=sampled)
    assert torch.equal(log_prob, replayed)
    assert torch.equal(sampled, same)


def test_gradient_flows_through_the_mean_alone():
    scheduler = schedule(10)
    x, z = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    eps = torch.randn(2, 4, 2, 2, requires_grad=True)
    t = torch.tensor([901, 1])
    _, log_prob = ddim_step_with_log_prob(scheduler, eps, t, x, noise=z)
    log_prob.sum().backward()
    # d logp / d eps = (x' - mu) / sigma^2 / D * d mu / d eps = z / sigma / D * c.
    transition = ddim_transition(scheduler, torch.zeros_like(x), t, x)
    shifted = ddim_transition(scheduler, torch.ones_like(x), t, x)
    c = shifted.mean - transition.mean
    torch.testing.assert_close(
        eps.grad, z / transition.sigma / 16 * c, rtol=1e-4, atol=1e-5
    )


def test_noise_and_prev_sample_exclude_each_other():
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="not both"):
        ddim_step_with_log_prob(schedule(10), x, torch.tensor([1]), x)


def test_closed_form_kl_agrees_with_monte_carlo():
    # Means differ by 0.5 in each of 4 dimensions, sigma 1: KL = 4 * 0.25 / 2 = 0.5.
    sigma = torch.ones(1, 1, 1, 1)
    p = Transition(torch.full((1, 4, 1, 1), 0.5), sigma)
    q = Transition(torch.zeros(1, 4, 1, 1), sigma)
    assert transition_kl(p, q).item() == pytest.approx(0.5)
    generator = torch.Generator().manual_seed(0)
    x = p.mean + torch.randn(200_000, 4, 1, 1, generator=generator)
    ratio = 4 * (gaussian_log_prob(x, p) - gaussian_log_prob(x, q))
    assert ratio.mean().item() == pytest.approx(0.5, abs=0.01)
