"""The protocol by which learning rates are chosen: equal trials for every method.

    python benchmarks/learning_rate_trials.py --workers 2

Every method gets the same learning rates, on a seed that is never reported, for half
the quick job's epochs; its configured learning rate is the one whose trained reward, meant
over the last quarter of the epochs, ends highest. A trial that stops on collapse or on
weights that are not finite counts as lowest. Nothing but the trained proxy reward is
looked at. The log goes to benchmarks/results/learning_rate_trials.csv, a line a trial;
trials that are in it are not run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from common import BASE_MODEL, PROXY_REWARDS, ROOT, parameters, run_config

from tdpo_pipeline.prompts import prompt_set

LOG = ROOT / "benchmarks" / "results" / "learning_rate_trials.csv"
LEARNING_RATES = (1e-3, 3e-3)
EPOCHS = 8
SEED = 1000
REWARD = "aesthetic-mini"
COLUMNS = [
    "method",
    "learning_rate",
    "reward",
    "seed",
    "epochs",
    "first",
    "last",
    "note",
]


def trial(method: str, learning_rate: float) -> dict[str, object]:
    """Train once, and give the trained reward at the beginning and at the end."""
    import torch

    from tdpo_pipeline.trainer.loop import TrainingStoppedError, train_run

    torch.set_num_threads(1)
    config = run_config(
        parameters("base"),
        method,
        REWARD,
        SEED,
        training={"epochs": EPOCHS},
        optimizer={"learning_rate": learning_rate},
    )
    folder = Path(tempfile.mkdtemp())
    row: dict[str, object] = {
        "method": method,
        "learning_rate": learning_rate,
        "reward": REWARD,
        "seed": SEED,
        "epochs": config.training.epochs,
        "note": "",
    }
    try:
        history = train_run(
            config,
            prompts=prompt_set(config.task.train_prompts),
            base_model=BASE_MODEL,
            weights=PROXY_REWARDS,
            state_dir=folder / "state",
        ).history
        means = history[f"{REWARD}_mean"]
        quarter = max(1, len(means) // 4)
        row |= {"first": means.iloc[0], "last": means.iloc[-quarter:].mean()}
    except TrainingStoppedError as error:
        row |= {"first": float("nan"), "last": float("nan"), "note": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row


def append(row: dict[str, object]) -> None:
    """Add a line to the log."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([row], columns=COLUMNS)
    frame.to_csv(LOG, mode="a", header=not LOG.exists(), index=False)


def run_in_process(method: str, learning_rate: float) -> None:
    """Run one trial in a process of its own, on one thread."""
    command = [sys.executable, __file__, "--trial", method, str(learning_rate)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)


def main() -> None:
    """Run the trials that are missing, and print the choice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trial", nargs=2, metavar=("METHOD", "LEARNING_RATE"))
    options = parser.parse_args()
    if options.trial:
        append(trial(options.trial[0], float(options.trial[1])))
        return
    log = pd.read_csv(LOG) if LOG.exists() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(log["method"], log["learning_rate"], strict=True))
    methods = list(parameters("base")["methods"])
    missing = [
        (method, rate)
        for rate in LEARNING_RATES
        for method in methods
        if (method, rate) not in done
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda job: run_in_process(*job), missing))
    log = pd.read_csv(LOG)
    print(log.pivot(index="method", columns="learning_rate", values="last"))
    best = log.loc[log.groupby("method")["last"].idxmax()]
    print(best[["method", "learning_rate", "first", "last"]].to_string(index=False))


if __name__ == "__main__":
    main()
