"""One look for all figures: a colour, marker and line per method, frame and caption.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and
line styles tell the methods apart in grey print too.
"""

from __future__ import annotations

import os
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
LEGEND_COLUMNS = 4

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


_STYLES = {
    "ddpo_2": MethodStyle(GREEN, "v", ":"),
    "ddpo_100": MethodStyle(SKY, "D", "--"),
    "ddpo_100_timestep_major": MethodStyle(BLUE, "s", "-"),
    "tdpo": MethodStyle(ORANGE, "^", "--"),
    "tdpo_r": MethodStyle(VERMILLION, "o", "-"),
    "rwr": MethodStyle(GREY, "X", "--"),
    "alignprop": MethodStyle(PURPLE, "P", "-."),
}
_LABELS = {
    "ddpo_2": "DDPO-2",
    "ddpo_100": "DDPO-100",
    "ddpo_100_timestep_major": "DDPO-100, timestep-major",
    "tdpo": "TDPO",
    "tdpo_r": "TDPO-R",
    "rwr": "RWR",
    "alignprop": "AlignProp",
}
_POOL = [
    MethodStyle(color, marker, line)
    for marker, line in (("*", "-."), ("h", ":"), ("<", "--"), (">", "-"))
    for color in (PURPLE, GREY, GREEN, SKY, ORANGE, BLUE, VERMILLION)
]


def method_style(method: str) -> MethodStyle:
    """Style of a method, the same in all figures.

    A variant such as ``tdpo_r_paper`` takes its parent's colour and marker, hollow
    and dotted. A name that is not listed takes a style that its letters pick.
    """
    if method in _STYLES:
        return _STYLES[method]
    parents = [name for name in _STYLES if method.startswith(f"{name}_")]
    if parents:
        parent = _STYLES[max(parents, key=len)]
        return parent._replace(line=":", filled=False)
    return _POOL[zlib.crc32(method.encode()) % len(_POOL)]


def method_label(method: str) -> str:
    """Name of a method in figures; the configuration's own if it is not listed."""
    return _LABELS.get(method, method)


def sort_methods(methods: Iterable[str]) -> list[str]:
    """Methods in the order of the legend: the listed ones first, then by name."""
    order = {name: position for position, name in enumerate(_STYLES)}
    return sorted(set(methods), key=lambda name: (order.get(name, len(order)), name))


