"""Nodes that collect the runs, draw the figures and say what happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel

from tdpo_pipeline import figures, html_report, overoptimization
from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.figures.strips import Pixels, Strip
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization import report as wording
from tdpo_pipeline.overoptimization.diversity import MEASURES
from tdpo_pipeline.overoptimization.joins import with_diversity
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS, MAIN_ETA
from tdpo_pipeline.overoptimization.tripwires import tripwires, tripwires_markdown

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")

PER_EPOCH = ("history", "timings")
PER_IMAGE = ("scores", "image_statistics", "diversity")
PER_RUN = ("metrics", "strip", "strip_index")
"""What a run leaves for the report: tables with a row an epoch, tables with a row an
image or a prompt, and the rest."""

Collected = Mapping[str, Callable[[], pd.DataFrame]]
"""The tables of one method, by kind; each is loaded when it is called."""

_NAMES = ("run", "method", "reward", "seed")
"""What a table's rows of several runs are told apart by."""


def collect(**parts: Any) -> dict[str, pd.DataFrame]:
    """Put everything that the runs of one method made into one table of each kind.

    Args:
        **parts: By ``<kind> <run key>``, for each run: its ``history`` and ``timings``
            (a row an epoch); its ``scores``, ``image_statistics`` and ``diversity``,
            which name their run; its ``metrics``; its ``strip`` (picture) and
            ``strip_index`` (with ``epochs`` and ``prompts``).

    Returns:
        ``history``, ``timings``, ``scores``, ``image_statistics``, ``diversity``,
        ``metrics`` (a row a prompt group and reward) and ``strips`` (a row a run, with
        the picture's bytes), of all the runs.

    Raises:
        ScoreTableError: If the scores of a run are another one's.
    """
    of: dict[str, dict[str, Any]] = {
        kind: {} for kind in (*PER_EPOCH, *PER_IMAGE, *PER_RUN)
    }
    for name, part in parts.items():
        kind, key = name.split(" ")
        of[kind][key] = part
    names = {key: _names(key, scores) for key, scores in of["scores"].items()}
    outcomes = {key: _outcome(metrics) for key, metrics in of["metrics"].items()}
    pictures = {
        key: _packed(strip, of["strip_index"][key])
        for key, strip in of["strip"].items()
    }
    return {
        **{kind: _of_runs(of[kind], names) for kind in PER_EPOCH},
        **{kind: concatenate(*of[kind].values()) for kind in PER_IMAGE},
        "metrics": _of_runs(outcomes, names),
        "strips": _of_runs(pictures, names),
    }


def _names(key: str, scores: pd.DataFrame) -> dict[str, Any]:
    """Key, method, reward and seed of a run, as its scores have them.

    They aren't read off the key: names of methods and rewards may have hyphens too.
    """
    names = {name: scores[name].iloc[0] for name in _NAMES}
    if names["run"] != key:
        raise overoptimization.ScoreTableError(
            f"The scores of the run '{key}' are those of '{names['run']}'. Evaluate it "
            "again."
        )
    return names


