"""Four plain statistics of a picture: cheap, and independent of any reward.

Each is a number of one picture in a known range, so that its place among the base
model's pictures says whether a fine-tuned model still draws the same kind of picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.floating]

RANGES = {
    "edge_density": (0.0, 1.0),
    "colour_entropy": (0.0, 9.0),
    "dark_fraction": (0.0, 1.0),
    "saturation": (0.0, 1.0),
}
"""Lowest and highest possible value of each statistic."""

STATISTICS = tuple(RANGES)
"""Columns of ``image_statistics``."""

EDGE = 0.1
"""Change of luma from a pixel to the next that counts as an edge."""

DARK = 0.2
"""Luma below which a pixel counts as dark."""

LEVELS = 8
"""Levels of each channel that colours are counted at: 512 colours."""

_LUMA = (0.299, 0.587, 0.114)


def image_statistics(images: FloatArray) -> pd.DataFrame:
    """All statistics of N pictures.

    Args:
        images: Float in [0, 1], shape (N, 3, H, W), H and W at least 2.

    Returns:
        A row a picture, the columns ``STATISTICS``, float32.

    Raises:
        ValueError: If the pictures are of another shape or range.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2:
        raise ValueError(
            f"Statistics are of pictures (N, 3, H, W) of 2 x 2 pixels or more; got "
            f"{images.shape}."
        )
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            "Statistics are of pictures in [0, 1]; these go from "
            f"{images.min():.4g} to {images.max():.4g}."
        )
    measures = (edge_density, colour_entropy, dark_fraction, saturation)
    columns = zip(STATISTICS, measures, strict=True)
    return pd.DataFrame(
        {name: measure(images).astype(np.float32) for name, measure in columns}
    )


def luma(images: FloatArray) -> FloatArray:
    """Rec. 601 luma in [0, 1] of pictures (N, 3, H, W), shape (N, H, W)."""
    return np.tensordot(images, np.asarray(_LUMA, images.dtype), axes=(1, 0))


def edge_density(images: FloatArray) -> FloatArray:
    """Share of pixels where the luma's forward differences are longer than ``EDGE``.

    sqrt((Y[i, j + 1] - Y[i, j])^2 + (Y[i + 1, j] - Y[i, j])^2) > 0.1, over the
    (H - 1) x (W - 1) pixels that have both neighbours.

    Returns:
        In [0, 1], shape (N,). A flat picture has 0; so has a smooth shade.
    """
    grey = luma(images)
    across = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    down = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return (np.hypot(across, down) > EDGE).mean(axis=(1, 2))


def colour_entropy(images: FloatArray) -> FloatArray:
    """Shannon entropy of the colours, each channel cut into ``LEVELS`` equal levels.

    Returns:
        Bits, in [0, 9] (no more than log2 of the number of pixels), shape (N,). A
        picture of one colour has 0, of k equally frequent ones log2(k).
    """
    levels = np.minimum((images * LEVELS).astype(np.int64), LEVELS - 1)
    red, green, blue = levels.transpose(1, 0, 2, 3)
    colours = ((red * LEVELS + green) * LEVELS + blue).reshape(len(images), -1)
    number = LEVELS**3
    offset = number * np.arange(len(images))[:, None]
    counts = np.bincount((colours + offset).ravel(), minlength=number * len(images))
    share = counts.reshape(len(images), number) / colours.shape[1]
    logs = np.log2(share, where=share > 0, out=np.zeros_like(share))
    return -(share * logs).sum(axis=1)


def dark_fraction(images: FloatArray) -> FloatArray:
    """Share of pixels whose luma is below ``DARK``, in [0, 1], shape (N,)."""
    return (luma(images) < DARK).mean(axis=(1, 2))


def saturation(images: FloatArray) -> FloatArray:
    """Mean of HSV's saturation (max - min) / max over the pixels; black has 0.

    Returns:
        In [0, 1], shape (N,). Grey pictures have 0, pure colours 1.
    """
    highest, lowest = images.max(axis=1), images.min(axis=1)
    chroma = highest - lowest
    ratio = np.divide(chroma, highest, where=highest > 0, out=np.zeros_like(chroma))
    return ratio.mean(axis=(1, 2))
