"""The protocol by which learning rates are chosen: equal trials for every method.

    python benchmarks/learning_rate_trials.py --workers 2
    python benchmarks/learning_rate_trials.py --methods tdpo tdpo_r --workers 2

Every method gets the same learning rates, on a seed that is never reported, for as many
epochs as the quick job has. Its configured learning rate is the one whose trained
reward, meant over the last quarter of the epochs, ends highest, among those that stay
stable: a trial that stops by itself, or ends further than 10 nats per latent dimension
from the base model, doesn't count. At T = 10 steps that distance moves every step by more
than its own noise; a policy there draws noise that the reward happens to like. The gold's
mean over the same epochs is logged, but has no part in the choice. The log goes to benchmarks/results/learning_rate_trials.csv, a line a
trial; trials that are in it are not run again.

Length and distance were settled after a first try had half the epochs and looked at the
reward alone (learning_rate_trials_8_epochs.csv): it gave ddpo_100_timestep_major 1e-2, with
which the main job's pictures turned to noise. Stable trials end below 6 nats per
dimension, the others above 45, so that the bound is not delicate.
"""

from __future__ import annotations

import argparse

import pandas as pd
from common import ROOT, parameters, run_config
from runs import append, digest, not_logged, train_all

LOG = ROOT / "benchmarks" / "results" / "learning_rate_trials.csv"
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
EPOCHS = 16
SEED = 1000
LATENT_DIMS = 4 * 8 * 8
REWARD = "aesthetic-mini"
LARGEST_KL = 10.0
"""Nats per latent dimension, at the end, within which a trial counts as stable."""


def main() -> None:
    """Run the trials that are missing, and print the choice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+")
    options = parser.parse_args()
    params = parameters("base")
    configs = [
        run_config(
            params,
            method,
            REWARD,
            SEED,
            training={"epochs": EPOCHS},
            optimizer={"learning_rate": rate},
        )
        for rate in LEARNING_RATES
        for method in options.methods or params["methods"]
    ]
    for config, history, stopped in train_all(
        not_logged(configs, LOG), options.workers
    ):
        means = history[f"{REWARD}_mean"]
        quarter = -max(1, EPOCHS // 4)
        last = means.iloc[quarter:].mean()
        row = {
            "method": config.method,
            "learning_rate": config.algorithm.optimizer.learning_rate,
            "reward": REWARD,
            "seed": SEED,
            "epochs": len(history),
            "first": round(means.iloc[0], 4),
            "last": float("nan") if stopped else round(last, 4),
            "gold_first": round(history["gold_taste_mean"].iloc[0], 4),
            "gold_last": round(history["gold_taste_mean"].iloc[quarter:].mean(), 4),
            "kl_per_dimension": round(history["kl_to_base"].iloc[-1] / LATENT_DIMS, 2),
            "note": stopped,
            "digest": digest(config),
        }
        append(row, LOG)
        print(f"{config.method} {row['learning_rate']:g}: {row['last']}", flush=True)
    log = pd.read_csv(LOG)
    log = log[log["digest"].isin([digest(config) for config in configs])]
    print(log.pivot(index="method", columns="learning_rate", values="last"))
    stable = log[(log["kl_per_dimension"] <= LARGEST_KL) & log["last"].notna()]
    best = stable.loc[stable.groupby("method")["last"].idxmax()]
    print(best[["method", "learning_rate", "first", "last"]].to_string(index=False))


if __name__ == "__main__":
    main()
