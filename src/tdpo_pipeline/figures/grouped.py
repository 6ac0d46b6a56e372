"""Curves over reward queries in a panel per trained reward and prompt group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.tables import group_label

COLUMNS = (
    *("method", "reward", "group", "scored", "epoch", "reward_queries"),
    *(*intervals.BOUNDS, "n_seeds", "n_prompts", "n_images"),
)
"""Of the data of such a figure."""


def by_group(
    data: pd.DataFrame,
    groups: Sequence[str],
    dress: Callable[[Axes, pd.DataFrame], None],
    *,
    title: str,
    caption: str,
) -> style.Drawn:
    """Draw every method's curve of each trained reward and group.

    Args:
        data: The columns ``COLUMNS``: a row per method, reward, group and epoch.
        groups: Prompt groups, in order; one that is not in the data has no panel.
        dress: Labels a panel; it is given the panel and its rows, before the bars that
            stand beside crowded curves.
        title: Title of the figure.
        caption: Its caption.
    """
    panels = _panels(data, groups)
    legend = style.handles(data["method"])
    figure, axes = style.page(
        len(panels),
        len(panels[0]),
        panel=style.panel_size(len(panels[0])),
        legend=legend,
        caption=caption,
    )
    for line, names in zip(axes, panels, strict=True):
        for ax, (reward, group) in zip(line, names, strict=True):
            rows = data[(data["reward"] == reward) & (data["group"] == group)]
            if rows.empty:
                ax.axis("off")
                style.remark(ax, f"{reward}: not evaluated on {group_label(group)}")
            else:
                _draw(ax, rows, dress, crowded=intervals.crowded(data))
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _panels(data: pd.DataFrame, groups: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Trained reward and group of each panel.

    A line per reward; with one group alone the rewards stand side by side.
    """
    rewards = sorted(data["reward"].unique())
    shown = [group for group in groups if (data["group"] == group).any()]
    if len(shown) == 1:
        return [[(reward, shown[0]) for reward in rewards]]
    return [[(reward, group) for group in shown] for reward in rewards]


def _draw(
    ax: Axes,
    rows: pd.DataFrame,
    dress: Callable[[Axes, pd.DataFrame], None],
    *,
    crowded: bool,
) -> None:
    """All methods on one prompt group."""
    curves = intervals.of_methods(rows.sort_values("epoch"))
    for own, look in curves:
        style.points(ax, own["reward_queries"], own, look, barred=not crowded)
    dress(ax, rows)
    ax.xaxis.set_major_locator(style.whole_numbers(6))
    if crowded:
        intervals.end_bars(ax, "reward_queries", curves)
