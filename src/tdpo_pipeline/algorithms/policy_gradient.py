"""What the policy-gradient methods share: pairs, surrogate losses and an update.

A pair is one (sample, timestep) of an epoch's trajectories. An update averages the loss
over ``pairs_per_update`` of them, in micro-batches that change nothing but the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tdpo_pipeline.algorithms.advantages import PerPromptStatTracker, whiten
from tdpo_pipeline.algorithms.base import Algorithm, DivergedError
from tdpo_pipeline.algorithms.optimization import PolicyOptimizer, fetched
from tdpo_pipeline.config import (
    CLIP_REFERENCE_DIMS,
    AlgorithmSettings,
    OptimizerSettings,
    ResetSettings,
    Settings,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.diffusion.adapter_neurons import reset_adapter_neurons
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator, torch_seed
from tdpo_pipeline.diffusion.trajectory import Steps, Trajectory, reevaluate, replay
from tdpo_pipeline.distributed import collect, deal

Penalty = Callable[[Tensor, Tensor], Tensor]
"""Noise predictions (B, C, H, W) and pairs (B, 2) to what is added to the losses (B,)."""


class PerPromptSettings(Settings):
    """Running statistics of each prompt's rewards."""

    buffer_size: PositiveInt = 32
    min_count: PositiveInt = 16

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.min_count > self.buffer_size:
            raise ValueError(
                f"per_prompt.min_count {self.min_count} is more than buffer_size "
                f"{self.buffer_size}, so that no prompt would ever have its own statistics."
            )
        return self


class PolicyNeuronSettings(ResetSettings):
    """Resets of the LoRA adapters' own neurons (TDPO paper, section 5.4).

    Attributes:
        reset: Which neurons to re-draw.
        threshold: Dormancy threshold tau on the score.
    """

    reset: Literal["none", "active", "dormant"] = "none"
    threshold: float = Field(default=0.1, ge=0)


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
        surrogate: ``clipped`` is PPO's pessimistic clip, ``clamped`` DPOK's clip alone,
            ``reinforce`` the plain score function, without ratio and clip.
        clip_range: Clip of the importance ratio, stated for Stable Diffusion's 16384
            latent dimensions and converted to the base model's.
        whiten: Whiten the advantages over all of an epoch.
        advantage_clip: Clip of the advantage, or None.
        per_prompt: Per-prompt reward statistics.
        old_log_prob: ``sampled`` in the rollout, or ``recompute`` before the first
            update, without gradient, in the batch shape of updates.
        policy_neurons: Resets of the LoRA adapters' neurons.
    """

    loop: Literal["timestep_major", "sample_major"]
    group_size: PositiveInt = 8
    timestep_order: Literal["shuffled", "ordered"] = "shuffled"
    updates_per_epoch: PositiveInt | None = None
    updates_per_timestep: PositiveInt | None = None
    optimizer: OptimizerSettings
    surrogate: Literal["clipped", "clamped", "reinforce"] = "clipped"
    clip_range: PositiveFloat = 1e-4
    whiten: bool = False
    advantage_clip: float | None = Field(default=5.0, gt=0)
    per_prompt: PerPromptSettings = PerPromptSettings()
    old_log_prob: Literal["sampled", "recompute"] = "sampled"
    policy_neurons: PolicyNeuronSettings = PolicyNeuronSettings()

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
        training.check_dealt("micro_batch_size", pairs // updates, "pairs of an update")
        if self.loop == "sample_major" and training.samples_per_epoch % self.group_size:
            raise ValueError(
                f"group_size {self.group_size} must divide samples_per_epoch "
                f"{training.samples_per_epoch}."
            )
        if self.surrogate == "reinforce" and updates != 1:
            raise ValueError(
                f"surrogate: reinforce has no ratio, so that all of its {updates} updates "
                "an epoch but the first would be off-policy; set updates_per_epoch: 1."
            )
        if self.policy_neurons.reset != "none" and training.finetune != "lora":
            raise ValueError("policy_neurons.reset needs finetune: lora.")

    @property
    def replays_plainly(self) -> bool:
        """Whether what explored is replayed with the plain guidance and prompts."""
        return self.exploration is not None and self.exploration.log_prob == "target"

    @property
    def recomputes(self) -> bool:
        """Whether old log-probs are made anew before the updates."""
        return self.replays_plainly or self.old_log_prob == "recompute"

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """Every pair once, and once more where old log-probs are made anew."""
        pairs = training.samples_per_epoch * training.num_inference_steps
        return UnetVisits(pairs, pairs * self.recomputes)

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


def reinforce_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """-A log p for each pair (Williams 1992; DDPO_SF), shape (B,); nothing is clipped."""
    return -advantages * log_probs


def clamped_surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """-A clip(rho) for each pair, shape (B,): DPOK's, without PPO's pessimistic max.

    A ratio that has left the clip range gets no gradient, on whichever side.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    return -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)


