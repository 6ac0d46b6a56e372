"""JPEG size as a reward (DDPO paper, section 5.1): kilobytes at quality 95, +-."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tdpo_pipeline.rewards.base import Reward, Scores
from tdpo_pipeline.rewards.preprocessing import levels

QUALITY = 95


def jpeg_kilobytes(images: Tensor) -> Tensor:
    """Size of each image as a JPEG of quality 95, in kilobytes (1000 bytes).

    Args:
        images: Float in [0, 1], shape (N, 3, H, W); rounded to 8 bits first.

    Returns:
        Sizes, float32, shape (N,).
    """
    return torch.tensor([_size(image) / 1000 for image in levels(images).cpu()])


def _size(image: Tensor) -> int:
    buffer = io.BytesIO()
    array = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getbuffer().nbytes


class JpegReward(Reward):
    """Incompressibility (sign +1: large files are good) or compressibility (-1)."""

    def __init__(self, name: str, sign: int) -> None:
        self.name = name
        self.sign = sign
        limits = (0.0, sign * float("inf"))
        self.value_range = (min(limits), max(limits))

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Sizes in kilobytes, signed; the prompts don't matter."""
        return Scores(self.sign * jpeg_kilobytes(images))


def load_compressibility(_: Path) -> Reward:
    """Minus the kilobytes of the image as a JPEG."""
    return JpegReward("jpeg_compressibility", -1)


def load_incompressibility(_: Path) -> Reward:
    """The kilobytes of the image as a JPEG."""
    return JpegReward("jpeg_incompressibility", 1)
