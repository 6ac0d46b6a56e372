"""DDPO: denoising diffusion policy optimization (Black et al., ICLR 2024).

Each denoising step is an action, and its log-prob is known in closed form. Every step
of a trajectory gets the same advantage: the final reward's z-score among the prompt's
recent rewards, clipped. The loss is PPO's clipped surrogate (DDPO_IS).

    sample N trajectories; A = clip(z_per_prompt(R))
    for pairs in updates:                       # order and size are settings
        rho = exp(log p_theta - log p_old)
        step on mean max(-A rho, -A clip(rho, 1 +- eps))

``ddpo_2`` and ``ddpo_100`` visit all timesteps of few samples (sample-major), as the
official code does; ``ddpo_100_timestep_major`` one timestep of many samples, which is
TDPO's loop with DDPO's advantage, and the fair baseline for TDPO's critic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tdpo_pipeline.algorithms.advantages import PerPromptStatTracker
from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.policy_gradient import (
    PolicyGradientSettings,
    SurrogateUpdate,
)
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory


class DdpoSettings(PolicyGradientSettings):
    """DDPO has no settings beyond those of all policy-gradient methods."""


class Ddpo(Algorithm):
    """Proximal updates on per-prompt normalised final rewards."""

    Settings = DdpoSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert isinstance(self.config.algorithm, DdpoSettings)
        self.settings = self.config.algorithm
        self.surrogate = SurrogateUpdate(self.policy, self.settings, self.training)
        statistics = self.settings.per_prompt
        self.tracker = PerPromptStatTracker(
            statistics.buffer_size, statistics.min_count
        )

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One epoch of updates."""
        advantages = self.advantages(trajectory, rewards)
        old = self.surrogate.old_log_probs(trajectory)
        rng = generator(self.config.seed, "pair order", epoch)
        self.surrogate.begin_epoch()
        shape = len(trajectory), trajectory.num_steps
        for pairs in self.surrogate.updates(rng, *shape):
            self.surrogate.step(trajectory, pairs, old, advantages)
        return self.surrogate.metrics()

    def advantages(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """The clipped per-prompt z-score of (N,) rewards, for every step: (N, T)."""
        z = self.tracker.update(trajectory.prompts, rewards.cpu().numpy())
        advantages = torch.from_numpy(z).float().to(trajectory.latents.device)
        if self.settings.advantage_clip is not None:
            limit = self.settings.advantage_clip
            advantages = advantages.clamp(-limit, limit)
        return advantages[:, None].expand(-1, trajectory.num_steps)

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and per-prompt statistics."""
        return {
            "optimizer": self.surrogate.optimizer.state_dict(),
            "tracker": self.tracker.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.surrogate.optimizer.load_state_dict(state["optimizer"])
        self.tracker.load_state_dict(state["tracker"])
