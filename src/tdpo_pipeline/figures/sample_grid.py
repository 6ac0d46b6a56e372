"""Samples on the same noise, the base model first: the papers' pictures.

At matched reward, TDPO, figures 2, 7 and 13; at the last checkpoint, DDPO, figures 3, 6
and 10 to 12, and DiffExp's comparisons; over training, DDPO, figures 1, 7 and 9.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from tdpo_pipeline.figures import style
from tdpo_pipeline.figures.strips import Pixels, Strip
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ScoreTableError,
    group_label,
    ordered_groups,
)

# In pixels of the figure; margin, title and air around text grow with the letters.
_TILE = 128  # about the side of a sample
_GAP = 6
_GROUP_GAP = 26
_MARGIN = 16
_HEAD = 60  # the title
_BLOCK_GAP = 36
_NARROWEST = 1020  # a width at which title and caption can be read
_USUAL = 1300  # a width up to which letters have their usual size
_WIDEST = 2500  # of blocks side by side

_LABEL_LETTERS = 20  # in a line of a row's label
_PROMPT_SIZE = 9.0  # in points
_LINE_HEIGHT = 1.2  # in parts of the letters' size
# Width of letters that are drawn on whole pixels, over their outlines'.
_ON_PIXELS = 1.05
_ROWS = {
    "matched": "Each method at the evaluated checkpoint whose {number} is nearest the "
    "highest level that all methods reached ({levels}); its first training seed.",
    "last": "Each method at its last evaluated checkpoint, with its {number}; its first "
    "training seed.",
    "progress": "Each block is one method's first training seed over its checkpoints, "
    "with its {number}.",
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
        target, base_mean, base_sd, n_seeds (1), n_prompts, n_images.

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
    """The last checkpoint of each run; as ``matched_checkpoints``, without target."""
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
        & (curves["eta"] == MAIN_ETA)
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
    columns += ["base_mean", "base_sd", "n_seeds", "n_prompts", "n_images"]
    return rows.sort_values(["run", "epoch"])[columns].reset_index(drop=True)


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

    A block per trained reward; over training one per method too, side by side where
    they fit. The base model comes first. Each method shows its first training seed.

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
        reward, seed, epoch, mean (trained reward), base_mean, base_sd, n_seeds,
        n_prompts and n_images (of the mean) and, at matched reward, target. If the strips
        have no such prompt, a figure that says so and an empty table.

    Raises:
        ScoreTableError: If a shown run has no strip or no image of its checkpoint.
    """
    found = _first_seeds(_PICK[rows](curves, steps))
    columns = {
        str(reward): _columns(
            part, strips, groups[str(reward)], prompts, of_groups, per_group
        )
        for reward, part in found.groupby("reward")
    }
    shown = found[found["reward"].map(columns).map(bool)].reset_index(drop=True)
    if shown.empty:
        return style.Drawn(style.notice(title, _no_prompts(prompts, of_groups)), shown)
    progress = rows == "progress"
    lines = [
        [
            _Block.of(part, strips, columns[str(reward)], progress=progress)
            for _, part in own.groupby("method" if progress else "reward", sort=False)
        ]
        for reward, own in shown.groupby("reward", sort=False)
    ]
    caption = _caption(shown, rows) + style.left_out(
        found, shown, "Without such prompts in its sample strips"
    )
    return style.Drawn(_draw(lines, title, caption), shown)


def _caption(shown: pd.DataFrame, rows: str) -> str:
    number = f"mean trained reward (the number; over {style.sizes_text(shown)})"
    levels = ""
    if rows == "matched":
        levels = "; ".join(
            map(_level, shown.drop_duplicates("reward").to_dict("records"))
        )
    text = _ROWS[rows].format(number=number, levels=levels)
    return f"Same prompt and same noise within a column. {text} Sampler: eta 1."


def _level(row: Mapping[Any, Any]) -> str:
    """The common level, and how far it is above the base model's, if that varies."""
    text = f"{row['reward']}: {_number(row['target'])}"
    if not row["base_sd"] > 0:
        return text
    rise = (row["target"] - row["base_mean"]) / row["base_sd"]
    return f"{text}, {rise:+.2f} base SD"


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
        f"The sample strips show none of: {wanted or 'any prompt'}. "
        f"{style.remedy('Name such prompts in strip_prompts (evaluation or own_evaluation)')}"
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
            name = _broken_name(row["method"])
            reached = f"epoch {row['epoch']}, {_number(row['mean'])}"
            labels.append(reached if progress else f"{name}\n{reached}")
        head = f"trained on\n{first['reward']}"
        if progress:
            head = f"{_broken_name(first['method'])}\n{head}"
        return cls(head, labels, columns, np.stack(tiles))


