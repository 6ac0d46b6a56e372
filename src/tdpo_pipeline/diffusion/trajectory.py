"""Rollouts: trajectories of a policy, with everything that learning from them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tdpo_pipeline.diffusion.ddim import (
    ddim_step_with_log_prob,
    ddim_transition,
    transition_kl,
)
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import noise


@dataclass
class Trajectory:
    """N denoising trajectories of T steps.

    Attributes:
        prompts: The N prompts.
        embeds: Text embeddings, float32, shape (N, L, d).
        timesteps: Training timestep of each step, int64, shape (T,).
        latents: States x_T ... x_0, float32, shape (N, T + 1, C, H, W); step i goes
            from ``latents[:, i]`` to ``latents[:, i + 1]``.
        noise_preds: Guided noise prediction of each step under the policy that
            sampled it, float32, shape (N, T, C, H, W).
        log_probs: Log-prob of each step under the policy that sampled it, averaged
            over latent dimensions, float32, shape (N, T).
        images: Decoded final states, float32 in [0, 1], shape (N, 3, H, W).
    """

    prompts: list[str]
    embeds: Tensor
    timesteps: Tensor
    latents: Tensor
    noise_preds: Tensor
    log_probs: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_steps(self) -> int:
        """Number T of steps."""
        return len(self.timesteps)


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Sequence[str],
    *,
    seed: int,
    epoch: int,
    guidance_scale: float,
    eta: float,
    chunk_size: int,
    purpose: str = "rollout",
    addresses: Sequence[int] | None = None,
) -> Trajectory:
    """Sample one trajectory for each prompt, in chunks of ``chunk_size``.

    A sample's noise is addressed by (seed, purpose, epoch, number, step): the result doesn't
    depend on which process computes which chunk.

    Args:
        policy: The policy to sample from.
        prompts: N prompts.
        seed: Seed of the run.
        epoch: Epoch, part of the noise's address.
        guidance_scale: Classifier-free guidance weight.
        eta: DDIM's eta. With 0 the steps are deterministic and have no log-prob (the
            field holds NaN).
        chunk_size: Samples computed together.
        purpose: Name of the noise stream.
        addresses: Number of each sample in the noise's address; by default its place.
    """
    embeds = policy.encode(prompts)
    numbers = range(len(prompts)) if addresses is None else addresses
    parts = []
    for start in range(0, len(prompts), chunk_size):
        samples = numbers[start : start + chunk_size]
        noises = [
            noise(seed, purpose, epoch, samples, step, policy.latent_shape)
            for step in range(len(policy.timesteps) + 1)
        ]
        chunk = embeds[start : start + chunk_size]
        parts.append(_rollout_chunk(policy, chunk, noises, guidance_scale, eta))
    latents, noise_preds, log_probs = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    images = [policy.decode(chunk) for chunk in latents[:, -1].split(chunk_size)]
    return Trajectory(
        prompts=list(prompts),
        embeds=embeds,
        timesteps=policy.timesteps,
        latents=latents,
        noise_preds=noise_preds,
        log_probs=log_probs,
        images=torch.cat(images),
    )


def _rollout_chunk(
    policy: Policy,
    embeds: Tensor,
    noises: Sequence[Tensor],
    guidance_scale: float,
    eta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, T + 1, C, H, W), noise predictions and log-probs of one chunk.

    ``noises[0]`` is the initial noise, ``noises[i + 1]`` that of step i.
    """
    x = noises[0].to(policy.device) * policy.scheduler.init_noise_sigma
    latents, noise_preds, log_probs = [x], [], []
    for i, t in enumerate(policy.timesteps):
        timestep = t.expand(len(x))
        noise_pred = policy.predict_noise(x, timestep, embeds, guidance_scale)
        step_noise = noises[i + 1].to(x) if eta > 0 else torch.zeros_like(x)
        x, log_prob = ddim_step_with_log_prob(
            policy.scheduler, noise_pred, timestep, x, eta=eta, noise=step_noise
        )
        latents.append(x)
        noise_preds.append(noise_pred)
        log_probs.append(log_prob)
    return (
        torch.stack(latents, 1),
        torch.stack(noise_preds, 1),
        torch.stack(log_probs, 1),
    )


@torch.no_grad()
def kl_to_base(
    policy: Policy,
    trajectory: Trajectory,
    samples: Tensor,
    *,
    guidance_scale: float,
    eta: float,
) -> float:
    """KL from the base model along the trajectories that the policy sampled.

    Closed form for each step, summed over steps and latent dimensions and averaged over
    the chosen trajectories, with guidance on both sides.

    Args:
        policy: The policy that sampled.
        trajectory: Its trajectories.
        samples: Which of them to measure on, int64.
        guidance_scale: As in the rollout.
        eta: As in the rollout.

    Returns:
        Nats per image.
    """
    embeds = trajectory.embeds[samples]
    total = torch.zeros(len(embeds), device=policy.device)
    with policy.reference():
        for i, t in enumerate(trajectory.timesteps):
            x, timestep = trajectory.latents[samples, i], t.expand(len(embeds))
            base = policy.predict_noise(x, timestep, embeds, guidance_scale)
            own = trajectory.noise_preds[samples, i]
            total += transition_kl(
                ddim_transition(policy.scheduler, own, timestep, x, eta=eta),
                ddim_transition(policy.scheduler, base, timestep, x, eta=eta),
            )
    return float(total.mean())