SURROGATES = {
    "clipped": clipped_surrogate_loss,
    "clamped": clamped_surrogate_loss,
    "reinforce": reinforce_loss,
}


class SurrogateUpdate:
    """Takes surrogate-loss steps on a policy, and measures them over an epoch.

    Args:
        policy: The policy.
        settings: Order, optimizer and clipping.
        training: The budget of an epoch and the micro-batch.
    """

    def __init__(
        self,
        policy: Policy,
        settings: PolicyGradientSettings,
        training: TrainingSettings,
    ) -> None:
        self.policy = policy
        self.settings = settings
        self.training = training
        self.optimizer = PolicyOptimizer(policy, settings.optimizer)
        self.loss = SURROGATES[settings.surrogate]
        self.clip_range = settings.converted_clip_range(policy.latent_dims)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the measurements of the last epoch."""
        self.optimizer.begin_epoch()
        self.kls: list[Tensor] = []
        self.clipped: list[Tensor] = []
        self.ratio_error = 0.0

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
        ).to(self.policy.device)
        yield from order.split(settings.pairs_per_update(self.training))

    def step(
        self,
        trajectory: Steps,
        pairs: Tensor,
        advantages: Tensor,
        penalty: Penalty | None = None,
    ) -> None:
        """One optimizer step on the mean surrogate loss of ``pairs``.

        Args:
            trajectory: The steps, with their old log-probs.
            pairs: int64, shape (P, 2).
            advantages: Shape (N, T).
            penalty: What to add to the losses, or None.

        Raises:
            RatioError: If the ratio before the epoch's first update is off 1 by more
                than a quarter of the clip range.
            DivergedError: If the log-probs are not finite then.
        """
        self.optimizer.step(self._losses(trajectory, pairs, advantages, penalty))

    def _losses(
        self,
        trajectory: Steps,
        pairs: Tensor,
        advantages: Tensor,
        penalty: Penalty | None,
    ) -> Iterator[tuple[float, Tensor]]:
        """Weight and mean loss of each micro-batch of this process."""
        for chunk in deal(pairs.split(self.training.micro_batch_size)):
            sample, step = chunk.unbind(1)
            old, advantage = (
                trajectory.log_probs[sample, step],
                advantages[sample, step],
            )
            noise_preds, log_probs = replay(self.policy, trajectory, chunk)
            losses = self.loss(log_probs, old, advantage, self.clip_range)
            if penalty is not None:
                losses = losses + penalty(noise_preds, chunk)
            self._measure(log_probs.detach(), old)
            yield len(chunk) / len(pairs), losses.mean()

    def _measure(self, log_probs: Tensor, old: Tensor) -> None:
        error = (torch.exp(log_probs - old) - 1).abs()
        if not self.optimizer.norms:  # nothing has been updated yet
            self.ratio_error = max(float(error.max()), self.ratio_error)
            # Written so that NaN stops the run too. The score function has no ratio.
            limit = self.clip_range / 4
            if self.settings.surrogate == "reinforce":
                limit = float("inf")
            if not torch.isfinite(log_probs).all():
                raise DivergedError("the policy's log-probs are not finite.")
            if not self.ratio_error <= limit:
                raise RatioError(
                    f"The importance ratio before the first update is off 1 by "
                    f"{self.ratio_error:.1e}, more than a quarter of the clip range "
                    f"({self.clip_range:.1e}): sampling and replay are numerically "
                    "different. Use one precision and batch shape for both "
                    "(micro_batch_size = chunk_size), or old_log_prob: recompute."
                )
        self.kls.append(0.5 * ((log_probs - old) ** 2).mean())
        self.clipped.append((error > self.clip_range).float().mean())

    def metrics(self) -> dict[str, float]:
        """Measurements of the epoch."""
        return {
            "approx_kl": float(np.mean(collect(fetched(self.kls)))),
            "clip_fraction": float(np.mean(collect(fetched(self.clipped)))),
            "ratio_error": max(collect([self.ratio_error])),
            **self.optimizer.metrics(),
        }


class PolicyGradient(Algorithm):
    """Parent of the policy-gradient methods: updates, statistics, resets, state.

    A method's ``update`` says what its advantages are, and steps through the pairs.
    """

    settings: PolicyGradientSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        settings = self.settings
        self.surrogate = SurrogateUpdate(self.policy, settings, self.training)
        self.to_reset: list[Tensor] | None = None
        self.tracker = PerPromptStatTracker(
            settings.per_prompt.buffer_size, settings.per_prompt.min_count
        )

    def z_scores(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """Rewards (N,), normalised among their prompts' recent ones, float32 (N,)."""
        z = self.tracker.update(trajectory.prompts, rewards.cpu().numpy())
        return torch.from_numpy(z).float().to(trajectory.device)

    def final_returns(
        self,
        trajectory: Trajectory,
        rewards: Tensor,
        target: Literal["normalised", "raw"],
    ) -> Tensor:
        """What rewards (N,) come to for a critic: z-scores or themselves, float32 (N,)."""
        if target == "raw":
            return rewards.float().to(trajectory.device)
        return self.z_scores(trajectory, rewards)

    def shaped(self, advantages: Tensor) -> Tensor:
        """Advantages (N, T), whitened and clipped as configured."""
        if self.settings.whiten:
            advantages = whiten(advantages)
        limit = self.settings.advantage_clip
        return advantages if limit is None else advantages.clamp(-limit, limit)

    def updates(self, epoch: int, trajectory: Trajectory) -> Iterator[Tensor]:
        """The epoch's pairs, one tensor (pairs_per_update, 2) for each update."""
        self.surrogate.begin_epoch()
        rng = generator(self.config.seed, "pair order", epoch)
        return self.surrogate.updates(rng, len(trajectory), trajectory.num_steps)

    def to_replay(self, trajectory: Trajectory) -> Trajectory:
        """The trajectories as the loss sees them: their old log-probs and conditions.

        Those of the rollout, unless the settings ask for log-probs recomputed in the
        batch shape of updates, or for the plain guidance and prompts under exploration.
        """
        settings = self.settings
        if not settings.recomputes:
            return trajectory
        if settings.replays_plainly:
            embeds = self.policy.encode(trajectory.prompts)
            guidance = self.guidance_scale
            trajectory = replace(trajectory, embeds=embeds, guidance=guidance)
        return reevaluate(self.policy, trajectory, self.training.micro_batch_size)

    def before_epoch(self, epoch: int) -> dict[str, float]:
        """Reset the adapters' neurons if that is due."""
        masks, self.to_reset = self.to_reset, None
        if masks is None:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.config.seed, "policy reset", epoch))
            count = reset_adapter_neurons(
                self.policy.unet,
                masks,
                self.surrogate.optimizer.adamw,
                reset_adam_step=self.settings.policy_neurons.reset_adam_step,
            )
        return {"policy_neurons_reset": float(count)}

    def after_epoch(self, epoch: int, neuron_scores: list[Tensor]) -> None:
        """Choose the adapters' neurons to reset, if a reset is due after this epoch."""
        settings = self.settings.policy_neurons
        if settings.reset_due(epoch, self.training.epochs):
            dormant = [scores <= settings.threshold for scores in neuron_scores]
            active = [~mask for mask in dormant]
            self.to_reset = dormant if settings.reset == "dormant" else active

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, per-prompt statistics, and adapter neurons about to be reset."""
        return {
            "optimizer": self.surrogate.optimizer.state_dict(),
            "tracker": self.tracker.state_dict(),
            "to_reset": self.to_reset,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.surrogate.optimizer.load_state_dict(state["optimizer"])
        self.tracker.load_state_dict(state["tracker"])
        self.to_reset = state["to_reset"]