def _broken_name(method: str) -> str:
    """A method's label in lines that stand beside a row of samples."""
    name = style.method_label(method)
    return textwrap.fill(name, _LABEL_LETTERS, break_on_hyphens=False)


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


def _letters(points: float) -> float:
    """Letters of so many points, in pixels."""
    return points * style.DPI / 72


def _height(text: str, size: float) -> int:
    """Of the lines of a text whose letters have ``size`` points, in pixels."""
    return round((text.count("\n") + 1) * _LINE_HEIGHT * _letters(size))


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Of the longest line, likewise."""
    return _letters(size) * max(_in_sizes(line, weight) for line in text.split("\n"))


@cache
def _in_sizes(line: str, weight: str = "normal") -> float:
    """Width of a line of text in parts of its letters' size."""
    path = TextPath((0, 0), line, size=1, prop=FontProperties(weight=weight))
    return _ON_PIXELS * float(path.get_extents().width)


def _fitted(text: str, room: float, size: float, weight: str = "normal") -> str:
    """A text in lines of ``room`` pixels at most; longer words stay whole."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if _width(longer, size, weight) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


@dataclass(frozen=True)
class _Layout:
    """Where things are in a block, in pixels, by how large its letters are.

    Attributes:
        side: Side of a sample.
        enlarged: How much larger than usual the letters are.
        left: Left edge of the samples in a block.
        row: From a row of samples to the next.
        prompt: Size of the prompts' letters, in points.
    """

    side: int
    enlarged: float
    left: int
    row: int
    prompt: float

    @classmethod
    def of(cls, blocks: Sequence[_Block], side: int, enlarged: float = 1) -> _Layout:
        """The layout that has room for the labels of all blocks.

        Prompts stand over samples, whose width their longest word has to keep to.
        """
        size = style.LABEL_SIZE * enlarged
        labels = [label for block in blocks for label in block.labels]
        heads = [block.head for block in blocks]
        words = {
            word
            for block in blocks
            for prompt, _ in block.columns
            for word in prompt.split()
        }
        widest = _letters(max(_in_sizes(word) for word in words))
        return cls(
            side=side,
            enlarged=enlarged,
            left=round(
                2 * _MARGIN * enlarged
                + max(_width(text, size) for text in {*labels, *heads})
            ),
            row=_GAP + max(side, *(_height(label, size) for label in labels)),
            prompt=min(_PROMPT_SIZE * enlarged, (side - _GAP) / widest),
        )

    @property
    def margin(self) -> int:
        """Left of a block's labels."""
        return round(_MARGIN * self.enlarged)

    @property
    def size(self) -> float:
        """Of the labels' letters, in points."""
        return style.LABEL_SIZE * self.enlarged

    def lefts(self, block: _Block) -> list[int]:
        """Left edge of each column; groups stand apart, as far as their names ask for."""
        edges, x = [], self.left
        for group, columns in groupby(block.columns, key=lambda column: column[1]):
            own = [x + i * (self.side + _GAP) for i, _ in enumerate(columns)]
            edges += own
            x = max(own[-1] + self.side, x + self.longest_word(group))
            x += _GAP + _GROUP_GAP
        return edges

    def longest_word(self, group: str) -> int:
        """Width of the longest word of a group's name, which stays whole."""
        words = group_label(group).split()
        return round(max(_width(word, self.size, "bold") for word in words))

    def width(self, block: _Block) -> int:
        """Of a block."""
        lefts, last = self.lefts(block), block.columns[-1][1]
        first = next(
            x for x, c in zip(lefts, block.columns, strict=True) if c[1] == last
        )
        return max(lefts[-1] + self.side, first + self.longest_word(last))

    def prompts(self, block: _Block) -> list[str]:
        """The prompts, in as many lines as they take over a sample."""
        return [_fitted(prompt, self.side, self.prompt) for prompt, _ in block.columns]

    def groups(self, block: _Block) -> dict[int, str]:
        """The groups' names by their first columns, as wide as their columns."""
        lefts, groups = self.lefts(block), [group for _, group in block.columns]
        names = {}
        for group in dict.fromkeys(groups):
            first = groups.index(group)
            room = lefts[first + groups.count(group) - 1] + self.side - lefts[first]
            names[first] = _fitted(group_label(group), room, self.size, "bold")
        return names

    def names(self, block: _Block) -> int:
        """Height of what stands above the samples: the groups over the prompts."""
        over = self.above(block) + _tallest(self.groups(block).values(), self.size)
        return max(over, _height(block.head, self.size)) + _GAP

    def above(self, block: _Block) -> int:
        """Height of the prompts, with air to the groups' names."""
        return _tallest(self.prompts(block), self.prompt) + round(12 * self.enlarged)

    def height(self, block: _Block) -> int:
        """Of a block."""
        return self.names(block) + len(block.labels) * self.row


