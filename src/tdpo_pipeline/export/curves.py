"""The curves of one run, which an exported model card shows: its rewards and its KL."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.export.card import scored_rewards
from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization.curves import training_curves

CURVES_FILE = "training_curves.png"
_COLUMNS = 3
_X = "reward_queries"
_CAPTION = (
    "Means over each epoch's training samples, before its update. "
    "Bands: 95 % intervals of the mean over the samples (not over seeds)."
)


def run_curves(config: RunConfig, history: pd.DataFrame) -> Figure:
    """Every reward that was scored, the trained one first, and the KL to the base model.

    A panel each, over reward queries, because each has units of its own.

    Args:
        config: The run.
        history: Its history.

    Raises:
        ScoreTableError: If the history lacks a reward's standard deviation.
    """
    names = scored_rewards(config, history)
    columns = min(_COLUMNS, len(names) + 1)
    figure, axes = style.page(
        math.ceil((len(names) + 1) / columns),
        columns,
        panel=style.panel_size(columns),
        caption=_CAPTION,
    )
    panels = [ax for row in axes for ax in row]
    look = style.method_style(config.method)
    run = history.assign(run=config.key, method=config.method, seed=config.seed)
    for ax, name in zip(panels, names, strict=False):
        style.band(ax, training_curves(run.assign(reward=name)), look, _X)
        style.label(ax, title=_title(config, name), x="reward queries", y=name)
    kl = pd.DataFrame({_X: history[_X], "mean": history["kl_to_base"]})
    style.band(panels[len(names)], kl.assign(low=math.nan, high=math.nan), look, _X)
    style.label(
        panels[len(names)],
        title="KL to the base model",
        x="reward queries",
        y="nats a trajectory",
    )
    for ax in panels[: len(names) + 1]:
        ax.xaxis.set_major_locator(style.whole_numbers(6))
    for ax in panels[len(names) + 1 :]:
        ax.axis("off")
    style.frame(
        figure,
        title=f"Training of {config.key}",
        caption=_CAPTION,
        stamp="one seed",
    )
    return figure


def _title(config: RunConfig, reward: str) -> str:
    """A reward's name, and what it was to the training."""
    if reward == config.reward:
        return f"{reward} (trained)"
    part = reward in config.task.trained_on
    return f"{reward} ({'a part of the trained one' if part else 'held out'})"
