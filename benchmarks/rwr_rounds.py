"""Is guidance in RWR's training needed, and from which round on (DDPO, Figure 8)?

    python benchmarks/learning.py --methods rwr rwr_no_cfg rwr_sparse rwr_sparse_no_cfg
    python benchmarks/rwr_rounds.py

From the runs of the first command: the mean rewards of the samples of each round, without
guidance in training minus with it, by how many rounds the policy had been trained before.
Both draw the same prompts and the same initial noise, and are paired by seed; 95 % t
intervals over seeds. The policy after the last round isn't sampled: learning.md has its images. The
result goes to benchmarks/results/rwr_rounds.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from common import interval, parameters, write
from learning import EPOCHS, JPEG, RESULTS, REWARD, SEEDS, configuration
from runs import digest

from tdpo_pipeline.algorithms.rwr import RwrSettings
from tdpo_pipeline.overoptimization.tables import gold_of

PAIRS = (("rwr_no_cfg", "rwr"), ("rwr_sparse_no_cfg", "rwr_sparse"))


def round_means(epochs: pd.DataFrame, ends: Sequence[int]) -> pd.DataFrame:
    """Mean of every column over the epochs of each round.

    Args:
        epochs: A row for each epoch of a run, with the column epoch (from 1).
        ends: Last epoch of each round.

    Returns:
        A row for each round, by the number of rounds that were trained before it.
    """
    trained = np.searchsorted(ends, epochs["epoch"])
    return (
        epochs.drop(columns="epoch").groupby(pd.Index(trained, name="trained")).mean()
    )


def differences(
    log: pd.DataFrame, params: dict[str, Any], reward: str
) -> Iterator[dict[str, Any]]:
    """A row for each pair, scored reward and number of rounds trained before.

    Args:
        log: Of epochs, from learning.py.
        params: All parameters.
        reward: Trained reward.
    """
    columns = {"trained_mean": reward}
    if (gold := gold_of(reward)) is not None:
        columns[f"{gold}_mean"] = gold
    runs = {}
    for method in dict.fromkeys(method for pair in PAIRS for method in pair):
        for seed in SEEDS:
            config = configuration(params, method, reward, seed)
            epochs = log.loc[log["digest"] == digest(config), ["epoch", *columns]]
            settings = config.algorithm
            if len(epochs) and isinstance(settings, RwrSettings):
                ends = settings.round_ends(config.training.epochs)
                runs[method, seed] = round_means(epochs, ends).rename(columns=columns)
    for without, guided in PAIRS:
        both = [
            seed for seed in SEEDS if {(without, seed), (guided, seed)} <= set(runs)
        ]
        if not both:
            continue
        less = pd.concat({s: runs[without, s] - runs[guided, s] for s in both})
        for name in columns.values():
            for trained, values in less[name].groupby(level="trained"):
                row = {"reward": reward, "method": without, "minus": guided}
                yield row | {"of": name, "rounds_trained": trained} | interval(values)


def main() -> None:
    """Read the log of learning.py, and write the differences."""
    log, params = pd.read_csv(EPOCHS), parameters("base")
    rows = [row for r in (REWARD, *JPEG) for row in differences(log, params, r)]
    told = {(row["reward"], row["method"]) for row in rows}
    asked = product((REWARD, *JPEG), (without for without, _ in PAIRS))
    result = {
        "not run": [f"{m} on {r}" for r, m in asked if (r, m) not in told],
        "differences": rows,
    }
    write(RESULTS / "rwr_rounds.json", result)


if __name__ == "__main__":
    main()
