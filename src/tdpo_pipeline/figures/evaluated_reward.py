"""Evaluated rewards over reward queries (DiffExp, figures 1b, 4, 6, 9, 10 and 17)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.figures.grouped import COLUMNS, by_group
from tdpo_pipeline.overoptimization.tables import MAIN_ETA, group_label


def evaluated_reward(
    curves: pd.DataFrame,
    *,
    title: str = "Evaluated reward over reward queries",
    groups: Sequence[str] = ("seen",),
    scored: str | None = None,
) -> style.Drawn:
    """A reward of evaluated checkpoints: a panel per trained reward and prompt group.

    Unlike the training samples (``sample_efficiency``), these are sampled without
    exploration and with the same noise at every checkpoint.

    Args:
        curves: From ``reward_curves`` by method.
        title: Title of the figure.
        groups: Prompt groups; one that was not evaluated has no panel.
        scored: The reward to draw; by default the trained one.

    Returns:
        The figure and its data: a row per method, reward, group and epoch, with
        reward_queries, scored, mean, low, high (the ends of the change since the base
        model, added to the base model's mean). If nothing was evaluated, a figure that
        says so and an empty table.
    """
    data = _data(curves, groups, scored)
    if data.empty:
        text = (
            f"{scored or 'The trained reward'} was not evaluated on "
            f"{' or '.join(group_label(group) for group in groups)}."
        )
        return style.Drawn(style.notice(title, text), data)
    return by_group(data, groups, _panel, title=title, caption=_caption(data))


def _data(
    curves: pd.DataFrame, groups: Sequence[str], scored: str | None
) -> pd.DataFrame:
    """The tidy table of the figure."""
    name = curves["reward"] if scored is None else scored
    chosen = (
        (curves["eta"] == MAIN_ETA)
        & curves["group"].isin(list(groups))
        & (curves["scored"] == name)
    )
    rows = style.levels(curves[chosen])
    return rows[[*COLUMNS]].reset_index(drop=True)


def _panel(ax: Axes, data: pd.DataFrame) -> None:
    """What stands beside the curves of one trained reward on one prompt group."""
    ((reward, scored),) = data[["reward", "scored"]].drop_duplicates().to_numpy()
    y = scored if scored == reward else f"{scored} (trained on {reward})"
    style.label(ax, title=group_label(data["group"].iloc[0]), x="reward queries", y=y)
    style.paper_axes(ax, y=scored)


def _caption(data: pd.DataFrame) -> str:
    return (
        f"Evaluated checkpoints: {style.images_text(data)}, {style.seeds_text(data)}. "
        f"{intervals.where_text(data)}: {intervals.change_text(data, as_level=True)}."
        f"{style.sampler_text('Sampler: eta 1, without exploration.')}"
    )
