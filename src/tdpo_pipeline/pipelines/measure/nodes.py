"""Nodes that read a table from elsewhere, measure it and report."""

from __future__ import annotations

import logging
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from tdpo_pipeline import figures, html_report, overoptimization
from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.html_report.prompts import prompt_changes
from tdpo_pipeline.overoptimization import own_tables
from tdpo_pipeline.overoptimization import report as words
from tdpo_pipeline.overoptimization.tables import known_rewards

logger = logging.getLogger("tdpo_pipeline.report")

FIGURES = {
    "proxy_vs_gold": FigureSettings(
        draws="proxy_vs_gold", title="Trained reward against its gold"
    ),
    "evaluated_reward": FigureSettings(
        draws="evaluated_reward", title="Evaluated reward over reward queries"
    ),
    "cross_reward": FigureSettings(
        draws="cross_reward", title="Held-out rewards over the trained one"
    ),
    "final_rewards": FigureSettings(
        draws="final_rewards", title="Rewards of the final models"
    ),
}
"""What a table of scores alone is enough for."""


class MeasureSettings(BaseModel):
    """The table, and what its rewards are.

    Attributes:
        scores: Path of the table, CSV or Parquet, relative to the project.
        trained: The reward that was trained on, if no column says it.
        rewards: Reward columns; none: all that aren't of another meaning.
        golds: The gold of each trained reward, where one is known.
        parts: The rewards that each trained one is the weighted sum of, where it is one.
        reference: The method that the others are compared with on equal terms; None: the
            first by name.
        folder: Folder of the report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: str | None
    trained: str | None
    rewards: tuple[str, ...]
    golds: dict[str, str]
    parts: dict[str, tuple[str, ...]] = {}
    reference: str | None = None
    folder: str


class Measured(NamedTuple):
    """Tables of ``measure``, in the order of its node's outputs."""

    curves: pd.DataFrame
    summary: pd.DataFrame
    golds: pd.DataFrame
    onsets: pd.DataFrame
    prompts: pd.DataFrame
    matched: pd.DataFrame
    goodhart: pd.DataFrame
    joint: pd.DataFrame
    joint_prompts: pd.DataFrame


def read(settings: MeasureSettings) -> pd.DataFrame:
    """Read the table, and bring it into this project's form.

    Raises:
        ScoreTableError: If it can't be used.
    """
    if settings.scores is None:
        raise overoptimization.ScoreTableError(
            "Name the table: kedro run --pipelines measure --params "
            "measure.scores=my_scores.csv (docs/own_tables.md)."
        )
    scores = own_tables.own_scores(
        own_tables.read_table(ROOT / settings.scores),
        trained=settings.trained,
        rewards=settings.rewards,
    )
    named = {
        "golds": [name for pair in settings.golds.items() for name in pair],
        "parts": [
            n for whole, parts in settings.parts.items() for n in (whole, *parts)
        ],
    }
    for setting, names in named.items():
        for name in names:
            if name not in scores.columns:
                raise overoptimization.ScoreTableError(
                    f"measure.{setting} names '{name}', which is no reward of the table."
                )
    methods = sorted(scores["method"].unique())
    if settings.reference is not None and settings.reference not in methods:
        raise overoptimization.ScoreTableError(
            f"measure.reference names '{settings.reference}', which is no method of the "
            f"table; it has {methods}."
        )
    for remark in own_tables.remarks(scores):
        logger.info("%s", remark)
    return scores


def measure(scores: pd.DataFrame, settings: MeasureSettings) -> Measured:
    """Everything that the report says, as tables."""
    with known_rewards(golds=settings.golds, parts=settings.parts):
        curves = overoptimization.reward_curves(scores)
        return Measured(
            curves,
            overoptimization.summarise_methods(curves),
            overoptimization.gold_report(scores),
            overoptimization.find_onsets(scores),
            prompt_changes(scores),
            overoptimization.matched_report(
                scores, references=[settings.reference] if settings.reference else []
            ),
            overoptimization.goodhart_report(scores),
            *overoptimization.joint_report(scores),
        )


def draw(
    curves: pd.DataFrame, settings: MeasureSettings
) -> tuple[Figure | pd.DataFrame, ...]:
    """Draw all of ``FIGURES``: a figure and its data each, in turn."""
    with known_rewards(golds=settings.golds):
        return tuple(
            part for figure in FIGURES.values() for part in figures.draw(figure, curves)
        )


def report(
    scores: pd.DataFrame,
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    fallen: pd.DataFrame,
    onsets: pd.DataFrame,
    prompts: pd.DataFrame,
    matched: pd.DataFrame,
    goodhart: pd.DataFrame,
    joint: pd.DataFrame,
    settings: MeasureSettings,
    **drawn: pd.DataFrame,
) -> tuple[str, str]:
    """Say what happened: on the screen, as an HTML page and as Markdown.

    Args:
        scores: The scores.
        curves: Curves by method.
        summary: Last checkpoint of each method.
        fallen: Whether the golds fell.
        onsets: Since when rewards have been falling.
        prompts: Changes by prompt.
        matched: Methods on equal terms.
        goodhart: Fits against the distance from the base model.
        joint: What all held-out rewards did together.
        settings: The table, and what its rewards are.
        **drawn: Data of the figures; those that show nothing are left out.
    """
    shown = {name: FIGURES[name].title for name in FIGURES if not drawn[name].empty}
    traced = html_report.lineage(
        scores,
        {"measure": settings.model_dump(mode="json")},
        root=ROOT,
        folder=settings.folder,
    )
    tables = html_report.Tables(
        *(curves, summary, fallen, onsets, prompts, matched, goodhart, joint)
    )
    page = html_report.html_report(tables, lineage=traced)
    logger.info("%s", words.screen_text(summary, fallen, shown, settings.folder))
    lines = [
        words.matched_line(matched),
        words.goodhart_line(goodhart),
        words.joint_line(joint),
    ]
    return page, words.markdown(summary, fallen, shown, measures=lines)
