"""What AlignProp, DRaFT and ReFL share: the gradient of a reward, through the sampler.

A differentiable reward needs no policy gradient: its own gradient goes through the
decoder into the latents, and through denoising steps into the weights. The methods
differ in the latents whose reward they raise, and in the steps that are *live*, which
means that the gradient goes through the UNet there.

Nothing is sampled twice. The epoch's trajectories are there, every state of them; a
live step is one more UNet evaluation, with gradient, at the state that it had in the
rollout (Algorithm.sample), and no other step costs anything.

    sample N trajectories
    for latents with gradient from live steps:        # each method's own
        add the gradient of mean loss(reward(decode(latents), prompt))
    one optimizer step
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.optimization import PolicyOptimizer
from tdpo_pipeline.config import (
    AlgorithmSettings,
    OptimizerSettings,
    Settings,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.diffusion.ddim import ddim_transition
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.distributed import collect, deal
from tdpo_pipeline.rewards.registry import no_gradient


class LossSettings(Settings):
    """What is minimised: a function of the reward r of one image.

    Attributes:
        kind: ``negative`` is -r, ``distance`` |r - target|, ``hinge`` relu(target - r),
            which lets go of an image whose reward has reached the target.
        target: Of ``distance`` and ``hinge``.
        unit: What the target is in: the ``reward``'s own units, or ``base_std``,
            standard deviations above the mean of the first epoch's rewards, in which
            the base model samples.
        coefficient: Factor of the loss. AdamW's steps don't depend on it but through
            its eps and the clipping of the gradient's norm.
    """

    kind: Literal["negative", "distance", "hinge"] = "negative"
    target: float | None = None
    unit: Literal["reward", "base_std"] = "reward"
    coefficient: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _target_if_one_is_needed(self) -> Self:
        if (self.target is None) != (self.kind == "negative"):
            raise ValueError("loss.target belongs to kind: distance and kind: hinge.")
        return self


class RewardBackpropSettings(AlgorithmSettings):
    """Settings of all methods that backpropagate the reward.

    Attributes:
        optimizer: The policy's AdamW; it takes one step an epoch.
        loss: Function of the reward that is minimised.
        eta: DDIM's eta while training; None: the scale's.
        guidance_scale: Guidance weight while training; None: the scale's.
    """

    needs_gradient: ClassVar[bool] = True

    optimizer: OptimizerSettings
    loss: LossSettings = LossSettings()
    eta: float | None = Field(default=None, ge=0, le=1)
    guidance_scale: float | None = Field(default=None, ge=0)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError for a setting that only log-probs could obey."""
        if self.exploration is not None and self.exploration.log_prob == "target":
            raise ValueError(
                f"exploration.log_prob: target has no meaning for {self.algorithm}, "
                "which has no log-probs: its gradient goes the way of the samples."
            )
        name = (
            "backprop_batch_size"
            if training.backprop_batch_size
            else "micro_batch_size"
        )
        training.check_dealt(name, training.samples_per_epoch, "images of an update")

    def sampling_guidance(self, training: TrainingSettings) -> float:
        """The method's guidance weight, or the scale's."""
        own = self.guidance_scale
        return super().sampling_guidance(training) if own is None else own

    def sampling_eta(self, training: TrainingSettings) -> float:
        """The method's eta, or the scale's."""
        return super().sampling_eta(training) if self.eta is None else self.eta

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """The live steps; of several, each is computed again in the backward pass."""
        live = self.mean_live_steps(training)
        samples = training.samples_per_epoch
        return UnetVisits(samples * live, samples * live * (live > 1))

    @property
    def needs_base_samples(self) -> str | None:
        """The loss, if its target is in the base model's deviations."""
        aims = self.loss.target is not None
        return "loss.unit: base_std" if aims and self.loss.unit == "base_std" else None

    def mean_live_steps(self, training: TrainingSettings) -> float:
        """Live steps of a sample, in the mean."""
        return 1.0

    @abstractmethod
    def live_summary(self, training: TrainingSettings) -> str:
        """Which steps are live, in a few words."""

    def summary(self, training: TrainingSettings) -> str:
        """Updates an epoch, what they are made of, learning rate."""
        return ", ".join(
            [
                f"1 update an epoch on {training.samples_per_epoch} images",
                self.live_summary(training),
                f"lr {self.optimizer.learning_rate:g}",
            ]
        )


def reward_loss(values: Tensor, settings: LossSettings, target: float | None) -> Tensor:
    """Loss of each image.

    Args:
        values: Rewards, shape (B,), with gradient.
        settings: Kind and coefficient.
        target: In units of the reward; None for ``negative``.

    Returns:
        Shape (B,), to be minimised.
    """
    if target is None:
        losses = -values
    elif settings.kind == "distance":
        losses = (values - target).abs()
    else:
        losses = (target - values).relu()
    return settings.coefficient * losses


def with_gradient_of(value: Tensor, path: Tensor) -> Tensor:
    """``value``, bit for bit, with the gradient that ``path`` has (both (B, ...))."""
    return value + (path - path.detach())


