"""What equal training reward costs: reward queries and KL, as parts of a reference's.

``matched`` asks what the other rewards are where two methods have spent the same; this
asks what the two have spent where the trained reward has risen equally far. Both read a
path at its first crossing of a level (``paths``), on evaluated checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.comparison import reference_method
from tdpo_pipeline.overoptimization.cubes import Cube, check_same_prompts, one_cube
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    FloatArray,
    crossed_deviations,
    ends,
    equal_weights,
    mean_over_seeds,
)
from tdpo_pipeline.overoptimization.matched import furthest_levels
from tdpo_pipeline.overoptimization.paths import (
    LOST_DRAWS,
    ONE_UNIT,
    STEPS,
    TOO_NEAR,
    TrainingPath,
    never_equal,
    path_maker,
    shared_levels,
)
from tdpo_pipeline.overoptimization.tables import ScoreTableError

Cost = Literal["reward_queries", "kl"]

COSTS = {"reward_queries": "reward queries", "kl": "KL to the base model"}
"""What a training reward costs."""

BEFORE_FIRST = "before a first checkpoint: it says most of where that was"
"""What to think of a ratio, of either cost, where a seed of either method was read off
between the base model and its first checkpoint."""

_COLUMNS = [
    *("method", "reference", "reward", "cost", "level"),
    *("spent", "reference_spent", "ratio", "low", "high", "gap"),
    *("n_seeds", "n_reference_seeds", "n_prompts", "n_images"),
]


def cost_report(
    scores: pd.DataFrame,
    *,
    references: Sequence[str] = (),
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """What every method spends for a training reward, over what a reference spends.

    Seeds of the two are resampled apart, prompts together, as in ``matched_differences``;
    the interval is that of the ratio's logarithm.

    Args:
        scores: Score table of any number of runs.
        references: Methods to compare with, see ``reference_method``.
        bootstrap: How the intervals are made.

    Returns:
        One row per method, trained reward, cost and level: method, reference, reward,
        cost (of ``COSTS``); level (rise of the trained reward on its own prompts, in base
        standard deviations, ``STEPS`` of them up to what all seeds of both reached); spent
        and reference_spent (mean over seeds at the first crossing), ratio (of these), low,
        high; gap (why there is no number or no interval, or what to think of it);
        n_seeds, n_reference_seeds, n_prompts, n_images. What can't be compared is one row
        without a level for each cost.

    Raises:
        ScoreTableError: If the score table is not what it should be.
    """
    rows: list[dict[str, object]] = []
    seen = one_cube(scores, group="seen")
    make = path_maker("training_reward", seen, scores, None)
    for trained in sorted({cube.trained for cube in seen}):
        own = {str(c.names["method"]): c for c in seen if c.trained == trained}
        reference = reference_method(own, references)
        base = own.pop(reference)
        for cube in own.values() or [base]:
            for cost in get_args(Cost):
                head = {**cube.names, **cube.sizes(), "reference": reference}
                head |= {"cost": cost, "n_reference_seeds": len(base.seeds)}
                try:
                    if cube is base:
                        why = f"no other method was trained on {trained}"
                        raise ScoreTableError(why)
                    found = _ratios(make(cube), make(base), cost, bootstrap)
                except ScoreTableError as error:
                    found = [{"gap": str(error)}]
                rows += [head | row for row in found]
    return pd.DataFrame(rows, columns=_COLUMNS)


def furthest_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """The row of each comparison's highest level that has an interval.

    Args:
        costs: From ``cost_report``.
    """
    return furthest_levels(costs, by=("reward", "method", "cost"))


def _ratios(
    path: TrainingPath, base: TrainingPath, cost: Cost, bootstrap: Bootstrap
) -> list[dict[str, object]]:
    """The rows of one method; raises ScoreTableError where there is nothing to divide."""
    check_same_prompts(path.cube, base.cube)
    levels = shared_levels(path, base, STEPS + 1)[-STEPS:]
    if np.isnan(levels).any():
        raise ScoreTableError(never_equal(path, base, "training_reward"))
    costs = [_spent(p.cube, cost) for p in (path, base)]

    def spent(*weights: FloatArray) -> FloatArray:
        """What both have spent, shape (draws, levels, 2)."""
        prompts, *seeds = weights
        means = [
            mean_over_seeds(p.costs_at(levels, prompts, y), own)
            for p, y, own in zip((path, base), costs, seeds, strict=True)
        ]
        return np.stack(np.broadcast_arrays(*means), axis=-1)

    def log_ratio(*weights: FloatArray) -> FloatArray:
        """Shape (draws, levels); NaN where one of them has spent nothing."""
        both = spent(*weights)
        logs = np.log(np.where(both > 0, both, np.nan))
        return np.asarray(logs[..., 0] - logs[..., 1], np.float64)

    sizes = [len(path.cube.prompts), len(path.cube.seeds), len(base.cube.seeds)]
    equal = equal_weights(sizes)
    both, ratio = spent(*equal)[0], log_ratio(*equal)[0]
    spread = crossed_deviations(log_ratio, sizes, bootstrap)
    # What the soonest seed of either has reached at its first checkpoint.
    first = max(float(p.plain[:, :2].max()) for p in (path, base))
    rows = []
    for i, level in enumerate(levels):
        row: dict[str, object] = {"level": level, "ratio": float(np.exp(ratio[i]))}
        row |= {"spent": both[i, 0], "reference_spent": both[i, 1]}
        drawn = spread[~np.isnan(spread[:, i]), i]
        if np.isnan(ratio[i]):
            row["gap"] = f"no {COSTS[cost]} spent by then, as far as is known"
        elif max(sizes) == 1:
            row["gap"] = ONE_UNIT
        elif len(drawn) < (1 - LOST_DRAWS) * len(spread):
            row["gap"] = TOO_NEAR
        else:
            reach = ends(ratio[i], drawn, bootstrap.confidence)
            row |= dict(zip(("low", "high"), np.exp(reach).tolist(), strict=True))
            row["gap"] = BEFORE_FIRST if level < first else ""
        rows.append(row)
    return rows


def _spent(cube: Cube, cost: Cost) -> FloatArray:
    """What each seed has spent at each checkpoint, shape (seeds, epochs)."""
    spent = cube.queries if cost == "reward_queries" else cube.kl
    if np.isnan(spent).any():
        raise ScoreTableError(
            f"{COSTS[cost]}: not recorded for every checkpoint of {cube.title}"
        )
    return spent
