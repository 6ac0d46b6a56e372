"""Reward of the training samples over reward queries, or over rounds of training.

TDPO, figures 4, 9 (right) and 14; DDPO, figures 4 and 8.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.curves import epoch_samples, training_curves
from tdpo_pipeline.overoptimization.histories import check_history
from tdpo_pipeline.overoptimization.tables import ScoreTableError

_X = {
    "reward_queries": "reward queries",
    "rounds": "rounds trained before",
}


def sample_efficiency(
    history: pd.DataFrame,
    *,
    title: str = "Sample efficiency: trained reward over reward queries",
    x: Literal["reward_queries", "rounds"] = "reward_queries",
) -> style.Drawn:
    """The trained reward on each epoch's training samples, a panel per reward.

    Args:
        history: History table with the columns run, method, reward and seed.
        title: Title of the figure.
        x: ``reward_queries``, a point an epoch; or ``rounds``, a point for all epochs
            that sampled with the same weights (RWR trains only at a round's end).

    Returns:
        The figure and its data, the table of ``training_curves``; over rounds it has
        the column ``rounds`` instead of ``epoch``.
    """
    if x == "rounds":
        data = training_curves(by_round(history)).rename(columns={"epoch": "rounds"})
    else:
        data = training_curves(history)
    rewards = sorted(data["reward"].unique())
    crowded = intervals.crowded(data)
    caption = _caption(data, x, _explorers(history))
    legend = style.handles(data["method"])
    figure, axes = style.page(
        1,
        len(rewards),
        panel=style.panel_size(len(rewards)),
        legend=legend,
        caption=caption,
    )
    for ax, reward in zip(axes[0], rewards, strict=True):
        curves = intervals.of_methods(data[data["reward"] == reward])
        for rows, look in curves:
            style.band(ax, rows, look, x, filled=not crowded)
        style.label(ax, x=_X[x], y=reward)
        style.paper_axes(ax, y=reward)
        ax.xaxis.set_major_locator(style.whole_numbers(6))
        if crowded:
            intervals.end_bars(ax, x, curves)
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def by_round(history: pd.DataFrame) -> pd.DataFrame:
    """Join the epochs that sampled with the same weights.

    Args:
        history: History table with the column ``updates``, which is 0 where an epoch
            only sampled.

    Returns:
        A history with a row per run and round: ``epoch`` counts the rounds trained
        before it, from 0; ``reward_queries`` are those up to its end; mean and
        standard deviation are over all its ``samples``.

    Raises:
        ScoreTableError: If the column ``updates`` is missing, or an epoch of a run is
            there twice.
    """
    check_history(history)
    if "updates" not in history.columns:
        raise ScoreTableError(
            "The history has no column 'updates', so that rounds can't be told apart. "
            "Train the runs again."
        )
    return pd.concat(
        [_rounds(run) for _, run in history.groupby("run", sort=True)],
        ignore_index=True,
    )


def _rounds(run: pd.DataFrame) -> pd.DataFrame:
    """The rounds of one run; every epoch of it has as many samples."""
    run = run.sort_values("epoch")
    run = run.assign(samples=epoch_samples(run))
    reward = run["reward"].iloc[0]
    mean, std = f"{reward}_mean", f"{reward}_std"
    trained = run["updates"].fillna(0) > 0
    rounds = run.groupby(trained.shift(fill_value=False).cumsum().to_numpy())
    table = rounds[["run", "method", "reward", "seed"]].first()
    inner, outer = rounds[std].apply(_mean_square), rounds[mean].var(ddof=0)
    return table.assign(
        epoch=table.index,
        reward_queries=rounds["reward_queries"].max(),
        samples=rounds["samples"].sum(),
        **{mean: rounds[mean].mean(), std: np.sqrt(inner + outer)},
    )


def _mean_square(values: pd.Series) -> float:
    return float((values**2).mean())


def _explorers(history: pd.DataFrame) -> str:
    """The methods whose samples explored in some epochs, for a caption."""
    if "explored" not in history.columns:
        return ""
    methods = history.loc[history["explored"] == 1, "method"].unique()
    return ", ".join(map(style.method_label, style.sort_methods(methods)))


def _caption(data: pd.DataFrame, x: str, explorers: str) -> str:
    most = data.groupby(["method", "reward"])["n_seeds"].transform("max")
    samples = sorted({int(n) for n in data["n_samples"] / data["n_seeds"]})
    count = " or ".join(f"{n:,}" for n in samples)
    each = "epoch" if x == "reward_queries" else "round"
    reach = "95 % intervals over training seeds"
    if (most == 1).any():
        reach = f"95 % intervals of the mean over one {each}'s samples (not over seeds)"
        if (most > 1).any():
            reach += "; over seeds where a method has several"
    if ((data["n_seeds"] == 1) & (most > 1)).any():
        reach += ", none where one of them is left"
    return (
        f"Means over each {each}'s {count} training samples, of prompts that are drawn anew, "
        "before its update; "
        f"{style.seeds_text(data)}. {intervals.where_text(data, 'Bands')}: {reach}."
        + (f" Explored in part: the samples of {explorers}." if explorers else "")
    )
