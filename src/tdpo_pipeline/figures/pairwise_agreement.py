"""How often a proxy ranks two pictures of a prompt as its gold does, over training."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.figures.grouped import COLUMNS, by_group
from tdpo_pipeline.overoptimization.tables import group_label

_BOUNDS = dict(
    zip(("agreement", "agreement_low", "agreement_high"), intervals.BOUNDS, strict=True)
)


def pairwise_agreement(
    agreement: pd.DataFrame,
    *,
    title: str = "Pairs that the proxy ranks as its gold does",
    groups: Sequence[str] = ("seen",),
    scored: str | None = None,
) -> style.Drawn:
    """Agreement of the trained reward with another: a panel per trained reward and group.

    Args:
        agreement: Table of ``overoptimization.pairwise_agreement`` by method.
        title: Title of the figure.
        groups: Prompt groups; one that was not evaluated has no panel.
        scored: The other reward; by default the trained one's gold.

    Returns:
        The figure and its data: a row per method, reward, group and epoch, with
        reward_queries, scored, mean, low, high (parts of the pairs). If there is nothing
        to draw, a figure that says so and an empty table.
    """
    data = _data(agreement, groups, scored)
    if data.empty:
        text = (
            f"No prompt has several images that {scored or 'a gold'} scored, of "
            f"{' or '.join(group_label(group) for group in groups)}."
        )
        return style.Drawn(style.notice(title, text), data)
    return by_group(data, groups, _panel, title=title, caption=_caption(data))


def _data(
    agreement: pd.DataFrame, groups: Sequence[str], scored: str | None
) -> pd.DataFrame:
    """The tidy table of the figure."""
    other = (
        agreement["role"] == "gold" if scored is None else agreement["scored"] == scored
    )
    rows = agreement[other & agreement["group"].isin(list(groups))]
    return rows.rename(columns=_BOUNDS)[[*COLUMNS]].reset_index(drop=True)


def _panel(ax: Axes, data: pd.DataFrame) -> None:
    """What stands beside the curves: chance, and what is compared."""
    ax.axhline(0.5, color=style.INK, linewidth=0.8)
    ((reward, scored),) = data[["reward", "scored"]].drop_duplicates().to_numpy()
    title = f"{reward}: {group_label(data['group'].iloc[0])}"
    style.label(ax, title=title, x="reward queries", y=f"agreement with {scored}")


def _caption(data: pd.DataFrame) -> str:
    return (
        "Part of the pairs of one prompt's images of which the trained reward and the "
        f"other one prefer the same; by chance one half (line). "
        f"{style.sentence(style.images_text(data))}, {style.seeds_text(data)}. "
        f"{intervals.where_text(data)}: 95 % interval {style.over_text(data)}. "
        "Sampler: eta 1."
    )
