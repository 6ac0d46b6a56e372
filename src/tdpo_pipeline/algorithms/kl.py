"""KL penalties of TDPO: how far the policy may stray from the base model.

Penalties are made of log-probs that are means over the D latent dimensions, as all
log-probs here, so they are in nats per dimension and step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from tdpo_pipeline.algorithms.policy_gradient import Penalty
from tdpo_pipeline.config import Settings
from tdpo_pipeline.diffusion.ddim import ddim_transition, transition_kl
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Trajectory, reevaluate


def _js(log_probs: Tensor, reference: Tensor) -> Tensor:
    mixture = torch.logaddexp(log_probs, reference) - math.log(2)
    return 0.5 * (
        (log_probs - mixture).clamp(min=0) + (reference - mixture).clamp(min=0)
    )


def _square(log_probs: Tensor, reference: Tensor) -> Tensor:
    return 0.5 * (log_probs - reference) ** 2


def _k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    x = log_probs - reference
    return torch.expm1(-x) + x


def _approx(log_probs: Tensor, reference: Tensor) -> Tensor:
    x = log_probs - reference
    return torch.expm1(x) - x


PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda own, reference: own - reference,
    "abs": lambda own, reference: (own - reference).abs(),
    "square": _square,
    "clip": lambda own, reference: (own - reference).clamp(min=0),
    "approx": _approx,
    "js": _js,
    "k2": _square,
    "k3": _k3,
}
"""Penalty of a step by its log-prob under the policy and under the base model.

