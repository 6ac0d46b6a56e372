"""One look for all figures: a colour, marker and line per method, frame and caption.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and
line styles tell the methods apart in grey print too.
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tdpo_pipeline.overoptimization.curves import in_base_sd

DPI = 150

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#6E6E6E"

INK = "#222222"
FAINT = "#D9D9D9"

TITLE_SIZE = 12
LABEL_SIZE = 10
TICK_SIZE = 9
CAPTION_SIZE = 8.5
LINE_WIDTH = 1.6
_LEGEND_COLUMNS = 4
_REMARK_LETTERS = 28  # in a line of a remark, which fits the narrowest panel

PNG_METADATA: dict[str, str | None] = {"Software": None}
"""Nothing in the file depends on the day or on matplotlib's version string."""


class Drawn(NamedTuple):
    """A figure and the table of exactly what it shows."""

    figure: Figure
    data: pd.DataFrame


class MethodStyle(NamedTuple):
    """How a method is drawn in every figure."""

    color: str
    marker: str
    line: str
    filled: bool = True


_LOOKS = {
    "green": MethodStyle(GREEN, "v", ":"),
    "sky": MethodStyle(SKY, "D", "--"),
    "blue": MethodStyle(BLUE, "s", "-"),
    "orange": MethodStyle(ORANGE, "^", "--"),
    "vermillion": MethodStyle(VERMILLION, "o", "-"),
    "grey": MethodStyle(GREY, "X", "--"),
    "purple": MethodStyle(PURPLE, "P", "-."),
}
# In the order of the legend. Methods that share a figure have different looks; that
# holds for every figure in conf/base/parameters_reporting.yml (a test).
_METHODS = {
    "ddpo_sf": ("sky", "DDPO, score function"),
    "ddpo_is": ("blue", "DDPO, importance sampling"),
    "ddpo_2": ("green", "DDPO-2"),
    "ddpo_100": ("sky", "DDPO-100"),
    "ddpo_100_timestep_major": ("blue", "DDPO-100, timestep-major"),
    "ddpo_diffexp": ("orange", "DDPO with DiffExp"),
    "ddpo_diffexp_guidance": ("green", "DDPO, weak guidance at noisy steps"),
    "ddpo_diffexp_prompts": ("sky", "DDPO, weighted words"),
    "ddpo_low_guidance": ("grey", "DDPO, weak guidance at all steps"),
    "tdpo": ("orange", "TDPO"),
    "tdpo_r": ("vermillion", "TDPO-R"),
    "tdpo_reset_all": ("blue", "TDPO, all neurons reset"),
    "tdpo_reset_dormant": ("green", "TDPO, dormant neurons reset"),
    "tdpo_r_leaky_relu": ("sky", "TDPO-R, leaky ReLU"),
    "tdpo_policy_reset_dormant": ("purple", "TDPO, dormant policy neurons reset"),
    "tdpo_policy_reset_active": ("sky", "TDPO, active policy neurons reset"),
    "tdpo_kl": ("grey", "TDPO with KL"),
    "tdpo_no_critic": ("purple", "TDPO without its critic"),
    "tdpo_sample_major": ("sky", "TDPO, sample-major"),
    "tdpo_no_critic_sample_major": ("green", "TDPO without its critic, sample-major"),
    "tdpo_constrained": ("vermillion", "TDPO under constraints"),
    "tdpo_constrained_gain": ("blue", "TDPO, another reward has to rise"),
    "tdpo_misaligned_encoder": ("blue", "TDPO, another reward's encoder"),
    "rwr": ("grey", "RWR"),
    "rwr_sparse": ("purple", "RWR-sparse"),
    "rwr_no_cfg": ("green", "RWR, trained without guidance"),
    "rwr_sparse_no_cfg": ("green", "RWR-sparse, trained without guidance"),
    "alignprop_2023": ("grey", "AlignProp (2023)"),
    "alignprop_trl": ("purple", "AlignProp"),
    "alignprop_diffexp": ("vermillion", "AlignProp with DiffExp"),
    "alignprop_diffexp_guidance": ("green", "AlignProp, weak guidance at noisy steps"),
    "alignprop_diffexp_prompts": ("sky", "AlignProp, weighted words"),
    "alignprop_diffexp_800": ("sky", "AlignProp with DiffExp, threshold 800"),
    "alignprop_diffexp_700": ("green", "AlignProp with DiffExp, threshold 700"),
    "alignprop_low_guidance": ("grey", "AlignProp, weak guidance at all steps"),
}
# Neighbours differ in colour, marker and line, and no two of all 28 are alike.
_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
_MARKS = ((">", "-"), ("*", "-."), ("<", "--"), ("h", ":"))
_POOL = [MethodStyle(_COLORS[i % 7], *_MARKS[i % 4]) for i in range(28)]