def final_latents(
    policy: Policy, trajectory: Trajectory, samples: Tensor, live: Tensor
) -> Tensor:
    """x_0 of stored trajectories, with the gradient of their live steps.

    The chain is x_{i+1} = mu(x_i, eps_i) + sigma_i z_i. The gradient goes through mu in
    every step: always along x_i, and in live steps also along eps_i = eps(x_i), into
    the weights and once more into x_i. In the others eps_i is the stored prediction, a
    constant. All values are the stored ones, since the policy is the one that sampled.

    Args:
        policy: The policy that sampled the trajectories.
        trajectory: Trajectories.
        samples: Which of them, int64, shape (B,).
        live: Which of their steps are live, bool, shape (B, T).

    Returns:
        ``trajectory.latents[samples, -1]`` with gradient, shape (B, C, H, W).
    """
    # One graph needs no recomputation; of several, only the inputs are kept.
    several = int(live.any(0).sum()) > 1
    x = trajectory.states(samples, 0)
    for i, t in enumerate(trajectory.timesteps):
        noise_pred = trajectory.predictions(samples, i)
        rows = live[:, i].nonzero().flatten().to(x.device)
        if len(rows):
            at = samples.to(x.device)[rows]
            step = torch.full_like(at, i)
            inputs = (
                x[rows],
                t.expand(len(rows)),
                trajectory.embeds[at],
                trajectory.guidance_at(step),
            )
            fresh = (
                checkpoint(policy.predict_noise, *inputs, use_reentrant=False)
                if several
                else policy.predict_noise(*inputs)
            )
            noise_pred = noise_pred.index_copy(0, rows, fresh)
        mean = ddim_transition(
            policy.scheduler, noise_pred, t.expand(len(x)), x, eta=trajectory.eta
        ).mean
        x = with_gradient_of(trajectory.states(samples, i + 1), mean)
    return x


class _Part(NamedTuple):
    """Mean loss and reward of one micro-batch, and its share of the update."""

    weight: float
    loss: float
    reward: float


class RewardBackprop(Algorithm):
    """Parent of the methods: one optimizer step an epoch up the reward's gradient.

    A method says which latents are scored, and which steps their gradient has.

    Raises:
        NoGradientError: If no gradient of the reward reaches the images.
    """

    settings: RewardBackpropSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if not self.reward.differentiable:
            raise no_gradient(self.reward.name)
        self.optimizer = PolicyOptimizer(self.policy, self.settings.optimizer)
        self.target: float | None = None

    @abstractmethod
    def latents(
        self, epoch: int, trajectory: Trajectory, samples: Tensor
    ) -> Iterator[Tensor]:
        """What is decoded and scored, with gradient.

        Args:
            epoch: 1-based, for addressed randomness.
            trajectory: The epoch's trajectories.
            samples: Those of a micro-batch, int64, shape (B,).

        Yields:
            ``queries_per_sample`` times latents (B, C, H, W).
        """

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One optimizer step on all of the epoch's samples."""
        if self.target is None:
            self.target = self._target(rewards)
        parts: list[_Part] = []
        self.optimizer.begin_epoch()
        self.optimizer.step(self._losses(epoch, trajectory, parts))
        parts = collect(parts)
        return {
            "loss": sum(part.weight * part.loss for part in parts),
            "loss_reward": sum(part.weight * part.reward for part in parts),
            **self.optimizer.metrics(),
        }

    def _target(self, rewards: Tensor) -> float | None:
        """The loss's target in units of the reward, from the first epoch's rewards."""
        loss = self.settings.loss
        if loss.target is None or loss.unit == "reward":
            return loss.target
        mean, std = float(rewards.mean()), float(rewards.std(correction=0))
        return mean + loss.target * std

    def _losses(
        self, epoch: int, trajectory: Trajectory, parts: list[_Part]
    ) -> Iterator[tuple[float, Tensor]]:
        """Weight and mean loss of each micro-batch of this process.

        ``parts`` keeps what they were.
        """
        queries = len(trajectory) * self.settings.queries_per_sample
        numbers = torch.arange(len(trajectory))
        size = self.training.backprop_batch_size or self.training.micro_batch_size
        for samples in deal(numbers.split(size)):
            prompts = [trajectory.prompts[i] for i in samples.tolist()]
            weight = len(samples) / queries
            for latents in self.latents(epoch, trajectory, samples):
                values = self.reward(self.policy.decode(latents), prompts).values
                loss = reward_loss(values, self.settings.loss, self.target).mean()
                reward = float(values.detach().mean())
                parts.append(_Part(weight, float(loss.detach()), reward))
                # By chance a random truncation may leave no step live.
                if latents.requires_grad:
                    if not values.requires_grad:
                        raise no_gradient(self.reward.name)
                    yield weight, loss

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, and the loss's target."""
        return {"optimizer": self.optimizer.state_dict(), "target": self.target}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.target = state["target"]
