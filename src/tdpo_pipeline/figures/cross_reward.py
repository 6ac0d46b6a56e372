"""Rewards that were not trained on, over the one that was.

TDPO, figures 3, 5, 6, 10, 11 and 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    gold_of,
    group_label,
)

_COLUMNS = 3
_KEYS = ["method", "reward", "epoch"]


def cross_reward(
    curves: pd.DataFrame,
    *,
    title: str = "Held-out rewards over the trained one",
    group: str = "seen",
    held_out: Sequence[str] | None = None,
) -> style.Drawn:
    """Held-out rewards on a prompt group over the trained reward on its own prompts.

    A panel per trained reward and held-out reward, the trained reward's own gold
    first; every point is an evaluated checkpoint, the star is the base model.

    Args:
        curves: From ``reward_curves`` by method.
        title: Title of the figure.
        group: Prompt group of the held-out rewards: "seen" (TDPO's figure 3),
            "unseen" (5 and 11), "complex" (12), "untrained", or a prompt set's name.
        held_out: Rewards to draw; by default all but JPEG sizes. The parts of an
            ensemble are trained on, and not drawn.

    Returns:
        The figure and its data: a row per method, reward, epoch and held-out reward,
        with x_mean, x_low, x_high (trained reward on the prompts trained on) and
        mean, low, high (held-out reward), both ends being those of the change since
        the base model added to the base model's mean. If the group was not
        evaluated, a figure that says so and an empty table.
    """
    data = _data(curves, group, held_out)
    if data.empty:
        text = (
            f"No held-out reward was evaluated on {group_label(group)} beside the "
            "prompts trained on."
        )
        return style.Drawn(style.notice(title, text), data)
    pairs = _pairs(data)
    lines = {reward: -(-len(names) // _COLUMNS) for reward, names in pairs.items()}
    caption = _caption(data, group) + style.left_out(
        curves, data, "Not evaluated on these prompts"
    )
    legend = style.handles(data["method"])
    figure, axes = style.page(
        sum(lines.values()),
        _COLUMNS,
        panel=(3.25, 2.65),
        legend=legend,
        caption=caption,
    )
    for reward, names in pairs.items():
        block, axes = axes[: lines[reward]], axes[lines[reward] :]
        rows = data[data["reward"] == reward]
        panels = [ax for line in block for ax in line]
        _block(panels, reward, names, rows, crowded=intervals.crowded(data))
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _data(
    curves: pd.DataFrame, group: str, held_out: Sequence[str] | None
) -> pd.DataFrame:
    """The tidy table of the figure."""
    levels = style.levels(curves[curves["eta"] == MAIN_ETA])
    trained = levels[(levels["role"] == "trained") & (levels["group"] == "seen")]
    x = trained[[*_KEYS, "mean", "low", "high"]].rename(
        columns={"mean": "x_mean", "low": "x_low", "high": "x_high"}
    )
    wanted = (
        levels["role"].isin(["gold", "cross"])
        if held_out is None
        else levels["role"].isin(["gold", "cross", "size"])
        & levels["scored"].isin(held_out)
    )
    others = levels[(levels["group"] == group) & wanted]
    columns = [*_KEYS, "group", "scored", "role", "mean", "low", "high"]
    sizes = ["n_seeds", "n_prompts", "n_images"]
    return x.merge(others[[*columns, *sizes]], on=_KEYS).reset_index(drop=True)


def _pairs(data: pd.DataFrame) -> dict[str, list[str]]:
    """For each trained reward its held-out rewards, its own gold first."""
    pairs = {}
    for reward, rows in data.groupby("reward"):
        names = rows["scored"].drop_duplicates().tolist()
        own = gold_of(str(reward))
        pairs[str(reward)] = sorted(names, key=lambda name: name != own)
    return pairs


def _block(
    axes: list[Axes],
    reward: str,
    names: list[str],
    data: pd.DataFrame,
    *,
    crowded: bool,
) -> None:
    """The panels of one trained reward; axes that are left over stay empty."""
    for ax, name in zip(axes, names, strict=False):
        _panel(ax, data[data["scored"] == name], crowded=crowded)
        own = " (its gold)" if name == gold_of(reward) else ""
        style.label(ax, x=f"{reward}, trained", y=name + own)
        style.paper_axes(ax, x=reward, y=name)
    for ax in axes[len(names) :]:
        ax.axis("off")


def _panel(ax: Axes, data: pd.DataFrame, *, crowded: bool) -> None:
    """All methods' checkpoints, and the base model where they start."""
    curves = intervals.of_methods(data.sort_values("epoch"))
    for rows, look in curves:
        style.points(ax, rows["x_mean"], rows, look, barred=False)
    base = data[data["epoch"] == 0]
    ax.plot(base["x_mean"], base["mean"], "*", color=style.BLACK, ms=10, zorder=5)
    # The curves set the limits: intervals may be many times as long as they are.
    ax.margins(x=0.12, y=0.25)
    for rows, look in curves:
        barred = rows.tail(1) if crowded else rows
        x = barred[["x_mean", "x_low", "x_high"]].set_axis(intervals.BOUNDS, axis=1)
        intervals.cut_bars(ax, x, barred, look)


def _caption(data: pd.DataFrame, group: str) -> str:
    x_prompts = "" if group == "seen" else " (x: the prompts trained on)"
    images = f"{style.images_text(data)} on {group_label(group)}{x_prompts}"
    return (
        "Each point is an evaluated checkpoint, in order of training from the base model "
        f"(star): {images}, {style.seeds_text(data)}. "
        f"{intervals.where_text(data, at='at last checkpoints')}: "
        f"{intervals.change_text(data, as_level=True)}. The axes are the curves': an "
        f"arrow at an edge is where a bar goes on.{style.sampler_text()}"
    )
