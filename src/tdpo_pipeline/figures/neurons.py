"""Dormant neurons of the critic and of the policy over epochs (TDPO, figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.curves import neuron_curves

_NAMES = {
    "critic_dormant_pct": ("dormancy", "dormant neurons (%)"),
    "critic_overlap_pct": ("overlap", "overlap (%)"),
    "lora_dormant_pct_t0": ("threshold 0", "dormant neurons (%)"),
    "lora_dormant_pct_t01": ("threshold 0.1", "dormant neurons (%)"),
}
"""What tells a quantity's panels from the others', and their y label."""

_TICK = 0.03  # height of a reset's tick, in parts of the panel's

CRITIC = ("critic_dormant_pct", "critic_overlap_pct")


def neurons(
    history: pd.DataFrame,
    *,
    title: str = "Neurons of the temporal critic",
    quantities: Sequence[str] = CRITIC,
) -> style.Drawn:
    """What the history says of neurons, a row of panels per trained reward.

    Epochs that reset neurons have a tick at the foot of the panel.

    Args:
        history: History table with the columns run, method, reward and seed.
        title: Title of the figure.
        quantities: Columns of the history, a panel each: ``CRITIC`` (figure 8), or
            those of the policy's LoRA layers (figure 9, left).

    Returns:
        The figure and its data, the table of ``neuron_curves``; if nothing was
        measured, a figure that says so and an empty table.
    """
    data = neuron_curves(history, quantities=quantities)
    rewards = sorted(data["reward"].unique())
    if data.empty:
        return style.Drawn(style.notice(title, _nothing(history, quantities)), data)
    caption = _caption(data)
    legend = style.handles(data["method"])
    figure, axes = style.page(
        len(rewards), len(quantities), panel=(4.4, 3.1), legend=legend, caption=caption
    )
    for column, quantity in zip(zip(*axes, strict=True), quantities, strict=True):
        rows = data[data["quantity"] == quantity]
        parts = [rows[rows["reward"] == reward] for reward in rewards]
        for ax, reward, part in zip(column, rewards, parts, strict=True):
            ax.set_xlim(data["epoch"].min() - 0.7, data["epoch"].max() + 0.7)
            _curves(ax, part, crowded=intervals.crowded(data))
            what, y = _NAMES.get(quantity, (quantity, quantity))
            style.label(ax, title=f"trained on {reward}: {what}", x="epoch", y=y)
        # One scale for all rewards, so that they can be compared.
        top = _top(quantity, [ax.get_ylim()[1] for ax in column])
        for ax, part in zip(column, parts, strict=True):
            _foot(ax, part, top)
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _nothing(history: pd.DataFrame, quantities: Sequence[str]) -> str:
    """Why there is nothing to draw."""
    methods = ", ".join(style.method_label(m) for m in sorted(set(history["method"])))
    who = "a temporal critic" if set(quantities) <= set(CRITIC) else "such neurons"
    return f"None of these methods has {who}: {methods}."


def _curves(ax: Axes, rows: pd.DataFrame, *, crowded: bool) -> None:
    """Curves of one quantity on one trained reward."""
    curves = intervals.of_methods(rows)
    for curve, look in curves:
        style.band(ax, curve, look, "epoch", filled=not crowded)
    ax.xaxis.set_major_locator(style.whole_numbers(8))
    if crowded:
        intervals.end_bars(ax, "epoch", curves)
    if rows.empty:
        style.remark(ax, "Nothing measured: no dormant neurons to compare.")


def _top(quantity: str, tops: Sequence[float]) -> float:
    """Upper end of y, in %: what the panels take, and all of it for an overlap."""
    whole = 103.0
    if quantity == "critic_overlap_pct":
        return whole
    return min(whole, max(1.0, *tops))


def _foot(ax: Axes, rows: pd.DataFrame, top: float) -> None:
    """The resets' ticks at the foot of a panel, in a line of their own per method."""
    resets = rows[rows["neurons_reset"] > 0]
    methods = style.sort_methods(resets["method"])
    for line, method in enumerate(methods):
        look = style.method_style(method)
        foot = _TICK * line
        for epoch in resets.loc[resets["method"] == method, "epoch"]:
            ax.axvline(epoch, foot, foot + _TICK, color=look.color, linewidth=1.6)
    # Below 0 is room for the ticks: that share of the panel's height.
    share = _TICK * len(methods) + 0.02
    ax.set_ylim(-top * share / (1 - share), top)
    ax.set_yticks([y for y in MaxNLocator(6).tick_values(0, top) if 0 <= y <= top])


def _caption(data: pd.DataFrame) -> str:
    bands = (
        f"{intervals.where_text(data, 'Bands')}: 95 % intervals over training seeds."
    )
    if data["n_seeds"].max() == 1:
        bands = "All neurons are counted, so one seed gives no interval."
    critic = data["quantity"].isin(CRITIC).any()
    what = _OF_CRITIC if critic else _OF_POLICY
    return f"{what} {style.sentence(style.seeds_text(data))}. {bands}"


_OF_CRITIC = (
    "A neuron is dormant when its mean activation, after ReLU and relative to its "
    "layer's, is at most the configured threshold. Overlap: dormant neurons shared with "
    "the measurement before, in % of the smaller set. Ticks at the foot: resets."
)
_OF_POLICY = (
    "A neuron is one of the r units between a LoRA layer's two projections; it is "
    "dormant when its mean absolute activation, relative to its layer's, is at most the "
    "threshold. Ticks at the foot: resets."
)
