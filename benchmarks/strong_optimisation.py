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

import pandas as pd
from common import ROOT, parameters, run_config, write
from runs import train_all
from scipy import stats

from tdpo_pipeline.overoptimization.tables import gold_of


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
    options = parser.parse_args()
    params = parameters("base")
    configs = [
        run_config(
            params,
            options.method,
            options.reward,
            seed,
            training={"epochs": options.epochs},
        )
        for seed in options.seeds
    ]
    histories = pd.concat(
        history.assign(seed=config.seed)
        for config, history, _ in train_all(configs, options.workers)
    ).sort_values(["seed", "epoch"])
    output = ROOT / "benchmarks" / "results"
    name = f"strong_optimisation_{options.reward}"
    kept = ["seed", "epoch", "reward_queries", "kl_to_base"]
    means = [column for column in histories if column.endswith("_mean")]
    histories[kept + means].round(4).to_csv(output / f"{name}.csv", index=False)
    write(
        output / f"{name}.json",
        {
            "method": options.method,
            "seeds": options.seeds,
            "over_seeds": report(histories, options.reward),
        },
    )


if __name__ == "__main__":
    main()
