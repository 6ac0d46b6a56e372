"""Samples on the same noise, the base model first: the papers' pictures.

At matched reward, TDPO, figures 2, 7 and 13; at the last checkpoint, DDPO, figures 3, 6
and 10 to 12, and DiffExp's comparisons; over training, DDPO, figures 1, 7 and 9.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
_BLOCK_GAP = 30
_NAMES = 142  # above a block: group names and prompts
_LABEL_LETTERS = 20  # in a line of a row's label
_NARROWEST = 1020  # a width at which title and caption can be read
_ROWS = {
    "matched": (
        "Each method at the evaluated checkpoint whose mean trained reward (the number) "
        "is nearest the highest level that all methods reached; its first training seed."
    ),
    "last": (
        "Each method at its last evaluated checkpoint, with its mean trained reward; its "
        "first training seed."
    ),
    "progress": (
        "Each block is one method's first training seed over its checkpoints, with the "
        "mean trained reward."
    ),
}


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
    trained = _trained(curves)
    best = trained.groupby(["reward", "run"])["mean"].max()
    target = trained["reward"].map(best.groupby("reward").min())
    distance = (trained["mean"] - target).abs()
    order = trained.assign(target=target, distance=distance)
    nearest = order.sort_values(["distance", "epoch"]).groupby("run").head(1)
    return _checkpoints(nearest)


def last_checkpoints(curves: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of each run; arguments and columns as below, no target."""
    trained = _trained(curves)
    last = trained.groupby("run")["epoch"].transform("max")
    return _checkpoints(trained[trained["epoch"] == last])


