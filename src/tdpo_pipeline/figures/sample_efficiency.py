"""Reward over reward queries (TDPO, figure 4)."""

from __future__ import annotations

import pandas as pd

from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization.curves import training_curves


def sample_efficiency(history: pd.DataFrame) -> style.Drawn:
    """The trained reward on each epoch's training samples, a panel per reward.

    Args:
        history: History table with the columns run, method, reward and seed.

    Returns:
        The figure and its data, the table of ``training_curves``.
    """
    data = training_curves(history)
    rewards = sorted(data["reward"].unique())
    caption = _caption(data)
    figure, axes = style.page(
        1,
        len(rewards),
        panel=(6.6, 3.6) if len(rewards) == 1 else (4.2, 3.4),
        legend=data["method"].nunique(),
        caption=caption,
    )
    for ax, reward in zip(axes[0], rewards, strict=True):
        for method, rows in data[data["reward"] == reward].groupby("method"):
            look = style.method_style(str(method))
            style.band(ax, rows, look, "reward_queries")
        style.label(ax, x="reward queries", y=reward)
    style.frame(
        figure,
        title="Sample efficiency: trained reward over reward queries",
        caption=caption,
        legend=style.handles(data["method"]),
        stamp=style.seed_stamp(data),
    )
    return style.Drawn(figure, data)


def _caption(data: pd.DataFrame) -> str:
    single = data["n_seeds"].min() == 1
    samples = sorted({int(n) for n in data["n_samples"] / data["n_seeds"]})
    per_epoch = " or ".join(f"{n:,}" for n in samples)
    bands = "95 % intervals over training seeds"
    if single:
        bands = "95 % intervals of the mean over an epoch's samples (not over seeds)"
    if single and data["n_seeds"].max() > 1:
        bands += "; over seeds where there are several"
    return (
        f"Means over each epoch's {per_epoch} training samples, before its update; "
        f"{style.seeds_text(data)}. Bands: {bands}."
    )
