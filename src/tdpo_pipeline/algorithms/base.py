"""What an algorithm is to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Trajectory, rollout
from tdpo_pipeline.rewards.base import Reward
from tdpo_pipeline.trainer.stopwatch import Stopwatch


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

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        reward: Reward,
        weights: Path,
        stopwatch: Stopwatch,
    ) -> None:
        self.config = config
        self.training = config.training
        self.policy = policy
        self.reward = reward
        self.weights = weights
        self.stopwatch = stopwatch

    def sample(self, epoch: int, prompts: Sequence[str]) -> Trajectory:
        """The epoch's trajectories, one for each prompt."""
        return rollout(
            self.policy,
            prompts,
            seed=self.config.seed,
            epoch=epoch,
            guidance_scale=self.training.guidance_scale,
            eta=self.training.eta,
            chunk_size=self.training.chunk_size,
        )

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

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's weights that a bitwise resume needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
