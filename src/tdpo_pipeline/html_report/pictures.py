"""Sample strips as pictures inside the page: a picture per checkpoint."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from tdpo_pipeline.figures.strips import Pixels, Strip

MOST_PROMPTS = 8
MOST_EPOCHS = 12
TILE = 96
"""Longest side of a tile in the file, in pixels; larger ones are scaled down."""


def checkpoints(strip: Strip, onset: float | None = None) -> list[dict[str, Any]]:
    """A strip's checkpoints, as the page shows them.

    Args:
        strip: Samples of a run.
        onset: Epoch at which overoptimization begins, if one was found.

    Returns:
        For each shown checkpoint ``epoch``, ``picture`` (a data URI: the prompts' tiles
        under each other) and ``onset``: whether it is the first at or after the onset.
    """
    after = [e for e in strip.images if onset is not None and e >= onset]
    first = min(after, default=None)
    return [
        {
            "epoch": epoch,
            "picture": data_uri(column(strip.images[epoch])),
            "onset": epoch == first,
        }
        for epoch in shown_epochs(sorted(strip.images), first)
    ]


def shown_prompts(strip: Strip) -> list[str]:
    """The prompts of a strip that the page shows."""
    return [strip.prompts[i] for i in _spread(len(strip.prompts), MOST_PROMPTS)]


def shown_epochs(epochs: Sequence[int], onset: int | None = None) -> list[int]:
    """At most ``MOST_EPOCHS`` epochs: first, last, evenly between them, and the onset."""
    chosen = {epochs[i] for i in _spread(len(epochs), MOST_EPOCHS)}
    return sorted(chosen | ({onset} if onset is not None else set()))


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` positions, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def column(tiles: Pixels) -> Pixels:
    """The shown prompts' tiles under each other, scaled down if they are large.

    Args:
        tiles: uint8, shape (prompts, H, W, 3).

    Returns:
        uint8, shape (shown prompts * h, w, 3), h and w at most ``TILE``.
    """
    chosen = tiles[_spread(len(tiles), MOST_PROMPTS)]
    stacked = np.concatenate(list(chosen))
    largest = max(tiles.shape[1:3])
    if largest <= TILE:
        return stacked
    picture = Image.fromarray(stacked)
    scale = TILE / largest
    size = (round(picture.width * scale), round(tiles.shape[1] * scale) * len(chosen))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def data_uri(picture: Pixels) -> str:
    """A picture as ``data:`` address; WebP, which is small and every browser reads."""
    output = io.BytesIO()
    Image.fromarray(picture).save(output, format="WEBP", quality=80, method=6)
    return "data:image/webp;base64," + base64.b64encode(output.getvalue()).decode()
