"""DDPO: denoising diffusion policy optimization (Black et al., ICLR 2024).

Each denoising step is an action, and its log-prob is known in closed form. Every step
of a trajectory gets the same advantage: the final reward's z-score among the prompt's
recent rewards, clipped. The loss is PPO's clipped surrogate (DDPO_IS).

    sample N trajectories; A = clip(z_per_prompt(R))
    for pairs in updates:                       # order and size are settings
        rho = exp(log p_theta - log p_old)
        step on mean max(-A rho, -A clip(rho, 1 +- eps))

``ddpo_is`` takes the paper's four steps an epoch; ``ddpo_sf`` one, on the plain score
function -A log p_theta. ``ddpo_2`` and ``ddpo_100`` visit all timesteps of few samples
(sample-major), as the official code does; ``ddpo_100_timestep_major`` one timestep of
many samples, which is TDPO's loop with DDPO's advantage, and the fair baseline for
TDPO's critic; ``tdpo_no_critic`` has TDPO's whitening as well.
"""

from __future__ import annotations

from torch import Tensor

from tdpo_pipeline.algorithms.policy_gradient import (
    PolicyGradient,
    PolicyGradientSettings,
)
from tdpo_pipeline.diffusion.trajectory import Trajectory


class DdpoSettings(PolicyGradientSettings):
    """DDPO has no settings beyond those of all policy-gradient methods."""


class Ddpo(PolicyGradient):
    """Proximal updates on per-prompt normalised final rewards."""

    Settings = DdpoSettings

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One epoch of updates."""
        z = self.z_scores(trajectory, rewards)
        advantages = self.shaped(z[:, None].expand(-1, trajectory.num_steps))
        trajectory = self.to_replay(trajectory)
        for pairs in self.updates(epoch, trajectory):
            self.surrogate.step(trajectory, pairs, advantages)
        return self.surrogate.metrics()
