"""Sample strips: pictures of tiles, a row per checkpoint and a column per prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]


class StripError(ValueError):
    """A picture that is no sample strip of these checkpoints and prompts."""


@dataclass(frozen=True)
class Strip:
    """Sample images of one run, of one fixed seed.

    Attributes:
        images: For each evaluated epoch (0: base model) an array (prompts, H, W, 3).
        prompts: The prompts, in the order of the images.
    """

    images: Mapping[int, Pixels]
    prompts: tuple[str, ...]

    @classmethod
    def from_picture(
        cls, picture: Pixels, epochs: Sequence[int], prompts: Sequence[str]
    ) -> Strip:
        """Cut a picture of tiles.

        Args:
            picture: uint8, shape (epochs * H, prompts * W, 3), no gaps.
            epochs: Checkpoint of each row.
            prompts: Prompt of each column.

        Raises:
            StripError: If the picture does not divide into that many tiles.
        """
        height, width, channels = picture.shape
        rows, columns = len(epochs), len(prompts)
        if not rows or not columns or height % rows or width % columns or channels != 3:
            raise StripError(
                f"A sample strip of {rows} checkpoints and {columns} prompts can't be "
                f"cut out of a picture {picture.shape}. Evaluate the run again."
            )
        tiles = picture.reshape(rows, height // rows, columns, width // columns, 3)
        images = dict(zip(epochs, tiles.swapaxes(1, 2), strict=True))
        return cls(images, tuple(prompts))


_LETTERS = 12  # height of a prompt's line, in pixels
_LETTER_WIDTH = 6  # about; lines are broken by it


def labelled(picture: Pixels, prompts: Sequence[str]) -> Pixels:
    """A picture of tiles with every row's prompt above it.

    Args:
        picture: uint8, shape (prompts * H, W, 3), no gaps.
        prompts: Prompt of each row, broken into as many lines as it takes.

    Returns:
        uint8, shape (prompts * H plus the lines, W, 3): black letters on white.
    """
    parts = []
    for prompt, tiles in zip(prompts, np.split(picture, len(prompts)), strict=True):
        width = picture.shape[1]
        lines = textwrap.wrap(prompt, max(1, width // _LETTER_WIDTH)) or [""]
        label = Image.new("RGB", (width, _LETTERS * len(lines) + 2), "white")
        pen = ImageDraw.Draw(label)
        for place, line in enumerate(lines):
            pen.text((1, _LETTERS * place), line, fill="black")
        parts += [np.asarray(label), tiles]
    return np.concatenate(parts)
