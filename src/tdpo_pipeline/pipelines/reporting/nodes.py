"""Nodes that collect the runs, draw the figures and say what happened."""

from __future__ import annotations

import logging
import re
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tdpo_pipeline import figures, overoptimization
from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.figures.strips import Pixels, Strip, pack_strips, unpack_strips
from tdpo_pipeline.overoptimization import report as words
from tdpo_pipeline.overoptimization.diversity import MEASURES
from tdpo_pipeline.overoptimization.joins import with_diversity
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS
from tdpo_pipeline.overoptimization.tripwires import tripwires, tripwires_markdown

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")

_RUN_KEY = re.compile(r"(?P<method>[^-]+)-(?P<reward>.+)-s(?P<seed>\d+)")


def collect_history(**histories: pd.DataFrame) -> pd.DataFrame:
    """Put the histories of several runs into one table.

    Args:
        **histories: History of each run, by its key ``<method>-<reward>-s<seed>``.

    Returns:
        All rows, with the columns run, method, reward and seed in front.
    """
    tables = []
    for key, history in histories.items():
        match = _RUN_KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"'{key}' is no run key, <method>-<reward>-s<seed>.")
        names = {"run": key, **match.groupdict(), "seed": int(match["seed"])}
        front = pd.DataFrame(names, index=history.index)
        tables.append(pd.concat([front, history], axis=1))
    return pd.concat(tables, ignore_index=True)


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """Put tables under each other."""
    return pd.concat(tables, ignore_index=True)


def collect_strips(**parts: Any) -> tuple[Pixels, dict[str, Any]]:
    """Put the sample strips of several runs into one picture.

    Args:
        **parts: For each run key, ``strip <key>`` (picture) and ``index <key>`` (with
            ``epochs`` and ``prompts``).

    Returns:
        The picture, and what is where in it (see ``pack_strips``).
    """
    keys = [name.removeprefix("strip ") for name in parts if name.startswith("strip ")]
    strips = {}
    for key in keys:
        index = parts[f"index {key}"]
        picture = parts[f"strip {key}"]
        strips[key] = Strip.from_picture(picture, index["epochs"], index["prompts"])
    return pack_strips(strips)


def measure_methods(scores: pd.DataFrame) -> pd.DataFrame:
    """Curves of every reward by method, all seeds together."""
    return overoptimization.reward_curves(scores)


def measure_runs(scores: pd.DataFrame) -> pd.DataFrame:
    """Curves of every reward by run."""
    return overoptimization.reward_curves(scores, by=overoptimization.RUN)


def measure_diversity(scores: pd.DataFrame, diversity: pd.DataFrame) -> pd.DataFrame:
    """Curves of the diversity of a prompt's images by method."""
    whole = with_diversity(scores, diversity)
    columns = [
        *INDEX_COLUMNS,
        *(name for name in MEASURES if whole[name].notna().any()),
    ]
    return overoptimization.reward_curves(whole[columns])


def watch_statistics(statistics: pd.DataFrame) -> pd.DataFrame:
    """Where the image statistics stand against the base model's range."""
    return tripwires(statistics)


def judge_golds(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether the gold of each trained proxy fell."""
    return overoptimization.gold_report(scores)


def draw(figure: FigureSettings, table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw a figure from the table of all runs that its form takes."""
    return figures.draw(figure, table)


def draw_samples(
    figure: FigureSettings,
    run_curves: pd.DataFrame,
    scores: pd.DataFrame,
    *strips: Any,
) -> tuple[Figure, pd.DataFrame]:
    """Draw a sample grid.

    Args:
        figure: What to draw.
        run_curves: Curves by run.
        scores: Scores of all runs; they know the prompts' groups.
        *strips: Picture and index of each method that is shown, in turn.
    """
    unpacked: dict[str, Strip] = {}
    for picture, index in zip(strips[::2], strips[1::2], strict=True):
        unpacked |= unpack_strips(picture, index)
    grouped = overoptimization.with_group(scores)
    groups = {
        str(reward): dict(zip(rows["prompt"], rows["group"], strict=True))
        for reward, rows in grouped.groupby("reward")
    }
    return figures.draw(figure, run_curves, unpacked, groups)


def report(
    summary: pd.DataFrame,
    golds: pd.DataFrame,
    wires: pd.DataFrame,
    folder: str,
    configured: dict[str, Any],
    **drawn: pd.DataFrame,
) -> tuple[str, dict[str, Any]]:
    """Say what happened: on the screen, as Markdown and as metrics.

    Args:
        summary: Last checkpoint of each method.
        golds: Whether the golds fell.
        wires: Where the image statistics stand.
        folder: Folder of the report.
        configured: Settings of every figure, in the order of the summary.
        **drawn: Data of every figure that is drawn. They are here so that this node
            runs last, when all figures are there, and can leave out those that show
            nothing.

    Returns:
        The Markdown text and the metrics.
    """
    shown = {
        name: FigureSettings.model_validate(settings).title
        for name, settings in configured.items()
        if name in drawn and not drawn[name].empty
    }
    logger.info("%s", words.screen_text(summary, golds, shown, folder))
    text = words.markdown(summary, golds, shown, tripwires_markdown(wires))
    return text, words.metrics(summary, golds)