def _of_runs(
    tables: Mapping[str, pd.DataFrame], names: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """The tables of several runs in one, with the columns run, method, reward, seed.

    Args:
        tables: Table of each run, by the run's key.
        names: What these columns hold, by the run's key.
    """
    return concatenate(
        *(
            pd.concat([pd.DataFrame(names[key], index=table.index), table], axis=1)
            for key, table in tables.items()
        )
    )


def _outcome(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """The metrics of a run as a table: a row a prompt group and reward."""
    groups = {name: value for name, value in metrics.items() if name != "epoch"}
    return pd.DataFrame(
        [
            {"epoch": metrics["epoch"], "group": group, "scored": reward, **values}
            for group, rewards in groups.items()
            for reward, values in rewards.items()
        ]
    )


def _packed(picture: Pixels, index: Mapping[str, Any]) -> pd.DataFrame:
    """A run's sample strip as a row: what ``Strip.from_picture`` takes, and the shape."""
    row = {
        "epochs": index["epochs"],
        "prompts": index["prompts"],
        "shape": list(picture.shape),
        "pixels": picture.tobytes(),
    }
    return pd.DataFrame([row])


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """Put tables under each other, and together what they know of papers' scales."""
    whole = pd.concat(tables, ignore_index=True)
    scales = {k: v for table in tables for k, v in read_scales(table).items()}
    whole.attrs = {"paper_scale": scales} if scales else {}
    return whole


def read_scales(scores: pd.DataFrame) -> dict[str, Any]:
    """Factor and offset to a paper's units, of each reward where these are others."""
    return dict(scores.attrs.get("paper_scale", {}))


def gather(*methods: Collected) -> tuple[pd.DataFrame, ...]:
    """Put the tables of all methods under each other: those that the report measures.

    Args:
        *methods: What ``collect`` made for each method.

    Returns:
        A table for each kind of ``PER_EPOCH`` and ``PER_IMAGE``, in this order.
    """
    return tuple(
        concatenate(*(method[kind]() for method in methods))
        for kind in (*PER_EPOCH, *PER_IMAGE)
    )


def strips_of(methods: Iterable[Collected]) -> dict[str, Strip]:
    """The sample strips of all runs of some methods, by run."""
    strips: dict[str, Strip] = {}
    for method in methods:
        for row in method["strips"]().to_dict("records"):
            pixels = np.frombuffer(row["pixels"], np.uint8).reshape(row["shape"])
            epochs = [int(epoch) for epoch in row["epochs"]]
            strips[row["run"]] = Strip.from_picture(pixels, epochs, row["prompts"])
    return strips


def _parts_of(tasks: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside the block it is known which rewards each trained ensemble is made of.

    Args:
        tasks: Parameters of every reward.
    """
    settings = {name: _as_configured(task) for name, task in tasks.items()}
    parts = {
        name: [_own_name(part) for part in task["ensemble"]]
        for name, task in settings.items()
        if task.get("ensemble")
    }
    return overoptimization.known_rewards(parts=parts)


def _own_name(reward: str) -> str:
    """What tables call a reward: the name of a class of one's own, ``module:Class``."""
    module, _, attribute = reward.partition(":")
    if not attribute:
        return reward
    return str(getattr(getattr(import_module(module), attribute), "name", reward))


def measure_methods(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Curves of every reward by method, all seeds together."""
    with _parts_of(rewards):
        return overoptimization.reward_curves(scores)


def measure_runs(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Curves of every reward by run."""
    with _parts_of(rewards):
        return overoptimization.reward_curves(scores, by=overoptimization.RUN)


def measure_agreement(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """How often two rewards rank two pictures of a prompt alike, by method."""
    with _parts_of(rewards):
        return overoptimization.pairwise_agreement(scores)


def of_main_eta(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves that figures and the page show.

    What other samplers made of the last checkpoint is in the summary.
    """
    return curves[curves["eta"] == MAIN_ETA].reset_index(drop=True)


def measure_diversity(scores: pd.DataFrame, diversity: pd.DataFrame) -> pd.DataFrame:
    """Curves of the diversity of a prompt's images by method."""
    return overoptimization.reward_curves(_diversity_of(scores, diversity))


def match_diversity(
    scores: pd.DataFrame, diversity: pd.DataFrame, references: Sequence[str]
) -> pd.DataFrame:
    """Diversity of the methods at equal training reward, queries and KL."""
    trained = sorted(scores["reward"].unique())
    whole = _diversity_of(scores, diversity, besides=trained)
    table = overoptimization.matched_report(whole, references=references)
    measured = table["scored"].isin(MEASURES) | table["scored"].isna()
    return table[measured & (table["along"] != "seconds")].reset_index(drop=True)


def _diversity_of(
    scores: pd.DataFrame, diversity: pd.DataFrame, besides: Sequence[str] = ()
) -> pd.DataFrame:
    """A score table of the measures of diversity that are known anywhere.

    Args:
        scores: Score table.
        diversity: Diversity tables of its runs.
        besides: Rewards to keep.
    """
    whole = with_diversity(scores, diversity)
    known = [name for name in MEASURES if whole[name].notna().any()]
    return whole[[*INDEX_COLUMNS, *besides, *known]]


def watch_statistics(statistics: pd.DataFrame) -> pd.DataFrame:
    """Where the image statistics stand against the base model's range."""
    return tripwires(statistics)


def judge_golds(scores: pd.DataFrame, rewards: dict[str, Any]) -> pd.DataFrame:
    """Whether the gold of each trained proxy fell."""
    with _parts_of(rewards):
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


def measure_costs(
    scores: pd.DataFrame, references: Sequence[str], rewards: dict[str, Any]
) -> pd.DataFrame:
    """What equal training reward takes of queries and KL."""
    with _parts_of(rewards):
        return overoptimization.cost_report(scores, references=references)


def compare_methods(
    scores: pd.DataFrame,
    references: Sequence[str],
    held_out: Sequence[str],
    rewards: dict[str, Any],
) -> pd.DataFrame:
    """Methods at equal epochs, tested, with the seeds that a test takes."""
    with _parts_of(rewards):
        return overoptimization.compare_report(
            scores, references=references, held_out=held_out
        )


def measure_fronts(
    scores: pd.DataFrame, held_out: Sequence[str], rewards: dict[str, Any]
) -> pd.DataFrame:
    """How much each method's checkpoints dominate of the space of rewards."""
    with _parts_of(rewards):
        return overoptimization.hypervolume_report(scores, held_out=held_out)


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
    epochs: int,
    methods: dict[str, Any],
    rewards: dict[str, Any],
) -> tuple[pd.DataFrame, ...]:
    """What rules for stopping would have been worth, and which alarms were right.

    Args:
        history: Histories of all runs.
        held_out: Rewards that rules may watch.
        alpha: Rate of false alarms.
        min_epochs: Epochs before which there is no alarm.
        epochs: Planned epochs of the methods whose ``scale`` doesn't say their own.
        methods: Parameters of every method.
        rewards: Parameters of every reward.

    Returns:
        The regrets by run, and their means; the alarms by run, and their counts.
    """
    scales = {name: _as_configured(m).get("scale", {}) for name, m in methods.items()}
    how: dict[str, Any] = {
        "held_out": held_out,
        "alpha": alpha,
        "min_epochs": min_epochs,
        "horizons": {n: s.get("epochs") or epochs for n, s in scales.items()},
    }
    with _parts_of(rewards):
        regrets = overoptimization.stopping_report(history, **how)
        alarms = overoptimization.judge_alarms(history, **how)
    summary = overoptimization.summarise_regrets(regrets)
    return regrets, summary, alarms, overoptimization.count_alarms(alarms)


def trace(
    scores: pd.DataFrame,
    folder: str,
    methods: dict[str, Any],
    rewards: dict[str, Any],
    training: Any,
    evaluation: Any,
    own_evaluation: Any,
) -> dict[str, Any]:
    """Say which code, data and parameters the report stands on.

    Args:
        scores: Scores of all runs.
        folder: Folder of the report.
        methods: Parameters of every method; those of the runs are kept.
        rewards: Parameters of every reward, likewise.
        training: Parameters of training that all runs share.
        evaluation: Parameters of the evaluation.
        own_evaluation: Its prompts by what is trained on; those of the runs are kept.
    """
    used = {
        **{f"method {name}": methods[name] for name in sorted(set(scores["method"]))},
        **{f"reward {name}": rewards[name] for name in sorted(set(scores["reward"]))},
        "training": training,
        "evaluation": evaluation,
    }
    plain = {title: _as_configured(settings) for title, settings in used.items()}
    own = _as_configured(own_evaluation)
    for reward in sorted(set(scores["reward"])):
        trained = plain[f"reward {reward}"]["train_prompts"]
        if trained in own:
            plain[f"evaluation, trained on {trained}"] = own[trained]
    return html_report.lineage(
        scores, plain, root=ROOT, folder=folder, pipeline="reporting"
    )


def _as_configured(settings: Any) -> Any:
    """Parameters as plain values; beside the nodes that type them they are objects."""
    if isinstance(settings, BaseModel):
        return settings.model_dump(mode="json", exclude_unset=True)
    return settings


def draw_page(lineage: dict[str, Any], **shown: Any) -> str:
    """Write the report as one HTML page.

    Args:
        lineage: What the report stands on.
        **shown: The tables of the page by their names there; and by
            ``collected <method>`` what ``collect`` made: the strips are in it.
    """
    collected = [part for name, part in shown.items() if name.startswith("collected ")]
    tables = html_report.Tables(**{n: shown[n] for n in html_report.Tables._fields})
    return html_report.html_report(tables, lineage=lineage, strips=strips_of(collected))


def draw(
    figure: FigureSettings,
    table: pd.DataFrame,
    scales: dict[str, Any],
    rewards: dict[str, Any],
) -> tuple[Figure, pd.DataFrame]:
    """Draw a figure from the table of all runs that its form takes, and papers' scales."""
    with _parts_of(rewards), figures.paper_scales(scales):
        return figures.draw(figure, table)


def draw_samples(
    figure: FigureSettings,
    run_curves: pd.DataFrame,
    scores: pd.DataFrame,
    *collected: Collected,
) -> tuple[Figure, pd.DataFrame]:
    """Draw a sample grid.

    Args:
        figure: What to draw.
        run_curves: Curves by run.
        scores: Scores of all runs; they know the prompts' groups.
        *collected: What ``collect`` made for each method that is shown.
    """
    grouped = overoptimization.with_group(scores)
    groups = {
        str(reward): dict(zip(rows["prompt"], rows["group"], strict=True))
        for reward, rows in grouped.groupby("reward")
    }
    return figures.draw(figure, run_curves, strips_of(collected), groups)


def report(
    folder: str,
    configured: dict[str, Any],
    wires: pd.DataFrame,
    page: str,
    **tables: pd.DataFrame,
) -> tuple[str, dict[str, Any]]:
    """Say what happened: on the screen, as Markdown and as metrics.

    Args:
        folder: Folder of the report.
        configured: Settings of every figure, in the order of the summary.
        wires: Where the image statistics stand.
        page: The report as a page; it is here so that this node runs last.
        **tables: ``summary``, ``golds`` and those that something is said of
            (``FINDINGS``); and the data of every figure that is drawn, for the same
            reason, and so that figures that show nothing are left out.

    Returns:
        The Markdown text and the metrics.
    """
    shown = {
        name: FigureSettings.model_validate(settings).title
        for name, settings in configured.items()
        if name in tables and not tables[name].empty
    }
    summary, golds = tables["summary"], tables["golds"]
    logger.info("%s", wording.screen_text(summary, golds, shown, folder))
    findings = list(wording.findings(tables).values())
    text = wording.markdown(summary, golds, shown, tripwires_markdown(wires), findings)
    return text, wording.metrics(summary, golds)
