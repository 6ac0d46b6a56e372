"""The contract every reward obeys, and the check that it was obeyed.

A reward takes images as floats in [0, 1] of shape (N, 3, H, W) and their N prompts, and
returns N scores. What the trainer needs to know
beyond the scores is declared on the reward: its range, its scale in the papers,
whether a gradient reaches the images, and the image encoder that a temporal critic may
share with it.

Placement: a reward is loaded on the CPU, in float32. ``reward.to(device)`` moves its
networks and its encoder there, in place; images have to come on the same device, and
scores go back on it. Rewards may share an encoder, which then moves for all of them:
all rewards of a process belong on one device.

What an image may be: values in [0, 1], finite. Float arithmetic may overshoot by up to
half an 8-bit level (0.5/255), which rounds to the same picture; what is further out is
no image, and an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Self

import torch
from torch import Tensor, nn

OVERSHOOT = 0.5 / 255
"""How far a pixel may lie outside [0, 1]: half an 8-bit level."""

ROUNDING = 0.01
"""How far a score may lie outside its range, as a part of the range's larger end."""


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


@dataclass(frozen=True)
class PaperScale:
    """The scale of a paper's tables: ``factor * value + offset``."""

    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, values: Tensor) -> Tensor:
        """Values in the units of the paper's tables, same shape."""
        return self.factor * values + self.offset


@dataclass
class Scores:
    """What a reward returns: ``values`` (N,) of float."""

    values: Tensor


class Reward(ABC):
    """A scorer of images given prompts.

    Attributes:
        name: Name in configuration, tables and figures.
        value_range: Lowest and highest possible score (may be infinite).
        paper_scale: How the paper's tables are scaled from the scores.
        differentiable: Whether a gradient reaches the images.
        encoder: The image encoder a temporal critic may share, or None.
    """

    name: str
    value_range: tuple[float, float] = (-float("inf"), float("inf"))
    paper_scale: PaperScale = PaperScale()
    differentiable: bool = False
    encoder: ImageEncoder | None = None

    def to(self, device: torch.device | str) -> Self:
        """Move every network that is an attribute of the reward, in place.

        A reward that keeps its networks elsewhere, such as in a list, extends this.
        """
        for attribute in vars(self).values():
            if isinstance(attribute, nn.Module):
                attribute.to(device)
        return self

    @abstractmethod
    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Score ``images`` (N, 3, H, W) in [0, 1] against their N ``prompts``."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Score, and hold the result against the contract.

        Returns:
            Scores whose values are float32, on the device of the images.

        Raises:
            RewardError: If the inputs do not belong together or are no images, the
                result is not of float and of shape (N,), or a score is NaN, infinite or
                outside ``value_range``.
        """
        if images.ndim != 4 or images.shape[1] != 3 or len(prompts) != len(images):
            raise RewardError(
                f"Reward '{self.name}' takes images (N, 3, H, W) and N prompts; got "
                f"images {tuple(images.shape)} and {len(prompts)} prompts."
            )
        self._check_images(images, prompts)
        scores = self.score(images, prompts)
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
        values = scores.values.float()
        low, high = self.value_range
        slack = ROUNDING * max(abs(end) for end in (low, high, 1.0) if isfinite(end))
        outside = (values < low - slack) | (values > high + slack)
        if outside.any():
            raise RewardError(
                f"Reward '{self.name}' returned {float(values[outside][0]):g}, which is "
                f"outside its value_range of {low:g} to {high:g}."
            )
        return Scores(values.to(images.device))

    def _check_images(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Raise RewardError for pixels that are NaN or outside [0, 1]."""
        if not images.is_floating_point():
            raise RewardError(
                f"Reward '{self.name}' takes floats in [0, 1]; got {images.dtype}."
            )
        if not len(images):
            raise RewardError(f"Reward '{self.name}' was given no images.")
        low, high = images.detach().flatten(1).aminmax(dim=1)
        # False for NaN too, which is neither above nor below.
        good = (low >= -OVERSHOOT) & (high <= 1 + OVERSHOOT)
        bad = (~good).nonzero().flatten().tolist()
        if bad:
            first = bad[0]
            raise RewardError(
                f"Reward '{self.name}' takes images in [0, 1]; {len(bad)} of "
                f"{len(images)} are not, first that of prompt {prompts[first]!r}, whose "
                f"pixels reach from {low[first]:.4g} to {high[first]:.4g}. An image in "
                "[-1, 1] is brought there by x / 2 + 0.5."
            )
