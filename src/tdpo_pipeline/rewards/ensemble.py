"""A weighted sum of rewards, each in standard deviations of the base model's images.

    R(x, c) = sum_k w_k (r_k(x, c) - mean_k) / std_k

DiffExp (section 5) trains on HPS, aesthetics and PickScore together. Rewards have
different units, so each is normalised first: an improvement of one deviation of the
base model's images counts the same in each. The means and deviations are constants of
the configuration and not statistics of the batch, so that a picture's reward depends on
nothing but the picture and its prompt: R is the same early and late in training, in
evaluation, and in another run. ``benchmarks/reward_statistics.py`` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tdpo_pipeline.config import EnsemblePartSettings
from tdpo_pipeline.rewards.base import Reward, Scores


class Ensemble(Reward):
    """The weighted sum of normalised rewards; it has no image encoder of its own.

    Args:
        name: The ensemble's own name.
        rewards: Rewards by their names in configuration, all parts among them.
        parts: Weight, mean and deviation of each part.
    """

    def __init__(
        self,
        name: str,
        rewards: Mapping[str, Reward],
        parts: Mapping[str, EnsemblePartSettings],
    ) -> None:
        self.name = name
        self.parts = dict(parts)
        self.rewards = {key: rewards[key] for key in parts}
        self.differentiable = all(r.differentiable for r in self.rewards.values())
        ends = [
            sorted(normalised(end, part) for end in self.rewards[key].value_range)
            for key, part in self.parts.items()
        ]
        self.value_range = (sum(low for low, _ in ends), sum(high for _, high in ends))

    def to(self, device: torch.device | str) -> Self:
        """Move every part."""
        for reward in self.rewards.values():
            reward.to(device)
        return self

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """The sum of the normalised parts, shape (N,)."""
        terms = [
            normalised(self.rewards[key](images, prompts).values.float(), part)
            for key, part in self.parts.items()
        ]
        return Scores(torch.stack(terms).sum(0))


def normalised(reward: Any, part: EnsemblePartSettings) -> Any:
    """Weight x (r - mean) / std of a number or a tensor of rewards."""
    return part.weight * (reward - part.mean) / part.std
