"""TDPO's two parts apart: temporal rewards, and updates in the order of timesteps.

    python benchmarks/two_by_two.py

Of the study's runs on aesthetic-mini, the four methods that have one of the two, both or
none, all at one learning rate: each part's main effect (with minus without, mean over the
other part) and their interaction (what the one adds to the other), on every reward since
the base model at the last checkpoint, on the prompts trained on and on the others, and on
the spread of an epoch's policy gradients (mean over the epochs). One of the four differs in
more: `ddpo_100`, which has neither, clips its advantages and doesn't whiten them over the
epoch, as the others do. Were that worth w, each main effect would be half of w too high, and
the interaction w too low. Intervals are 95 %, over prompts and over each method's seeds
(``overoptimization.intervals``); of the spread over seeds alone. Beside the four, the spreads
of the methods that the study has on three rewards, minus DDPO-100's (Welch's t interval).
The result goes to benchmarks/results/two_by_two.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from common import ROOT, left_by, write
from scipy import stats

from tdpo_pipeline.overoptimization import Bootstrap, Cube, cubes
from tdpo_pipeline.overoptimization.cubes import check_same_prompts
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    FloatArray,
    crossed_deviations,
    ends,
    equal_weights,
    mean_over_prompts,
    mean_over_seeds,
)

REWARD = "aesthetic-mini"
CELLS = {
    "tdpo": (1, 1),
    "tdpo_sample_major": (1, 0),
    "tdpo_no_critic": (0, 1),
    "ddpo_100": (0, 0),
}
"""Whether a method has temporal rewards, and whether its updates are in that order."""
SPREAD = "policy_grad_spread"
OTHERS = ("ddpo_100_timestep_major", "tdpo", "tdpo_r")
REWARDS = (REWARD, "pick-mini", "hps-mini")


def contrasts() -> dict[str, FloatArray]:
    """The effects as weights of the four methods."""
    temporal, order = 2 * np.array(list(CELLS.values()), np.float64).T - 1
    return {
        "temporal rewards": temporal / 2,
        "order of timesteps": order / 2,
        "interaction": temporal * order,
    }


def effects(
    cell: Callable[[int, FloatArray, FloatArray], FloatArray],
    sizes: Sequence[int],
    bootstrap: Bootstrap,
) -> dict[str, dict[str, Any]]:
    """Every effect, each a number or one for each reward, with its interval.

    Args:
        cell: From a method's number, weights of prompts (draws, prompts) and of its seeds
            (draws, seeds) to its mean, shape (draws, k).
        sizes: Number of prompts, then of each method's seeds.
        bootstrap: How intervals are made.
    """

    weights = np.stack(list(contrasts().values()))

    def all_effects(prompts: FloatArray, *seeds: FloatArray) -> FloatArray:
        means = [cell(i, prompts, own) for i, own in enumerate(seeds)]
        together = np.stack(np.broadcast_arrays(*means), axis=1)
        return np.einsum("em,dmk->dek", weights, together)

    plain = all_effects(*equal_weights(sizes))[0]
    spread = crossed_deviations(all_effects, sizes, bootstrap)
    low, high = ends(plain, spread, bootstrap.confidence)
    return {
        name: {"effect": plain[i], "low": low[i], "high": high[i]}
        for i, name in enumerate(contrasts())
    }


def on_rewards(
    found: Mapping[str, Cube], bootstrap: Bootstrap = BOOTSTRAP
) -> list[dict[str, Any]]:
    """A row for each effect and reward, of one prompt group."""
    first, *others = (found[name] for name in CELLS)
    for cube in others:
        check_same_prompts(cube, first)
    rewards = first.rewards
    last = max(set.intersection(*(set(cube.epochs) for cube in found.values())))
    changes = [
        found[name].changes(rewards)[:, :, found[name].epochs.index(last)]
        for name in CELLS
    ]

    def cell(i: int, prompts: FloatArray, seeds: FloatArray) -> FloatArray:
        return mean_over_seeds(mean_over_prompts(changes[i], prompts), seeds)

    sizes = [len(first.prompts), *(len(change) for change in changes)]
    rulers = dict(zip(rewards, first.base_sd, strict=True))
    return [
        {
            "of": reward,
            "group": first.names["group"],
            "epoch": last,
            "part": part,
            **{key: round(float(values[i]), 4) for key, values in its.items()},
            "base_sd": round(float(rulers[reward]), 4),
        }
        for part, its in effects(cell, sizes, bootstrap).items()
        for i, reward in enumerate(rewards)
    ]


def on_spread(
    spreads: Mapping[str, Sequence[float]], bootstrap: Bootstrap = BOOTSTRAP
) -> list[dict[str, Any]]:
    """A row for each effect on the gradients' spread, from its mean in every run."""
    values = [np.asarray(spreads[name], np.float64)[None, :, None] for name in CELLS]

    def cell(i: int, _: FloatArray, seeds: FloatArray) -> FloatArray:
        return mean_over_seeds(values[i], seeds)

    sizes = [1, *(value.shape[1] for value in values)]
    return [
        {
            "of": SPREAD,
            "part": part,
            **{key: round(float(value[0]), 4) for key, value in its.items()},
        }
        for part, its in effects(cell, sizes, bootstrap).items()
    ]


def spreads_of(method: str, reward: str) -> list[float]:
    """The gradients' spread of each seed, mean over its epochs."""
    histories = left_by("history", method, reward)
    return [float(history[SPREAD].mean()) for history in histories]


def minus_ddpo_100(method: str, reward: str) -> dict[str, Any]:
    """A method's spread minus DDPO-100's; their seeds have nothing in common."""
    own, other = spreads_of(method, reward), spreads_of("ddpo_100", reward)
    ends = stats.ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
    found = {"difference": np.mean(own) - np.mean(other), "low": ends.low}
    found |= {"high": ends.high, "ddpo_100": np.mean(other)}
    return {"method": method, "reward": reward, "seeds": len(own)} | {
        name: round(float(value), 4) for name, value in found.items()
    }


def main() -> None:
    """Read the study's runs, and write the effects."""
    scores, spreads = [], {}
    for method in CELLS:
        scores += left_by("scores", method, REWARD)
        spreads[method] = spreads_of(method, REWARD)
    by_group: dict[str, dict[str, Cube]] = {}
    for cube in cubes(pd.concat(scores, ignore_index=True)):
        by_group.setdefault(str(cube.names["group"]), {})[str(cube.names["method"])] = (
            cube
        )
    rows = [row for found in by_group.values() for row in on_rewards(found)]
    result = {
        "seeds": {method: len(values) for method, values in spreads.items()},
        "effects": rows + on_spread(spreads),
        "spread minus ddpo_100's": [
            minus_ddpo_100(method, reward) for reward in REWARDS for method in OTHERS
        ],
    }
    write(ROOT / "benchmarks" / "results" / "two_by_two.json", result)


if __name__ == "__main__":
    main()
