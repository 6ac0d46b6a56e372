"""What the policy-gradient methods share: pairs, the surrogate loss and an update.

A pair is one (sample, timestep) of an epoch's trajectories. An update averages the loss
over ``pairs_per_update`` of them, in micro-batches that change nothing but the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from tdpo_pipeline.config import (
    CLIP_REFERENCE_DIMS,
    AlgorithmSettings,
    OptimizerSettings,
    Settings,
    TrainingSettings,
)
from tdpo_pipeline.diffusion.ddim import ddim_step_with_log_prob
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Trajectory


class PerPromptSettings(Settings):
    """Running statistics of each prompt's rewards."""

    buffer_size: PositiveInt = 32
    min_count: PositiveInt = 16


class RatioError(RuntimeError):
    """Sampling and replay disagree: the importance ratio doesn't start at 1."""


class PolicyGradientSettings(AlgorithmSettings):
    """Order, size and clipping of policy-gradient updates.

    Attributes:
        loop: ``timestep_major`` updates on one (shuffled) timestep of many samples,
            ``sample_major`` on many timesteps of few samples.
        group_size: With ``sample_major``, samples whose timesteps are visited together.
        timestep_order: Each sample's timesteps in an order of its own (``shuffled``, as
            in the official code) or from noise to image (``ordered``, as in the TDPO
            paper's Algorithm 1).
        updates_per_epoch: Updates an epoch; give this or updates_per_timestep.
        updates_per_timestep: Updates an epoch for each of the T timesteps.
        optimizer: The policy's AdamW.
        clip_range: Clip of the importance ratio, stated for Stable Diffusion's 16384
            latent dimensions and converted to the base model's.
        advantage_clip: Clip of the advantage, or None.
        per_prompt: Per-prompt reward statistics.
        old_log_prob: ``sampled`` in the rollout, or ``recompute`` through the training
            path before the first update.
    """

    loop: Literal["timestep_major", "sample_major"]
    group_size: PositiveInt = 8
    timestep_order: Literal["shuffled", "ordered"] = "shuffled"
    updates_per_epoch: PositiveInt | None = None
    updates_per_timestep: PositiveInt | None = None
    optimizer: OptimizerSettings
    clip_range: PositiveFloat = 1e-4
    advantage_clip: float | None = Field(default=5.0, gt=0)
    per_prompt: PerPromptSettings = PerPromptSettings()
    old_log_prob: Literal["sampled", "recompute"] = "sampled"

    @model_validator(mode="after")
    def _one_update_count(self) -> Self:
        if (self.updates_per_epoch is None) == (self.updates_per_timestep is None):
            raise ValueError(
                "give updates_per_epoch or updates_per_timestep, not both."
            )
        return self

    def updates(self, training: TrainingSettings) -> int:
        """Updates an epoch."""
        if self.updates_per_epoch is not None:
            return self.updates_per_epoch
        assert self.updates_per_timestep is not None
        return self.updates_per_timestep * training.num_inference_steps

    def pairs_per_update(self, training: TrainingSettings) -> int:
        """Pairs that an update averages over."""
        pairs = training.samples_per_epoch * training.num_inference_steps
        return pairs // self.updates(training)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where samples, pairs and micro-batches don't divide."""
        pairs = training.samples_per_epoch * training.num_inference_steps
        updates = self.updates(training)
        if pairs % updates:
            raise ValueError(
                f"{updates} updates an epoch don't divide the {pairs} pairs "
                f"(samples_per_epoch x num_inference_steps)."
            )
        if (pairs // updates) % training.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {training.micro_batch_size} must divide the "
                f"{pairs // updates} pairs of an update."
            )
        if self.loop == "sample_major" and training.samples_per_epoch % self.group_size:
            raise ValueError(
                f"group_size {self.group_size} must divide samples_per_epoch "
                f"{training.samples_per_epoch}."
            )

    def summary(self, training: TrainingSettings) -> str:
        """Updates an epoch, pairs an update, learning rate."""
        return (
            f"{self.updates(training)} updates an epoch of "
            f"{self.pairs_per_update(training)} pairs ({self.loop.replace('_', '-')}), "
            f"lr {self.optimizer.learning_rate:g}"
        )

    def converted_clip_range(self, latent_dims: int) -> float:
        """The clip range at another number of latent dimensions.

        The log-prob is a mean over dimensions, so the same trust region on the true
        ratio is wider, in this unit, where there are fewer of them.
        """
        return self.clip_range * CLIP_REFERENCE_DIMS / latent_dims


