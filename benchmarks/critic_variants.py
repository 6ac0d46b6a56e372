"""How often to reset the critic, which of its neurons, and what to make it of.

    python benchmarks/critic_variants.py --workers 2
    python benchmarks/critic_variants.py --workers 0              # the report alone

TDPO on aesthetic-mini, 25 epochs, as in critic_question.py, with one thing changed: every
how many epochs the critic's active, dormant or all neurons are drawn anew (1, 2, 3 and 5
of 25 are 4, 8, 12 and 20 %; 1 and 2 % of so few epochs are none; never is `tdpo`), how deep
the critic is, and which activation stands between its layers, without resets and with
TDPO-R's. A finished run appends its
epochs to benchmarks/results/critic_variants.csv, and is not run again; the report over
seeds goes to critic_variants.json: the critic's numbers late in training, every reward at
the end and where the trained one first reaches a level, all of it minus that of `tdpo` with
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

from tdpo_pipeline.config import RunConfig

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

    Both are taken minus their seed's mean, so that seeds don't stand for variants. Runs of
    a variant are much alike, so that intervals are over variants, each drawn with all of
    its seeds.

    Args:
        table: Outcomes by variant and seed.
        at: Levels of the trained reward.
    """
    centred = table - table.groupby("seed").transform("mean")
    found: dict[str, object] = {}
    for level in at:
        for other in OTHERS:
            columns = [f"{name} at {REWARD} {level:g}" for name in (DORMANT, other)]
            both = centred[columns].dropna()
            low, high = over_variants(both)
            found[columns[1]] = {
                "runs": len(both),
                "variants": both.index.unique("method").size,
                "spearman": round(rank_correlation(both), 3),
                "low": round(low, 3),
                "high": round(high, 3),
            }
    return found


def rank_correlation(both: pd.DataFrame) -> float:
    """Spearman's of the two columns."""
    return float(both.corr(method="spearman").iloc[0, 1])


def over_variants(both: pd.DataFrame) -> tuple[float, float]:
    """The middle 95 % of rank correlations of variants that were drawn anew."""
    rng = np.random.default_rng(0)
    groups = [runs for _, runs in both.groupby("method")]
    drawn = [
        rank_correlation(pd.concat([groups[i] for i in row]))
        for row in rng.integers(len(groups), size=(DRAWS, len(groups)))
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


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
