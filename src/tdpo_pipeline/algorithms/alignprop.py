"""AlignProp: the reward's gradient through a randomly truncated sampler.

"Aligning Text-to-Image Diffusion Models with Reward Backpropagation" (Prabhudesai et
al. 2023). The sampler is a network as deep as it has steps. Backpropagation through all
of it overoptimises soon and is dear, through the last step alone it changes details
only; AlignProp draws at random how far the gradient goes.

    sample N trajectories
    for each: draw the live steps; detach eps in the others        # "truncation"
        x_{i+1} = mu(x_i, eps_i) + sigma_i z_i                     # x is never detached
    one step on mean loss(reward(decode(x_0)))

There are two official versions with different defaults. ``alignprop_2023`` follows that
of the paper's time: deterministic sampling (eta 0) and a draw for each step.
``alignprop_trl`` follows the later one on Hugging Face's TRL: ancestral sampling (eta
1) and one draw, from a normal distribution late in the sampler, with a single
correction: its reward gets the images, where the official one gets them normalised to
[0, 1] twice (the result of which lies in [0.5, 1]).

Every sample here draws for itself; in the official code all samples of a device's batch
share a draw. The expected gradient is the same, and its noise smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist, mean
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from tdpo_pipeline.algorithms.reward_backprop import (
    RewardBackprop,
    RewardBackpropSettings,
    final_latents,
)
from tdpo_pipeline.config import Settings, TrainingSettings
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory

Part = Annotated[float, Field(ge=0, le=1)]


class PerStepTruncation(Settings):
    """A draw for each step (2023): step i of T is live if i >= U{0 .. T}.

    So late steps are live more often, T/2 of the T steps in the mean, and a gap of dead
    steps ends no gradient: it goes through them along x.
    """

    kind: Literal["per_step"]


class NormalTruncation(Settings):
    """All steps from int(N(mean, std)) on (TRL); drawn again until it is in 1 .. T - 1.

    Attributes:
        mean: Of the first live step, as a part of T (42 of 50 steps).
        std: Of the first live step, as a part of T (5 of 50 steps).
    """

    kind: Literal["normal"]
    mean: Part = 0.84
    std: PositiveFloat = 0.1

    def first_step(self, uniform: float, steps: int) -> int:
        """First live step of T, by a uniform number in [0, 1)."""
        return truncated_normal(uniform, self.mean * steps, self.std * steps, steps)


class UniformTruncation(Settings):
    """All steps from a uniformly drawn one on.

    Attributes:
        low: First step that may be drawn, as a part of T (30 of 50 steps).
        high: First step that may not be drawn, as a part of T.
    """

    kind: Literal["uniform"]
    low: Part = 0.6
    high: Part = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("truncation.low must be below truncation.high.")
        return self

    def first_steps(self, steps: int) -> tuple[int, int]:
        """Between which steps of T the first live one is drawn, the end excluded."""
        low = min(round(self.low * steps), steps - 1)
        return low, max(round(self.high * steps), low + 1)


class FixedTruncation(Settings):
    """The last steps; with one, the official code's K=1.

    Attributes:
        last_steps: Number K of live steps.
    """

    kind: Literal["fixed"]
    last_steps: PositiveInt = 1


Truncation = Annotated[
    PerStepTruncation | NormalTruncation | UniformTruncation | FixedTruncation,
    Field(discriminator="kind"),
]


class AlignPropSettings(RewardBackpropSettings):
    """Settings of AlignProp.

    Attributes:
        truncation: How the live steps are drawn.
    """

    truncation: Truncation

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where the truncation leaves no step to be drawn."""
        super().check(training)
        steps = training.num_inference_steps
        if isinstance(self.truncation, FixedTruncation):
            if self.truncation.last_steps > steps:
                raise ValueError(
                    f"truncation.last_steps {self.truncation.last_steps} is more than "
                    f"num_inference_steps {steps}."
                )
        elif isinstance(self.truncation, NormalTruncation) and steps < 2:
            raise ValueError("truncation.kind: normal needs num_inference_steps > 1.")

    def mean_live_steps(self, training: TrainingSettings) -> float:
        """Live steps of a sample, in the mean of the draw."""
        steps = training.num_inference_steps
        match self.truncation:
            case PerStepTruncation():
                return steps / 2
            case NormalTruncation() as normal:
                quantiles = (np.arange(1000) + 0.5) / 1000
                return steps - mean(normal.first_step(q, steps) for q in quantiles)
            case UniformTruncation() as uniform:
                return steps - mean(range(*uniform.first_steps(steps)))
            case FixedTruncation(last_steps=last):
                return last

    def live_summary(self, training: TrainingSettings) -> str:
        """Which steps are live, in a few words."""
        return f"{self.truncation.kind.replace('_', '-')} truncation"


def live_steps(
    truncation: Truncation, rng: np.random.Generator, steps: int
) -> np.ndarray:
    """Draw which of T steps are live.

    Args:
        truncation: Settings of the draw.
        rng: Draws.
        steps: Number T of steps.

    Returns:
        bool, shape (T,), from noise to image.
    """
    step = np.arange(steps)
    match truncation:
        case PerStepTruncation():
            return step >= rng.integers(0, steps, size=steps, endpoint=True)
        case NormalTruncation():
            return step >= truncation.first_step(rng.random(), steps)
        case UniformTruncation():
            return step >= rng.integers(*truncation.first_steps(steps))
        case FixedTruncation():
            return step >= steps - truncation.last_steps


def truncated_normal(uniform: float, mean: float, std: float, steps: int) -> int:
    """Whole part of a normal number between 1 and T, by its inverse distribution.

    That is how int(N(mean, std)) is distributed if it is drawn again until it is one of
    1 .. T - 1.

    Args:
        uniform: Uniform in [0, 1).
        mean: Mean of the normal number.
        std: Its standard deviation.
        steps: Number T > 1.
    """
    normal = NormalDist(mean, std)
    low, high = normal.cdf(1), normal.cdf(steps)
    probability = low + uniform * (high - low)
    # Far out in a tail all probabilities are 0 or 1, where there is no inverse.
    probability = min(max(probability, 1e-15), 1 - 1e-15)
    return min(max(int(normal.inv_cdf(probability)), 1), steps - 1)


class AlignProp(RewardBackprop):
    """Gradient of the final image's reward through randomly drawn steps."""

    Settings = AlignPropSettings
    settings: AlignPropSettings

    def latents(
        self, epoch: int, trajectory: Trajectory, samples: Tensor
    ) -> Iterator[Tensor]:
        """The final latents, once."""
        live = self.live(epoch, samples, trajectory.num_steps)
        yield final_latents(self.policy, trajectory, samples, live)

    def live(self, epoch: int, samples: Tensor, steps: int) -> Tensor:
        """Each sample's own live steps in this epoch, bool, shape (B, T)."""
        drawn = [
            live_steps(
                self.settings.truncation,
                generator(self.config.seed, "truncation", epoch, sample),
                steps,
            )
            for sample in samples.tolist()
        ]
        return torch.from_numpy(np.stack(drawn))
