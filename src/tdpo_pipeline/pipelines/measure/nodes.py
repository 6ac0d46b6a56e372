"""Nodes that read a table from elsewhere, measure it and report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import pandas as pd
from matplotlib.figure import Figure
from pydantic import BeforeValidator

from tdpo_pipeline import figures, html_report, overoptimization
from tdpo_pipeline.config import Settings, words
from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.html_report.prompts import prompt_changes
from tdpo_pipeline.overoptimization import own_tables
from tdpo_pipeline.overoptimization import report as wording
from tdpo_pipeline.overoptimization.tables import checkpoints_called, known_rewards

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


class MeasureSettings(Settings):
    """The table, and what its rewards are.

    Attributes:
        scores: Path of the table, CSV or Parquet, relative to the project.
        trained: The reward that was trained on, if no column says it.
        rewards: Reward columns, as a list or in one text; none: all that aren't of another
            meaning.
        golds: The gold of each trained reward, where one is known.
        parts: The rewards that each trained one is the weighted sum of, where it is one.
        reference: The method that the others are compared with on equal terms; None: the
            first by name.
        folder: Folder of the report.
    """

    scores: str | None
    trained: str | None
    rewards: Annotated[tuple[str, ...], BeforeValidator(words)]
    golds: dict[str, str]
    parts: dict[str, tuple[str, ...]] = {}
    reference: str | None = None
    folder: str


_OF_HISTORIES = ("regrets", "alarms")
TABLES = tuple(n for n in html_report.Tables._fields if n not in _OF_HISTORIES)
"""The tables of the page; rules for stopping take histories of training."""


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
    golds = {trained: [gold] for trained, gold in settings.golds.items()}
    _check_rewards(scores, "golds", golds)
    _check_rewards(scores, "parts", settings.parts)
    methods = sorted(scores["method"].unique())
    if settings.reference is not None and settings.reference not in methods:
        raise overoptimization.ScoreTableError(
            f"measure.reference names '{settings.reference}', which is no method of the "
            f"table; it has {methods}."
        )
    for sentence in _about(scores):
        logger.info("%s", sentence)
    return scores


def _check_rewards(
    scores: pd.DataFrame, setting: str, others: Mapping[str, Sequence[str]]
) -> None:
    """Raise ScoreTableError if a setting names what the table hasn't got.

    Args:
        scores: The table.
        setting: Name of the setting.
        others: By the trained reward, the rewards that are named with it.
    """
    rewards = overoptimization.reward_columns(scores)
    trained = sorted(scores["reward"].unique())
    for name in (name for names in others.values() for name in names):
        if name not in rewards:
            raise overoptimization.ScoreTableError(
                f"measure.{setting} names '{name}', which is no reward of the table; it "
                f"has {rewards}."
            )
    for name, named in others.items():
        if name in named:
            raise overoptimization.ScoreTableError(
                f"measure.{setting} names '{name}' for itself; what stands there is "
                "another reward."
            )
        if name not in trained:
            raise overoptimization.ScoreTableError(
                f"measure.{setting} has an entry for '{name}', on which nothing was "
                f"trained, only on {trained}. An entry's name is a trained reward; what "
                "belongs to it stands behind it."
            )


def _about(scores: pd.DataFrame) -> list[str]:
    """What to know of the table: what counts as a reward, and its limits."""
    return [own_tables.counted(scores), *own_tables.remarks(scores)]


@contextmanager
def _as_given(scores: pd.DataFrame, settings: MeasureSettings) -> Iterator[None]:
    """Inside the block rewards, methods and checkpoints are those of the table."""
    with (
        known_rewards(golds=settings.golds, parts=settings.parts),
        figures.names_as_written(
            scores["method"], sampler_known=scores.attrs["sampler_known"]
        ),
        checkpoints_called(scores.attrs["checkpoint"]),
    ):
        yield


def measure(scores: pd.DataFrame, settings: MeasureSettings) -> dict[str, pd.DataFrame]:
    """Everything that the report says: ``TABLES`` and joint_prompts, by name."""
    references = [settings.reference] if settings.reference else []
    with _as_given(scores, settings):
        curves = overoptimization.reward_curves(scores)
        joint = overoptimization.joint_report(scores)
        tables = {
            "curves": curves,
            "summary": overoptimization.summarise_methods(curves),
            "golds": overoptimization.gold_report(scores),
            "onsets": overoptimization.find_onsets(scores),
            "agreement": overoptimization.pairwise_agreement(scores),
            "prompts": prompt_changes(scores),
            "matched": overoptimization.matched_report(scores, references=references),
            "costs": overoptimization.cost_report(scores, references=references),
            "compared": overoptimization.compare_report(scores, references=references),
            "hypervolumes": overoptimization.hypervolume_report(scores),
            "goodhart": overoptimization.goodhart_report(scores),
            "joint": joint.rates,
        }
    return tables | {"joint_prompts": joint.prompts}


def draw(
    curves: pd.DataFrame, scores: pd.DataFrame, settings: MeasureSettings
) -> tuple[dict[str, Figure] | pd.DataFrame, ...]:
    """Draw those of ``FIGURES`` that show something.

    Returns:
        The figures by the names of their files; then the data of each of ``FIGURES``,
        empty where there was nothing to draw.
    """
    with _as_given(scores, settings):
        drawn = {name: figures.draw(figure, curves) for name, figure in FIGURES.items()}
    shown = {f"{n}.png": d.figure for n, d in drawn.items() if not d.data.empty}
    return shown, *(d.data for d in drawn.values())


def report(
    scores: pd.DataFrame, settings: MeasureSettings, **tables: pd.DataFrame
) -> tuple[str, str]:
    """Say what happened: on the screen, as an HTML page and as Markdown.

    Args:
        scores: The scores.
        settings: The table, and what its rewards are.
        **tables: ``TABLES``, and the data of the figures; figures that show nothing are
            left out.
    """
    shown = {name: FIGURES[name].title for name in FIGURES if not tables[name].empty}
    traced = html_report.lineage(
        scores,
        {"measure": settings.model_dump(mode="json")},
        root=ROOT,
        folder=settings.folder,
        pipeline="measure",
    )
    found = html_report.Tables(**{name: tables[name] for name in TABLES})
    with _as_given(scores, settings):
        about = _about(scores)
        page = html_report.html_report(found, lineage=traced, about=about)
        findings = wording.findings(tables)
        screen = wording.screen_text(
            *(found.summary, found.golds, shown, settings.folder),
            findings=[findings["onsets"], findings["compared"]],
            page="curves",
        )
        text = wording.markdown(
            *(found.summary, found.golds, shown),
            findings=list(findings.values()),
            table=about,
        )
    logger.info("%s", screen)
    return page, text
