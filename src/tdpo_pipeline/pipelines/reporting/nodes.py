"""Nodes that collect the runs, draw the figures and say what happened."""

from __future__ import annotations

import logging
import re
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tdpo_pipeline import figures, overoptimization
from tdpo_pipeline.figures.strips import Pixels, Strip, pack_strips, unpack_strips
from tdpo_pipeline.overoptimization import report as words

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")

FIGURES = {
    "proxy_vs_gold": "proxy and its gold over reward queries and over KL",
    "sample_efficiency": "trained reward over reward queries",
    "cross_reward_seen": "held-out rewards on the prompts trained on",
    "cross_reward_untrained": "held-out rewards on other simple animals",
    "cross_reward_unseen": "held-out rewards on unseen animals",
    "cross_reward_complex": "held-out rewards on complex prompts",
    "dormant": "dormant neurons of the temporal critic",
    "sample_grid": "samples at matched reward, the base model first",
}
"""Name and title of every figure, in the order of the summary."""

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


def judge_golds(scores: pd.DataFrame) -> pd.DataFrame:
    """Whether the gold of each trained proxy fell."""
    return overoptimization.gold_report(scores)


def draw_sample_efficiency(history: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figure 4."""
    return figures.sample_efficiency(history)


def draw_proxy_vs_gold(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Proxy against gold on the prompts trained on."""
    return figures.proxy_vs_gold(curves)


def draw_cross_reward_seen(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figure 3."""
    return figures.cross_reward(curves, group="seen")


def draw_cross_reward_untrained(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """As TDPO's figure 3, on the training animals that were left out."""
    return figures.cross_reward(curves, group="untrained")


def draw_cross_reward_unseen(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figures 5 and 11."""
    return figures.cross_reward(curves, group="unseen")


def draw_cross_reward_complex(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figure 12."""
    return figures.cross_reward(curves, group="complex")


def draw_dormant(history: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figure 8."""
    return figures.dormant(history)


def draw_sample_grid(
    run_curves: pd.DataFrame, scores: pd.DataFrame, *strips: Any
) -> tuple[Figure, pd.DataFrame]:
    """TDPO's figures 2, 7 and 13.

    Args:
        run_curves: Curves by run.
        scores: Scores of all runs; they know the prompts' groups.
        *strips: Picture and index of each method, in turn.
    """
    unpacked: dict[str, Strip] = {}
    for picture, index in zip(strips[::2], strips[1::2], strict=True):
        unpacked |= unpack_strips(picture, index)
    grouped = overoptimization.with_group(scores)
    groups = {
        str(reward): dict(zip(rows["prompt"], rows["group"], strict=True))
        for reward, rows in grouped.groupby("reward")
    }
    return figures.sample_grid(unpacked, run_curves, groups)


def report(
    summary: pd.DataFrame, golds: pd.DataFrame, folder: str, **drawn: pd.DataFrame
) -> tuple[str, dict[str, Any]]:
    """Say what happened: on the screen, as Markdown and as metrics.

    Args:
        summary: Last checkpoint of each method.
        golds: Whether the golds fell.
        folder: Folder of the report.
        **drawn: Data of every figure. They are here so that this node runs last, when
            all figures are there, and can leave out those that show nothing.

    Returns:
        The Markdown text and the metrics.
    """
    shown = {name: FIGURES[name] for name in FIGURES if not drawn[name].empty}
    logger.info("%s", words.screen_text(summary, golds, shown, folder))
    return words.markdown(summary, golds, shown), words.metrics(summary, golds)
