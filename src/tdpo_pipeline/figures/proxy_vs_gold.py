"""A proxy against the gold it was trained to predict: what only Menagerie can draw."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    gold_of,
    group_label,
)

_X = {
    "reward_queries": "reward queries",
    "kl_to_base": "KL to the base model (nats, square-root scale)",
}
_HEADING_LETTERS = 55
"""As many fit above a panel."""


def proxy_vs_gold(
    curves: pd.DataFrame,
    *,
    title: str = "Proxy against its gold",
    group: str = "seen",
) -> style.Drawn:
    """Proxy and its own gold over reward queries and over KL, from the base model.

    Both in base standard deviations from the base model's mean, so that both start
    at 0 and fit one axis. Filled and solid is the trained proxy, hollow and dashed its
    gold. Without any KL its panel is left out.

    Args:
        curves: From ``reward_curves`` by method.
        title: Title of the figure.
        group: Prompt group.

    Returns:
        The figure and its data: a row per method, reward, epoch and role (trained,
        gold), with reward_queries, kl_to_base (nats), mean, low, high (base standard
        deviations) and base_sd. If no trained reward has a gold, a figure that says
        so and an empty table.
    """
    data = _data(curves, group)
    if data.empty:
        text = f"No trained reward has a gold that was scored on {group_label(group)}."
        return style.Drawn(style.notice(title, text), data)
    rewards = sorted(data["reward"].unique())
    trained = data[data["epoch"] > 0]
    shown = {x: name for x, name in _X.items() if trained[x].notna().any()}
    legend = [*map(_method, style.sort_methods(data["method"])), *_roles()]
    caption = _caption(data, group)
    figure, axes = style.page(
        len(rewards), len(shown), panel=(4.8, 3.5), legend=legend, caption=caption
    )
    for row, reward in zip(axes, rewards, strict=True):
        for ax, (x, name) in zip(row, shown.items(), strict=True):
            own = data[data["reward"] == reward]
            _panel(ax, own, x, crowded=intervals.crowded(data))
            heading = f"{reward} (trained) and {gold_of(reward)} (its gold)"
            heading = textwrap.fill(heading, _HEADING_LETTERS, break_on_hyphens=False)
            style.label(ax, title=heading, x=name, y="change in base SD")
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _data(curves: pd.DataFrame, group: str) -> pd.DataFrame:
    """The tidy table of the figure: proxies that have a gold, and their golds."""
    chosen = (
        (curves["eta"] == MAIN_ETA)
        & (curves["group"] == group)
        & curves["role"].isin(["trained", "gold"])
        & curves["reward"].map(gold_of).isin(curves["scored"])
    )
    rows = style.changes(curves[chosen])
    keys = ["method", "reward", "group", "scored", "role", "epoch", *_X]
    sizes = ["base_sd", "n_seeds", "n_prompts", "n_images"]
    return rows[[*keys, "mean", "low", "high", *sizes]].reset_index(drop=True)


def _panel(ax: Axes, data: pd.DataFrame, x: str, *, crowded: bool) -> None:
    """All methods, proxy and gold, over one of the two measures of effort."""
    ax.axhline(0, color=style.INK, linewidth=0.8)
    curves = [
        intervals.Curve(rows[rows["role"] == role], _as_role(look, role))
        for rows, look in intervals.of_methods(data.sort_values("epoch"))
        for role in ("trained", "gold")
    ]
    for rows, look in curves:
        style.points(ax, rows[x], rows, look, barred=not crowded)
    if x == "kl_to_base":
        # Distance from the base goes with the root of KL (Gao et al. 2023).
        ax.set_xscale("function", functions=(_root, _square))
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    if crowded:
        intervals.end_bars(ax, x, curves)


def _root(values: pd.Series) -> pd.Series:
    return values.clip(0) ** 0.5


def _square(values: pd.Series) -> pd.Series:
    return values**2


def _as_role(look: style.MethodStyle, role: str) -> style.MethodStyle:
    """Here the line tells proxy from gold; colour and marker tell the method."""
    if role == "trained":
        return look._replace(line="-", filled=True)
    return look._replace(line="--", filled=False)


def _method(name: str) -> Artist:
    """The legend entry of a method, its line that of a proxy."""
    look = _as_role(style.method_style(name), "trained")
    return style.handle(style.method_label(name), look)


def _roles() -> list[Artist]:
    """Legend entries of proxy and gold."""
    common: dict[str, Any] = {"color": style.INK, "marker": "o", "markersize": 5.5}
    return [
        Line2D([], [], linestyle="-", label="trained proxy", **common),
        Line2D([], [], linestyle="--", label="its gold", mfc="white", **common),
    ]


def _caption(data: pd.DataFrame, group: str) -> str:
    return (
        f"{style.images_text(data)} on {group_label(group)}, {style.seeds_text(data)}. "
        f"{intervals.where_text(data)}: {intervals.change_text(data)}. One base SD: "
        "standard deviation over the base model's images for the prompts trained on."
        f"{style.sampler_text()}"
    )
