"""Samples of all methods at matched reward, the base model first (TDPO, 2, 7, 13)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tdpo_pipeline.figures import style
from tdpo_pipeline.figures.strips import Pixels, Strip
from tdpo_pipeline.overoptimization.tables import (
    TRAINING_ETA,
    ScoreTableError,
    group_label,
    ordered_groups,
)

# In pixels of the figure.
_TILE = 128  # about the side of a sample
_GAP = 6
_GROUP_GAP = 26
_LEFT = 270
_RIGHT = 20
_HEAD = 70
_NAMES = 142  # above a block: group names and prompts
_CAPTION = (
    "Same prompt and same noise within a column. Each method at the evaluated checkpoint "
    "whose mean trained reward (the number) is nearest the highest level that all methods "
    "reached; its first training seed. Sampler: eta 1."
)


def matched_checkpoints(curves: pd.DataFrame) -> pd.DataFrame:
    """For each run the checkpoint whose trained reward is nearest a common target.

    The target is the highest level that every run of a trained reward has reached:
    the smallest of the runs' best means on the prompts trained on. The base model is
    not a candidate.

    Args:
        curves: From ``reward_curves`` by run.

    Returns:
        One row per run: run, method, reward, seed, epoch, mean (trained reward),
        target, base_mean.

    Raises:
        ScoreTableError: If no checkpoint was evaluated on the prompts trained on.
    """
    trained = curves[
        (curves["role"] == "trained")
        & (curves["group"] == "seen")
        & (curves["eta"] == TRAINING_ETA)
        & (curves["epoch"] > 0)
    ]
    if trained.empty:
        raise ScoreTableError(
            "No trained checkpoint was evaluated on the prompts trained on, so that "
            "none can be matched by reward."
        )
    best = trained.groupby(["reward", "run"])["mean"].max()
    target = trained["reward"].map(best.groupby("reward").min())
    distance = (trained["mean"] - target).abs()
    order = trained.assign(target=target, distance=distance)
    nearest = order.sort_values(["distance", "epoch"]).groupby("run").head(1)
    columns = ["run", "method", "reward", "seed", "epoch", "mean", "target"]
    return nearest.sort_values("run")[[*columns, "base_mean"]].reset_index(drop=True)


def sample_grid(
    strips: Mapping[str, Strip],
    curves: pd.DataFrame,
    groups: Mapping[str, Mapping[str, str]],
    *,
    per_group: int = 4,
) -> style.Drawn:
    """Base model and methods under each other, same prompt and noise in a column.

    A block per trained reward. Each method shows its first seed at the checkpoint
    whose trained reward is nearest a level that all methods of the block reached.

    Args:
        strips: Sample images, keyed by run.
        curves: From ``reward_curves`` by run.
        groups: For each trained reward the prompt group of each prompt (see
            ``with_group``); prompts that are not there are "other prompts".
        per_group: Prompts of each group that are shown, at most.

    Returns:
        The figure and its data: the rows of ``matched_checkpoints`` that are shown.

    Raises:
        ScoreTableError: If a shown run has no strip or no image of its checkpoint.
    """
    shown = matched_checkpoints(curves).sort_values(["reward", "seed"])
    shown = shown.groupby(["reward", "method"]).head(1).reset_index(drop=True)
    order = style.sort_methods(shown["method"])
    shown = shown.sort_values(
        ["reward", "method"],
        key=lambda column: (
            column.map(order.index) if column.name == "method" else column
        ),
    ).reset_index(drop=True)
    blocks = [
        _Block.of(str(reward), rows, strips, groups[str(reward)], per_group)
        for reward, rows in shown.groupby("reward")
    ]
    return style.Drawn(_draw(blocks), shown)


@dataclass(frozen=True)
class _Block:
    """The rows and columns of one trained reward.

    Attributes:
        reward: The trained reward.
        labels: A label per row, the base model first.
        columns: Prompt and group of each column.
        tiles: Shape (rows, columns, H, W, 3).
    """

    reward: str
    labels: list[str]
    columns: list[tuple[str, str]]
    tiles: Pixels

    @classmethod
    def of(
        cls,
        reward: str,
        rows: pd.DataFrame,
        strips: Mapping[str, Strip],
        groups: Mapping[str, str],
        per_group: int,
    ) -> _Block:
        missing = [run for run in rows["run"] if run not in strips]
        if missing:
            raise ScoreTableError(f"No sample strip of the runs {missing}.")
        first = rows.iloc[0]
        columns = pick_columns(strips[first["run"]].prompts, groups, per_group)
        prompts = [prompt for prompt, _ in columns]
        tiles = [_tiles(strips, first["run"], 0, prompts)]
        labels = [f"base model\n{first['base_mean']:+.2f}"]
        for row in rows.itertuples():
            tiles.append(_tiles(strips, str(row.run), int(row.epoch), prompts))  # type: ignore[arg-type]
            name = textwrap.fill(style.method_label(str(row.method)), 20)
            labels.append(f"{name}\nepoch {row.epoch}, {row.mean:+.2f}")
        return cls(reward, labels, columns, np.stack(tiles))


def pick_columns(
    prompts: Sequence[str], groups: Mapping[str, str], per_group: int
) -> list[tuple[str, str]]:
    """The first prompts of each group, as (prompt, group), group by group."""
    group_of = {prompt: groups.get(prompt, "other prompts") for prompt in prompts}
    return [
        (prompt, group)
        for group in ordered_groups(group_of.values())
        for prompt in [p for p in group_of if group_of[p] == group][:per_group]
    ]


def _tiles(
    strips: Mapping[str, Strip], run: str, epoch: int, prompts: Sequence[str]
) -> Pixels:
    """Images (prompts, H, W, 3) of one checkpoint."""
    strip = strips[run]
    absent = [prompt for prompt in prompts if prompt not in strip.prompts]
    if epoch not in strip.images or absent:
        raise ScoreTableError(
            f"The sample strip of run '{run}' has the epochs {sorted(strip.images)} "
            f"and {len(strip.prompts)} prompts; epoch {epoch} with the prompts "
            f"{list(prompts)} is needed. Evaluate the run again."
        )
    return strip.images[epoch][[strip.prompts.index(prompt) for prompt in prompts]]


@dataclass(frozen=True)
class _Canvas:
    """A figure addressed in whole pixels from its upper left corner.

    Whole pixels, because a sample of 32 pixels looks wrong unless each of its pixels
    becomes a square of the same size.
    """

    figure: Figure
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> _Canvas:
        # The size in pixels is rounded down, so that it must not fall short.
        inches = ((width + 1e-3) / style.DPI, (height + 1e-3) / style.DPI)
        return cls(Figure(figsize=inches, dpi=style.DPI), width, height)

    def image(self, x: int, y: int, pixels: Pixels) -> None:
        foot = self.height - y - len(pixels)
        self.figure.figimage(pixels, x, foot, origin="upper")

    def text(self, x: int, y: int, text: str, **how: Any) -> None:
        how = {"fontsize": style.LABEL_SIZE, "color": style.INK, **how}
        self.figure.text(x / self.width, 1 - y / self.height, text, **how)


def _draw(blocks: Sequence[_Block]) -> Figure:
    """All blocks under each other, between title and caption."""
    scale = max(1, round(_TILE / blocks[0].tiles.shape[2]))
    side = scale * blocks[0].tiles.shape[2]
    widths = [_lefts(block.columns, side)[-1] + side for block in blocks]
    heights = [_NAMES + len(block.labels) * (side + _GAP) for block in blocks]
    width = max(widths) + _RIGHT
    foot = round(style.caption_height(_CAPTION, width / style.DPI) * style.DPI)
    canvas = _Canvas.of(width, _HEAD + sum(heights) + foot)
    top = _HEAD
    for block, height in zip(blocks, heights, strict=True):
        _draw_block(canvas, block, scale, top)
        top += height
    style.frame(
        canvas.figure,
        title="Samples at matched reward",
        caption=_CAPTION,
        stamp="one seed",
    )
    return canvas.figure


def _lefts(columns: Sequence[tuple[str, str]], side: int) -> list[int]:
    """Left edge of each column in pixels; groups stand apart."""
    edges, x = [], _LEFT
    for position, (_, group) in enumerate(columns):
        if position and group != columns[position - 1][1]:
            x += _GROUP_GAP
        edges.append(x)
        x += side + _GAP
    return edges


def _draw_block(canvas: _Canvas, block: _Block, scale: int, top: int) -> None:
    """Group names, prompts, row labels and tiles of one trained reward."""
    side = scale * block.tiles.shape[2]
    lefts = _lefts(block.columns, side)
    foot = top + _NAMES - 8
    canvas.text(16, foot, f"trained on\n{block.reward}", va="bottom")
    groups = [group for _, group in block.columns]
    for position, (prompt, group) in enumerate(block.columns):
        middle = lefts[position] + side // 2
        name = textwrap.fill(prompt, 11, break_long_words=False)
        canvas.text(middle, foot, name, ha="center", va="bottom", fontsize=9)
        if groups.index(group) == position:
            name = textwrap.fill(group_label(group), 11 * groups.count(group))
            canvas.text(lefts[position], top + 10, name, va="top", weight="bold")
    for row, label in enumerate(block.labels):
        y = top + _NAMES + row * (side + _GAP)
        canvas.text(16, y + side // 2, label, va="center")
        for left, tile in zip(lefts, block.tiles[row], strict=True):
            canvas.image(left, y, tile.repeat(scale, 0).repeat(scale, 1))
