"""How often to reset the critic, which of its neurons, and what to make it of.

    python benchmarks/critic_variants.py --workers 2
    python benchmarks/critic_variants.py --workers 0              # the report alone

TDPO on aesthetic-mini, 25 epochs, as in critic_question.py, with one thing changed: every
how many epochs the critic's active, dormant or all neurons are drawn anew (1, 2, 3 and 5
of 25 are 4, 8, 12 and 20 %; 1 and 2 % of so few round up to every epoch, too; never is
`tdpo`), how deep the critic is, and which activation stands between its layers, without
resets and with TDPO-R's. A finished run appends its epochs to
benchmarks/results/critic_variants.csv, and is not run again; the report over seeds goes
to critic_variants.json: the critic's numbers late in training, every reward at the end
and where the trained one first reaches a level, all of it minus that of `tdpo` with
the same seed, and how the part of dormant neurons goes with what was not trained on, both
where the trained reward first reaches a level.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from common import ROOT, interval, parameters, run_config, write
from critic_question import EPOCHS, KEPT, OTHERS, REWARD, first_at, levels, outcome
from runs import logged_epochs
from scipy import stats

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.overoptimization.intervals import FloatArray

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "critic_variants.csv"
SEEDS = (0, 1, 2)
BASELINE = "tdpo"
DORMANT = "critic_dormant_pct"
DRAWS = 1000
SCOPES = ("active", "dormant", "all")
EVERY = (1, 2, 3, 5)
CRITICS: dict[str, dict[str, Any]] = {
    "two_layers": {"hidden": [256], "dropout": [0.2]},
    "nine_layers": {"hidden": [256, 128, 64, 64, 32, 32, 16, 16]},
    "relu": {"activation": "relu"},
    "leaky_relu": {"activation": "leaky_relu"},
}
"""What differs from the configured critic, which has five linear layers and no activation."""


def variants(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each variant changes of TDPO's settings, by its name."""
    critic = run_config(params, BASELINE, REWARD, 0).algorithm.model_dump()["critic"]
    found: dict[str, dict[str, Any]] = {BASELINE: {}}
    for scope in SCOPES:
        for epochs in EVERY:
            neurons = {"reset": scope, "reset_fraction": epochs / EPOCHS}
            found[f"reset_{scope}_every_{epochs}"] = {"neurons": neurons}
    for name, changes in CRITICS.items():
        found[name] = {"critic": critic | changes}
        found[f"{name}_reset"] = found[name] | {"neurons": {"reset": "active"}}
    return found


def configurations(params: dict[str, Any], seeds: Sequence[int]) -> list[RunConfig]:
    """The runs of these seeds, each under the name of its variant."""
    scale = {"epochs": EPOCHS}
    return [
        run_config(
            params, BASELINE, REWARD, seed, training=scale, algorithm=changes
        ).model_copy(update={"method": name})
        for seed in seeds
        for name, changes in variants(params).items()
    ]


def report(log: pd.DataFrame) -> dict[str, object]:
    """Every variant over seeds, and minus TDPO; and what dormant neurons go with."""
    at = levels(log)
    table = pd.DataFrame(
        {
            key: outcome(history, at) | dormant_at(history, at)
            for key, history in log.groupby(["method", "seed"], sort=False)
        }
    ).T.rename_axis(["method", "seed"])
    baseline = table.loc[BASELINE]
    lines: dict[str, object] = {}
    for method, runs in table.groupby("method", sort=False):
        line: dict[str, object] = {name: interval(runs[name]) for name in runs}
        if method != BASELINE:
            more = runs.loc[method] - baseline
            line[f"minus {BASELINE}"] = {name: interval(more[name]) for name in more}
        lines[str(method)] = line
    return {
        "levels": at,
        "variants": lines,
        "dormant neurons and rewards": dormancy(table, at),
    }


def dormant_at(history: pd.DataFrame, at: Sequence[float]) -> dict[str, float]:
    """The percentage of dormant neurons where the trained reward reaches each level."""
    return {
        f"{DORMANT} at {REWARD} {level:g}": first_at(history, DORMANT, level)
        for level in at
    }


def dormancy(table: pd.DataFrame, at: Sequence[float]) -> dict[str, object]:
    """Rank correlation of dormant neurons and rewards at equal training reward.

    Of the variants all of whose seeds reach the level. Both are taken minus their seed's
    mean, so that seeds don't stand for variants. Runs of a variant are much alike, so that
    intervals are over variants, each drawn with all of its seeds.

    Args:
        table: Outcomes by variant and seed.
        at: Levels of the trained reward.
    """
    found: dict[str, object] = {}
    for level in at:
        for other in OTHERS:
            names = [f"{name} at {REWARD} {level:g}" for name in (DORMANT, other)]
            both = table[names].unstack("seed").dropna()
            seeds = both.columns.unique("seed").size
            pairs = both.to_numpy(np.float64).reshape(len(both), 2, seeds)
            rank, low, high = rank_correlation(pairs - pairs.mean(axis=0))
            found[names[1]] = {
                "variants": len(pairs),
                "seeds": seeds,
                "spearman": round(rank, 3),
                "low": round(low, 3),
                "high": round(high, 3),
            }
    return found


def rank_correlation(pairs: FloatArray) -> tuple[float, float, float]:
    """Spearman's, and the middle 95 % of it over variants that are drawn anew.

    Args:
        pairs: Shape (variants, 2, seeds). Fewer than three variants tell nothing: NaN.
    """
    if len(pairs) < 3:
        return np.nan, np.nan, np.nan
    every = np.arange(len(pairs))
    drawn = np.random.default_rng(0).integers(len(pairs), size=(DRAWS, len(pairs)))
    ranks = [
        stats.spearmanr(*pairs[row].swapaxes(0, 1).reshape(2, -1)).statistic
        for row in (every, *drawn)
        if len(set(row)) > 1
    ]
    low, high = np.quantile(ranks[1:], [0.025, 0.975])
    return float(ranks[0]), float(low), float(high)


def main() -> None:
    """Train what is missing, and report on what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    found = {"command": "python benchmarks/critic_variants.py", "epochs": EPOCHS}
    write(RESULTS / "critic_variants.json", found | report(log))


if __name__ == "__main__":
    main()