With x the difference of the two: ``kl`` x (Schulman's k1), ``abs`` |x|, ``square``
x^2 / 2, ``clip`` max(x, 0) (the official default), ``approx`` e^x - 1 - x (the official
code's, whose sign is turned round), ``js`` the clipped Jensen-Shannon terms. Of the whole
log-ratio, summed over dimensions, ``k2`` is x^2 / 2 and ``k3`` e^-x - 1 + x, Schulman's
estimators: k3 is unbiased for the KL, k2 near it where the KL is small.
"""

OF_SUMS = ("k2", "k3")
"""Penalties that take log-probs summed over dimensions, not their means."""


MOST_STEERED = 0.2
"""The largest relative error of a KL that the controller minds."""


class KlSettings(Settings):
    """A penalty on the distance from the base model.

    Attributes:
        penalty: How a step's distance is measured: one of :data:`PENALTIES` on its
            log-probs, or ``closed_form``, the exact KL of the two Gaussians.
        applied_to: ``reward`` takes it off the step's return, and so off those of all
            earlier steps; ``loss`` adds the closed form to the loss, with its gradient.
        coefficient: Its weight at the start.
        target: KL that the controller steers to, in nats per dimension and image; None
            keeps the weight fixed.
        horizon: Samples in which the controller acts fully; more than a fifth of an
            epoch's, beyond which one step could turn the penalty's sign.
    """

    penalty: Literal[
        "kl", "abs", "square", "clip", "approx", "js", "k2", "k3", "closed_form"
    ] = "closed_form"
    applied_to: Literal["reward", "loss"] = "reward"
    coefficient: NonNegativeFloat = 0.2
    target: PositiveFloat | None = None
    horizon: PositiveFloat = 2000

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if self.target is not None and self.coefficient == 0:
            raise ValueError(
                "kl.target steers by multiplying the coefficient, which is 0 and stays so; "
                "begin with a small one."
            )
        if self.applied_to == "loss" and self.penalty != "closed_form":
            raise ValueError(
                f"kl.applied_to: loss takes penalty: closed_form, not {self.penalty}."
            )
        return self


class KlOfEpoch(NamedTuple):
    """The KL's part in an epoch of updates; by default it has none.

    Attributes:
        per_step: Taken off each step's reward, shape (N, T), or None.
        on_loss: Added to the loss of each pair, with gradient, or None.
        metrics: Measurements for the history.
    """

    per_step: Tensor | None = None
    on_loss: Penalty | None = None
    metrics: Mapping[str, float] = MappingProxyType({})


class KlPenalty:
    """The penalty on the distance from the base model, and its weight.

    Args:
        settings: The penalty, its initial weight, target and horizon.
        policy: The policy, which is the base model without its adapters.
        batch_size: Pairs that the base model sees together.
    """

    def __init__(self, settings: KlSettings, policy: Policy, batch_size: int) -> None:
        self.settings = settings
        self.policy = policy
        self.batch_size = batch_size
        self.weight = settings.coefficient

    def of_epoch(self, trajectory: Trajectory) -> KlOfEpoch:
        """The epoch's penalty at the present weight.

        Then steers the weight for the next epoch's: call it once an epoch.
        """
        settings, weight = self.settings, self.weight
        reference = reference_trajectory(self.policy, trajectory, self.batch_size)
        models = self.policy, trajectory, reference
        if settings.target is not None:
            # The official code steers all of its penalties by log-prob differences; the
            # closed form, which it doesn't have, is steered by itself.
            exact = settings.penalty == "closed_form"
            kl = kl_penalties(*models, "closed_form" if exact else "kl").sum(1).mean()
            self.weight = steered_weight(
                weight, float(kl), settings.target, len(trajectory), settings.horizon
            )
        metrics = {"kl_weight": weight}
        if settings.applied_to == "loss":
            return KlOfEpoch(on_loss=loss_penalty(*models, weight), metrics=metrics)
        per_step = weight * kl_penalties(*models, settings.penalty)
        return KlOfEpoch(per_step=per_step, metrics=metrics)


def steered_weight(
    weight: float, kl: float, target: float, samples: int, horizon: float
) -> float:
    """A penalty's weight, raised where the KL is above its target, or lowered.

    The controller of Ziegler et al. (2019), section 2.2.

    Args:
        weight: The weight so far.
        kl: The KL seen.
        target: The one wanted, in the same unit.
        samples: Samples in which it was seen.
        horizon: Samples in which the controller acts fully.

    Returns:
        weight (1 + clip(kl / target - 1, -0.2, 0.2) samples / horizon).
    """
    error = min(max(kl / target - 1, -MOST_STEERED), MOST_STEERED)
    return weight * (1 + error * samples / horizon)


def closed_form_kl(
    policy: Policy,
    trajectory: Trajectory,
    pairs: Tensor,
    own: Tensor,
    reference: Tensor,
) -> Tensor:
    """Exact KL of the transitions of two noise predictions, per latent dimension.

    Args:
        policy: Gives the schedule.
        trajectory: The states.
        pairs: int64, shape (B, 2): sample and step.
        own: Noise predictions of the policy, shape (B, C, H, W).
        reference: Those of the base model.

    Returns:
        ||mu - mu_ref||^2 / (2 sigma^2 D), shape (B,), with gradient.
    """
    sample, step = pairs.to(own.device).unbind(1)
    x, timesteps = trajectory.states(sample, step), trajectory.timesteps[step]
    transitions = (
        ddim_transition(policy.scheduler, noise, timesteps, x, eta=trajectory.eta)
        for noise in (own, reference)
    )
    return transition_kl(*transitions) / policy.latent_dims


def epsilon_distance(own: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of noise predictions (B, C, H, W), shape (B,).

    It is the KL of the steps but for a factor that depends on the timestep alone.
    """
    return ((own - reference) ** 2).flatten(1).mean(1)


def loss_penalty(
    policy: Policy,
    trajectory: Trajectory,
    reference: Trajectory,
    weight: float,
    distance: Literal["closed_form", "epsilon"] = "closed_form",
) -> Penalty:
    """What the distance from the base model adds to the loss of pairs, with gradient.

    Args:
        policy: Gives the schedule.
        trajectory: The states.
        reference: The base model along them.
        weight: Weight of the distance.
        distance: :func:`closed_form_kl`, or :func:`epsilon_distance`.
    """

    def penalty(noise_preds: Tensor, pairs: Tensor) -> Tensor:
        base = reference.predictions(*pairs.unbind(1))
        if distance == "epsilon":
            return weight * epsilon_distance(noise_preds, base)
        return weight * closed_form_kl(policy, trajectory, pairs, noise_preds, base)

    return penalty


def reference_trajectory(
    policy: Policy, trajectory: Trajectory, batch_size: int
) -> Trajectory:
    """The same states with the base model's noise predictions and log-probs.

    The base model is the policy without its adapters, not a second network.
    """
    with policy.reference():
        return reevaluate(policy, trajectory, batch_size)


def kl_penalties(
    policy: Policy, trajectory: Trajectory, reference: Trajectory, penalty: str
) -> Tensor:
    """The penalty of each step of trajectories, per latent dimension, shape (N, T).

    The official code's penalties are of the mean log-probs, as they are; ``k2`` and
    ``k3`` are made of the sums and divided by D, for only so do they estimate what
    ``closed_form`` is.
    """
    own, base = trajectory.log_probs, reference.log_probs
    if penalty in OF_SUMS:
        dims = policy.latent_dims
        return PENALTIES[penalty](dims * own, dims * base) / dims
    if penalty != "closed_form":
        return PENALTIES[penalty](own, base)
    # A trajectory at a time: of all at once there would be several more copies.
    rows = []
    for pairs in trajectory.pairs().split(trajectory.num_steps):
        at = pairs.unbind(1)
        preds = trajectory.predictions(*at), reference.predictions(*at)
        rows.append(closed_form_kl(policy, trajectory, pairs, *preds))
    return torch.stack(rows)
