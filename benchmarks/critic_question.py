"""Does TDPO need a critic that learns? Six methods, five seeds, 25 epochs.

    python benchmarks/critic_question.py --workers 2
    python benchmarks/critic_question.py --workers 0              # the report alone

In the official half-precision configuration the critic's gradient is divided by the loss
scale twice, so that the critic probably never learned (docs/algorithms.md). This compares
the official code, the paper to the letter, the mended methods and TDPO without a critic,
on aesthetic-mini. The mended methods run twice, with the learning rate that they are
configured with and with that of the other three, which is lower. A finished run appends its
epochs to benchmarks/results/critic_question.csv, and is not run again; the report over seeds
goes to critic_question.json: what the critic explains of the returns before it is trained on
them, the deviation of what it leaves, how far its weights moved, and the other rewards
where the trained one has risen equally far.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from common import ROOT, interval, parameters, run_config, write
from runs import logged_epochs

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.overoptimization.paths import first_crossing

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "critic_question.csv"
METHODS = (
    "tdpo_official",
    "tdpo_r_official",
    "tdpo_paper",
    "tdpo",
    "tdpo_r",
    "tdpo_no_critic",
)
MENDED = ("tdpo", "tdpo_r", "tdpo_no_critic")
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 25
REWARD = "aesthetic-mini"
OTHERS = ("gold_taste", "pick-mini", "hps-mini", "imagereward-mini", "gold_match")
CRITIC = (
    "critic_explained_variance",
    "critic_residual_std",
    "critic_prediction_std",
    "critic_weight_change",
    "critic_dormant_pct",
    "critic_overlap_pct",
)
KEPT = (
    *("epoch", "reward_queries", "kl_to_base", "policy_grad_spread", *CRITIC),
    *(f"{name}_mean" for name in OTHERS),
)


def first_at(history: pd.DataFrame, column: str, level: float) -> float:
    """``column`` where the trained reward first reaches ``level``; NaN if it doesn't.

    Linear between epochs, never beyond the last.
    """
    trained = history["trained_mean"].to_numpy(np.float64)
    return float(first_crossing(trained, history[[column]].to_numpy(), level)[0])


def configurations(params: dict[str, Any], seeds: Sequence[int]) -> list[RunConfig]:
    """The runs of these seeds: as configured, then the mended ones at the official rate."""
    scale = {"epochs": EPOCHS}
    official = run_config(params, "tdpo_official", REWARD, 0).algorithm.optimizer
    rate = {"learning_rate": official.learning_rate}
    variants = [(m, {}) for m in METHODS] + [(m, rate) for m in MENDED]
    return [
        run_config(params, method, REWARD, seed, training=scale, optimizer=changes)
        for seed in seeds
        for method, changes in variants
    ]


def levels(log: pd.DataFrame) -> list[float]:
    """Two levels of the trained reward that most runs reach: a rise of 1/2 and of 3/4.

    The rise is from the first epoch's mean to the median of the runs' highest values.
    """
    proxy = log.groupby(["method", "learning_rate", "seed"])["trained_mean"]
    base, top = float(proxy.first().mean()), float(proxy.max().median())
    return [round(base + share * (top - base), 4) for share in (0.5, 0.75)]


def outcome(history: pd.DataFrame, at: Sequence[float]) -> dict[str, float]:
    """A run in numbers: its critic late in training, and its rewards."""
    late, last = history[history["epoch"] > EPOCHS // 2], history.iloc[-1]
    found = {name: late[name].mean() for name in CRITIC}
    found |= {
        f"{REWARD} at its highest": history["trained_mean"].max(),
        f"{REWARD} at the end": last["trained_mean"],
        "KL at the end": last["kl_to_base"],
    }
    for name in OTHERS:
        column = f"{name}_mean"
        found[f"{name} at the end"] = last[column]
        for level in at:
            found[f"{name} at {REWARD} {level:g}"] = first_at(history, column, level)
    return found


def apart(runs: pd.DataFrame, others: pd.DataFrame) -> float:
    """The largest difference of the trained reward in any epoch of any seed."""
    one, other = (
        table.set_index(["seed", "epoch"])["trained_mean"] for table in (runs, others)
    )
    return float((one - other).abs().max())


def report(log: pd.DataFrame) -> dict[str, object]:
    """The comparison over seeds; the same seeds without a critic are subtracted."""
    at = levels(log)
    keys = ["method", "learning_rate", "seed"]
    table = pd.DataFrame(
        {key: outcome(history, at) for key, history in log.groupby(keys, sort=False)}
    ).T.rename_axis(keys)
    without = table.loc["tdpo_no_critic"]
    epochs = dict(list(log.groupby(keys[:2])))
    lines: dict[str, object] = {}
    for (method, rate), runs in table.groupby(keys[:2], sort=False):
        line: dict[str, object] = {name: interval(runs[name]) for name in runs}
        if method != "tdpo_no_critic" and rate in without.index:
            more = runs.loc[method, rate] - without.loc[rate]
            line["minus tdpo_no_critic"] = {
                name: interval(more[name]) for name in more if name not in CRITIC
            }
            line["furthest from tdpo_no_critic in any epoch"] = apart(
                epochs[method, rate], epochs["tdpo_no_critic", rate]
            )
        lines[f"{method}, learning rate {rate:g}"] = line
    return {"levels": at, "methods": lines}


def main() -> None:
    """Train what is missing, and report on what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    params = parameters("base")
    log = logged_epochs(
        configurations(params, options.seeds),
        configurations(params, SEEDS),
        LOG,
        KEPT,
        workers=options.workers,
    )
    found = {"command": "python benchmarks/critic_question.py", "epochs": EPOCHS}
    write(RESULTS / "critic_question.json", found | report(log))


if __name__ == "__main__":
    main()
