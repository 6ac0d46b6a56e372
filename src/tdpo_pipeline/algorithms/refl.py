"""ReFL: the reward's gradient of the image that one late step foresees.

"ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation"
(Xu et al., NeurIPS 2023). Late in the sampler a single step foresees the image well
enough to be scored. ReFL stops at a random late step, predicts the clean latent there,
and pushes that prediction's reward up to a target.

    sample N trajectories, without guidance
    for each: i ~ U{3T/4 .. T - 1}
        x0hat = (x_i - sqrt(1 - abar_t) eps(x_i, t)) / sqrt(abar_t),  t = t_i
    one step on mean relu(target - reward(decode(x0hat)))

The paper's second loss, a denoising loss on the base model's training data, is not in
the official code nor here. The official code samples with DDPM, here it is DDIM with
the scale's eta; and it gives the UNet the step's number i in place of its timestep t_i,
and takes x0hat with the timestep before, which is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from tdpo_pipeline.algorithms.reward_backprop import (
    LossSettings,
    RewardBackprop,
    RewardBackpropSettings,
)
from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.diffusion.ddim import predicted_x0
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory, replay


class ReFLSettings(RewardBackpropSettings):
    """Settings of ReFL.

    Attributes:
        loss: The official target is 2 of ImageReward, whose unit is a standard
            deviation; so here for any reward.
        guidance_scale: 1 switches guidance off while training, as officially.
        last_part: Part of the steps, the last ones, of which one is drawn.
    """

    loss: LossSettings = LossSettings(
        kind="hinge", target=2.0, unit="base_std", coefficient=1e-3
    )
    guidance_scale: float | None = Field(default=1.0, ge=0)
    last_part: float = Field(default=0.25, gt=0, le=1)

    def first_step(self, steps: int) -> int:
        """First of T steps that may be drawn."""
        return steps - max(1, round(self.last_part * steps))

    def live_summary(self, training: TrainingSettings) -> str:
        """Which steps are live, in a few words."""
        steps = training.num_inference_steps
        return f"one of the steps {self.first_step(steps) + 1} to {steps}"


def foreseen_latents(policy: Policy, trajectory: Trajectory, pairs: Tensor) -> Tensor:
    """Clean latents that the policy foresees from stored states.

    Args:
        policy: The policy.
        trajectory: Trajectories; guidance and embeddings are theirs.
        pairs: int64, shape (B, 2): sample and step.

    Returns:
        x0hat, float32, shape (B, C, H, W), with gradient.
    """
    sample, step = pairs.to(trajectory.device).unbind(1)
    noise_preds, _ = replay(policy, trajectory, pairs)
    states, timesteps = trajectory.states(sample, step), trajectory.timesteps[step]
    return predicted_x0(policy.scheduler, noise_preds, timesteps, states)


class ReFL(RewardBackprop):
    """Gradient of a foreseen image's reward through one step."""

    Settings = ReFLSettings
    settings: ReFLSettings

    def latents(
        self, epoch: int, trajectory: Trajectory, samples: Tensor
    ) -> Iterator[Tensor]:
        """The latents foreseen from one late step of each sample, once."""
        steps = [
            self.step(epoch, sample, trajectory.num_steps)
            for sample in samples.tolist()
        ]
        pairs = torch.stack([samples, samples.new_tensor(steps)], 1)
        yield foreseen_latents(self.policy, trajectory, pairs)

    def step(self, epoch: int, sample: int, steps: int) -> int:
        """The step drawn for a sample in this epoch."""
        rng = generator(self.config.seed, "refl step", epoch, sample)
        return int(rng.integers(self.settings.first_step(steps), steps))
