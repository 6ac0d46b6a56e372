"""How far fine-tuning moved every reward, as bars (DiffExp, figure 7)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.summary import final_rows
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ROLES,
    checkpoint_word,
    group_label,
)


def final_rewards(
    curves: pd.DataFrame,
    *,
    title: str = "Rewards of the final models",
    group: str = "seen",
    scored: Sequence[str] | None = None,
) -> style.Drawn:
    """Change of rewards since the base model, at the last checkpoint of each method.

    A panel per trained reward; a cluster of bars per scored reward, a bar a method.
    In base standard deviations, so that rewards of different units stand side by side.

    Args:
        curves: From ``reward_curves`` by method.
        title: Title of the figure.
        group: Prompt group.
        scored: Rewards to draw; by default all but JPEG sizes that nobody trained on.

    Returns:
        The figure and its data: a row per method, reward and scored reward, with epoch,
        mean, low, high (base standard deviations) and base_sd. A reward that does not
        vary on the base model is left out, as the caption says. If nothing was
        evaluated, a figure that says so and an empty table.
    """
    found = _data(curves, group, scored)
    data = found.dropna(subset="mean").reset_index(drop=True)
    if data.empty:
        text = f"No such reward was evaluated on {group_label(group)}."
        return style.Drawn(style.notice(title, text), data)
    rewards = sorted(data["reward"].unique())
    unvaried = sorted(set(found["scored"]) - set(data["scored"]))
    caption = _caption(data, group, unvaried)
    legend = style.handles(data["method"], lines=False)
    widest = data.groupby("reward").size().max()
    figure, axes = style.page(
        len(rewards),
        1,
        panel=(max(6.6, 1.2 + 0.24 * widest), 3.0),
        legend=legend,
        caption=caption,
    )
    for (ax,), reward in zip(axes, rewards, strict=True):
        _panel(ax, data[data["reward"] == reward])
        style.label(ax, title=f"trained on {reward}", y="change in base SD")
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _data(
    curves: pd.DataFrame, group: str, scored: Sequence[str] | None
) -> pd.DataFrame:
    """The tidy table of the figure.

    What doesn't vary on the base model has no base standard deviation, and no change
    in it.
    """
    rows = style.changes(final_rows(curves))
    rows = rows[(rows["eta"] == MAIN_ETA) & (rows["group"] == group)]
    if scored is None:
        rows = rows[rows["role"] != "size"]
    else:
        rows = rows[rows["scored"].isin(list(scored))]
    keys = ["method", "reward", "group", "scored", "role", "epoch", "reward_queries"]
    sizes = ["base_sd", "n_seeds", "n_prompts", "n_images"]
    return rows[[*keys, "mean", "low", "high", *sizes]].reset_index(drop=True)


def _panel(ax: Axes, data: pd.DataFrame) -> None:
    """Clusters of bars in the order of ``ROLES``."""
    ranked = data.drop_duplicates("scored")
    ranked = ranked.sort_values(
        "role", key=lambda role: role.map(ROLES.index), kind="stable"
    )
    names = ranked["scored"].tolist()
    methods = style.sort_methods(data["method"])
    width = 0.8 / len(methods)
    for place, method in enumerate(methods):
        rows = data[data["method"] == method].set_index("scored")
        shown = [name for name in names if name in rows.index]
        offset = (place - (len(methods) - 1) / 2) * width
        at = np.array([names.index(name) + offset for name in shown])
        style.bars(ax, at, rows.loc[shown], style.method_style(method), width)
    ax.axhline(0, color=style.INK, linewidth=0.8)
    ax.grid(False, axis="x")
    ticks = [
        f"{textwrap.fill(name, _LETTERS, break_long_words=False)}{_TICKS[role]}"
        for name, role in zip(names, ranked["role"], strict=True)
    ]
    size = style.TICK_SIZE * min(1.0, _CLUSTERS / len(names))
    ax.set_xticks(range(len(names)), ticks, fontsize=size)


_LETTERS, _CLUSTERS = 12, 6
"""Longer names of rewards are broken at hyphens, and those of more are written smaller, or
they would touch."""

_TICKS = {
    "trained": "\n(trained)",
    "part": "\n(a part of it)",
    "gold": "\n(its gold)",
    "cross": "",
    "size": "",
}
"""What stands under a scored reward, by its role."""


def _caption(data: pd.DataFrame, group: str, unvaried: Sequence[str]) -> str:
    epochs = sorted(data["epoch"].unique())
    last = " or ".join(str(epoch) for epoch in epochs)
    without = f" Without {', '.join(unvaried)}: no such SD." if unvaried else ""
    return (
        f"The last checkpoint ({checkpoint_word()} {last}) minus the base model on "
        f"{group_label(group)}: {style.images_text(data)}, {style.seeds_text(data)}. "
        f"Bars: {intervals.change_text(data)}. One base SD: standard deviation over the "
        f"base model's images for the prompts trained on.{without}{style.sampler_text()}"
    )
