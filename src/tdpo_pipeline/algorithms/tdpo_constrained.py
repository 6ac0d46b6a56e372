"""TDPO under constraints: other rewards must not fall while the trained one rises.

Our own reading of where the TDPO authors went next, not a method of their paper. Each
auxiliary reward has to stay, on average over an epoch, within ``slack`` deviations of
where it was in the first epoch, in which the base model sampled; with a negative slack
it has to rise by as much. A Lagrange multiplier for each makes it part of the reward for
as long as its constraint is violated:

    lambda_k = max(0, lambda_k + rate (bound_k - mean_k) / std_k)      # dual ascent
    R = (z(reward) + sum_k lambda_k z(aux_k)) / (1 + sum_k lambda_k)

Everything else is TDPO's; while no constraint has been violated it is TDPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field, PositiveFloat
from torch import Tensor

from tdpo_pipeline.algorithms.advantages import PerPromptStatTracker
from tdpo_pipeline.algorithms.tdpo import Tdpo, TdpoSettings
from tdpo_pipeline.config import (
    AlgorithmSettings,
    RewardSettings,
    Settings,
    TrainingSettings,
)
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.rewards.registry import load_reward, reward_path
from tdpo_pipeline.rewards.scoring import scores


class ConstraintSettings(Settings):
    """How far an auxiliary reward may fall, or has to rise.

    Attributes:
        slack: Deviations (over the first epoch's images) below the first epoch's mean;
            negative: above it.
    """

    slack: float = 0.0


def _without_null(constraints: Any) -> Any:
    """The constraints but those that are null."""
    if not isinstance(constraints, Mapping):
        return constraints
    return {name: value for name, value in constraints.items() if value is not None}


class TdpoConstrainedSettings(TdpoSettings):
    """TDPO's settings, and the constraints.

    Attributes:
        constraints: Auxiliary rewards by name; null takes one away that a configuration
            underneath has.
        multiplier_rate: Step of the dual ascent, an epoch, in multipliers for each
            deviation of violation.
    """

    constraints: Annotated[
        dict[str, ConstraintSettings],
        BeforeValidator(_without_null),
        Field(min_length=1),
    ]
    multiplier_rate: PositiveFloat = 1.0

    @property
    def auxiliary_rewards(self) -> tuple[str, ...]:
        """The constrained rewards."""
        return tuple(self.constraints)

    @property
    def needs_base_samples(self) -> str | None:
        """The constraints: the first epoch's auxiliary rewards are their bounds."""
        return "constraints"

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError for unknown rewards, or a target that isn't normalised."""
        super().check(training)
        for name in self.constraints:
            reward_path(name)
        if self.critic.target != "normalised":
            raise ValueError(
                "constraints add normalised rewards; they need critic.target: "
                "normalised."
            )

    def check_task(self, task: RewardSettings) -> None:
        """Raise ValueError if the trained reward is constrained by itself."""
        super().check_task(task)
        if task.scorer in self.constraints:
            raise ValueError(
                f"constraints names {task.scorer}, which is what is trained on."
            )


class Multiplier:
    """The Lagrange multiplier of one auxiliary reward.

    Args:
        slack: Deviations that the reward may fall; negative: has to rise.
        rate: Step of the dual ascent.
    """

    def __init__(self, slack: float, rate: float) -> None:
        self.slack = slack
        self.rate = rate
        self.value = 0.0
        self.first: tuple[float, float] | None = None

    def update(self, values: Tensor) -> float:
        """Ascend on an epoch's scores (N,); the first ones set the bound.

        Returns:
            The violation in deviations: positive where the constraint is violated.
        """
        mean, std = float(values.mean()), float(values.std(correction=0))
        if self.first is None:
            self.first = mean, max(std, 1e-6)
        first_mean, first_std = self.first
        violation = (first_mean - mean) / first_std - self.slack
        self.value = max(0.0, self.value + self.rate * violation)
        return violation


class TdpoConstrained(Tdpo):
    """TDPO whose reward is the Lagrangian of a constrained problem."""

    Settings: ClassVar[type[AlgorithmSettings]] = TdpoConstrainedSettings
    settings: TdpoConstrainedSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        settings = self.settings
        statistics = settings.per_prompt
        self.auxiliary = {
            name: load_reward(name, self.weights).to(self.policy.device)
            for name in settings.constraints
        }
        self.multipliers = {
            name: Multiplier(constraint.slack, settings.multiplier_rate)
            for name, constraint in settings.constraints.items()
        }
        self.trackers = {
            name: PerPromptStatTracker(statistics.buffer_size, statistics.min_count)
            for name in settings.constraints
        }
        self.violations: dict[str, float] = {}

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """TDPO's epoch on the Lagrangian; its multipliers and violations besides."""
        metrics = super().update(epoch, trajectory, rewards)
        for name, multiplier in self.multipliers.items():
            metrics[f"multiplier_{name}"] = multiplier.value
            metrics[f"violation_{name}"] = self.violations[name]
        return metrics

    @torch.no_grad()
    def targets(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """The Lagrangian of normalised rewards, float32, shape (N,)."""
        total, weight = super().targets(trajectory, rewards), 1.0
        for name, reward in self.auxiliary.items():
            size = self.training.chunk_size
            values = scores(
                reward, trajectory.images, trajectory.prompts, size, trajectory.device
            )
            self.violations[name] = self.multipliers[name].update(values)
            z = self.trackers[name].update(trajectory.prompts, values.cpu().numpy())
            multiplier = self.multipliers[name].value
            total = total + multiplier * torch.from_numpy(z).to(total)
            weight += multiplier
        return total / weight

    def state_dict(self) -> dict[str, Any]:
        """TDPO's state, the multipliers and the auxiliary rewards' statistics."""
        return super().state_dict() | {
            "multipliers": {k: (m.value, m.first) for k, m in self.multipliers.items()},
            "trackers": {k: t.state_dict() for k, t in self.trackers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        for name, (value, first) in state["multipliers"].items():
            self.multipliers[name].value = value
            self.multipliers[name].first = first
        for name, tracker in state["trackers"].items():
            self.trackers[name].load_state_dict(tracker)
