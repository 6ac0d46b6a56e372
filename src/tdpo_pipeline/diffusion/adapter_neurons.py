"""Neuron states of LoRA adapters: a neuron is one of the r units between down and up.

TDPO paper, section 5.4 and Fig. 9: the policy's own dormant neurons, by the score that
the critic's neurons have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tdpo_pipeline.critic.neurons import masked_percent, neuron_scores


@torch.no_grad()
def adapter_neuron_scores(
    unet: nn.Module, forward: Callable[[], object]
) -> list[Tensor]:
    """Scores (r,) of each LoRA layer's neurons over one forward pass of the UNet.

    Args:
        unet: UNet with peft adapters.
        forward: Runs the UNet on the data to measure on.

    Returns:
        One tensor for each LoRA layer, in the order of ``named_modules``.
    """
    scores: dict[str, Tensor] = {}
    handles = []
    for name, module in unet.named_modules():
        if ".lora_A." in name:
            handles.append(module.register_forward_hook(_recorder(scores, name)))
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return list(scores.values())


def _recorder(scores: dict[str, Tensor], name: str) -> Callable[..., None]:
    def record(module: nn.Module, _: object, output: Tensor) -> None:
        neurons_last = (
            output.movedim(1, -1) if isinstance(module, nn.Conv2d) else output
        )
        scores[name] = neuron_scores(neurons_last.flatten(0, -2))

    return record


def dormant_percents(
    scores: Sequence[Tensor], thresholds: Sequence[float]
) -> dict[float, float]:
    """Percentage of all neurons whose score is at or below each threshold."""
    return {
        threshold: masked_percent([score <= threshold for score in scores])
        for threshold in thresholds
    }
