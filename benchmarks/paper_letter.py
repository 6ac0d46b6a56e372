"""Why TDPO to the letter of its paper falls: its departures taken back, one at a time.

    python benchmarks/paper_letter.py --workers 2
    python benchmarks/paper_letter.py --workers 0        # the report alone

``tdpo_paper`` differs from ``tdpo`` in five settings of one learning rate (learning.py has
the two at their own). Each variant here takes one of them back, and the last takes back
all. The epochs of a run are appended to benchmarks/results/paper_letter.csv, and it isn't
run again; the report goes to paper_letter.json: the trained reward at the start, at its
highest and at the end, its gold, and the distance from the base model.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from common import ROOT, interval, parameters, plain, run_config, write
from runs import append_epochs, digest, not_logged, train_all

from tdpo_pipeline.config import RunConfig

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "paper_letter.csv"
REWARD, GOLD = "aesthetic-mini", "gold_taste_mean"
SEEDS = (0, 1, 2)
EPOCHS = 12
"""As in learning.py, whose runs of ``tdpo_paper`` these are."""
ORDER = {"timestep_order": "shuffled"}
WHITEN = {"whiten": True}
TARGET = {"target": "normalised"}
STATE = {"state": "pre"}
INPUTS = {"inputs": "image"}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tdpo_paper": ({}, {}),
    "timesteps shuffled": (ORDER, {}),
    "advantages whitened": (WHITEN, {}),
    "target normalised": ({}, TARGET),
    "state before the action": ({}, STATE),
    "critic reads the image alone": ({}, INPUTS),
    "all five": (ORDER | WHITEN, TARGET | STATE | INPUTS),
}
"""What each changes of the algorithm, and of its critic."""
KEPT = (
    *("epoch", "reward_queries", "kl_to_base", "clip_fraction", "policy_grad_norm"),
    *("critic_explained_variance", "critic_residual_std", GOLD, "gold_match_mean"),
)


def configuration(params: dict[str, Any], variant: str, seed: int) -> RunConfig:
    """A run of ``tdpo_paper`` with what a variant takes back."""
    algorithm, critic = VARIANTS[variant]
    own = plain(params["methods"]["tdpo_paper"])["critic"]
    return run_config(
        params,
        "tdpo_paper",
        REWARD,
        seed,
        training={"epochs": EPOCHS},
        algorithm=algorithm | {"critic": own | critic} if algorithm or critic else None,
    )


def points(history: pd.DataFrame) -> dict[str, float]:
    """A run's start, peak and end."""
    proxy = history["trained_mean"]
    return {
        "start": proxy.iloc[0],
        "peak": proxy.max(),
        "end": proxy.iloc[-1],
        "gold at the start": history[GOLD].iloc[0],
        "gold at the end": history[GOLD].iloc[-1],
        "KL at the end": history["kl_to_base"].iloc[-1],
    }


def report(log: pd.DataFrame, variant_of: dict[str, str]) -> dict[str, object]:
    """Every variant's points over the seeds."""
    lines: dict[str, object] = {}
    for variant in VARIANTS:
        runs = log[log["digest"].map(variant_of) == variant].groupby("seed")
        table = pd.DataFrame([points(history) for _, history in runs])
        lines[variant] = {name: interval(table[name]) for name in table}
    return lines


def main() -> None:
    """Train what is missing, and report on what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    params = parameters("base")
    runs = {
        (variant, seed): configuration(params, variant, seed)
        for seed in SEEDS
        for variant in VARIANTS
    }
    variant_of = {digest(config): variant for (variant, _), config in runs.items()}
    asked_for = [config for (_, s), config in runs.items() if s in options.seeds]
    missing = not_logged(asked_for, LOG) if options.workers else []
    for config, history, stopped in train_all(missing, max(1, options.workers)):
        append_epochs(config, history, stopped, LOG, KEPT)
        variant = variant_of[digest(config)]
        print(f"{variant}, seed {config.seed}: done", flush=True)
    log = pd.read_csv(LOG)
    found = {"command": "python benchmarks/paper_letter.py", "epochs": EPOCHS}
    write(RESULTS / "paper_letter.json", found | {"variants": report(log, variant_of)})


if __name__ == "__main__":
    main()
