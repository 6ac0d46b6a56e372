"""Neuron states of LoRA adapters: a neuron is one of the r units between down and up.

TDPO paper, section 5.4 and Fig. 9: the policy's own dormant neurons, by the score that
the critic's neurons have, and their resets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tdpo_pipeline import distributed
from tdpo_pipeline.critic.neurons import (
    forget,
    masked_percent,
    mean_activations,
    relative_to_layer,
)


@torch.no_grad()
def adapter_neuron_scores(
    unet: nn.Module, forward: Callable[[], object]
) -> list[Tensor]:
    """Scores (r,) of each LoRA layer's neurons over forward passes of the UNet.

    Args:
        unet: UNet with peft adapters.
        forward: Runs the UNet on the data to measure on, in one pass or in several, or on
            this process's part of them.

    Returns:
        One tensor for each LoRA layer, in the order of :func:`lora_layers`.
    """
    layers = lora_layers(unet)
    measured: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in layers}
    handles = [
        down.register_forward_hook(_recorder(measured[name]))
        for name, (down, _) in layers.items()
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return [
        relative_to_layer(_overall_mean(measured[name], down))
        for name, (down, _) in layers.items()
    ]


LoraWeights = nn.Linear | nn.Conv2d


def lora_layers(unet: nn.Module) -> dict[str, tuple[LoraWeights, LoraWeights]]:
    """Down and up projection of each LoRA layer, in the order of ``named_modules``."""
    modules = dict(unet.named_modules())
    return {
        name: (
            cast(LoraWeights, module),
            cast(LoraWeights, modules[name.replace(".lora_A.", ".lora_B.")]),
        )
        for name, module in modules.items()
        if ".lora_A." in name
    }


@torch.no_grad()
def reset_adapter_neurons(
    unet: nn.Module,
    masks: Sequence[Tensor],
    optimizer: Optimizer,
    *,
    reset_adam_step: bool = False,
) -> int:
    """Re-draw the masked neurons of every LoRA layer and forget their Adam moments.

    A neuron's row of the down projection is drawn from its initial distribution,
    N(0, 1/rank^2), and its column of the up projection becomes 0, so that it takes no
    part until it has learned anew. The draws come from torch's global generator.

    Args:
        unet: UNet with peft adapters, changed in place.
        masks: Which neurons to reset in each LoRA layer, bool (r,), in the order of
            :func:`lora_layers`.
        optimizer: The policy's Adam.
        reset_adam_step: Also set the step counts of the touched tensors to 0.

    Returns:
        Number of neurons reset.
    """
    for (down, up), mask in zip(lora_layers(unet).values(), masks, strict=True):
        fresh = torch.randn_like(down.weight, device="cpu") / len(mask)
        down.weight[mask] = fresh.to(down.weight.device)[mask]
        up.weight[:, mask] = 0.0
        if mask.any():
            forget(optimizer, down.weight, (mask,), step=reset_adam_step)
            forget(optimizer, up.weight, (slice(None), mask), step=reset_adam_step)
    return sum(int(mask.sum()) for mask in masks)


def _recorder(parts: list[tuple[int, Tensor]]) -> Callable[..., None]:
    """A hook that adds to ``parts`` the rows and the mean activations (r,) of a pass."""

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        neurons_last = (
            output.movedim(1, -1) if isinstance(module, nn.Conv2d) else output
        )
        rows = neurons_last.flatten(0, -2).float()
        parts.append((len(rows), mean_activations(rows)))

    return record


def _overall_mean(parts: Sequence[tuple[int, Tensor]], down: LoraWeights) -> Tensor:
    """The mean (r,) over all rows of all processes, of the means over some of them."""
    own = torch.tensor(sum(rows for rows, _ in parts))
    total = int(distributed.sum_over(own))
    mean = torch.zeros(len(down.weight), device=down.weight.device)
    for rows, means in parts:
        mean += rows / total * means
    return distributed.sum_over(mean)


def dormant_percents(
    scores: Sequence[Tensor], thresholds: Sequence[float]
) -> dict[float, float]:
    """Percentage of all neurons whose score is at or below each threshold."""
    return {
        threshold: masked_percent([score <= threshold for score in scores])
        for threshold in thresholds
    }