def page(
    rows: int,
    cols: int,
    *,
    panel: tuple[float, float],
    legend: int = 0,
    caption: str = "",
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels between a head and a foot.

    Args:
        rows: Rows of panels.
        cols: Columns of panels.
        panel: Width and height of a panel with its labels, in inches.
        legend: Entries of the legend, which stands under the title.
        caption: Text that ``frame`` will write at the foot.
    """
    head = 0.42 + 0.23 * -(-legend // LEGEND_COLUMNS)
    foot = caption_height(caption, cols * panel[0])
    width, height = cols * panel[0], rows * panel[1] + head + foot
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


def band(ax: Axes, rows: pd.DataFrame, style: MethodStyle, x: str) -> None:
    """A curve with its interval as a band; columns ``x``, mean, low, high."""
    rows = rows.sort_values(x)
    every = max(1, len(rows) // 10)
    ax.plot(rows[x], rows["mean"], **_line(style), markevery=every)
    ax.fill_between(
        rows[x], rows["low"], rows["high"], color=style.color, alpha=0.16, linewidth=0
    )


def points(
    ax: Axes,
    x: Sequence[float] | pd.Series,
    y: pd.DataFrame,
    style: MethodStyle,
    *,
    x_bars: pd.DataFrame | None = None,
) -> None:
    """A curve over checkpoints with intervals as bars.

    Args:
        ax: Where to draw.
        x: Positions of the checkpoints, in order of training.
        y: Columns mean, low, high.
        style: Look of the curve.
        x_bars: Columns mean, low, high of the positions, if they have an interval.
    """
    ax.errorbar(
        x,
        y["mean"],
        yerr=_reach(y),
        xerr=None if x_bars is None else _reach(x_bars),
        fmt="none",
        ecolor=style.color,
        elinewidth=1.2,
        alpha=0.4,
        zorder=1.5,
    )
    ax.plot(x, y["mean"], **_line(style))


def _reach(rows: pd.DataFrame) -> np.ndarray:
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
        "linewidth": 1.6,
        "markersize": 5.5,
        "markerfacecolor": style.color if style.filled else "white",
        "markeredgecolor": style.color,
    }


def handles(methods: Iterable[str]) -> list[Artist]:
    """Legend entries of the methods."""
    return [
        Line2D([], [], label=method_label(name), **_line(method_style(name)))
        for name in sort_methods(methods)
    ]


def frame(
    figure: Figure,
    *,
    title: str,
    caption: str,
    legend: Sequence[Artist] = (),
    stamp: str = "",
) -> None:
    """Title, legend, caption, and a stamp at the upper right.

    Args:
        figure: The figure.
        title: What it shows, on the first line.
        caption: Sample sizes and what the intervals are, at the foot.
        legend: Legend entries, under the title.
        stamp: Such as "one seed" (see ``seed_stamp``); none if empty.
    """
    width, height = figure.get_size_inches()
    top = 1 - 0.1 / height
    left = 0.1 / width
    figure.text(
        left, top, title, fontsize=TITLE_SIZE, weight="bold", va="top", color=INK
    )
    if legend:
        figure.legend(
            handles=list(legend),
            loc="upper left",
            bbox_to_anchor=(left, 1 - 0.33 / height),
            ncols=LEGEND_COLUMNS,
            frameon=False,
            fontsize=LABEL_SIZE,
            handlelength=3.0,
            columnspacing=1.4,
            borderaxespad=0,
        )
    figure.text(
        left,
        0.07 / height,
        _wrap(caption, width),
        fontsize=CAPTION_SIZE,
        va="bottom",
        color=INK,
    )
    if stamp:
        figure.text(
            1 - 0.13 / width,
            1 - 0.12 / height,
            stamp,
            fontsize=LABEL_SIZE,
            weight="bold",
            color=VERMILLION,
            ha="right",
            va="top",
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": VERMILLION},
        )


def _wrap(caption: str, width: float) -> str:
    """Break a caption into lines of a figure of ``width`` inches."""
    return textwrap.fill(caption, width=int(width * 15.5))


def caption_height(caption: str, width: float) -> float:
    """Height of a caption in a figure of ``width`` inches, with air, in inches."""
    lines = _wrap(caption, width).count("\n") + 1
    return 0.17 + 0.155 * lines if caption else 0.0


def seed_stamp(rows: pd.DataFrame) -> str:
    """The text "one seed" where a method rests on a single one; its name if not all do.

    Args:
        rows: A figure's data, with the columns method and n_seeds.
    """
    single = sort_methods(rows.loc[rows["n_seeds"] == 1, "method"])
    if not single:
        return ""
    if len(single) == rows["method"].nunique():
        return "one seed"
    return "one seed: " + ", ".join(method_label(name) for name in single)


def seeds_text(rows: pd.DataFrame) -> str:
    """Number of training seeds behind the curves, in words."""
    numbers = sorted(rows["n_seeds"].unique())
    if numbers == [1]:
        return "one training seed per method"
    span = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
    return f"{span} training seeds per method"


def over_text(rows: pd.DataFrame) -> str:
    """What the intervals of paired differences cover, in words."""
    if rows["n_seeds"].max() == 1:
        return "over prompts (not over seeds)"
    return "over prompts and seeds"


def images_text(rows: pd.DataFrame) -> str:
    """Prompts and images a prompt behind each point, in words."""
    each = rows["n_images"] / rows["n_seeds"] / rows["n_prompts"]
    counts = sorted({f"{value:g}" for value in each.round(1)}, key=float)
    prompts = sorted(rows["n_prompts"].unique())
    return f"{_or(map(str, prompts))} prompts x {_or(counts)} images per checkpoint"


def _or(values: Iterable[str]) -> str:
    return " or ".join(values)


def notice(title: str, text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, axes = page(1, 1, panel=(6.5, 1.0))
    axes[0][0].axis("off")
    axes[0][0].text(0, 0.6, text, fontsize=LABEL_SIZE, color=INK, in_layout=False)
    frame(figure, title=title, caption="")
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure so that equal figures give equal bytes."""
    figure.savefig(path, format="png", metadata=PNG_METADATA)
