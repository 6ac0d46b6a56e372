"""Which image statistics left the range of the base model's pictures.

A tripwire is a warning and not a verdict: a reward may ask for darker pictures. But a
statistic that has moved further than nearly every picture of the base model says that
something other than the subject is being optimised, and it needs no reward to say so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.image_statistics import RANGES, STATISTICS
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    by_epoch,
    cell_means,
    common_epochs,
    simultaneous,
    subtract,
)
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ScoreTableError,
    group_label,
    ordered_groups,
    with_group,
)

LIMIT = 2.0
"""Robust standard deviations from the base model that count as having left its range:
the mean picture then stands where at most one in twenty of the base model's stood, if
these are normally distributed."""

RESOLUTION = 0.01
"""Least standard deviation that the base model is taken to have, as a part of the
statistic's range: hardly any of its pictures may have a dark pixel, and then a single
one must not be an alarm."""

Place = Literal["above", "below", "inside", "cannot tell"]

_COLUMNS = [
    *METHOD,
    *("group", "epoch", "reward_queries", "statistic"),
    *("base_median", "base_scale", "base_mean", "mean", "z", "low", "high"),
    *("place", "n_seeds", "n_prompts", "n_images"),
]


def tripwires(
    statistics: pd.DataFrame,
    *,
    limit: float = LIMIT,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Where every statistic stands against the base model, at every checkpoint.

        z = (mean of the checkpoint - mean of the base model) / scale of the base model

    paired by prompt and noise, at eta 1. All statistics, checkpoints and prompt groups
    of a method are looked at, so their intervals are simultaneous: over statistics and
    checkpoints by the largest studentised deviation, over groups by Bonferroni. With
    the given confidence not a single place of a method is wrong.

    Args:
        statistics: A row an image, as a score table with statistics for rewards, of
            any number of runs.
        limit: Robust standard deviations at which the base model's range ends.
        bootstrap: How the intervals are made.

    Returns:
        One row per method, trained reward, group, epoch (without 0) and statistic:
        base_median and base_scale (``robust_scale``, at least ``RESOLUTION`` of the
        range) over the base model's images of the group, both means, z with low and
        high, the place (see ``place``), and sample sizes.

    Raises:
        ScoreTableError: If the base model, a column or an image's partner is missing,
            or a value is not finite.
    """
    _check(statistics)
    table = with_group(statistics[statistics["eta"] == MAIN_ETA])
    blocks = []
    for (method, reward), unit in table.groupby(list(METHOD), sort=True):
        groups = ordered_groups(unit["group"])
        each = 1 - (1 - bootstrap.confidence) / len(groups)
        head = {"method": str(method), "reward": str(reward)}
        for group in groups:
            images = unit[unit["group"] == group]
            found = _places(images, limit, replace(bootstrap, confidence=each))
            blocks.append(found.assign(**head, group=group))
    table = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
    return table.reindex(columns=_COLUMNS)


def left_range(table: pd.DataFrame) -> pd.DataFrame:
    """The first checkpoint at which each statistic is outside the base model's range.

    Args:
        table: From ``tripwires``.

    Returns:
        Rows of it whose place is "above" or "below", the earliest of each method,
        trained reward, group and statistic.
    """
    outside = table[table["place"].isin(["above", "below"])].sort_values("epoch")
    first = outside.drop_duplicates([*METHOD, "group", "statistic"])
    return first.sort_index().reset_index(drop=True)


def tripwires_markdown(table: pd.DataFrame, *, limit: float = LIMIT) -> str:
    """What left the base model's range, as Markdown; nothing for an empty table.

    Args:
        table: From ``tripwires``, with this ``limit``.
        limit: Robust standard deviations at which the range ends.
    """
    if table.empty:
        return ""
    head = (
        "Image statistics: mean change since the base model in its robust standard "
        f"deviations; the range ends at {limit:g}. Intervals are 95 % and simultaneous "
        "over statistics, checkpoints and prompt groups of a method."
    )
    first = left_range(table)
    lines = [
        f"- {row['method']} trained on {row['reward']}, {group_label(row['group'])}: "
        f"{row['statistic'].replace('_', ' ')} {row['place']} it first at epoch "
        f"{row['epoch']:.0f} (z {row['z']:+.1f} [{row['low']:+.1f}, "
        f"{row['high']:+.1f}])"
        for row in first.to_dict("records")
    ]
    left = set(zip(first["method"], first["reward"], strict=True))
    others = [
        f"- {method} trained on {reward}: no statistic was surely outside."
        for method, reward in dict.fromkeys(
            zip(table["method"], table["reward"], strict=True)
        )
        if (method, reward) not in left
    ]
    return "\n\n".join([head, "\n".join([*lines, *others])])