def pair_order(
    rng: np.random.Generator,
    samples: int,
    steps: int,
    *,
    group_size: int,
    shuffle_steps: bool,
) -> Tensor:
    """The epoch's pairs in the order in which updates visit them.

    Samples are shuffled and dealt into groups; within a group, column by column: one
    step of each sample, then the next. A group of all samples is timestep-major order,
    a small group sample-major. With ``shuffle_steps`` each sample has its own order of
    steps, so a column holds different timesteps.

    Returns:
        int64, shape (samples x steps, 2): sample index and step index.
    """
    permuted = rng.permutation(samples).reshape(-1, group_size)
    columns = np.tile(np.arange(steps), (samples, 1))
    if shuffle_steps:
        columns = rng.permuted(columns, axis=1)
    pairs = [
        np.stack([group, columns[group, j]], axis=1)
        for group in permuted
        for j in range(steps)
    ]
    return torch.from_numpy(np.concatenate(pairs))


def clipped_surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """PPO's pessimistic surrogate for each pair (Schulman et al. 2017, equation 7).

    Args:
        log_probs: Log-probs now, shape (B,), with gradient.
        old_log_probs: Log-probs when sampled, shape (B,).
        advantages: Shape (B,).
        clip_range: Clip of the importance ratio around 1.

    Returns:
        max(-A rho, -A clip(rho)), shape (B,), to be minimised.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped)


def replay_log_probs(
    policy: Policy,
    trajectory: Trajectory,
    pairs: Tensor,
    *,
    guidance_scale: float,
    eta: float,
) -> Tensor:
    """Log-probs of stored steps under the policy as it is now, with gradient.

    Args:
        policy: The policy.
        trajectory: The trajectories.
        pairs: int64, shape (B, 2): sample and step.
        guidance_scale: As in the rollout.
        eta: As in the rollout.

    Returns:
        float32, shape (B,).
    """
    sample, step = pairs.unbind(1)
    latents = trajectory.latents[sample, step]
    timesteps = trajectory.timesteps[step]
    noise_pred = policy.predict_noise(
        latents, timesteps, trajectory.embeds[sample], guidance_scale
    )
    _, log_probs = ddim_step_with_log_prob(
        policy.scheduler,
        noise_pred,
        timesteps,
        latents,
        eta=eta,
        prev_sample=trajectory.latents[sample, step + 1],
    )
    return log_probs


@dataclass
class GradientSpread:
    """How far the gradients of an epoch lie apart, without keeping them.

    ``value()`` is sqrt(E|g|^2 - |E g|^2) / |E g| over the gradients added: 0 if all are
    equal; large where noise drowns the mean. The policy adds the gradient of every
    micro-batch, the critic (which has none) that of every update.
    """

    total: Tensor | None = None
    squared: float = 0.0
    count: int = 0

    def add(self, gradient: Tensor) -> None:
        """Add one flat gradient."""
        self.total = gradient.clone() if self.total is None else self.total + gradient
        self.squared += float(gradient.double().square().sum())
        self.count += 1

    def value(self) -> float:
        """The spread, relative to the norm of the mean gradient."""
        if self.total is None:
            return float("nan")
        mean = float((self.total.double() / self.count).square().sum())
        variance = max(self.squared / self.count - mean, 0.0)
        return (variance / mean) ** 0.5 if mean else float("nan")


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """All gradients in one vector (zeros where there is none)."""
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in parameters
        ]
    )


@dataclass
class SurrogateUpdate:
    """Takes surrogate-loss steps on a policy, and measures them over an epoch.

    Args:
        policy: The policy.
        settings: Order, optimizer and clipping.
        training: Guidance, eta and the micro-batch.
    """

    policy: Policy
    settings: PolicyGradientSettings
    training: TrainingSettings
    optimizer: torch.optim.Optimizer = field(init=False)
    clip_range: float = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = adamw(self.policy.parameters(), self.settings.optimizer)
        self.clip_range = self.settings.converted_clip_range(self.policy.latent_dims)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the measurements of the last epoch."""
        self.spread = GradientSpread()
        self.norms: list[float] = []
        self.kls: list[float] = []
        self.clipped: list[float] = []
        self.ratio_error = float("nan")

    def updates(
        self, rng: np.random.Generator, samples: int, steps: int
    ) -> Iterator[Tensor]:
        """The epoch's pairs, one tensor (pairs_per_update, 2) for each update."""
        settings = self.settings
        major = settings.loop == "timestep_major"
        order = pair_order(
            rng,
            samples,
            steps,
            group_size=samples if major else settings.group_size,
            shuffle_steps=settings.timestep_order == "shuffled",
        )
        yield from order.split(samples * steps // settings.updates(self.training))

    def replay(self, trajectory: Trajectory, pairs: Tensor) -> Tensor:
        """Log-probs of the pairs under the policy as it is now."""
        return replay_log_probs(
            self.policy,
            trajectory,
            pairs.to(trajectory.latents.device),
            guidance_scale=self.training.guidance_scale,
            eta=self.training.eta,
        )

    @torch.no_grad()
    def old_log_probs(self, trajectory: Trajectory) -> Tensor:
        """Log-probs (N, T) of the policy that sampled."""
        if self.settings.old_log_prob == "sampled":
            return trajectory.log_probs
        count, steps = len(trajectory), trajectory.num_steps
        pairs = torch.cartesian_prod(torch.arange(count), torch.arange(steps))
        chunks = pairs.split(self.training.micro_batch_size)
        flat = torch.cat([self.replay(trajectory, chunk) for chunk in chunks])
        return flat.view(count, steps)

    def step(
        self,
        trajectory: Trajectory,
        pairs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
    ) -> None:
        """One optimizer step on the mean surrogate loss of ``pairs``.

        Args:
            trajectory: The trajectories.
            pairs: int64, shape (P, 2).
            old_log_probs: Shape (N, T).
            advantages: Shape (N, T).

        Raises:
            RatioError: If the ratio before the epoch's first update is off 1 by more
                than a quarter of the clip range.
        """
        parameters = self.policy.parameters()
        self.optimizer.zero_grad(set_to_none=True)
        before = torch.zeros(1)
        for chunk in pairs.split(self.training.micro_batch_size):
            sample, step = chunk.unbind(1)
            old, advantage = old_log_probs[sample, step], advantages[sample, step]
            log_probs = self.replay(trajectory, chunk)
            losses = clipped_surrogate_loss(log_probs, old, advantage, self.clip_range)
            (losses.sum() / len(pairs)).backward()
            self._measure(log_probs.detach(), old)
            after = flat_gradient(parameters)
            self.spread.add((after - before.to(after)) * (len(pairs) / len(chunk)))
            before = after
        norm = nn.utils.clip_grad_norm_(
            parameters, self.settings.optimizer.max_grad_norm
        )
        self.norms.append(float(norm))
        self.optimizer.step()

    def _measure(self, log_probs: Tensor, old: Tensor) -> None:
        error = (torch.exp(log_probs - old) - 1).abs()
        if not self.kls:
            self.ratio_error = float(error.max())
            # Written so that NaN stops the run too.
            if not self.ratio_error <= self.clip_range / 4:
                raise RatioError(
                    f"The importance ratio before the first update is off 1 by "
                    f"{self.ratio_error:.1e}, more than a quarter of the clip range "
                    f"({self.clip_range:.1e}): sampling and replay are numerically "
                    "different. Use one precision and batch shape for both "
                    "(micro_batch_size = chunk_size), or old_log_prob: recompute."
                )
        self.kls.append(float(0.5 * ((log_probs - old) ** 2).mean()))
        self.clipped.append(float((error > self.clip_range).float().mean()))

    def metrics(self) -> dict[str, float]:
        """Measurements of the epoch."""
        return {
            "approx_kl": float(np.mean(self.kls)),
            "clip_fraction": float(np.mean(self.clipped)),
            "ratio_error": self.ratio_error,
            "policy_grad_norm": float(np.mean(self.norms)),
            "policy_grad_spread": self.spread.value(),
        }


def adamw(
    parameters: list[nn.Parameter], settings: OptimizerSettings
) -> torch.optim.AdamW:
    """AdamW as configured."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
