"""Rollouts: trajectories of a policy, with everything that learning from them needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from tdpo_pipeline.diffusion.ddim import (
    ddim_step_with_log_prob,
    ddim_transition,
    transition_kl,
)
from tdpo_pipeline.diffusion.devices import to_device
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.prompt_embeds import PromptEmbeds
from tdpo_pipeline.diffusion.randomness import noise
from tdpo_pipeline.distributed import compute_parts


@dataclass
class Steps:
    """The steps of N denoising trajectories, as far as an update replays them.

    States may lie in host memory, and everything else is on the device that computes;
    :meth:`states` brings there what is needed.

    Attributes:
        prompts: The N prompts.
        embeds: Text embeddings of the N prompts.
        timesteps: Training timestep of each step, int64, shape (T,).
        guidance: Guidance weight of all steps, or one for each, float32, shape (T,).
        eta: DDIM's eta.
        latents: States x_T ... x_0, float32, shape (N, T + 1, C, H, W); step i goes
            from ``latents[:, i]`` to ``latents[:, i + 1]``.
        log_probs: Log-prob of each step under the policy that sampled it, averaged
            over latent dimensions, float32, shape (N, T).
    """

    prompts: list[str]
    embeds: PromptEmbeds
    timesteps: Tensor
    guidance: float | Tensor
    eta: float
    latents: Tensor
    log_probs: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_steps(self) -> int:
        """Number T of steps."""
        return len(self.timesteps)

    @property
    def device(self) -> torch.device:
        """Where the steps are computed."""
        return self.timesteps.device

    def states(self, samples: Tensor, steps: Tensor | int) -> Tensor:
        """States of samples (B,) before steps (B,), or all before one, on the device.

        Step T is after the last one.

        Returns:
            float32, shape (B, C, H, W).
        """
        return _brought(self.latents, samples, steps, self.device)

    def guidance_at(self, steps: Tensor) -> float | Tensor:
        """Guidance weight at steps (B,): a number for all, or shape (B,)."""
        if isinstance(self.guidance, Tensor):
            return self.guidance[steps]
        return self.guidance

    def pairs(self) -> Tensor:
        """All (sample, step), sample by sample, int64, shape (N x T, 2)."""
        return torch.cartesian_prod(
            torch.arange(len(self)), torch.arange(self.num_steps)
        )


@dataclass
class Trajectory(Steps):
    """N denoising trajectories of T steps: what was sampled, and how.

    Attributes:
        noise_preds: Guided noise prediction of each step under the policy that
            sampled it, float32, shape (N, T, C, H, W); where the states lie.
        images: Decoded final states, float32 in [0, 1], shape (N, 3, H, W); there too.
    """

    noise_preds: Tensor
    images: Tensor

    def predictions(self, samples: Tensor, steps: Tensor | int) -> Tensor:
        """Noise predictions as :meth:`states` gives states."""
        return _brought(self.noise_preds, samples, steps, self.device)

    def select(self, samples: Tensor) -> Trajectory:
        """Copies of the trajectories at ``samples``, int64."""
        return replace(
            self,
            prompts=[self.prompts[i] for i in samples.tolist()],
            embeds=self.embeds[samples],
            latents=self.latents[samples],
            noise_preds=self.noise_preds[samples],
            log_probs=self.log_probs[samples],
            images=self.images[samples],
        )

    @staticmethod
    def cat(parts: Sequence[Trajectory]) -> Trajectory:
        """Trajectories of the same steps, guidance and eta, in their order."""
        names = ("latents", "noise_preds", "log_probs", "images")
        tensors: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in names
        }
        return replace(
            parts[0],
            prompts=[prompt for part in parts for prompt in part.prompts],
            embeds=PromptEmbeds.cat([part.embeds for part in parts]),
            **tensors,
        )


def _brought(
    stored: Tensor, samples: Tensor, steps: Tensor | int, device: torch.device
) -> Tensor:
    """``stored[samples, steps]`` on the device, wherever tensor and indices lie."""
    home = stored.device
    if isinstance(steps, Tensor):
        steps = steps.to(home)
    return to_device(stored[samples.to(home), steps], device)


S = TypeVar("S", bound=Steps)


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Sequence[str],
    *,
    seed: int,
    epoch: int,
    guidance_scale: float | Tensor,
    eta: float,
    chunk_size: int,
    purpose: str = "rollout",
    addresses: Sequence[int] | None = None,
    embeds: PromptEmbeds | None = None,
    offload: bool = False,
) -> Trajectory:
    """Sample one trajectory for each prompt, in chunks of ``chunk_size``.

    Chunks are dealt to the processes, which all get all trajectories. A sample's noise
    is addressed by (seed, purpose, epoch, number, step): the result doesn't depend on
    which process computes which chunk.

    Args:
        policy: The policy to sample from.
        prompts: N prompts.
        seed: Seed of the run.
        epoch: Epoch, part of the noise's address.
        guidance_scale: Classifier-free guidance weight, or one for each step, (T,).
        eta: DDIM's eta. With 0 the steps are deterministic and have no log-prob (the
            field holds NaN).
        chunk_size: Samples computed together.
        purpose: Name of the noise stream.
        addresses: Number of each sample in the noise's address; by default its place.
        embeds: Text embeddings to use instead of the prompts' own.
        offload: Whether each chunk's states, noise predictions and images go to host
            memory as soon as they are there.
    """
    if embeds is None:
        embeds = policy.encode(prompts)
    numbers = range(len(prompts)) if addresses is None else addresses

    def sampled(start: int) -> tuple[Tensor, ...]:
        samples = numbers[start : start + chunk_size]
        noises = (
            noise(seed, purpose, epoch, samples, step, policy.latent_shape)
            for step in range(len(policy.timesteps) + 1)
        )
        chunk = embeds[start : start + chunk_size]
        latents, noise_preds, log_probs = _rollout_chunk(
            policy, chunk, noises, guidance_scale, eta
        )
        stored = [latents, noise_preds, policy.decode(latents[:, -1])]
        if offload:
            stored = [tensor.cpu() for tensor in stored]
        return *stored, log_probs

    parts = compute_parts(sampled, range(0, len(prompts), chunk_size))
    latents, noise_preds, images, log_probs = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    return Trajectory(
        prompts=list(prompts),
        embeds=embeds,
        timesteps=policy.timesteps,
        guidance=guidance_scale,
        eta=eta,
        latents=latents,
        noise_preds=noise_preds,
        log_probs=log_probs,
        images=images,
    )


def rollout_chunks(
    policy: Policy,
    prompts: Sequence[str],
    *,
    chunk_size: int,
    addresses: Sequence[int] | None = None,
    **options: Any,
) -> Iterator[tuple[int, Trajectory]]:
    """What :func:`rollout` samples, a chunk at a time, for those who keep less of it.

    The states of all samples of an evaluation would fill a GPU: 4 (2T + 1) D bytes each.

    Args:
        policy: The policy to sample from.
        prompts: N prompts.
        chunk_size: Samples computed together.
        addresses: Number of each sample in the noise's address; by default its place.
        options: Other arguments of :func:`rollout`.

    Yields:
        Place of the chunk's first sample, and the chunk's trajectories, its images laid
        out as those of all samples together are: a score's rounding depends on that.
    """
    numbers = range(len(prompts)) if addresses is None else addresses
    for start in range(0, len(prompts), chunk_size):
        part = slice(start, start + chunk_size)
        chunk = rollout(
            policy,
            prompts[part],
            chunk_size=chunk_size,
            addresses=numbers[part],
            **options,
        )
        yield start, replace(chunk, images=chunk.images.contiguous())


def _rollout_chunk(
    policy: Policy,
    embeds: PromptEmbeds,
    noises: Iterator[Tensor],
    guidance_scale: float | Tensor,
    eta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, T + 1, C, H, W), noise predictions and log-probs of one chunk.

    ``noises`` are the initial noise, and that of each step. They are drawn when they
    are needed: on a GPU, while it is busy with the step before.
    """
    device = policy.device
    x = to_device(next(noises), device) * policy.scheduler.init_noise_sigma
    latents, noise_preds, log_probs = [x], [], []
    for i, t in enumerate(policy.timesteps):
        timestep = t.expand(len(x))
        weight = guidance_scale
        if isinstance(weight, Tensor):
            weight = weight[i].expand(len(x))
        noise_pred = policy.predict_noise(x, timestep, embeds, weight)
        step_noise = to_device(next(noises), device) if eta > 0 else torch.zeros_like(x)
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


