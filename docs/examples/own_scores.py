"""Write a table of scores such as another trainer might have.

    python docs/examples/own_scores.py my_scores.csv

The scores are made up: two methods raise the reward that they train on, `aesthetic`;
its gold, `human`, rises with it and then falls for the first of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

PROMPTS = ("a cat", "a dog", "a fox", "a horse", "an owl", "a bear")
IMAGES = 2
SEEDS = (0, 1)
QUERIES = (0, 256, 512, 768, 1024)
# Change since the base model at each of QUERIES.
GAINS = {
    "fast": {"aesthetic": (0, 1.0, 1.6, 2.0, 2.2), "human": (0, 0.5, 0.3, -0.4, -1.2)},
    "careful": {"aesthetic": (0, 0.6, 1.0, 1.3, 1.5), "human": (0, 0.3, 0.5, 0.6, 0.6)},
}
REWARDS = ("aesthetic", "human", "prompt_match")


def table() -> pd.DataFrame:
    """The table; rows of the base model are there once, without a method."""
    images = pd.MultiIndex.from_product([PROMPTS, range(IMAGES)])
    rng = np.random.default_rng(0)
    base = pd.DataFrame(
        rng.normal(0, 0.5, (len(images), len(REWARDS))), images, columns=list(REWARDS)
    )
    parts = [base.assign(method=None, seed=None, reward_queries=0)]
    for method, gains in GAINS.items():
        for seed in SEEDS:
            for checkpoint, queries in enumerate(QUERIES[1:], start=1):
                scores = base + rng.normal(0, 0.1, base.shape)
                for reward, gain in gains.items():
                    scores[reward] += gain[checkpoint]
                where = {"method": method, "seed": seed, "reward_queries": queries}
                parts.append(scores.assign(**where))
    rows = pd.concat(parts).rename_axis(["prompt", "image"]).reset_index()
    front = ["method", "seed", "reward_queries", "prompt", "image"]
    return rows[[*front, *REWARDS]].astype({"seed": "Int64"}).round(4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    table().to_csv(parser.parse_args().output, index=False)
