"""One DDIM transition, with the log-probability of where it went.

The same function samples (``prev_sample=None``) and replays (``prev_sample`` given), so
that there is a single source of truth for the log-prob. Song et al. 2021, equations 12
and 16; the log-prob as in DDPO (Black et al. 2024), averaged over latent dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor


class Transition(NamedTuple):
    """The Gaussian q(x_{t-1} | x_t): mean (B, C, H, W) and sigma (B, 1, 1, 1)."""

    mean: Tensor
    sigma: Tensor


def predicted_x0(
    scheduler: DDIMScheduler, noise_pred: Tensor, timestep: Tensor, sample: Tensor
) -> Tensor:
    """The clean latent that the predicted noise implies, in one step.

    Args:
        scheduler: Epsilon-predicting scheduler.
        noise_pred: Predicted noise, float32, shape (B, C, H, W).
        timestep: Training timesteps of the samples, int64, shape (B,).
        sample: x_t, float32, shape (B, C, H, W).

    Returns:
        (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), shape (B, C, H, W).
    """
    a = scheduler.alphas_cumprod.to(sample.device)[timestep].view(-1, 1, 1, 1)
    return (sample - (1 - a).sqrt() * noise_pred) / a.sqrt()


def ddim_transition(
    scheduler: DDIMScheduler,
    noise_pred: Tensor,
    timestep: Tensor,
    sample: Tensor,
    *,
    eta: float = 1.0,
) -> Transition:
    """Mean and standard deviation of the step from ``timestep`` to the one before.

    Args:
        scheduler: Epsilon-predicting DDIM scheduler with its timesteps set.
        noise_pred: Predicted noise, float32, shape (B, C, H, W).
        timestep: Training timesteps of the samples, int64, shape (B,).
        sample: x_t, float32, shape (B, C, H, W).
        eta: 0 is deterministic, 1 ancestral.
    """
    abar = scheduler.alphas_cumprod.to(sample.device)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    previous = timestep - stride
    final = scheduler.final_alpha_cumprod.to(sample.device)
    a = abar[timestep].view(-1, 1, 1, 1)
    a_prev = torch.where(previous >= 0, abar[previous.clamp(min=0)], final)
    a_prev = a_prev.view(-1, 1, 1, 1)

    x0 = predicted_x0(scheduler, noise_pred, timestep, sample)
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    direction = (1 - a_prev - sigma**2).clamp(min=0).sqrt() * noise_pred
    return Transition(a_prev.sqrt() * x0 + direction, sigma)


def gaussian_log_prob(value: Tensor, transition: Transition) -> Tensor:
    """Log-density of ``value``, averaged over latent dimensions.

    A mean and not a sum: an importance ratio made of it is the true ratio to the power
    1/D, which keeps it near 1 and fixes what a clip range means.

    Returns:
        float32, shape (B,), in nats per dimension.
    """
    mean, sigma = transition
    density = (
        -((value.detach() - mean) ** 2) / (2 * sigma**2)
        - torch.log(sigma)
        - 0.5 * math.log(2 * math.pi)
    )
    return density.flatten(1).mean(1)


def ddim_step_with_log_prob(
    scheduler: DDIMScheduler,
    noise_pred: Tensor,
    timestep: Tensor,
    sample: Tensor,
    *,
    eta: float = 1.0,
    prev_sample: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take a denoising step, or replay one, and give its log-prob.

    Args:
        scheduler: Epsilon-predicting DDIM scheduler with its timesteps set.
        noise_pred: Predicted noise, float32, shape (B, C, H, W).
        timestep: Training timesteps, int64, shape (B,).
        sample: x_t, float32, shape (B, C, H, W).
        eta: DDIM's eta; must be above 0 for the log-prob to exist.
        prev_sample: x_{t-1} of a stored trajectory to replay; None to sample.
        noise: Standard normal noise to sample with, shape of ``sample``.

    Returns:
        x_{t-1}, shape (B, C, H, W), and its log-prob, shape (B,). The gradient of the
        log-prob flows through the mean alone.

    Raises:
        ValueError: If not exactly one of ``prev_sample`` and ``noise`` is given.
    """
    if (prev_sample is None) == (noise is None):
        raise ValueError("Give noise to sample, or prev_sample to replay; not both.")
    transition = ddim_transition(scheduler, noise_pred, timestep, sample, eta=eta)
    if prev_sample is None:
        assert noise is not None
        prev_sample = transition.mean + transition.sigma * noise
    return prev_sample, gaussian_log_prob(prev_sample, transition)


def transition_kl(policy: Transition, reference: Transition) -> Tensor:
    """KL of two transitions with one sigma: ||mu - mu_ref||^2 / (2 sigma^2).

    Returns:
        float32, shape (B,), in nats, summed over latent dimensions.
    """
    squared = ((policy.mean - reference.mean) ** 2).flatten(1).sum(1)
    return squared / (2 * policy.sigma.flatten() ** 2)
