"""Dormant neurons of the critic and of the policy over epochs (TDPO, figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization.curves import neuron_curves

_NAMES = {
    "critic_dormant_pct": "dormant neurons (%)",
    "critic_overlap_pct": "overlap of dormant neurons (%)",
    "lora_dormant_pct_t0": "dormant neurons (%), threshold 0",
    "lora_dormant_pct_t01": "dormant neurons (%), threshold 0.1",
}
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
    for row, reward in zip(axes, rewards, strict=True):
        for ax, quantity in zip(row, quantities, strict=True):
            chosen = (data["reward"] == reward) & (data["quantity"] == quantity)
            _panel(ax, data[chosen])
            ax.set_xlim(data["epoch"].min() - 0.7, data["epoch"].max() + 0.7)
            name = _NAMES.get(quantity, quantity)
            style.label(ax, title=f"trained on {reward}", x="epoch", y=name)
    style.frame(
        figure,
        title=title,
        caption=caption,
        legend=legend,
        stamp=style.seed_stamp(data),
    )
    return style.Drawn(figure, data)


def _nothing(history: pd.DataFrame, quantities: Sequence[str]) -> str:
    """Why there is nothing to draw."""
    methods = ", ".join(style.method_label(m) for m in sorted(set(history["method"])))
    who = "a temporal critic" if set(quantities) <= set(CRITIC) else "such neurons"
    return f"None of these methods has {who}: {methods}."


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Curves of one quantity; the resets' ticks in a line of their own per method."""
    for method, curve in rows.groupby("method"):
        style.band(ax, curve, style.method_style(str(method)), "epoch")
    if rows.empty:
        style.remark(ax, "Nothing measured: no dormant neurons to compare.")
    resets = rows[rows["neurons_reset"] > 0]
    methods = style.sort_methods(resets["method"])
    for line, method in enumerate(methods):
        look = style.method_style(method)
        foot = _TICK * line
        for epoch in resets.loc[resets["method"] == method, "epoch"]:
            ax.axvline(epoch, foot, foot + _TICK, color=look.color, linewidth=1.6)
    # Below 0 is room for the ticks: that share of the panel's height.
    share = _TICK * len(methods) + 0.02
    ax.set_ylim(-103 * share / (1 - share), 103)
    ax.set_yticks(range(0, 101, 20))
    ax.xaxis.set_major_locator(style.whole_numbers(8))


def _caption(data: pd.DataFrame) -> str:
    bands = "Bands: 95 % intervals over training seeds."
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
