"""What a proxy's gold does when the proxy is optimised strongly.

    python benchmarks/strong_optimisation.py --workers 2
    python benchmarks/strong_optimisation.py --method tdpo_r --epochs 120 --seeds 0

Trains one method on one proxy for as many epochs as asked for, once for each seed, and
reports proxy, gold and distance from the base model at the first epoch, where the gold's
mean is highest, at the length of the study's runs and at the last: means over seeds of
the means over each epoch's samples, with 95 % t intervals over seeds where there are
several. Of each run it says when the onset test (``training.early_stop``) would have given an alarm, and
in which epochs the gold's peak lies. Interrupted runs are resumed. The result goes to
benchmarks/results/strong_optimisation_<method>_<reward>_<epochs>.json, the epochs' means
to a CSV beside it.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from common import ROOT, interval, parameters, plain, run_config, told, write
from runs import train_all

from tdpo_pipeline.overoptimization import judge_alarms
from tdpo_pipeline.overoptimization.tables import gold_of

KL = "kl_to_base"


def at_epochs(
    histories: pd.DataFrame, columns: list[str], study: int
) -> list[dict[str, Any]]:
    """Over seeds, some columns at the epochs that matter.

    Args:
        histories: Of all seeds.
        columns: What is reported; the first is the gold's mean.
        study: Epochs of the study's runs.
    """
    gold = histories.groupby("epoch")[columns[0]].mean()
    epochs = {
        "first": gold.index[0],
        "gold highest": gold.idxmax(),
        "study's last": study,
        "last": gold.index[-1],
    }
    return [
        {"at": at, "epoch": int(epoch)}
        | {
            name: interval(histories.loc[histories["epoch"] == epoch, name])
            for name in columns
        }
        for at, epoch in epochs.items()
        if epoch in gold.index
    ]


def main() -> None:
    """Train the seeds that are missing, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="ddpo_100_timestep_major")
    parser.add_argument("--reward", default="aesthetic-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    params = parameters("base")
    scale = {"epochs": options.epochs}
    configs = [
        run_config(params, options.method, options.reward, seed, training=scale)
        for seed in options.seeds
    ]
    histories = pd.concat(
        history.assign(
            run=config.key, method=config.method, reward=config.reward, seed=config.seed
        )
        for config, history, _ in train_all(configs, options.workers)
    ).sort_values(["seed", "epoch"])
    early_stop = plain(params["training"])["early_stop"]
    alarms = judge_alarms(
        histories,
        held_out=params["reporting"]["held_out"],
        alpha=early_stop["alpha"],
        min_epochs=early_stop["min_epochs"],
    )
    output = ROOT / "benchmarks" / "results"
    name = f"strong_optimisation_{options.method}_{options.reward}_{options.epochs}"
    kept = ["seed", "epoch", "reward_queries", KL]
    means = [column for column in histories if column.endswith("_mean")]
    histories[kept + means].round(4).to_csv(output / f"{name}.csv", index=False)
    study = plain(parameters("study")["training"])["epochs"]
    columns = [f"{gold_of(options.reward)}_mean", f"{options.reward}_mean", KL]
    write(
        output / f"{name}.json",
        {
            "method": options.method,
            "seeds": options.seeds,
            "over seeds": at_epochs(histories, columns, study),
            "runs": [told(run) for run in alarms.to_dict("records")],
        },
    )


if __name__ == "__main__":
    main()
