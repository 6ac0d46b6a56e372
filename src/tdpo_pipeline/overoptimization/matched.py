"""Rewards at equal training reward, equal reward queries, equal KL or equal seconds.

What is read off where, and what isn't, is in ``paths``.

Intervals come from resampling whole paths, prompts and training seeds each by itself
(``intervals``): with a prompt drawn twice, x and the other rewards change together, and
so does where the level is crossed. ``low`` and ``high`` hold for each level by itself,
``band_low`` and ``band_high`` for all levels of a curve at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.comparison import reference_method
from tdpo_pipeline.overoptimization.cubes import (
    Cube,
    check_same_prompts,
    cubes_by_group,
    one_cube,
)
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    FloatArray,
    Parts,
    ends,
    equal_weights,
    mean_over_seeds,
    resampled,
    simultaneous_reach,
    stretched,
)
from tdpo_pipeline.overoptimization.paths import (
    LEVELS,
    LOST_DRAWS,
    ONE_UNIT,
    STEPS,
    TOO_NEAR,
    Axis,
    TrainingPath,
    check_one_device,
    check_seen_at,
    gap_at,
    never_equal,
    path_maker,
    shared_levels,
    timed_together,
    training_paths,
)
from tdpo_pipeline.overoptimization.tables import (
    ScoreTableError,
    check_scores,
    role_of,
)


def matched_curves(
    scores: pd.DataFrame,
    along: Axis,
    *,
    group: str = "seen",
    timings: pd.DataFrame | None = None,
    levels: Sequence[float] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Every reward's change since the base model, read off at equal x.

    Args:
        scores: Score table of any number of runs; each trained reward is a comparison
            of its own.
        along: What is held equal, see ``AXES``. The training reward is always that on
            the prompts trained on, whatever the group.
        group: Prompt group on which the other rewards are read.
        timings: Seconds of every epoch (columns run, epoch, total_s); for "seconds". With
            a column device, runs that were timed on several devices aren't compared.
        levels: Values of x; by default ``LEVELS`` from 0 to the furthest that any
            method of the trained reward has reached.
        bootstrap: How the intervals are made.

    Returns:
        One row per method, trained reward, level and scored reward: method, reward,
        group, along, level, scored, role, mean (change since the base model, mean over
        seeds and prompts), low, high, band_low, band_high, base_sd, gap (empty, or why
        mean or interval is NaN here), n_seeds, n_prompts, n_images.

    Raises:
        ScoreTableError: If a table is not what it should be.
    """
    paths = training_paths(scores, along, group, timings)
    blocks = []
    for trained in dict.fromkeys(path.cube.trained for path in paths):
        own = [path for path in paths if path.cube.trained == trained]
        check_one_device(own)
        at = _levels(own, levels)
        blocks += [_curve_rows(path, along, at, bootstrap) for path in own]
    return pd.concat(blocks, ignore_index=True)[_CURVE_COLUMNS]


