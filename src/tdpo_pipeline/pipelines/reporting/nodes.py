"""Nodes that collect the runs, draw the figures and say what happened."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel

from tdpo_pipeline import figures, html_report, overoptimization
from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.figures.strips import Pixels, Strip, pack_strips, unpack_strips
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization import report as words
from tdpo_pipeline.overoptimization.diversity import MEASURES
from tdpo_pipeline.overoptimization.joins import with_diversity
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS
from tdpo_pipeline.overoptimization.tripwires import tripwires, tripwires_markdown
from tdpo_pipeline.rewards.registry import reward_name

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")

_RUN_KEY = re.compile(r"(?P<method>[^-]+)-(?P<reward>.+)-s(?P<seed>\d+)")


def collect_epochs(**runs: pd.DataFrame) -> pd.DataFrame:
    """Put the histories, or the timings, of several runs into one table.

    Args:
        **runs: Table of each run, by its key ``<method>-<reward>-s<seed>``.

    Returns:
        All rows, with the columns run, method, reward and seed in front.
    """
    tables = []
    for key, epochs in runs.items():
        match = _RUN_KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"'{key}' is no run key, <method>-<reward>-s<seed>.")
        names = {"run": key, **match.groupdict(), "seed": int(match["seed"])}
        front = pd.DataFrame(names, index=epochs.index)
        tables.append(pd.concat([front, epochs], axis=1))
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


def _parts_of(tasks: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside the block it is known which rewards each trained ensemble is made of.

    Args:
        tasks: Parameters of every reward.
    """
    settings = {name: _as_configured(task) for name, task in tasks.items()}
    parts = {
        name: [reward_name(part) for part in task["ensemble"]]
        for name, task in settings.items()
        if task.get("ensemble")
    }
    return overoptimization.known_rewards(parts=parts)


def measure_methods(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Curves of every reward by method, all seeds together."""
    with _parts_of(rewards):
        return overoptimization.reward_curves(scores)


def measure_runs(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Curves of every reward by run."""
    with _parts_of(rewards):
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


def find_onsets(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Since when each reward has been falling, on the prompts trained on."""
    with _parts_of(rewards):
        return overoptimization.find_onsets(scores)


def match_methods(
    scores: pd.DataFrame,
    timings: pd.DataFrame,
    references: Sequence[str],
    rewards: dict[str, Any],
) -> pd.DataFrame:
    """Methods at equal training reward, queries, KL and seconds."""
    with _parts_of(rewards):
        return overoptimization.matched_report(
            scores, references=references, timings=timings
        )


def fit_peaks(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Golds, or held-out rewards without one, against the distance from the base."""
    with _parts_of(rewards):
        return overoptimization.goodhart_report(scores)


def join_rewards(
    scores: pd.DataFrame, held_out: Sequence[str], rewards: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """On how many prompts all of the rewards that stops watch rose, or fell."""
    with _parts_of(rewards):
        return overoptimization.joint_report(scores, held_out=held_out)


def judge_stops(
    history: pd.DataFrame,
    held_out: Sequence[str],
    alpha: float,
    min_epochs: int,
    rewards: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What rules for stopping would have been worth: by run, and their means."""
    watched = [name for name in held_out if f"{name}_mean" in history]
    with _parts_of(rewards):
        regrets = overoptimization.stopping_report(
            history, held_out=watched, alpha=alpha, min_epochs=min_epochs
        )
    return regrets, overoptimization.summarise_regrets(regrets)


def trace(
    scores: pd.DataFrame,
    folder: str,
    methods: dict[str, Any],
    rewards: dict[str, Any],
    training: Any,
    evaluation: Any,
) -> dict[str, Any]:
    """Say which code, data and parameters the report stands on.

    Args:
        scores: Scores of all runs.
        folder: Folder of the report.
        methods: Parameters of every method; those of the runs are kept.
        rewards: Parameters of every reward, likewise.
        training: Parameters of training that all runs share.
        evaluation: Parameters of the evaluation.
    """
    used = {
        **{f"method {name}": methods[name] for name in sorted(set(scores["method"]))},
        **{f"reward {name}": rewards[name] for name in sorted(set(scores["reward"]))},
        "training": training,
        "evaluation": evaluation,
    }
    plain = {title: _as_configured(settings) for title, settings in used.items()}
    return html_report.lineage(scores, plain, root=ROOT, folder=folder)


def _as_configured(settings: Any) -> Any:
    """Parameters as plain values; beside the nodes that type them they are objects."""
    if isinstance(settings, BaseModel):
        return settings.model_dump(mode="json", exclude_unset=True)
    return settings


def draw_page(
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    golds: pd.DataFrame,
    onsets: pd.DataFrame,
    prompts: pd.DataFrame,
    matched: pd.DataFrame,
    goodhart: pd.DataFrame,
    joint: pd.DataFrame,
    regrets: pd.DataFrame,
    lineage: dict[str, Any],
    **strips: Any,
) -> str:
    """Write the report as one HTML page.

    Args:
        curves: Curves by method.
        summary: Last checkpoint of each method.
        golds: Whether the golds fell.
        onsets: Since when rewards have been falling.
        prompts: Changes by prompt.
        matched: Methods on equal terms.
        goodhart: Fits against the distance from the base model.
        joint: What all held-out rewards did together.
        regrets: Mean regrets of stopping rules.
        lineage: What the report stands on.
        **strips: For each method ``strips <method>`` (picture) and ``rows <method>``
            (what is where in it).
    """
    unpacked: dict[str, Strip] = {}
    for name, picture in strips.items():
        kind, method = name.split(" ")
        if kind == "strips":
            unpacked |= unpack_strips(picture, strips[f"rows {method}"])
    tables = html_report.Tables(
        *(curves, summary, golds, onsets, prompts, matched, goodhart, joint, regrets)
    )
    return html_report.html_report(tables, lineage=lineage, strips=unpacked)


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
    matched: pd.DataFrame,
    goodhart: pd.DataFrame,
    joint: pd.DataFrame,
    regrets: pd.DataFrame,
    folder: str,
    configured: dict[str, Any],
    page: str,
    **drawn: pd.DataFrame,
) -> tuple[str, dict[str, Any]]:
    """Say what happened: on the screen, as Markdown and as metrics.

    Args:
        summary: Last checkpoint of each method.
        golds: Whether the golds fell.
        wires: Where the image statistics stand.
        matched: Methods on equal terms.
        goodhart: Fits against the distance from the base model.
        joint: What all held-out rewards did together.
        regrets: Mean regrets of stopping rules.
        folder: Folder of the report.
        configured: Settings of every figure, in the order of the summary.
        page: The report as a page; it is here so that this node runs last.
        **drawn: Data of every figure that is drawn. They are here for the same reason,
            and so that figures that show nothing are left out.

    Returns:
        The Markdown text and the metrics.
    """
    shown = {
        name: FigureSettings.model_validate(settings).title
        for name, settings in configured.items()
        if name in drawn and not drawn[name].empty
    }
    logger.info("%s", words.screen_text(summary, golds, shown, folder))
    lines = [
        words.matched_line(matched),
        words.goodhart_line(goodhart),
        words.joint_line(joint),
        words.stopping_line(regrets),
    ]
    text = words.markdown(summary, golds, shown, tripwires_markdown(wires), lines)
    return text, words.metrics(summary, golds)
