"""The protocol by which learning rates are chosen: three trials for every method.

    python benchmarks/learning_rate_trials.py --workers 2
    python benchmarks/learning_rate_trials.py --methods tdpo tdpo_r --workers 2
    python benchmarks/learning_rate_trials.py --workers 0        # the choice alone

Every method is tried at three learning rates, on a seed that is never reported, for as
many epochs as the quick job has. Its configured learning rate is the one whose trained
reward, averaged over the last quarter of the epochs, ends highest, among those that stay
stable: a trial that stops by itself, or ends further than 10 nats per latent dimension
from the base model, doesn't count. At T = 10 steps that distance moves every step by more
than its own noise; a policy there draws noise that the reward happens to like. The gold's
mean over the same epochs is logged, but has no part in the choice. The log goes to
benchmarks/results/learning_rate_trials.csv, a line a trial; trials that are in it are not
run again.

A variant that changes one thing of another method keeps that method's learning rate
(``INHERITED``), so that a comparison of the two is of that thing. Policy gradients are
tried at 1e-3 to 1e-2; methods whose loss has a gradient of its own, and so a larger one
(reward backpropagation, weighted likelihood), at 3e-4 to 3e-3. A method of which no trial
is stable there is tried at two more, lower ones; if these aren't stable
either, it keeps the lowest.

Length and distance were settled after a first try had half the epochs and looked at the
reward alone (learning_rate_trials_8_epochs.csv): it gave ddpo_100_timestep_major 1e-2, with
which the main job's pictures turned to noise. Stable trials of policy gradients end below 6
nats per dimension, the others above 45, so that the bound is not delicate for them.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from common import ROOT, parameters, run_config
from runs import append, digest, not_logged, train_all

from tdpo_pipeline.config import RunConfig

LOG = ROOT / "benchmarks" / "results" / "learning_rate_trials.csv"
HIGHER, LOWER = (1e-3, 3e-3, 1e-2), (3e-4, 1e-3, 3e-3)
LEARNING_RATES = {
    "ddpo_sf": HIGHER,
    "ddpo_is": HIGHER,
    "ddpo_2": HIGHER,
    "ddpo_100": HIGHER,
    "ddpo_100_timestep_major": HIGHER,
    "tdpo": HIGHER,
    "tdpo_r": HIGHER,
    "tdpo_paper": HIGHER,
    "tdpo_official": HIGHER,
    "tdpo_2": HIGHER,
    "dpok": (*HIGHER, 3e-4, 1e-4),
    "rwr": (*LOWER, 1e-4, 3e-5),
    "rwr_sparse": (*LOWER, 1e-4, 3e-5),
    "alignprop_2023": LOWER,
    "alignprop_trl": LOWER,
    "draft_k": LOWER,
    "draft_lv": LOWER,
    "refl": LOWER,
}
"""Learning rates to try, of each method that has trials of its own."""

INHERITED = {
    "tdpo_no_critic": "tdpo",
    "tdpo_no_critic_sample_major": "tdpo",
    "tdpo_sample_major": "tdpo",
    "tdpo_r_paper": "tdpo_paper",
    "tdpo_r_official": "tdpo_official",
    "tdpo_reset_all": "tdpo_r",
    "tdpo_reset_dormant": "tdpo_r",
    "tdpo_r_leaky_relu": "tdpo_r",
    "tdpo_policy_reset_dormant": "tdpo",
    "tdpo_policy_reset_active": "tdpo",
    "tdpo_kl": "tdpo",
    "tdpo_kl_closed_form": "tdpo",
    "tdpo_misaligned_encoder": "tdpo",
    "tdpo_constrained": "tdpo",
    "tdpo_constrained_gain": "tdpo",
    "tdpo_replay": "tdpo",
    "rwr_no_cfg": "rwr",
    "rwr_sparse_no_cfg": "rwr_sparse",
    "alignprop_diffexp": "alignprop_trl",
    "alignprop_diffexp_800": "alignprop_trl",
    "alignprop_diffexp_700": "alignprop_trl",
    "alignprop_diffexp_guidance": "alignprop_trl",
    "alignprop_diffexp_prompts": "alignprop_trl",
    "alignprop_low_guidance": "alignprop_trl",
    "ddpo_diffexp": "ddpo_100_timestep_major",
    "ddpo_diffexp_guidance": "ddpo_100_timestep_major",
    "ddpo_diffexp_prompts": "ddpo_100_timestep_major",
    "ddpo_diffexp_target": "ddpo_100_timestep_major",
    "ddpo_low_guidance": "ddpo_100_timestep_major",
}
"""Variants, and the method whose learning rate each keeps."""

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
    parser.add_argument("--methods", nargs="+", choices=LEARNING_RATES)
    options = parser.parse_args()
    params = parameters("base")
    methods = options.methods or list(LEARNING_RATES)
    trials = [
        trial(params, method, rate)
        for method in methods
        for rate in LEARNING_RATES[method]
    ]
    missing = not_logged(trials, LOG) if options.workers else []
    for config, history, stopped in train_all(missing, max(1, options.workers)):
        line = row(config, history, stopped)
        append(pd.DataFrame([line]), LOG)
        print(f"{config.method} {line['learning_rate']:g}: {line['last']}", flush=True)
    log = pd.read_csv(LOG)
    log = log[log["digest"].isin([digest(config) for config in trials])]
    print(log.pivot(index="method", columns="learning_rate", values="last"))
    stable = log[(log["kl_per_dimension"] <= LARGEST_KL) & log["last"].notna()]
    best = stable.loc[stable.groupby("method")["last"].idxmax()]
    unstable = log[~log["method"].isin(best["method"])]
    lowest = unstable.loc[unstable.groupby("method")["learning_rate"].idxmin()]
    best = pd.concat([best, lowest])
    print(best[["method", "learning_rate", "first", "last"]].to_string(index=False))
    for method, chosen in choices(best).items():
        algorithm = run_config(params, method, REWARD, SEED).algorithm
        configured = algorithm.optimizer.learning_rate
        if configured != chosen:
            print(f"{method} is configured with {configured:g}; chosen: {chosen:g}")


def trial(params: dict[str, Any], method: str, learning_rate: float) -> RunConfig:
    """A method's run at a learning rate."""
    optimizer = {"learning_rate": learning_rate}
    scale = {"epochs": EPOCHS}
    return run_config(params, method, REWARD, SEED, training=scale, optimizer=optimizer)


def row(config: RunConfig, history: pd.DataFrame, stopped: str) -> dict[str, object]:
    """A trial's line in the log."""
    means = history[f"{REWARD}_mean"]
    quarter = -max(1, EPOCHS // 4)
    golds = history["gold_taste_mean"]
    return {
        "method": config.method,
        "learning_rate": config.algorithm.optimizer.learning_rate,
        "reward": REWARD,
        "seed": SEED,
        "epochs": len(history),
        "first": round(means.iloc[0], 4),
        "last": float("nan") if stopped else round(means.iloc[quarter:].mean(), 4),
        "gold_first": round(golds.iloc[0], 4),
        "gold_last": round(golds.iloc[quarter:].mean(), 4),
        "kl_per_dimension": round(history["kl_to_base"].iloc[-1] / LATENT_DIMS, 2),
        "note": stopped,
        "digest": digest(config),
    }


def choices(best: pd.DataFrame) -> dict[str, float]:
    """The learning rate of each method tried, and of the variants that keep it."""
    chosen = dict(zip(best["method"], best["learning_rate"], strict=True))
    kept = {m: chosen[of] for m, of in INHERITED.items() if of in chosen}
    return chosen | kept


if __name__ == "__main__":
    main()