_as_written: ContextVar[Mapping[str, MethodStyle] | None] = ContextVar(
    "as_written", default=None
)
_sampler_known: ContextVar[bool] = ContextVar("sampler_known", default=True)


@contextmanager
def names_as_written(
    methods: Iterable[str], *, sampler_known: bool = True
) -> Iterator[None]:
    """Inside the block methods are those of a table that others wrote.

    Others may call a method of theirs ``tdpo_r``: it keeps that name, and has no look
    that stands for another one.

    Args:
        methods: Their names. Up to 28 have looks of their own.
        sampler_known: Whether captions say with which sampler the images were drawn.
    """
    looks = dict(zip(sorted(set(methods)), cycle(_POOL), strict=False))
    tokens = _as_written.set(looks), _sampler_known.set(sampler_known)
    try:
        yield
    finally:
        _as_written.reset(tokens[0])
        _sampler_known.reset(tokens[1])


def sampler_text(text: str = "Sampler: eta 1.") -> str:
    """What a caption says of the sampler, after a space; nothing where none is known."""
    return f" {text}" if _sampler_known.get() else ""


def _listed() -> Mapping[str, tuple[str, str]]:
    """Look and label of the methods that have their own."""
    return _METHODS if _as_written.get() is None else {}


def method_style(method: str) -> MethodStyle:
    """Style of a method, the same in all figures.

    A variant that isn't listed, such as ``tdpo_r_paper``, takes its parent's colour and
    marker, hollow and dotted. Any other name takes a style that its letters pick, if
    ``names_as_written`` doesn't know it among others.
    """
    if own := (_as_written.get() or {}).get(method):
        return own
    listed = _listed()
    if method in listed:
        return _LOOKS[listed[method][0]]
    parents = [name for name in listed if method.startswith(f"{name}_")]
    if parents:
        parent = method_style(max(parents, key=len))
        return parent._replace(line=":", filled=False)
    return _POOL[zlib.crc32(method.encode()) % len(_POOL)]


def method_label(method: str) -> str:
    """Name of a method in figures; the configuration's own if it is not listed."""
    listed = _listed()
    return listed[method][1] if method in listed else method


def sort_methods(methods: Iterable[str]) -> list[str]:
    """Methods in the order of the legend: the listed ones first, then by name."""
    order = {name: position for position, name in enumerate(_listed())}
    return sorted(set(methods), key=lambda name: (order.get(name, len(order)), name))


