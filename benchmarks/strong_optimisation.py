"""What a proxy's gold does when the proxy is optimised strongly, over several seeds.

    python benchmarks/strong_optimisation.py --workers 2

Trains one method on one proxy for more epochs than the quick job has, once for each
seed, and reports proxy and gold over the epochs: the mean over seeds of the means over
each epoch's samples, with 95 % t intervals over seeds. Interrupted runs are resumed.
The result goes to benchmarks/results/strong_optimisation_<reward>.json, the epochs'
means to a CSV beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from common import BASE_MODEL, PROXY_REWARDS, ROOT, parameters, run_config, write
from scipy import stats

from tdpo_pipeline.overoptimization.tables import gold_of
from tdpo_pipeline.prompts import prompt_set

STATES = ROOT / "data" / "06_models" / "state" / "strong_optimisation"


def train(method: str, reward: str, seed: int, epochs: int) -> None:
    """Train one seed, and leave its history beside its state."""
    import torch

    from tdpo_pipeline.trainer.loop import train_run

    torch.set_num_threads(1)
    config = run_config(
        parameters("base"), method, reward, seed, training={"epochs": epochs}
    )
    history = train_run(
        config,
        prompts=prompt_set(config.task.train_prompts),
        base_model=BASE_MODEL,
        weights=PROXY_REWARDS,
        state_dir=STATES / f"{config.key}-{epochs}",
    ).history
    history.to_csv(history_path(method, reward, seed, epochs), index=False)


def history_path(method: str, reward: str, seed: int, epochs: int) -> Path:
    """Where a finished seed's history is."""
    return STATES / f"{method}-{reward}-s{seed}-{epochs}.csv"


def over_seeds(histories: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean and 95 % t interval over seeds of ``column`` in each epoch."""
    groups = histories.groupby("epoch")[column]
    mean, count = groups.mean(), groups.count()
    reach = stats.t.ppf(0.975, count - 1) * groups.std() / count**0.5
    return pd.DataFrame({"mean": mean, "low": mean - reach, "high": mean + reach})


def report(histories: pd.DataFrame, reward: str) -> dict[str, object]:
    """Proxy and gold at the first epoch, at the gold's highest and at the last."""
    curves = {
        name: over_seeds(histories, f"{name}_mean")
        for name in (reward, str(gold_of(reward)))
    }
    gold = curves[str(gold_of(reward))]["mean"]
    epochs = {
        "first": int(gold.index[0]),
        "gold_highest": int(gold.idxmax()),
        "last": int(gold.index[-1]),
    }
    return {
        label: {"epoch": epoch}
        | {
            name: {key: round(value, 4) for key, value in curve.loc[epoch].items()}
            for name, curve in curves.items()
        }
        for label, epoch in epochs.items()
    }


def main() -> None:
    """Train the seeds that are missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="ddpo_100_timestep_major")
    parser.add_argument("--reward", default="aesthetic-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train", type=int, metavar="SEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = options.method, options.reward
    if options.train is not None:
        train(*run, options.train, options.epochs)
        return
    STATES.mkdir(parents=True, exist_ok=True)
    paths = [history_path(*run, seed, options.epochs) for seed in options.seeds]
    missing = [
        seed
        for seed, path in zip(options.seeds, paths, strict=True)
        if not path.exists()
    ]
    command = [sys.executable, __file__, "--method", run[0], "--reward", run[1]]
    command += ["--epochs", str(options.epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(options.workers) as pool:
        list(
            pool.map(
                lambda seed: subprocess.run(
                    [*command, "--train", str(seed)], check=True, env=environment
                ),
                missing,
            )
        )
    histories = pd.concat(
        pd.read_csv(path).assign(seed=seed)
        for seed, path in zip(options.seeds, paths, strict=True)
    )
    output = ROOT / "benchmarks" / "results"
    name = f"strong_optimisation_{run[1]}"
    kept = ["seed", "epoch", "reward_queries", "kl_to_base"]
    means = [column for column in histories if column.endswith("_mean")]
    histories[kept + means].round(4).to_csv(output / f"{name}.csv", index=False)
    write(
        output / f"{name}.json",
        {
            "command": f"python benchmarks/strong_optimisation.py --reward {run[1]} "
            f"--epochs {options.epochs}",
            "method": run[0],
            "seeds": options.seeds,
            "over_seeds": report(histories, run[1]),
        },
    )


if __name__ == "__main__":
    main()