def _tallest(texts: Iterable[str], size: float) -> int:
    return max(_height(text, size) for text in texts)


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


def _draw(lines: Sequence[Sequence[_Block]], title: str, caption: str) -> Figure:
    """Lines of blocks under each other, between title and caption."""
    blocks = [block for line in lines for block in line]
    scale = max(1, round(_TILE / blocks[0].tiles.shape[2]))
    layout = _Layout.of(blocks, scale * blocks[0].tiles.shape[2])
    lines = [part for line in lines for part in _broken(line, layout)]
    # A page as wide as this will be shown smaller, with all its letters.
    usual = max(_line_width(line, layout) for line in lines)
    layout = _Layout.of(blocks, layout.side, enlarged=max(1, usual / _USUAL))
    heights = [max(layout.height(block) for block in line) for line in lines]
    width = max(_NARROWEST, *(_line_width(line, layout) for line in lines))
    inches = width / style.DPI
    foot = style.caption_height(caption, inches, layout.enlarged)
    head = round(_HEAD * layout.enlarged)
    inner = sum(heights) + _BLOCK_GAP * (len(lines) - 1)
    canvas = _Canvas.of(width, head + inner + round(foot * style.DPI))
    top = head
    for line, height in zip(lines, heights, strict=True):
        x = 0
        for block in line:
            # Samples of a line stand in the same rows, whatever is above them.
            _draw_block(
                canvas, block, layout, scale, x, top + height - layout.height(block)
            )
            x += layout.width(block) + _BLOCK_GAP
        top += height + _BLOCK_GAP
    style.frame(
        canvas.figure,
        title=title,
        caption=caption,
        stamp="one seed",
        enlarged=layout.enlarged,
    )
    return canvas.figure


def _line_width(line: Sequence[_Block], layout: _Layout) -> int:
    """Of blocks side by side, with margins."""
    widths = sum(layout.width(block) for block in line)
    return widths + _BLOCK_GAP * (len(line) - 1) + layout.margin


def _broken(line: Sequence[_Block], layout: _Layout) -> list[list[_Block]]:
    """A line of blocks as lines that are not too wide."""
    parts: list[list[_Block]] = [[]]
    for block in line:
        if parts[-1] and _line_width([*parts[-1], block], layout) > _WIDEST:
            parts.append([])
        parts[-1].append(block)
    return parts


def _draw_block(
    canvas: _Canvas, block: _Block, layout: _Layout, scale: int, x: int, top: int
) -> None:
    """Group names, prompts, row labels and tiles of one trained reward."""
    lefts = [x + left for left in layout.lefts(block)]
    label: dict[str, Any] = {"fontsize": layout.size}
    samples = top + layout.names(block)
    foot = samples - _GAP
    canvas.text(x + layout.margin, foot, block.head, va="bottom", **label)
    for left, name in zip(lefts, layout.prompts(block), strict=True):
        middle = left + layout.side // 2
        look: dict[str, Any] = {"fontsize": layout.prompt, "ha": "center"}
        canvas.text(middle, foot, name, va="bottom", **look)
    for column, name in layout.groups(block).items():
        y = foot - layout.above(block)
        canvas.text(lefts[column], y, name, va="baseline", weight="bold", **label)
    for row, text in enumerate(block.labels):
        y = samples + row * layout.row
        canvas.text(x + layout.margin, y + layout.side // 2, text, va="center", **label)
        for left, tile in zip(lefts, block.tiles[row], strict=True):
            canvas.image(left, y, tile.repeat(scale, 0).repeat(scale, 1))
