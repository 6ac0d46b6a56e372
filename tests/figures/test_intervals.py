"""Where intervals stand: beside the curves' ends, and cut at a panel's edges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP

from tdpo_pipeline.figures import intervals, style


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # Equal ends: one and a half steps beyond, then a step apart, in their order.
        ([1.0, 1.0, 1.0], [1.15, 1.25, 1.35]),
        # Far from each other: each beside its own, whatever the order.
        ([2.0, 1.0], [2.15, 1.15]),
        # The second end is where the first one's bar stands, and makes room for it.
        ([1.0, 1.15, 3.0], [1.15, 1.30, 3.15]),
        ([1.0, 1.05, 3.0], [1.15, 1.25, 3.15]),
        ([], []),
    ],
)
def test_bars_stand_beside_the_ends(ends: list[float], expected: list[float]) -> None:
    assert intervals.beside(ends, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ends", "width"),
    [
        # n bars end 0.1 (n + 0.5) of the width beyond, and 0.05 of it stays free:
        # width = 1 / (1 - 0.1 (n + 1)).
        ([1.0], 1 / 0.8),
        ([1.0, 1.0, 1.0], 1 / 0.6),
        # The last end alone makes the width: 1 / 0.8 > 0.2 / 0.7
        ([0.2, 1.0], 1 / 0.8),
        # The pair: 0.95 / 0.7 > 1 / 0.8
        ([0.95, 1.0], 0.95 / 0.7),
    ],
)
def test_a_panel_is_as_wide_as_its_bars_need(ends: list[float], width: float) -> None:
    assert intervals.widened(ends, 0.1) == pytest.approx(width)
    places = intervals.beside(np.array(ends) / width, 0.1)
    assert max(places) == pytest.approx(0.95)


def curve(method: str, *, x: list[float], half: float) -> intervals.Curve:
    rows = pd.DataFrame({"x": x, "mean": np.arange(len(x), dtype=float)})
    rows = rows.assign(low=rows["mean"] - half, high=rows["mean"] + half)
    return intervals.Curve(rows, style.method_style(method))


def panel(curves: list[intervals.Curve]) -> Axes:
    _, axes = style.page(1, 1, panel=(4.8, 3.5))
    for rows, look in curves:
        style.points(axes[0][0], rows["x"], rows, look, barred=False)
    return axes[0][0]


def bars_of(ax: Axes) -> list[np.ndarray]:
    """Ends (2, 2) of the vertical bars."""
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [segment for c in bars for segment in c.get_segments()]


def share_of_width(ax: Axes, x: float) -> float:
    """Where ``x`` is, in parts of the panel's width."""
    return ax.transAxes.inverted().transform(ax.transData.transform((x, 0)))[0]


def test_bars_at_the_end_lie_apart_in_order_and_in_the_panel() -> None:
    curves = [
        curve(name, x=[0, 50, 100], half=half)
        for name, half in (("ddpo_2", 5), ("tdpo", 6), ("tdpo_r", 7), ("rwr", 8))
    ]
    ax = panel(curves)
    intervals.end_bars(ax, "x", curves)
    found = bars_of(ax)
    assert [bar[:, 1].tolist() for bar in found] == [
        [2 - h, 2 + h] for h in (5, 6, 7, 8)
    ]
    places = [bar[0, 0] for bar in found]  # in parts of the panel's width
    assert np.diff(places) == pytest.approx([0.016] * 3)
    assert places[0] == pytest.approx(share_of_width(ax, 100) + 0.024)
    assert places[-1] < 1
    # Each has its curve's marker at the mean, and the axis fits all of them.
    marked = {
        line.get_marker(): line.get_ydata()[0]
        for line in ax.lines
        if line.get_markersize() == 3.5
    }
    assert marked == {"v": 2, "^": 2, "o": 2, "X": 2}
    assert ax.get_ylim()[0] < -6 and ax.get_ylim()[1] > 10
    assert max(ax.get_xticks()) <= 100 < ax.get_xlim()[1]


def test_bars_at_the_end_follow_the_scale_of_the_axis() -> None:
    curves = [curve("tdpo", x=[0, 100], half=1), curve("rwr", x=[0, 25], half=1)]
    ax = panel(curves)
    ax.set_xscale("function", functions=(np.sqrt, np.square))
    ax.set_xlim(left=0)
    intervals.end_bars(ax, "x", curves)
    first, second = (bar[0, 0] for bar in bars_of(ax))
    # The curves end at 10 and 5 of a width in roots.
    width = ax.get_xlim()[1] ** 0.5
    assert (first, second) == pytest.approx((10 / width + 0.024, 5 / width + 0.024))


def test_bars_of_very_many_curves_leave_room_for_the_curves() -> None:
    curves = [curve("tdpo", x=[0, 100], half=1)] * 100
    ax = panel(curves)
    intervals.end_bars(ax, "x", curves)
    places = [bar[0, 0] for bar in bars_of(ax)]
    assert len(places) == 100 and 0.5 < places[0] < places[-1] < 1


def test_the_last_point_has_the_bar_and_one_without_interval_has_none() -> None:
    # The last checkpoint is nearer to the base model than the one before.
    back = curve("tdpo", x=[0, 60, 40], half=1)
    without = curve("rwr", x=[0, 60, 60], half=np.nan)
    ax = panel([back, without])
    intervals.end_bars(ax, "x", [back, without])
    (bar,) = bars_of(ax)
    assert bar[:, 1].tolist() == [1, 3]
    assert bar[0, 0] < share_of_width(ax, 60)
    ax = panel([without])
    intervals.end_bars(ax, "x", [without])
    assert not bars_of(ax)


def test_bars_beyond_the_panel_end_in_an_arrow() -> None:
    ax = panel([curve("tdpo", x=[0, 1, 2], half=1)])
    ax.set(xlim=(-1, 3), ylim=(-1, 3))
    x = pd.DataFrame({"mean": [0.0, 2.0], "low": [-5.0, 1.5], "high": [0.5, 9.0]})
    y = pd.DataFrame({"mean": [0.0, 2.0], "low": [-9.0, -0.5], "high": [0.5, 7.0]})
    intervals.cut_bars(ax, x, y, style.method_style("tdpo"))
    arrows = {
        line.get_marker(): [list(map(float, v)) for v in line.get_data()]
        for line in ax.lines
        if isinstance(line.get_marker(), int) and len(line.get_xdata())
    }
    assert arrows == {
        CARETDOWN: [[0.0], [-1.0]],
        CARETUP: [[2.0], [3.0]],
        CARETLEFT: [[-1.0], [0.0]],
        CARETRIGHT: [[3.0], [2.0]],
    }
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 3), (-1, 3))


def test_more_than_three_methods_on_a_reward_are_a_crowd() -> None:
    three = pd.DataFrame({"method": list("abc"), "reward": "x"})
    other = pd.DataFrame({"method": list("cd"), "reward": "y"})
    assert not intervals.crowded(pd.concat([three, other]))
    assert intervals.crowded(pd.concat([three, other.assign(reward="x")]))
    assert intervals.where_text(three, "Bands") == "Bands"
    four = pd.concat([three, other.assign(reward="x")])
    assert intervals.where_text(four, "Bands") == (
        "Bars, beside the curves' ends (the table has all)"
    )
