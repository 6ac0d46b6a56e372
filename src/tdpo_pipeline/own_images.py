"""Scores of pictures that lie in files, whoever drew them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from tdpo_pipeline.overoptimization.own_tables import empty_cells

if TYPE_CHECKING:
    import torch

    from tdpo_pipeline.rewards.base import Reward

NEEDED = ("file", "prompt")
"""Columns of a table of pictures: the file, relative to the table's folder; the prompt."""


_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises of files that it can't or won't read."""


class OwnImagesError(ValueError):
    """A table of pictures, or a picture, that can't be used."""


def checked_sizes(
    table: pd.DataFrame, folder: Path, rewards: Iterable[str]
) -> list[tuple[int, int]]:
    """Hold a table of pictures against what scoring needs; nothing is decoded yet.

    Args:
        table: A row a picture, with the columns ``NEEDED``.
        folder: What its files are relative to.
        rewards: Names of the columns that scoring will add.

    Returns:
        Width and height of each picture.

    Raises:
        OwnImagesError: If columns or prompts are missing, a column has a reward's name, or
            files are missing or no pictures.
    """
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise OwnImagesError(
            f"The table of pictures lacks the columns {missing}; it has "
            f"{list(table.columns)}. It needs {list(NEEDED)} (docs/own_tables.md)."
        )
    if table.empty:
        raise OwnImagesError("The table of pictures has no rows.")
    for name in NEEDED:
        if empty := empty_cells(table, name):
            raise OwnImagesError(empty)
    there = [name for name in rewards if name in table.columns]
    if there:
        raise OwnImagesError(
            f"The table has columns {there} already, which scoring would write over. "
            "Rename or drop them, or name other rewards: score.rewards."
        )
    sizes, bad = [], []
    for name in table["file"].astype(str):
        try:
            with Image.open(folder / name) as picture:
                sizes.append(picture.size)
                if picture.mode.startswith(("I", "F")):
                    bad.append(f"{name} (mode {picture.mode}; save it with 8 bits)")
        except _UNREADABLE as error:
            bad.append(f"{name} ({type(error).__name__})")
    if bad:
        raise OwnImagesError(
            f"{len(bad)} of {len(table)} files are missing or no pictures that can be "
            f"scored: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}. Paths are "
            f"relative to the table's folder, {folder}."
        )
    return sizes


def score_images(
    table: pd.DataFrame,
    folder: Path,
    rewards: Mapping[str, Reward],
    *,
    chunk_size: int,
    device: torch.device,
) -> pd.DataFrame:
    """The table with a column of scores for each reward.

    Args:
        table: A row a picture, see :func:`checked_sizes`.
        folder: What its files are relative to.
        rewards: The rewards by the names of their columns; on the device.
        chunk_size: Pictures that are read and scored together, at most.
        device: Where they are scored.

    Raises:
        OwnImagesError: See :func:`checked_sizes`; or if a picture is truncated, or a reward
            can't score it (Menagerie's golds score 32x32 pixels and its own prompts).
    """
    import torch
    from tqdm import tqdm

    sizes = checked_sizes(table, folder, rewards)
    files, prompts = table["file"].astype(str).tolist(), table["prompt"].tolist()
    found = {name: np.empty(len(table), np.float32) for name in rewards}
    with tqdm(total=len(table), desc="scoring", unit="image") as bar, torch.no_grad():
        for rows in alike(sizes, chunk_size):
            images = torch.stack([_read(folder / files[row]) for row in rows])
            images, asked = images.to(device), [str(prompts[row]) for row in rows]
            for name, reward in rewards.items():
                try:
                    values = reward(images, asked).values
                except ValueError as error:
                    raise OwnImagesError(
                        f"'{name}' can't score {files[rows[0]]} and those that are scored "
                        f"with it: {error}"
                    ) from error
                found[name][rows] = values.float().cpu().numpy()
            bar.update(len(rows))
    return table.assign(**found)


def alike(sizes: Sequence[tuple[int, int]], chunk_size: int) -> Iterator[list[int]]:
    """Rows of equal size together, ``chunk_size`` at most, each row once."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for row, size in enumerate(sizes):
        by_size.setdefault(size, []).append(row)
    for rows in by_size.values():
        for start in range(0, len(rows), chunk_size):
            yield rows[start : start + chunk_size]


def _read(path: Path) -> torch.Tensor:
    """A picture in [0, 1], float32, shape (3, H, W)."""
    import torch

    try:
        with Image.open(path) as picture:
            pixels = np.array(picture.convert("RGB"))
    except _UNREADABLE as error:
        raise OwnImagesError(f"{path} can't be read: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
