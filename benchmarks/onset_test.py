"""How often the onset test cries wolf, and how soon it sees one.

    python benchmarks/onset_test.py

Simulates the samples of whole training runs (scores of prompts that differ, drawn anew
every epoch), and lets the test of ``training.early_stop`` watch them. Where no held-out
reward falls: the rate of runs with any alarm, for several alphas and for samples that the
test doesn't expect (skewed, few, or steering the policy). Where they fall from a known
epoch on: the rate of alarms before it, of falls found, and the epochs until then. 95 %
intervals of rates are Clopper and Pearson's. One unit is the standard deviation of the
scores of one prompt. The result goes to benchmarks/results/onset_test.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import output_argument, write

from tdpo_pipeline.overoptimization.pareto import exact_interval
from tdpo_pipeline.overoptimization.sequential import Alarm, Baseline, first_alarm

ALPHAS = (0.01, 0.05, 0.2)
ALPHA = 0.05
PROMPTS, PROMPT_SD = 8, 1.0
ONSET = 20  # index of the last epoch before the fall
FALLS = (0.02, 0.05, 0.1, 0.2)  # per epoch


@dataclass(frozen=True)
class World:
    """A kind of run.

    Attributes:
        means: "flat", "rising", "saturating" or "falling" (up to ONSET rising by 0.05 an
            epoch, then falling by ``fall``).
        fall: Fall an epoch.
        epochs: Epochs.
        samples: Samples an epoch.
        rewards: Held-out rewards; half of their variance is common.
        skewed: Whether scores are exponential and not normal.
        steering: How much of an epoch's chance gain stays in the policy, as if the
            samples that scored well by chance had taught it so.
    """

    means: str
    fall: float = 0.0
    epochs: int = 40
    samples: int = 128
    rewards: int = 3
    skewed: bool = False
    steering: float = 0.0


NULLS = {
    "flat": World("flat"),
    "rising": World("rising"),
    "saturating": World("saturating"),
    "one reward": World("flat", rewards=1),
    "100 epochs": World("flat", epochs=100),
    "skewed scores": World("flat", skewed=True),
    "16 samples an epoch": World("flat", samples=16),
    "16 samples, skewed": World("flat", samples=16, skewed=True),
    "steering by chance gains": World("flat", steering=0.5),
}


def mean_path(world: World) -> np.ndarray:
    """True means over the epochs."""
    epoch = np.arange(world.epochs)
    if world.means == "flat":
        return np.zeros(world.epochs)
    if world.means == "rising":
        return 0.02 * epoch
    if world.means == "saturating":
        return 1 - np.exp(-epoch / 8)
    return np.where(
        epoch <= ONSET, 0.05 * epoch, 0.05 * ONSET - world.fall * (epoch - ONSET)
    )


def simulate(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Changes since the first epoch and their errors, (epochs, rewards) each."""
    names = np.array([f"prompt {i}" for i in range(PROMPTS)])
    levels = rng.normal(0, PROMPT_SD, (world.rewards, PROMPTS))
    steered = np.zeros(world.rewards)
    baselines: list[Baseline] = []
    changes = np.zeros((world.epochs, world.rewards))
    errors = np.full((world.epochs, world.rewards), np.nan)
    for epoch, mean in enumerate(mean_path(world)):
        drawn = rng.integers(PROMPTS, size=world.samples)
        common, own = (draw(world, rng, n) for n in (1, world.rewards))
        noise = (common + own) / np.sqrt(2)
        scores = mean + steered[:, None] + levels[:, drawn] + noise
        for i, values in enumerate(scores):
            if epoch == 0:
                baselines.append(Baseline.of(names[drawn], values))
            else:
                found = baselines[i].change(names[drawn], values)
                changes[epoch, i], errors[epoch, i] = found
        # A mean may rise by what was gained by chance, but never falls.
        steered += world.steering * np.maximum(noise.mean(axis=1), 0)
    return changes, errors


def draw(world: World, rng: np.random.Generator, rewards: int) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1, shape (rewards, samples)."""
    shape = (rewards, world.samples)
    if world.skewed:
        return rng.exponential(1.0, shape) - 1
    return rng.normal(0, 1, shape)


def watch(world: World, seed: int, alphas: tuple[float, ...]) -> list[Alarm | None]:
    """The first alarm of one run for each alpha, from the smallest to the largest.

    The trained reward always rises.
    """
    changes, errors = simulate(world, np.random.default_rng(seed))
    rising = np.arange(world.epochs)
    found: list[Alarm | None] = []
    for alpha in sorted(alphas, reverse=True):
        # Without an alarm at a larger alpha there is none at a smaller one.
        missing = bool(found) and found[-1] is None
        how = {"horizon": world.epochs, "alpha": alpha}
        found.append(None if missing else first_alarm(rising, changes, errors, **how))
    return found[::-1]


def rate(successes: int, n: int) -> dict[str, float]:
    """A rate with its interval."""
    low, high = exact_interval(successes / n, n, 0.95)
    return {"rate": successes / n, "low": round(low, 4), "high": round(high, 4)}


def false_alarms(world: World, runs: int) -> dict[str, Any]:
    """Rate of runs with any alarm, by alpha."""
    alarms = [watch(world, seed, ALPHAS) for seed in range(runs)]
    counts = [
        sum(a is not None for a in column) for column in zip(*alarms, strict=True)
    ]
    return {
        f"alpha {alpha}": rate(count, runs)
        for alpha, count in zip(ALPHAS, counts, strict=True)
    }


def delays(world: World, runs: int) -> dict[str, Any]:
    """How soon a fall is found, and where its onset is said to be."""
    alarms = [watch(world, seed, (ALPHA,))[0] for seed in range(runs)]
    early = [a for a in alarms if a is not None and a.position <= ONSET]
    found = [a for a in alarms if a is not None and a.position > ONSET]
    waits = [a.position - ONSET for a in found]
    errors = [a.onset - ONSET for a in found]
    quartiles = [0.25, 0.5, 0.75]
    return {
        "alarms before the fall": rate(len(early), runs),
        "falls found": rate(len(found), runs),
        "epochs until then (quartiles)": np.quantile(waits, quartiles).tolist(),
        "onset said minus true, epochs (quartiles)": np.quantile(
            errors, quartiles
        ).tolist(),
    }


def main() -> None:
    """Simulate, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="runs of each kind")
    output_argument(parser, "onset_test.json")
    arguments = parser.parse_args()
    start = time.perf_counter()
    falling = World("falling")
    result = {
        "runs": arguments.runs,
        "epochs": falling.epochs,
        "samples an epoch": falling.samples,
        "prompts": PROMPTS,
        "held-out rewards": falling.rewards,
        "false alarms": {
            name: false_alarms(world, arguments.runs) for name, world in NULLS.items()
        },
        f"falls, alpha {ALPHA}": {
            f"{fall} an epoch": delays(replace(falling, fall=fall), arguments.runs)
            for fall in FALLS
        },
    }
    result["seconds"] = round(time.perf_counter() - start)
    write(arguments.output, result)


if __name__ == "__main__":
    main()
