"""Where the intervals of a panel's curves stand, so that each can be told, and its words.

A few curves have theirs all along. Those of many would lie on each other: they have them
once, at the last point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP

from tdpo_pipeline.figures import style

MOST_BARRED = 3
"""Curves of a panel whose intervals leave each other to be seen."""

BOUNDS = ["mean", "low", "high"]

# In parts of the panel's width.
_STEP = 0.016  # between bars side by side: some 5 points
_MOST = 0.4  # of all bars that stand side by side


class Curve(NamedTuple):
    """A curve of a panel.

    Attributes:
        rows: Its points in order of training: columns of positions, mean, low, high.
        look: How it looks.
    """

    rows: pd.DataFrame
    look: style.MethodStyle


def crowded(data: pd.DataFrame) -> bool:
    """Whether there are so many methods that intervals all along hide the curves.

    Args:
        data: A figure's data, with the columns method and reward.
    """
    return bool(data.groupby("reward")["method"].nunique().max() > MOST_BARRED)


def of_methods(data: pd.DataFrame) -> list[Curve]:
    """The curve of each method in a panel's data, in the order of the legend."""
    return [
        Curve(data[data["method"] == method], style.method_style(method))
        for method in style.sort_methods(data["method"])
    ]


def end_bars(ax: Axes, x: str, curves: Sequence[Curve]) -> None:
    """Intervals of the curves' last points, side by side beyond their ends.

    Each has its curve's marker at the mean. Makes room for them at the right, where
    there are no ticks; the axis' scale, locator and left end come before.

    Args:
        ax: A panel with the curves.
        x: Column of the positions.
        curves: The curves; bars whose ends coincide stand in this order.
    """
    curves = [curve for curve in curves if len(curve.rows)]
    ends = [(rows.iloc[-1][[x, *BOUNDS]].astype(float), look) for rows, look in curves]
    ends = [(end, look) for end, look in ends if np.isfinite(end).all()]
    if not ends:
        return
    scale = ax.xaxis.get_transform()
    left, right = ax.get_xlim()
    at = np.array([left, right, *(end[x] for end, _ in ends)])
    start, stop, *reached = scale.transform(at)
    lengths = np.array(reached) - start
    step = min(_STEP, _MOST / len(ends))
    width = max(stop - start, widened(lengths, step))
    ax.set_xlim(left, scale.inverted().transform(np.array([start + width]))[0])
    last = np.nanmax([rows[x].max() for rows, _ in curves])
    ax.set_xticks([tick for tick in ax.get_xticks() if left <= tick <= last])
    places = beside(lengths / width, step)
    for place, (end, look) in zip(places, ends, strict=True):
        ax.errorbar(
            [place],
            [end["mean"]],
            yerr=style.reach(end.to_frame().T),
            transform=ax.get_yaxis_transform(),
            color=look.color,
            marker=look.marker,
            markersize=3.5,
            markerfacecolor=look.color if look.filled else "white",
            elinewidth=1.1,
            capsize=1.8,
            zorder=2.5,
        )


def beside(ends: Sequence[float] | np.ndarray, step: float) -> list[float]:
    """Places for the bars of curves that end at ``ends``: beyond, ``step`` apart at least.

    In the order of the ends, and of equal ends in theirs; one and a half steps from a
    curve's end, where its last marker is.
    """
    places, last = dict[int, float](), -np.inf
    for index in np.argsort(ends, kind="stable"):
        last = places[int(index)] = max(float(ends[index]) + step / 2, last) + step
    return [places[index] for index in range(len(ends))]


def widened(ends: Sequence[float] | np.ndarray, step: float) -> float:
    """The least width of a panel that holds the bars of curves that end at ``ends``.

    Args:
        ends: From the panel's left edge.
        step: Between bars, in parts of the width; half of it stays free at the right.
    """
    # As in `beside`, the last bar is n and a half steps beyond the n-th last end, for the
    # n that brings it farthest.
    ordered = np.sort(ends)
    steps = np.arange(len(ordered), 0, -1) + 1
    return float((ordered / (1 - step * steps)).max())


def cut_bars(
    ax: Axes, x: pd.DataFrame, y: pd.DataFrame, look: style.MethodStyle
) -> None:
    """Bars both ways that end at the panel's edges, with an arrow where they go on.

    The panel's limits come before, and are kept.

    Args:
        ax: A panel with the curve.
        x: Columns mean, low, high of the positions.
        y: Columns mean, low, high.
        look: Look of the curve.
    """
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.set(xlim=(left, right), ylim=(bottom, top), autoscale_on=False)
    style.cross_bars(ax, x["mean"], y, look, x_bars=x)
    arrows: dict[str, Any] = {"color": look.color, "ms": 4.5, "ls": "", "zorder": 1.6}
    for marker, edge, beyond in (
        (CARETDOWN, bottom, y["low"] < bottom),
        (CARETUP, top, y["high"] > top),
    ):
        at = x.loc[beyond, "mean"]
        ax.plot(at, np.full(len(at), edge), marker=marker, **arrows)
    for marker, edge, beyond in (
        (CARETLEFT, left, x["low"] < left),
        (CARETRIGHT, right, x["high"] > right),
    ):
        at = y.loc[beyond, "mean"]
        ax.plot(np.full(len(at), edge), at, marker=marker, **arrows)


def where_text(
    data: pd.DataFrame, all_along: str = "Bars", at: str = "beside the curves' ends"
) -> str:
    """How a caption begins to say what the intervals are.

    Args:
        data: The figure's data.
        all_along: What a curve's intervals are when it has them all.
        at: Where the bars of crowded curves are.
    """
    return f"Bars, {at} (the table has all)" if crowded(data) else all_along


def change_text(data: pd.DataFrame, *, as_level: bool = False) -> str:
    """What the intervals of evaluated checkpoints are, in words.

    Args:
        data: The figure's data.
        as_level: Whether they are drawn around levels rather than changes.
    """
    text = (
        "95 % interval of the change since the base model, paired by prompt and noise, "
        f"{style.over_text(data)}"
    )
    added = "added to the base model's mean, so that it may leave the reward's range"
    return f"{text}; {added}" if as_level else text