def replay(policy: Policy, trajectory: Steps, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Stored steps under the policy as it is now, with gradient.

    Args:
        policy: The policy.
        trajectory: The trajectories; guidance, eta and embeddings are theirs.
        pairs: int64, shape (B, 2): sample and step.

    Returns:
        Guided noise predictions (B, C, H, W) and log-probs (B,), float32.
    """
    sample, step = pairs.to(trajectory.device).unbind(1)
    latents, timesteps = trajectory.states(sample, step), trajectory.timesteps[step]
    noise_preds = policy.predict_noise(
        latents, timesteps, trajectory.embeds[sample], trajectory.guidance_at(step)
    )
    _, log_probs = ddim_step_with_log_prob(
        policy.scheduler,
        noise_preds,
        timesteps,
        latents,
        eta=trajectory.eta,
        prev_sample=trajectory.states(sample, step + 1),
    )
    return noise_preds, log_probs


@torch.no_grad()
def reevaluate(policy: Policy, trajectory: S, batch_size: int) -> S:
    """The same states, with what the policy makes of them as it is now.

    Args:
        policy: The policy.
        trajectory: Trajectories, whose noise predictions and log-probs are made anew; or
            steps, which have log-probs alone.
        batch_size: Pairs computed together.
    """
    names = ["log_probs"]
    if isinstance(trajectory, Trajectory):
        names.append("noise_preds")

    def replayed(chunk: Tensor) -> tuple[Tensor, ...]:
        noise_preds, log_probs = replay(policy, trajectory, chunk)
        if not isinstance(trajectory, Trajectory):
            return (log_probs,)
        return log_probs, noise_preds.to(trajectory.noise_preds.device)

    parts = compute_parts(replayed, trajectory.pairs().split(batch_size))
    found: dict[str, Any] = {
        name: torch.cat(column).view_as(getattr(trajectory, name))
        for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }
    return replace(trajectory, **found)


@torch.no_grad()
def kl_to_base(
    policy: Policy,
    trajectory: Trajectory,
    samples: Tensor,
    *,
    chunk_size: int,
    eta: float = 1.0,
) -> float:
    """KL from the base model along the trajectories that the policy sampled.

    Closed form for each step, summed over steps and latent dimensions and averaged over
    the chosen trajectories, with guidance on both sides.

    Args:
        policy: The policy that sampled.
        trajectory: Its trajectories.
        samples: Which of them to measure on, int64.
        chunk_size: Samples computed together; chunks are dealt to the processes.
        eta: Of the transitions that are compared; above 0, also where the states were
            sampled with eta 0.

    Returns:
        Nats per image.
    """

    def nats(chunk: Tensor) -> tuple[Tensor]:
        total = torch.zeros(len(chunk), device=policy.device)
        for i, t in enumerate(trajectory.timesteps):
            step = torch.full_like(chunk, i)
            base, _ = replay(policy, trajectory, torch.stack([chunk, step], 1))
            x, timestep = trajectory.states(chunk, i), t.expand(len(chunk))
            own = trajectory.predictions(chunk, i)
            total += transition_kl(
                ddim_transition(policy.scheduler, own, timestep, x, eta=eta),
                ddim_transition(policy.scheduler, base, timestep, x, eta=eta),
            )
        return (total,)

    with policy.reference():
        chunks = samples.to(policy.device).split(chunk_size)
        parts = compute_parts(nats, chunks)
    return float(torch.cat([part for (part,) in parts]).mean())