def spread_checkpoints(curves: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Up to ``steps`` checkpoints of each run, evenly from the first to the last."""
    trained = _trained(curves)
    parts = []
    for _, run in trained.groupby("run", sort=True):
        epochs = np.sort(run["epoch"].unique())
        places = np.linspace(0, len(epochs) - 1, min(steps, len(epochs))).round()
        parts.append(run[run["epoch"].isin(epochs[places.astype(int)])])
    return _checkpoints(pd.concat(parts))


def _trained(curves: pd.DataFrame) -> pd.DataFrame:
    """The trained reward on the prompts trained on; the base model is left out."""
    trained = curves[
        (curves["role"] == "trained")
        & (curves["group"] == "seen")
        & (curves["eta"] == TRAINING_ETA)
        & (curves["epoch"] > 0)
    ]
    if trained.empty:
        raise ScoreTableError(
            "No trained checkpoint was evaluated on the prompts trained on, so that "
            "none can be picked by reward. Evaluate the runs on a prompt set that holds "
            "their training prompts."
        )
    return trained


def _checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that the grid needs, in order."""
    columns = ["run", "method", "reward", "seed", "epoch", "mean"]
    columns += [name for name in ("target",) if name in rows.columns]
    return rows.sort_values(["run", "epoch"])[[*columns, "base_mean"]].reset_index(
        drop=True
    )


def sample_grid(
    curves: pd.DataFrame,
    strips: Mapping[str, Strip],
    groups: Mapping[str, Mapping[str, str]],
    *,
    title: str = "Samples at matched reward",
    rows: Literal["matched", "last", "progress"] = "matched",
    prompts: Sequence[str] | None = None,
    of_groups: Sequence[str] | None = None,
    per_group: int = 4,
    steps: int = 5,
) -> style.Drawn:
    """Pictures of checkpoints under each other, same prompt and noise in a column.

    A block per trained reward, and over training one per method too; the base model
    first. Each method shows its first training seed.

    Args:
        curves: From ``reward_curves`` by run.
        strips: Sample images, keyed by run.
        groups: For each trained reward the prompt group of each prompt (see
            ``with_group``); prompts that are not there are "other prompts".
        title: Title of the figure.
        rows: Which checkpoints: ``matched``, the one whose trained reward is nearest
            a level that all methods of the block reached; the ``last``; or the
            ``progress`` of each method over training.
        prompts: Prompts to show; by default the first of each group.
        of_groups: Prompt groups to show; by default all.
        per_group: Prompts of each group that are shown, at most.
        steps: Checkpoints of a method's progress, at most.

    Returns:
        The figure and its data: a row per checkpoint that is shown, with run, method,
        reward, seed, epoch, mean (trained reward), base_mean and, at matched reward,
        target. If the strips have no such prompt, a figure that says so and an empty
        table.

    Raises:
        ScoreTableError: If a shown run has no strip or no image of its checkpoint.
    """
    shown = _first_seeds(_PICK[rows](curves, steps))
    columns = {
        str(reward): _columns(
            part, strips, groups[str(reward)], prompts, of_groups, per_group
        )
        for reward, part in shown.groupby("reward")
    }
    shown = shown[shown["reward"].map(columns).map(bool)].reset_index(drop=True)
    if shown.empty:
        return style.Drawn(style.notice(title, _no_prompts(prompts, of_groups)), shown)
    units = ["reward", "method"] if rows == "progress" else ["reward"]
    blocks = [
        _Block.of(part, strips, columns[str(keys[0])], progress=rows == "progress")
        for keys, part in shown.groupby(units, sort=False)
    ]
    caption = (
        f"Same prompt and same noise within a column. {_ROWS[rows]} Sampler: eta 1."
    )
    return style.Drawn(_draw(blocks, title, caption), shown)


_PICK = {
    "matched": lambda curves, _: matched_checkpoints(curves),
    "last": lambda curves, _: last_checkpoints(curves),
    "progress": spread_checkpoints,
}


def _first_seeds(found: pd.DataFrame) -> pd.DataFrame:
    """Checkpoints of each method's first training seed, in the order of the figure."""
    first = found.groupby(["reward", "method"])["seed"].transform("min")
    found = found[found["seed"] == first]
    order = style.sort_methods(found["method"])
    rank = found["method"].map(order.index)
    ordered = found.assign(rank=rank).sort_values(["reward", "rank", "epoch"])
    return ordered.drop(columns="rank").reset_index(drop=True)


def _columns(
    rows: pd.DataFrame,
    strips: Mapping[str, Strip],
    groups: Mapping[str, str],
    prompts: Sequence[str] | None,
    of_groups: Sequence[str] | None,
    per_group: int,
) -> list[tuple[str, str]]:
    """Prompt and group of each column of a trained reward's blocks."""
    missing = sorted(set(rows["run"]) - set(strips))
    if missing:
        raise ScoreTableError(f"No sample strip of the runs {missing}.")
    there = strips[str(rows["run"].iloc[0])].prompts
    if prompts is None:
        picked = pick_columns(there, groups, per_group)
    else:
        wanted = [prompt for prompt in prompts if prompt in there]
        picked = pick_columns(wanted, groups, len(wanted))
    return [
        (prompt, group)
        for prompt, group in picked
        if of_groups is None or group in of_groups
    ]


def _no_prompts(prompts: Sequence[str] | None, of_groups: Sequence[str] | None) -> str:
    """What to do when no sample strip has the figure's prompts."""
    wanted = ", ".join(prompts or map(group_label, of_groups or ()))
    return (
        f"The sample strips show none of: {wanted or 'any prompt'}. Name such prompts in "
        "evaluation.strip_prompts (conf/base/parameters_evaluation.yml), and evaluate "
        "again: dvc repro --allow-missing"
    )


@dataclass(frozen=True)
class _Block:
    """Rows and columns of one trained reward.

    Attributes:
        head: What the block is of.
        labels: A label per row, the base model first.
        columns: Prompt and group of each column.
        tiles: Shape (rows, columns, H, W, 3).
    """

    head: str
    labels: list[str]
    columns: list[tuple[str, str]]
    tiles: Pixels

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        strips: Mapping[str, Strip],
        columns: list[tuple[str, str]],
        *,
        progress: bool,
    ) -> _Block:
        """The base model and the checkpoints ``rows``; over training of one method."""
        prompts = [prompt for prompt, _ in columns]
        first = rows.iloc[0]
        tiles = [_tiles(strips, str(first["run"]), 0, prompts)]
        labels = [f"base model\n{_number(first['base_mean'])}"]
        for row in rows.to_dict("records"):
            tiles.append(_tiles(strips, row["run"], int(row["epoch"]), prompts))
            name = textwrap.fill(style.method_label(row["method"]), _LABEL_LETTERS)
            reached = f"epoch {row['epoch']}, {_number(row['mean'])}"
            labels.append(reached if progress else f"{name}\n{reached}")
        head = f"trained on\n{first['reward']}"
        if progress:
            name = style.method_label(str(first["method"]))
            head = f"{textwrap.fill(name, _LABEL_LETTERS)}\n{head}"
        return cls(head, labels, columns, np.stack(tiles))


def _number(value: float) -> str:
    """A mean reward: three digits, two decimals at most."""
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


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


def _draw(blocks: Sequence[_Block], title: str, caption: str) -> Figure:
    """All blocks under each other, between title and caption."""
    scale = max(1, round(_TILE / blocks[0].tiles.shape[2]))
    side = scale * blocks[0].tiles.shape[2]
    widths = [_lefts(block.columns, side)[-1] + side for block in blocks]
    heights = [
        _NAMES + len(block.labels) * (side + _GAP) + _BLOCK_GAP for block in blocks
    ]
    width = max(_NARROWEST, max(widths) + _RIGHT)
    foot = round(style.caption_height(caption, width / style.DPI) * style.DPI)
    canvas = _Canvas.of(width, _HEAD + sum(heights) - _BLOCK_GAP + foot)
    top = _HEAD
    for block, height in zip(blocks, heights, strict=True):
        _draw_block(canvas, block, scale, top)
        top += height
    style.frame(
        canvas.figure,
        title=title,
        caption=caption,
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
    canvas.text(16, foot, block.head, va="bottom")
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
