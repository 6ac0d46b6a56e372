"""What an algorithm is to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tdpo_pipeline.algorithms.exploration import guidance_schedule, weighted_embeds
from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory, rollout
from tdpo_pipeline.rewards.base import Reward
from tdpo_pipeline.trainer.stopwatch import Stopwatch


class DivergedError(RuntimeError):
    """The policy has left the numbers that can be computed with."""


class Algorithm(ABC):
    """Samples with the policy, and improves it on the rewards of the samples.

    Args:
        config: The run.
        policy: The policy to improve.
        reward: The reward that is trained on.
        weights: Folder of reward weights, for algorithms that need an encoder.
        stopwatch: Takes the time of the parts of an epoch.
    """

    Settings: ClassVar[type[AlgorithmSettings]]
    settings: AlgorithmSettings
    """The run's settings of this method; a subclass narrows the type to its ``Settings``."""

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        reward: Reward,
        weights: Path,
        stopwatch: Stopwatch,
    ) -> None:
        self.config = config
        self.settings = config.algorithm
        self.training = config.training
        self.policy = policy
        self.reward = reward
        self.weights = weights
        self.stopwatch = stopwatch
        self.auxiliary: dict[str, Reward] = {}
        """Rewards that learning reads besides the trained one, by name."""

    @property
    def guidance_scale(self) -> float:
        """Guidance weight of plain sampling: the scale's, unless the method has one."""
        return self.settings.sampling_guidance(self.training)

    @property
    def eta(self) -> float:
        """DDIM's eta in sampling: the scale's, unless the method has one."""
        return self.settings.sampling_eta(self.training)

    def sample(self, epoch: int, prompts: Sequence[str]) -> Trajectory:
        """The epoch's trajectories, one for each prompt, exploring if configured."""
        guidance: float | Tensor = self.guidance_scale
        embeds = None
        exploration = self.settings.exploration
        if exploration and exploration.active(epoch, self.training.epochs):
            if exploration.guidance:
                guidance = guidance_schedule(
                    self.policy.timesteps, exploration.guidance, self.guidance_scale
                )
            if exploration.prompt_weighting:
                rng = generator(self.config.seed, "prompt weighting", epoch)
                embeds = weighted_embeds(
                    self.policy, prompts, rng, exploration.prompt_weighting
                )
        return rollout(
            self.policy,
            prompts,
            seed=self.config.seed,
            epoch=epoch,
            guidance_scale=guidance,
            eta=self.eta,
            chunk_size=self.training.chunk_size,
            embeds=embeds,
            offload=self.training.offload_trajectories,
        )

    @property
    def storage(self) -> torch.device:
        """Where trajectories lie, and what a method keeps of them."""
        offloaded = self.training.offload_trajectories
        return torch.device("cpu") if offloaded else self.policy.device

    @abstractmethod
    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """Improve the policy.

        Args:
            epoch: 1-based.
            trajectory: The epoch's N trajectories.
            rewards: The trained reward of each final image, float32, shape (N,).

        Returns:
            Measurements for the history's row of this epoch.
        """

    def before_epoch(self, epoch: int) -> dict[str, float]:
        """What is to be done to the policy before the epoch's samples are drawn.

        The weights kept after an epoch are those that it trained: a reset comes here, and
        so none after the last epoch.

        Args:
            epoch: 1-based.

        Returns:
            Measurements for the history's row of this epoch.
        """
        return {}

    def after_epoch(self, epoch: int, neuron_scores: list[Tensor]) -> None:  # noqa: B027
        """Take note of the neuron states that the epoch ends with.

        Args:
            epoch: 1-based.
            neuron_scores: Scores (r,) of each LoRA layer's neurons; empty without LoRA.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's weights that a bitwise resume needs.

        Tensors, plain numbers, texts and None, in dicts, lists and tuples: a state is
        read back without running code that it holds.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
