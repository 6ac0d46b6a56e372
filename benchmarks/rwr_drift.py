"""Why RWR falls in Menagerie: how far a model drifts that learns from its own samples.

    python benchmarks/rwr_drift.py --workers 2
    python benchmarks/rwr_drift.py --workers 0        # the report alone

RWR regresses the guided prediction on the model's own samples. If these were spread as
that prediction says, equal weights would change nothing on average, and weights by reward
could only help. So RWR is trained here with all weights 1; then without guidance as well,
which predicts no distribution's noise, in sampling and training; and then also with 50
sampling steps, since 10 are coarse. What falls without weights isn't the reward's doing.
The learning rate is the highest at which the trials of
learning_rate_trials.py stay within their distance of the base model. A line a run goes to
benchmarks/results/rwr_drift.csv, the report to rwr_drift.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from common import ROOT, parameters, run_config, write
from runs import append, digest, not_logged, train_all

from tdpo_pipeline.config import RunConfig

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "rwr_drift.csv"
REWARD = "aesthetic-mini"
SEEDS = (0, 1, 2)
EPOCHS = 16
LEARNING_RATE = 1e-4
EQUAL = {"inverse_temperature": 1e-9}
UNGUIDED = {"guidance_scale": 1.0}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "weights by reward": {},
    "equal weights": {"algorithm": EQUAL},
    "equal weights, no guidance": {"algorithm": EQUAL, "training": UNGUIDED},
    "equal weights, no guidance, 50 steps": {
        "algorithm": EQUAL,
        "training": UNGUIDED | {"num_inference_steps": 50},
    },
}
SCORES = (REWARD, "gold_taste", "gold_match", "imagereward-mini")


def configuration(params: dict[str, Any], variant: str, seed: int) -> RunConfig:
    """A run of RWR with what a variant changes."""
    changes = VARIANTS[variant]
    return run_config(
        params,
        "rwr",
        REWARD,
        seed,
        training={"epochs": EPOCHS} | changes.get("training", {}),
        algorithm=changes.get("algorithm"),
        optimizer={"learning_rate": LEARNING_RATE},
    )


def row(config: RunConfig, history: pd.DataFrame, variant: str) -> dict[str, object]:
    """A run's line in the log: means over the first round and over the last."""
    updated = history.index[history["updates"] > 0]
    first, last = history.loc[: updated[0]], history.loc[updated[-2] + 1 :]
    line: dict[str, object] = {"variant": variant, "seed": config.seed}
    for name in SCORES:
        for when, part in (("first", first), ("last", last)):
            line[f"{name}_{when}"] = round(part[f"{name}_mean"].mean(), 4)
    line["std_first"] = round(first[f"{REWARD}_std"].mean(), 4)
    line["std_last"] = round(last[f"{REWARD}_std"].mean(), 4)
    return line | {"digest": digest(config)}


def report(log: pd.DataFrame) -> dict[str, object]:
    """Means over seeds of what changed from the first round to the last."""
    names = [*SCORES, "std"]
    lines: dict[str, object] = {}
    for variant, table in log.groupby("variant", sort=False):
        changes = {n: table[f"{n}_last"] - table[f"{n}_first"] for n in names}
        lines[str(variant)] = {"seeds": len(table)} | {
            name: {
                "first": round(float(table[f"{name}_first"].mean()), 4),
                "change": round(float(change.mean()), 4),
                "of each seed": change.round(4).tolist(),
            }
            for name, change in changes.items()
        }
    return lines


def main() -> None:
    """Train what is missing, and report on what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    params = parameters("base")
    variant_of = {
        digest(config): (variant, config)
        for seed in options.seeds
        for variant in VARIANTS
        for config in [configuration(params, variant, seed)]
    }
    configs = [config for _, config in variant_of.values()]
    missing = not_logged(configs, LOG) if options.workers else []
    for config, history, _ in train_all(missing, max(1, options.workers)):
        variant, _ = variant_of[digest(config)]
        append(pd.DataFrame([row(config, history, variant)]), LOG)
        print(f"{variant}, seed {config.seed}: done", flush=True)
    log = pd.read_csv(LOG).sort_values("seed", kind="stable")
    log = log[log["digest"].isin(variant_of)]
    write(RESULTS / "rwr_drift.json", {"variants": report(log)})


if __name__ == "__main__":
    main()