def matched_differences(
    scores: pd.DataFrame,
    along: Axis,
    *,
    reference: str,
    group: str = "seen",
    timings: pd.DataFrame | None = None,
    levels: Sequence[float] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Each method minus a reference method, at equal x, where both have been.

    Prompts (and their noise) are the same for both and are resampled together. The seeds
    of the two are resampled apart: equal seeds begin with the same weights, prompts and
    noise, but what training makes of them soon has little in common, and where it has,
    the interval is too wide rather than too narrow.

    Args:
        scores: As for ``matched_curves``.
        along: As there.
        reference: The method that is subtracted.
        group: As there.
        timings: As there.
        levels: As there, but by default only up to where both have been.
        bootstrap: As there.

    Returns:
        The columns of ``matched_curves`` for every other method, with reference after
        method, mean being the difference, and n_reference_seeds. If the two never
        overlap there is one row for each reward, level NaN, with the reason as gap.

    Raises:
        ScoreTableError: If a table is not what it should be, no run is of the
            reference, or the two were evaluated on other prompts.
    """
    paths = training_paths(scores, along, group, timings)
    blocks = []
    for base in (p for p in paths if p.cube.names["method"] == reference):
        for path in paths:
            if path is not base and path.cube.trained == base.cube.trained:
                check_one_device((path, base))
                at = shared_levels(path, base, LEVELS) if levels is None else levels
                blocks.append(_difference_rows(path, base, along, at, bootstrap))
    if not any(path.cube.names["method"] == reference for path in paths):
        there = sorted({str(path.cube.names["method"]) for path in paths})
        raise ScoreTableError(f"No run of the method '{reference}', only of {there}.")
    table = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
    return table.reindex(columns=_DIFFERENCE_COLUMNS)


def matched_report(
    scores: pd.DataFrame,
    *,
    references: Sequence[str] = (),
    timings: pd.DataFrame | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """All that a set of runs allows to say on equal terms.

    Every method is compared with one other that was trained on the same reward: along
    all ``AXES`` on the prompts trained on, and at equal training reward on the other
    prompt groups too. At equal seconds those seeds of the two are compared that
    were timed on one device (``timed_together``).

    Args:
        scores: As for ``matched_curves``.
        references: Methods to compare with, see ``reference_method``; of each trained
            reward it is one that was trained on it.
        timings: As for ``matched_curves``.
        bootstrap: As there.

    Returns:
        The columns of ``matched_differences``, ``STEPS`` levels a comparison. What can't
        be compared is one row without a level, whose gap says why.

    Raises:
        ScoreTableError: If the score table is not what it should be.
    """
    check_scores(scores)
    blocks: list[pd.DataFrame] = []
    for _, runs in scores.groupby("reward", sort=True):
        reference = reference_method(map(str, runs["method"].unique()), references)
        by_group = cubes_by_group(runs)
        for group, cubes in by_group.items():
            for along in get_args(Axis) if group == "seen" else ("training_reward",):
                make = path_maker(along, by_group["seen"], runs, timings)
                together: Iterable[Sequence[Cube]] = [cubes]
                if along == "seconds":
                    together = _timed_pairs(cubes, reference, runs, timings)
                for own in together:
                    blocks += _against(reference, own, make, along, bootstrap)
    return pd.concat(blocks, ignore_index=True)[_DIFFERENCE_COLUMNS]


def _timed_pairs(
    cubes: Sequence[Cube],
    reference: str,
    runs: pd.DataFrame,
    timings: pd.DataFrame | None,
) -> Iterator[list[Cube]]:
    """Each method with the reference, both by the seeds that can be compared in seconds."""
    others = [name for c in cubes if (name := str(c.names["method"])) != reference]
    for pair in [[reference, other] for other in others] or [[reference]]:
        own = runs[runs["method"].isin(pair)]
        own = timed_together(own, timings, reference=reference)
        yield one_cube(own, group="seen")


def _against(
    reference: str,
    cubes: Sequence[Cube],
    make: Callable[[Cube], TrainingPath],
    along: Axis,
    bootstrap: Bootstrap,
) -> Iterator[pd.DataFrame]:
    """Every other method's rows, or the row that says why there are none."""
    by_method = {str(cube.names["method"]): cube for cube in cubes}
    base = by_method.pop(reference, None)
    for cube in by_method.values():
        try:
            if base is None:
                raise ScoreTableError(f"{reference} was not evaluated on these prompts")
            pair = make(cube), make(base)
            check_one_device(pair)
            at = shared_levels(*pair, STEPS + 1)[-STEPS:]
            for path in pair:
                check_seen_at(path, float(at[-1]), along)
            yield _difference_rows(*pair, along, at, bootstrap)
        except ScoreTableError as error:
            yield _statement(cube, reference, along, str(error))
    if base is not None and not by_method:
        text = f"no other method was trained on {base.trained}"
        yield _statement(base, reference, along, text)


def _statement(cube: Cube, reference: str, along: Axis, text: str) -> pd.DataFrame:
    """A row without a level."""
    row = {**cube.names, "reference": reference, "along": along, "gap": text}
    return pd.DataFrame([row | cube.sizes()]).reindex(columns=_DIFFERENCE_COLUMNS)


_COMPARISON = ["reward", "group", "along", "method"]


def furthest_levels(
    table: pd.DataFrame, *, by: Sequence[str] = _COMPARISON
) -> pd.DataFrame:
    """The rows of each comparison's highest level that has an interval.

    The level is picked by what has an interval, and not by what the interval says.

    Args:
        table: From ``matched_report``, or another with the columns level and low.
        by: What tells one comparison of the table from another.

    Returns:
        Rows of it, those of one level for each comparison; the highest level of all, or
        the row without a level, where no level has an interval.
    """
    known = table["level"].where(table["low"].notna())
    units = [table[key] for key in by]
    best = known.groupby(units).transform("max")
    best = best.fillna(table["level"].groupby(units).transform("max"))
    chosen = (table["level"] == best) | best.isna()
    return table[chosen].reset_index(drop=True)


def levels_beyond(table: pd.DataFrame) -> pd.DataFrame:
    """The last level that both methods reached, where ``furthest_levels`` leaves it out.

    Args:
        table: From ``matched_report``.

    Returns:
        Rows of it, those of the level for each comparison where the last one has means
        and no interval, and a lower one has an interval.
    """
    units = [table[key] for key in _COMPARISON]
    known = table["level"].where(table["low"].notna())
    best = known.groupby(units).transform("max")
    last = table["level"].where(table["mean"].notna()).groupby(units).transform("max")
    return table[(table["level"] == last) & (last > best)].reset_index(drop=True)


_WHAT = ["reward", "group", "along", "level", "scored", "role", "mean"]
_ENDS = ["low", "high", "band_low", "band_high", "base_sd", "gap"]
_SIZES = ["n_seeds", "n_prompts", "n_images"]
_CURVE_COLUMNS = ["method", *_WHAT, *_ENDS, *_SIZES]
_DIFFERENCE_COLUMNS = [
    *("method", "reference", *_WHAT, *_ENDS),
    *("n_seeds", "n_reference_seeds", "n_prompts", "n_images"),
]


def _levels(paths: list[TrainingPath], levels: Sequence[float] | None) -> FloatArray:
    if levels is not None:
        return np.asarray(levels, dtype=np.float64)
    return np.unique(np.linspace(0.0, max(path.reached for path in paths), LEVELS))


def _curve_rows(
    path: TrainingPath, along: Axis, levels: FloatArray, bootstrap: Bootstrap
) -> pd.DataFrame:
    """The rows of one method."""

    def mean(*weights: FloatArray) -> FloatArray:
        return mean_over_seeds(path.at(levels, weights[:-1]), weights[-1])

    sizes = [*path.sizes, len(path.cube.seeds)]
    equal = equal_weights(sizes)
    means = mean(*equal)[0]
    gaps = [gap_at(path, along, level) for level in levels]
    parts = resampled(mean, sizes, bootstrap)
    spread = stretched(parts, bootstrap.confidence)
    table = _rows(path.cube, along, levels, path.cube.rewards, means, spread, gaps)
    return table.assign(**_intervals(means, parts, spread, gaps, bootstrap))


def _difference_rows(
    path: TrainingPath,
    base: TrainingPath,
    along: Axis,
    levels: Sequence[float] | FloatArray,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """The rows of one method minus the reference; a level of NaN is that of no overlap."""
    check_same_prompts(path.cube, base.cube)
    if path.x_prompts != base.x_prompts:
        raise ScoreTableError(
            f"{path.cube.title} and {base.cube.title} were trained, or evaluated, on other "
            "prompts trained on, where their training reward is read. Evaluate them again "
            "with one set of prompts."
        )
    rewards = [name for name in path.cube.rewards if name in base.cube.rewards]
    columns, base_columns = path.cube.columns(rewards), base.cube.columns(rewards)
    at = np.asarray(levels, dtype=np.float64)

    def difference(*weights: FloatArray) -> FloatArray:
        *prompts, seeds, base_seeds = weights
        own = mean_over_seeds(path.at(at, prompts)[..., columns], seeds)
        other = mean_over_seeds(base.at(at, prompts)[..., base_columns], base_seeds)
        return own - other

    sizes = [*path.sizes, len(path.cube.seeds), len(base.cube.seeds)]
    means = difference(*equal_weights(sizes))[0]
    gaps = [
        never_equal(path, base, along)
        if np.isnan(level)
        else gap_at(path, along, level) or gap_at(base, along, level)
        for level in at
    ]
    parts = resampled(difference, sizes, bootstrap)
    spread = stretched(parts, bootstrap.confidence)
    table = _rows(path.cube, along, at, rewards, means, spread, gaps)
    return table.assign(
        **_intervals(means, parts, spread, gaps, bootstrap),
        reference=str(base.cube.names["method"]),
        n_reference_seeds=len(base.cube.seeds),
    )


def _rows(
    cube: Cube,
    along: Axis,
    levels: FloatArray,
    rewards: Sequence[str],
    means: FloatArray,
    spread: FloatArray,
    gaps: list[str],
) -> pd.DataFrame:
    """Level by level and reward by reward, without the intervals."""
    count = len(rewards)
    lost = np.isnan(spread).mean(axis=0).ravel() > LOST_DRAWS
    gap = np.repeat(np.array(gaps, dtype=object), count)
    known = (gap == "") & lost
    gap[known] = ONE_UNIT if np.isnan(spread).all() else TOO_NEAR
    return pd.DataFrame(
        {
            **cube.names,
            "along": along,
            "level": np.repeat(levels, count),
            "scored": list(rewards) * len(levels),
            "role": [role_of(name, cube.trained) for name in rewards] * len(levels),
            "mean": means.ravel(),
            "base_sd": np.tile(cube.base_sd[cube.columns(rewards)], len(levels)),
            "gap": gap,
            **cube.sizes(),
        }
    )


def _intervals(
    means: FloatArray,
    parts: Parts,
    spread: FloatArray,
    gaps: list[str],
    bootstrap: Bootstrap,
) -> dict[str, FloatArray]:
    """Ends of the intervals of means (levels, rewards), flat; NaN at gaps."""
    kept = np.isnan(spread).mean(axis=0) <= LOST_DRAWS
    kept &= np.array([gap == "" for gap in gaps])[:, None]
    low, high, band = (np.full(means.shape, np.nan) for _ in range(3))
    whole = ~np.isnan(spread[:, kept]).any(axis=1)
    if kept.any():
        drawn = spread[whole][:, kept]
        low[kept], high[kept] = ends(means[kept], drawn, bootstrap.confidence)
        for column in range(means.shape[1]):  # a band for each scored reward
            own = kept[:, column]
            if own.any():
                joint = [(n, part[whole][:, own, column]) for n, part in parts]
                band[own, column] = simultaneous_reach(joint, bootstrap.confidence)
    return {
        "low": low.ravel(),
        "high": high.ravel(),
        "band_low": (means - band).ravel(),
        "band_high": (means + band).ravel(),
    }
