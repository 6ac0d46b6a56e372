"""DRaFT: the reward's gradient through the last K steps of the sampler.

"Directly Fine-Tuning Diffusion Models on Differentiable Rewards" (Clark et al., ICLR
2024). DRaFT-K stops the gradient K steps before the image; K = 1 is cheapest and far
from bad, and with K = T the gradient goes through the whole sampler. DRaFT-LV lowers
the variance of K = 1: it noises the final image n more times to the last timestep t and
denoises each in one step, at the price of n reward queries and UNet evaluations, which
is little beside the sampling.

    sample N trajectories
    g = grad mean loss(reward(decode(x_0)))            # last K steps live
    for j in 1 .. n:                                   # DRaFT-LV, K = 1
        x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z_j, without gradient
        g += grad mean loss(reward(decode(x0hat(x_t))))
    one step on g / (1 + n)

There is no official code. The paper adds the n + 1 gradients up, which differs from the
mean by a factor that AdamW takes out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from tdpo_pipeline.algorithms.reward_backprop import (
    RewardBackprop,
    RewardBackpropSettings,
    final_latents,
)
from tdpo_pipeline.config import TrainingSettings, UnetVisits
from tdpo_pipeline.diffusion.ddim import predicted_x0
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import noise
from tdpo_pipeline.diffusion.trajectory import Trajectory


class DraftSettings(RewardBackpropSettings):
    """Settings of DRaFT.

    Attributes:
        last_steps: Number K of live steps, the last ones.
        extra_noisings: Number n of DRaFT-LV; 0 is DRaFT-K.
    """

    last_steps: PositiveInt = 1
    extra_noisings: NonNegativeInt = 0

    @model_validator(mode="after")
    def _low_variance_of_one_step(self) -> Self:
        if self.extra_noisings and self.last_steps != 1:
            raise ValueError("extra_noisings (DRaFT-LV) needs last_steps: 1.")
        return self

    @property
    def queries_per_sample(self) -> int:
        """The sample itself, and DRaFT-LV's further noisings of it."""
        return 1 + self.extra_noisings

    def mean_live_steps(self, training: TrainingSettings) -> float:
        """The last K, for every sample."""
        return self.last_steps

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """The live steps, and DRaFT-LV's further ones."""
        visits = super().unet_visits(training)
        extra = training.samples_per_epoch * self.extra_noisings
        return visits._replace(trained=visits.trained + extra)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError if there are fewer steps than live ones."""
        super().check(training)
        if self.last_steps > training.num_inference_steps:
            raise ValueError(
                f"last_steps {self.last_steps} is more than num_inference_steps "
                f"{training.num_inference_steps}."
            )

    def live_summary(self, training: TrainingSettings) -> str:
        """Which steps are live, in a few words."""
        extra = f" and {self.extra_noisings} more noisings" * bool(self.extra_noisings)
        return f"last {self.last_steps} of {training.num_inference_steps} steps{extra}"


def denoised_again(
    policy: Policy, trajectory: Trajectory, samples: Tensor, noises: Tensor
) -> Tensor:
    """Final latents, noised to the last timestep and denoised in one live step.

    Args:
        policy: The policy.
        trajectory: Trajectories; guidance and embeddings are theirs.
        samples: Which of them, int64, shape (B,).
        noises: Standard normal noise, shape (B, C, H, W).

    Returns:
        Predicted clean latents, shape (B, C, H, W), with gradient.
    """
    x0 = trajectory.states(samples, -1)
    timestep = trajectory.timesteps[-1].expand(len(samples))
    last = torch.full_like(samples, trajectory.num_steps - 1)
    noised = policy.scheduler.add_noise(x0, noises.to(x0), timestep)
    noise_pred = policy.predict_noise(
        noised, timestep, trajectory.embeds[samples], trajectory.guidance_at(last)
    )
    return predicted_x0(policy.scheduler, noise_pred, timestep, noised)


class Draft(RewardBackprop):
    """Gradient of the final image's reward through the last steps."""

    Settings = DraftSettings
    settings: DraftSettings

    def latents(
        self, epoch: int, trajectory: Trajectory, samples: Tensor
    ) -> Iterator[Tensor]:
        """The final latents; then, for DRaFT-LV, those denoised again."""
        live = torch.zeros(len(samples), trajectory.num_steps, dtype=torch.bool)
        live[:, -self.settings.last_steps :] = True
        yield final_latents(self.policy, trajectory, samples, live)
        for j in range(self.settings.extra_noisings):
            address = self.config.seed, "low variance", epoch, samples.tolist(), j
            noises = noise(*address, self.policy.latent_shape)
            yield denoised_again(self.policy, trajectory, samples, noises)
