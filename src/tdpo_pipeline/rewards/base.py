"""The contract every reward obeys, and the check that it was obeyed.

A reward takes images as floats in [0, 1] of shape (N, 3, H, W), their N prompts and
optional per-image metadata, and returns N scores. What the trainer needs to know
beyond the scores is declared on the reward: its range, whether a gradient reaches
the images, and the image encoder that a temporal critic may share with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class RewardError(ValueError):
    """A reward broke its contract, such as by a score that is not finite."""


class ImageEncoder(nn.Module, ABC):
    """A frozen image tower: what a reward sees, and what a temporal critic reads.

    Attributes:
        embedding_dim: Size d of one embedding.
    """

    embedding_dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: Float in [0, 1], shape (N, 3, H, W).

        Returns:
            L2-normalised embeddings, float32, shape (N, d).
        """


@dataclass
class Scores:
    """What a reward returns: ``values`` (N,) float32, and anything worth keeping."""

    values: Tensor
    info: dict[str, Any] = field(default_factory=dict)


class Reward(ABC):
    """A scorer of images given prompts.

    Attributes:
        name: Name in configuration, tables and figures.
        value_range: Lowest and highest possible score (may be infinite).
        differentiable: Whether a gradient reaches the images.
        encoder: The image encoder a temporal critic may share, or None.
    """

    name: str
    value_range: tuple[float, float] = (-float("inf"), float("inf"))
    differentiable: bool = False
    encoder: ImageEncoder | None = None

    @abstractmethod
    def score(
        self,
        images: Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Scores:
        """Score ``images`` (N, 3, H, W) in [0, 1] against their N ``prompts``."""

    def __call__(
        self,
        images: Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> Scores:
        """Score, and hold the result against the contract.

        Raises:
            RewardError: If the inputs do not belong together, the result is not of
                float and of shape (N,), or a score is NaN or infinite.
        """
        if images.ndim != 4 or images.shape[1] != 3 or len(prompts) != len(images):
            raise RewardError(
                f"Reward '{self.name}' takes images (N, 3, H, W) and N prompts; got "
                f"images {tuple(images.shape)} and {len(prompts)} prompts."
            )
        scores = self.score(images, prompts, metadata)
        if not isinstance(scores, Scores):
            raise RewardError(
                f"Reward '{self.name}' returned {type(scores).__name__} and not Scores."
            )
        if not (
            isinstance(scores.values, Tensor) and scores.values.is_floating_point()
        ):
            raise RewardError(
                f"Reward '{self.name}' returned values that are no tensor of floats: "
                f"{scores.values!r:.80}."
            )
        if scores.values.shape != (len(images),):
            raise RewardError(
                f"Reward '{self.name}' returned shape {tuple(scores.values.shape)} "
                f"for {len(images)} images; expected ({len(images)},)."
            )
        bad = (~torch.isfinite(scores.values)).nonzero().flatten().tolist()
        if bad:
            raise RewardError(
                f"Reward '{self.name}' returned NaN or infinity for {len(bad)} of "
                f"{len(images)} images, first for prompt {prompts[bad[0]]!r}."
            )
        return scores
