"""Neuron states and resets (TDPO-R; scores after ReDo, Sokar et al. 2023).

A neuron is a hidden unit of the critic. Its score is its mean activation relative to
its layer's; at or below a threshold it is dormant, above it active. TDPO-R re-draws the
*active* ones from time to time, against the critic's primacy bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from tdpo_pipeline.config import ResetSettings
from tdpo_pipeline.critic.critic import TemporalCritic

SCORE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "abs": torch.abs,
}


class NeuronSettings(ResetSettings):
    """How neuron states are measured, and which neurons are reset when.

    Attributes:
        reset: Which neurons to re-draw.
        threshold: Dormancy threshold tau on the score.
        activation: Applied to a unit's output before its score.
        stats_samples: Trajectories whose embeddings the scores are taken over.
        stats_steps: ``all`` steps of them, or ``one`` (random for each, as the
            official code does).
        reset_seed: ``epoch`` draws anew at each reset; ``fixed`` draws the same
            weights each time (official).
        overlap: ``fixed``, or ``official``, which counts elements instead of members
            and so is always 100.
    """

    reset: Literal["none", "active", "dormant", "all"] = "none"
    threshold: float = Field(default=0.0, ge=0)
    activation: Literal["relu", "leaky_relu", "abs"] = "relu"
    stats_samples: PositiveInt = 64
    stats_steps: Literal["all", "one"] = "all"
    reset_seed: Literal["epoch", "fixed"] = "epoch"
    overlap: Literal["fixed", "official"] = "fixed"


def neuron_scores(outputs: Tensor, activation: str = "relu") -> Tensor:
    """Score of each neuron of a layer: mean |a| over the mean of the layer's means.

    Args:
        outputs: Outputs of the layer before activation, shape (B, n).
        activation: ``relu``, ``leaky_relu`` (slope 0.01) or ``abs``.

    Returns:
        Shape (n,), non-negative, with mean about 1.
    """
    return relative_to_layer(mean_activations(outputs, activation))


def mean_activations(outputs: Tensor, activation: str = "relu") -> Tensor:
    """Mean |a| of each neuron (n,) over a layer's outputs (B, n) before activation."""
    return SCORE_ACTIVATIONS[activation](outputs).abs().mean(0)


def relative_to_layer(means: Tensor) -> Tensor:
    """Mean activations (n,) of a layer's neurons over their own mean."""
    return means / (means.mean() + 1e-9)


def dormant_masks(
    outputs: Sequence[Tensor], threshold: float, activation: str = "relu"
) -> list[Tensor]:
    """For each layer's outputs (B, n): which neurons score <= threshold, bool (n,)."""
    return [neuron_scores(x, activation) <= threshold for x in outputs]


def masked_percent(masks: Sequence[Tensor]) -> float:
    """Percentage of the neurons of all layers that are in the masks."""
    total = sum(mask.numel() for mask in masks)
    return 100 * sum(int(mask.sum()) for mask in masks) / total


def overlap_percent(previous: Sequence[Tensor], current: Sequence[Tensor]) -> float:
    """Shared members of two sets of masks, in percent of the smaller set.

    Returns:
        NaN if either set is empty.
    """
    shared = sum(int((p & c).sum()) for p, c in zip(previous, current, strict=True))
    smaller = min(
        sum(int(p.sum()) for p in previous), sum(int(c.sum()) for c in current)
    )
    return 100 * shared / smaller if smaller else float("nan")


@torch.no_grad()
def reset_neurons(
    critic: TemporalCritic,
    masks: Sequence[Tensor],
    optimizer: Optimizer,
    *,
    reset_adam_step: bool = False,
) -> int:
    """Re-draw the masked neurons and forget their Adam moments.

    Layer by layer: the incoming weights of a masked neuron are drawn from the layer's
    initial distribution, its bias is set to 0, and its outgoing weights are drawn from
    the next layer's initial distribution (not zeroed, unlike ReDo). The draws come from
    torch's global generator, as a block for the masked neurons alone (as in the official
    code): from the same seed, what a neuron gets depends on its place among them.

    Args:
        critic: Changed in place.
        masks: For each hidden layer, which neurons to reset, bool (n,).
        optimizer: The critic's Adam; moments of all redrawn weights become 0.
        reset_adam_step: Also set the step counts of the touched tensors to 0.

    Returns:
        Number of neurons reset.
    """
    linears = critic.layers
    for layer, mask in enumerate(masks):
        if not mask.any():
            continue
        incoming, outgoing = linears[layer], linears[layer + 1]
        count = int(mask.sum())
        incoming.weight[mask] = critic.initial_weight(incoming)[:count]
        incoming.bias[mask] = 0.0
        outgoing.weight[:, mask] = critic.initial_weight(outgoing)[:, :count]
        touched = (
            (incoming.weight, (mask,)),
            (incoming.bias, (mask,)),
            (outgoing.weight, (slice(None), mask)),
        )
        for parameter, index in touched:
            forget(optimizer, parameter, index, step=reset_adam_step)
    return sum(int(mask.sum()) for mask in masks)


Index = tuple[Tensor | slice, ...]


def forget(
    optimizer: Optimizer, parameter: Tensor, index: Index, *, step: bool
) -> None:
    """Set Adam's moments to 0 where ``index`` is, and its step count if asked to.

    Args:
        optimizer: An Adam.
        parameter: One of its parameters; one that was never updated has no moments.
        index: Which of its elements.
        step: Whether the bias correction of all of them starts anew.
    """
    state = optimizer.state.get(parameter, {})
    for moment in ("exp_avg", "exp_avg_sq"):
        if moment in state:
            state[moment][index] = 0.0
    if step and "step" in state:
        state["step"].zero_()