def robust_scale(values: npt.ArrayLike) -> float:
    """A standard deviation that few outliers don't move.

    1.4826 times the median absolute deviation from the median; where more than half of
    the values are equal, 1.2533 times the mean one (Iglewicz and Hoaglin 1993, "How to
    Detect and Handle Outliers"). Both are the standard deviation of normal values.

    Returns:
        0 if all values are equal.
    """
    array = np.asarray(values, dtype=np.float64)
    deviations = np.abs(array - np.median(array))
    median = float(np.median(deviations))
    return 1.4826 * median if median > 0 else 1.2533 * float(deviations.mean())


def place(low: float, high: float, limit: float) -> Place:
    """Where an interval stands to the range [-limit, limit]; NaN can't be told."""
    if low > limit:
        return "above"
    if high < -limit:
        return "below"
    return "inside" if low >= -limit and high <= limit else "cannot tell"


def _places(images: pd.DataFrame, limit: float, bootstrap: Bootstrap) -> pd.DataFrame:
    """The rows of one method and group."""
    start, *later = common_epochs(images)
    if start != 0:
        raise ScoreTableError(
            "The table of statistics has no image of epoch 0 (the untouched base "
            "model) for every seed. Evaluate epoch 0."
        )
    if not later:
        return pd.DataFrame()
    checkpoints = by_epoch(images, STATISTICS)
    base = checkpoints[0]
    changes = [cell_means(subtract(checkpoints[epoch], base)) for epoch in later]
    joint = np.concatenate([cells.values for cells in changes], axis=2)
    means, reach = (
        part.reshape(len(later), -1) for part in simultaneous(joint, bootstrap)
    )
    scale = np.array([_scale(base[name], name) for name in STATISTICS])
    base_means = cell_means(base).values.mean(axis=(0, 1))
    queries = images.groupby("epoch")["reward_queries"].mean()
    blocks = [
        pd.DataFrame(
            {
                "epoch": epoch,
                "reward_queries": queries[epoch],
                "statistic": list(STATISTICS),
                "base_median": base.median().to_numpy(),
                "base_scale": scale,
                "base_mean": base_means,
                "mean": base_means + change,
                "z": change / scale,
                "low": (change - half) / scale,
                "high": (change + half) / scale,
                "n_seeds": joint.shape[0],
                "n_prompts": joint.shape[1],
                "n_images": cells.n_images,
            }
        )
        for epoch, change, half, cells in zip(later, means, reach, changes, strict=True)
    ]
    table = pd.concat(blocks, ignore_index=True)
    ends = zip(table["low"], table["high"], strict=True)
    return table.assign(place=[place(low, high, limit) for low, high in ends])


def _scale(values: pd.Series, name: str) -> float:
    """Standard deviation of the base model's images, but no less than can matter."""
    lowest, highest = RANGES[name]
    return max(robust_scale(values), RESOLUTION * (highest - lowest))


def _check(statistics: pd.DataFrame) -> None:
    """Raise ScoreTableError where a statistic is missing or not finite."""
    missing = [name for name in STATISTICS if name not in statistics.columns]
    if missing:
        raise ScoreTableError(
            f"The table lacks the statistics {missing}; it has "
            f"{list(statistics.columns)}. Evaluate the runs again."
        )
    bad = [name for name in STATISTICS if not np.isfinite(statistics[name]).all()]
    if bad:
        raise ScoreTableError(
            f"The statistics {bad} are NaN or infinite for some image. Evaluate the "
            "runs again."
        )
