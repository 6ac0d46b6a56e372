"""Dormant neurons of the temporal critic over epochs (TDPO, figure 8)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization.curves import neuron_curves

_PANELS = {
    "critic_dormant_pct": "dormant neurons (%)",
    "critic_overlap_pct": "overlap of dormant neurons (%)",
}


_TITLE = "Neurons of the temporal critic"


def dormant(history: pd.DataFrame) -> style.Drawn:
    """Dormant percentage and overlap of the critic, a row of two panels per reward.

    Epochs that reset neurons have a tick at the foot of the panel.

    Args:
        history: History table with the columns run, method, reward and seed.

    Returns:
        The figure and its data, the table of ``neuron_curves``; if no method has a
        critic, a figure that says so and an empty table.
    """
    data = neuron_curves(history, quantities=list(_PANELS))
    rewards = sorted(data["reward"].unique())
    if data.empty:
        text = "None of these methods has a temporal critic."
        return style.Drawn(style.notice(_TITLE, text), data)
    caption = _caption(data)
    figure, axes = style.page(
        len(rewards),
        2,
        panel=(4.4, 3.1),
        legend=data["method"].nunique(),
        caption=caption,
    )
    for row, reward in zip(axes, rewards, strict=True):
        for ax, (quantity, name) in zip(row, _PANELS.items(), strict=True):
            chosen = (data["reward"] == reward) & (data["quantity"] == quantity)
            _panel(ax, data[chosen])
            ax.set_xlim(data["epoch"].min() - 0.7, data["epoch"].max() + 0.7)
            style.label(ax, title=f"trained on {reward}", x="epoch", y=name)
    style.frame(
        figure,
        title=_TITLE,
        caption=caption,
        legend=style.handles(data["method"]),
        stamp=style.seed_stamp(data),
    )
    return style.Drawn(figure, data)


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Curves of one quantity, the resets marked."""
    for method, curve in rows.groupby("method"):
        look = style.method_style(str(method))
        style.band(ax, curve, look, "epoch")
        for epoch in curve.loc[curve["neurons_reset"] > 0, "epoch"]:
            ax.axvline(epoch, ymax=0.045, color=look.color, linewidth=1.4)
    ax.set_ylim(-3, 103)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _caption(data: pd.DataFrame) -> str:
    bands = "Bands: 95 % intervals over training seeds."
    if data["n_seeds"].max() == 1:
        bands = "All neurons are counted, so one seed gives no interval."
    return (
        "A neuron is dormant when its mean activation, after ReLU and relative to its "
        "layer's, is at most the configured threshold. Overlap: dormant neurons shared "
        "with the measurement before, in % of the smaller set. Ticks at the foot: "
        "resets. "
        f"{style.seeds_text(data).capitalize()}. {bands}"
    )