def page(
    rows: int,
    cols: int,
    *,
    panel: tuple[float, float],
    legend: Sequence[Artist] = (),
    caption: str = "",
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels between a head and a foot.

    Args:
        rows: Rows of panels.
        cols: Columns of panels.
        panel: Width and height of a panel with its labels, in inches.
        legend: Entries of the legend that ``frame`` will put under the title.
        caption: Text that ``frame`` will write at the foot.
    """
    width = cols * panel[0]
    head = 0.42 + 0.23 * -(-len(legend) // legend_columns(legend, width))
    foot = caption_height(caption, width)
    height = rows * panel[1] + head + foot
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None  # "constrained" was asked for
    engine.set(  # type: ignore[call-arg]
        rect=(0, foot / height, 1, 1 - (head + foot) / height),
        w_pad=0.06,
        h_pad=0.06,
        wspace=0.03,
        hspace=0.03,
    )
    axes = figure.subplots(rows, cols, squeeze=False)
    for ax in axes.flat:
        _dress(ax)
    return figure, [list(row) for row in axes]


def panel_size(columns: int) -> tuple[float, float]:
    """Width and height of a panel of curves over queries, in inches."""
    return {1: (7.2, 3.6), 2: (4.8, 3.4)}.get(columns, (4.2, 3.2))


def legend_columns(legend: Sequence[Artist], width: float) -> int:
    """How many entries of a legend fit side by side in ``width`` inches, 1 to 4."""
    longest = max((len(str(entry.get_label())) for entry in legend), default=0)
    return max(1, min(_LEGEND_COLUMNS, int(width / (0.72 + 0.076 * longest))))


def _dress(ax: Axes) -> None:
    """Thin grid, no box."""
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TICK_SIZE, colors=INK)
    ax.margins(x=0.05, y=0.08)


def label(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title and axis labels of a panel."""
    ax.set_title(title, fontsize=LABEL_SIZE, loc="left", color=INK)
    ax.set_xlabel(x, fontsize=LABEL_SIZE, color=INK)
    ax.set_ylabel(y, fontsize=LABEL_SIZE, color=INK)


_NO_SCALES: Mapping[str, Mapping[str, float]] = MappingProxyType({})
_paper_scales: ContextVar[Mapping[str, Mapping[str, float]]] = ContextVar(
    "paper_scales", default=_NO_SCALES
)


@contextmanager
def paper_scales(scales: Mapping[str, Mapping[str, float]]) -> Iterator[None]:
    """Inside the block these rewards are drawn with an axis in their papers' units too.

    Args:
        scales: ``factor`` and ``offset`` of each reward whose paper has other units, as
            the ``attrs["paper_scale"]`` of a table of scores keeps them.
    """
    token = _paper_scales.set(scales)
    try:
        yield
    finally:
        _paper_scales.reset(token)


def paper_axes(ax: Axes, *, x: str = "", y: str = "") -> None:
    """Axes in the units of the rewards' papers, opposite their own, where these differ.

    Args:
        ax: A panel whose axes are in the rewards' own units.
        x: The reward along x, if it is one.
        y: The reward along y, likewise.
    """
    scales = _paper_scales.get()
    text = "{}, as in its paper"
    look: dict[str, Any] = {"fontsize": LABEL_SIZE, "color": INK}
    if x in scales:
        top = ax.secondary_xaxis("top", functions=_affine(**scales[x]))
        top.set_xlabel(text.format(x), **look)
        top.tick_params(labelsize=TICK_SIZE, colors=INK)
    if y in scales:
        right = ax.secondary_yaxis("right", functions=_affine(**scales[y]))
        right.set_ylabel(text.format(y), **look)
        right.tick_params(labelsize=TICK_SIZE, colors=INK)


def _affine(
    factor: float, offset: float
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The map of values to ``factor * value + offset``, and back."""
    return lambda v: factor * v + offset, lambda v: (v - offset) / factor


def band(
    ax: Axes, rows: pd.DataFrame, style: MethodStyle, x: str, *, filled: bool = True
) -> None:
    """A curve with its interval as a band; columns ``x``, mean, low, high.

    Args:
        ax: Where to draw.
        rows: The curve's points, in any order.
        style: Look of the curve.
        x: Column of the positions.
        filled: Whether there is a band; without it there is the curve alone.
    """
    rows = rows.sort_values(x)
    every = max(1, len(rows) // 10)
    ax.plot(rows[x], rows["mean"], **_line(style), markevery=every)
    if filled:
        look: dict[str, Any] = {"color": style.color, "alpha": 0.16, "linewidth": 0}
        ax.fill_between(rows[x], rows["low"], rows["high"], **look)


def points(
    ax: Axes,
    x: Sequence[float] | pd.Series,
    y: pd.DataFrame,
    style: MethodStyle,
    *,
    line_width: float = LINE_WIDTH,
    barred: bool = True,
) -> None:
    """A curve over checkpoints with intervals as bars.

    Args:
        ax: Where to draw.
        x: Positions of the checkpoints, in order of training.
        y: Columns mean, low, high.
        style: Look of the curve.
        line_width: Width of the curve, in points.
        barred: Whether there are bars; without them there is the curve alone.
    """
    if barred:
        cross_bars(ax, x, y, style)
    ax.plot(x, y["mean"], **_line(style) | {"linewidth": line_width})


def cross_bars(
    ax: Axes,
    x: Sequence[float] | pd.Series,
    y: pd.DataFrame,
    style: MethodStyle,
    x_bars: pd.DataFrame | None = None,
) -> None:
    """Intervals of points as pale bars, behind the curves.

    Args:
        ax: Where to draw.
        x: Positions of the points.
        y: Columns mean, low, high.
        style: Look of the points' curve.
        x_bars: Columns mean, low, high of the positions, if they have an interval.
    """
    ax.errorbar(
        list(x),
        y["mean"],
        yerr=reach(y),
        xerr=None if x_bars is None else reach(x_bars),
        fmt="none",
        ecolor=style.color,
        elinewidth=1.2,
        alpha=0.4,
        zorder=1.5,
    )


def bars(
    ax: Axes, x: np.ndarray, rows: pd.DataFrame, style: MethodStyle, width: float
) -> None:
    """Bars from 0 with their intervals.

    Args:
        ax: Where to draw.
        x: Middles of the bars.
        rows: Columns mean, low, high.
        style: Look; a style that isn't filled is hollow.
        width: Width of a bar.
    """
    ax.bar(
        x,
        rows["mean"],
        width=0.9 * width,
        color=style.color if style.filled else "white",
        edgecolor=style.color,
        alpha=0.85,
    )
    lengths = reach(rows)
    ax.errorbar(
        x, rows["mean"], yerr=lengths, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2
    )


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn the interval of a change into one around the level.

    Args:
        rows: Columns base_mean, and low and high of the change since the base model.

    Returns:
        The rows with the base model's mean added to low and high.
    """
    return rows.assign(
        low=rows["base_mean"] + rows["low"], high=rows["base_mean"] + rows["high"]
    )


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the change in base standard deviations into mean, low and high.

    Args:
        rows: Of ``reward_curves``.

    Returns:
        The rows; NaN where a reward does not vary on the base model.
    """
    found = in_base_sd(rows).drop(columns=["mean", "low", "high"])
    return found.rename(
        columns={"difference_sd": "mean", "low_sd": "low", "high_sd": "high"}
    )


def whole_numbers(most: int) -> MaxNLocator:
    """Ticks at whole numbers, about ``most`` of them."""
    return MaxNLocator(most, integer=True)


def reach(rows: pd.DataFrame) -> np.ndarray:
    """Bar lengths (2, n) below and above; NaN draws no bar."""
    below, above = rows["mean"] - rows["low"], rows["high"] - rows["mean"]
    lengths = np.stack([below.to_numpy(float), above.to_numpy(float)])
    # The interval of what hardly varies may miss its mean by a rounding error.
    return np.where(np.abs(lengths) < 1e-6, np.abs(lengths), lengths)


def _line(style: MethodStyle) -> dict[str, Any]:
    return {
        "color": style.color,
        "marker": style.marker,
        "linestyle": style.line,
        "linewidth": LINE_WIDTH,
        "markersize": 5.5,
        "markerfacecolor": style.color if style.filled else "white",
        "markeredgecolor": style.color,
    }


def handles(methods: Iterable[str], *, lines: bool = True) -> list[Artist]:
    """Legend entries of the methods, for curves or (without ``lines``) for bars."""
    names = sort_methods(methods)
    if not lines:
        looks = {name: method_style(name) for name in names}
        return [
            Patch(
                facecolor=look.color if look.filled else "white",
                edgecolor=look.color,
                alpha=0.85,
                label=method_label(name),
            )
            for name, look in looks.items()
        ]
    return [handle(method_label(name), method_style(name)) for name in names]


def handle(label: str, style: MethodStyle, line_width: float = LINE_WIDTH) -> Artist:
    """A legend entry of a curve."""
    return Line2D([], [], label=label, **_line(style) | {"linewidth": line_width})


def frame(
    figure: Figure,
    *,
    title: str,
    caption: str,
    legend: Sequence[Artist] = (),
    stamp: str = "",
    enlarged: float = 1,
) -> None:
    """Title, legend, caption, and a stamp at the upper right.

    Args:
        figure: The figure.
        title: What it shows, on the first line.
        caption: Sample sizes and what the intervals are, at the foot.
        legend: Legend entries, under the title.
        stamp: Such as "one seed" (see ``seed_stamp``); none if empty.
        enlarged: How much larger than usual the letters are, on a page so wide that it
            will be shown smaller.
    """
    # Of the figure as it would be with letters of the usual size.
    width, height = figure.get_size_inches() / enlarged
    top = 1 - 0.1 / height
    left = 0.1 / width
    figure.text(
        left,
        top,
        title,
        fontsize=TITLE_SIZE * enlarged,
        weight="bold",
        va="top",
        color=INK,
    )
    if legend:
        figure.legend(
            handles=list(legend),
            loc="upper left",
            bbox_to_anchor=(left, 1 - 0.33 / height),
            ncols=legend_columns(legend, width),
            frameon=False,
            fontsize=LABEL_SIZE * enlarged,
            handlelength=3.0,
            columnspacing=1.4,
            borderaxespad=0,
        )
    figure.text(
        left,
        0.07 / height,
        _wrap(caption, width),
        fontsize=CAPTION_SIZE * enlarged,
        va="bottom",
        color=INK,
    )
    if stamp:
        figure.text(
            1 - 0.13 / width,
            1 - 0.12 / height,
            stamp,
            fontsize=LABEL_SIZE * enlarged,
            weight="bold",
            color=VERMILLION,
            ha="right",
            va="top",
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": VERMILLION},
        )


def drawn(
    figure: Figure,
    data: pd.DataFrame,
    *,
    title: str,
    caption: str,
    legend: Sequence[Artist],
) -> Drawn:
    """Frame a figure of curves or bars, and put it beside its data.

    Args:
        figure: The figure.
        data: What it shows, with the columns of ``seed_stamp``.
        title: As for ``frame``.
        caption: As for ``frame``.
        legend: As for ``frame``.
    """
    stamp = seed_stamp(data)
    frame(figure, title=title, caption=caption, legend=legend, stamp=stamp)
    return Drawn(figure, data)


def _wrap(caption: str, width: float) -> str:
    """Break a caption into lines of a figure of ``width`` inches, never before a %."""
    return textwrap.fill(caption.replace(" %", "\u00a0%"), width=int(width * 15.5))


def caption_height(caption: str, width: float, enlarged: float = 1) -> float:
    """Height of a caption in a figure of ``width`` inches, with air, in inches."""
    lines = _wrap(caption, width / enlarged).count("\n") + 1
    return enlarged * (0.17 + 0.155 * lines) if caption else 0.0


def seed_stamp(rows: pd.DataFrame) -> str:
    """The text "one seed" if that is all there is; of some methods, how many, or on what.

    Args:
        rows: A figure's data, with the columns method and n_seeds, and with reward if it
            shows several trained rewards.
    """
    if not (rows["n_seeds"] == 1).any():
        return ""
    if (rows["n_seeds"] == 1).all():
        return "one seed"
    whole, others = _by_seeds(rows, 1)
    single = others.loc[others["n_seeds"] == 1, "method"].nunique()
    some = [f"{single} of {others['method'].nunique()}"] * bool(single)
    return f"one seed: {', '.join([*some, *(f'on {name}' for name in whole)])}"


def _by_seeds(rows: pd.DataFrame, seeds: int) -> tuple[list[str], pd.DataFrame]:
    """Trained rewards of which every method rests on so many seeds; rows of the rest.

    Where that is so of all rewards, none is told apart.
    """
    rows = rows if "reward" in rows else rows.assign(reward="")
    numbers = rows.groupby("reward")["n_seeds"].agg(["min", "max"])
    alike = (numbers == seeds).all(axis=1)
    whole = [] if alike.all() else list(numbers.index[alike])
    return whole, rows[~rows["reward"].isin(whole)]


def seeds_text(rows: pd.DataFrame) -> str:
    """Number of training seeds behind the curves, and who has fewer, in words."""
    *fewer, most = sorted(rows["n_seeds"].unique())
    if not fewer:
        return f"{_count(most)} training {_plural('seed', [most])} per method"
    whose = {_count(number): _with_seeds(rows, number) for number in fewer}
    listed = [
        f"{number}: {'; '.join(names)}" for number, names in whose.items() if names
    ]
    text = f"{fewer[0]} to {most} training seeds per method"
    return f"{text} ({'; '.join(listed)})"


def _with_seeds(rows: pd.DataFrame, seeds: int) -> list[str]:
    """Whose curves rest on ``seeds`` training seeds where they have the fewest."""
    whole, others = _by_seeds(rows, seeds)
    fewest = others.groupby(["method", "reward"])["n_seeds"].min()
    names = []
    for method in sort_methods(others["method"]):
        own = fewest.loc[method]
        on = own.index[own == seeds]
        where = "" if len(on) == len(own) else f" on {' and '.join(on)}"
        names += [f"{method_label(method)}{where}"] * bool(len(on))
    return [*names, *(f"all on {name}" for name in whole)]


def _count(number: int) -> str:
    return "one" if number == 1 else str(number)


def _plural(noun: str, counts: Sequence[float]) -> str:
    return noun if list(counts) == [1] else f"{noun}s"


def over_text(rows: pd.DataFrame) -> str:
    """What the intervals of paired differences cover, in words."""
    if rows["n_seeds"].max() == 1:
        return "over prompts (not over seeds)"
    if rows["n_seeds"].min() == 1:
        return "over prompts and, where there are several, seeds"
    return "over prompts and seeds"


def images_text(rows: pd.DataFrame) -> str:
    """Prompts and images a prompt behind each point, in words."""
    return f"{sizes_text(rows)} per checkpoint"


def sizes_text(rows: pd.DataFrame) -> str:
    """Prompts and images a prompt, such as "8 prompts x 4 images"."""
    each = rows["n_images"] / rows["n_seeds"] / rows["n_prompts"]
    images = sorted(each.round(1).unique())
    prompts = sorted(rows["n_prompts"].unique())
    return (
        f"{_or(map(str, prompts))} {_plural('prompt', prompts)} x "
        f"{_or(f'{value:g}' for value in images)} {_plural('image', images)}"
    )


def _or(values: Iterable[str]) -> str:
    return " or ".join(values)


def sentence(text: str) -> str:
    """A text with its first letter large."""
    return text[:1].upper() + text[1:]


def notice(title: str, text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    width = 7.5
    lines = textwrap.fill(text, width=int(width * 13))
    height = 0.35 + 0.19 * (lines.count("\n") + 1)
    figure, axes = page(1, 1, panel=(width, height))
    ax = axes[0][0]
    ax.axis("off")
    how: dict[str, Any] = {"va": "top", "transform": ax.transAxes, "in_layout": False}
    ax.text(0.005, 1, lines, fontsize=LABEL_SIZE, color=INK, **how)
    frame(figure, title=title, caption="")
    return figure


def left_out(wanted: pd.DataFrame, shown: pd.DataFrame, why: str) -> str:
    """What a caption ends with of trained rewards that its figure has nothing of.

    Args:
        wanted: A table of all trained rewards (column ``reward``).
        shown: That of the figure.
        why: Why they are left out.
    """
    missing = sorted(set(wanted["reward"]) - set(shown["reward"]))
    return f" {why}: {', '.join(missing)}." if missing else ""


def remark(ax: Axes, text: str) -> None:
    """Say in a panel why it is empty."""
    how: dict[str, Any] = {"ha": "center", "va": "center", "transform": ax.transAxes}
    lines = textwrap.fill(text, _REMARK_LETTERS)
    ax.text(0.5, 0.5, lines, fontsize=LABEL_SIZE, color=INK, **how)


def remedy(change: str) -> str:
    """What to do about a figure that lacks something, whatever the environment.

    Args:
        change: What to change, up to where.
    """
    return (
        f"{change} in the parameters file of the environment, then run its pipeline again "
        "(the study: dvc repro --allow-missing)."
    )


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure so that equal figures give equal bytes."""
    figure.savefig(path, format="png", metadata=PNG_METADATA)
