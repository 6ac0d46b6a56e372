"""Rewards at equal training reward, equal reward queries, equal KL or equal seconds.

Two methods can only be compared where both have been. A method's path is known at its
evaluated checkpoints; between two of them all quantities are taken to be linear in the
checkpoint's position, and beyond the last nothing is known and nothing is said.

What a path is put along, x, need not be monotone: a training reward that rises, falls
and rises again passes a level three times. The rule is the *first crossing*: the first
moment at which the running maximum of x reaches the level, read off by linear
interpolation. It is what somebody would have seen who stopped as soon as the level was
reached. A level counts as reached by a method if *each* of its seeds reaches it, because
an average over those that happen to get there would compare lucky seeds with all.

Intervals come from resampling whole paths, prompts and training seeds each by itself
(``intervals``): with a prompt drawn twice, x and the other rewards change together, and
so does where the level is crossed. ``low`` and ``high`` hold for each level by itself,
``band_low`` and ``band_high`` for all levels of a curve at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.comparison import reference_method
from tdpo_pipeline.overoptimization.cubes import Cube, cubes_by_group, one_cube
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    FloatArray,
    Parts,
    ends,
    mean_over_prompts,
    mean_over_seeds,
    resampled,
    significant,
    simultaneous_reach,
    stretched,
)
from tdpo_pipeline.overoptimization.tables import (
    ScoreTableError,
    role_of,
)

Axis = Literal["training_reward", "reward_queries", "kl", "seconds"]

AXES = {
    "training_reward": "trained reward on its own prompts, in base standard deviations",
    "reward_queries": "reward queries",
    "kl": "KL to the base model in nats",
    "seconds": "seconds of training",
}
"""What curves can be put along, and its unit."""

LEVELS = 21
"""Levels at which curves are read off, evenly spaced over what all have reached."""

STEPS = 4
"""Levels of a comparison in a report: at a quarter, half, three quarters and all of what
both methods have reached."""

LOST_DRAWS = 0.01
"""Largest part of the resampled paths that may end before a level that has an
interval."""


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
    paths = _paths(scores, along, group, timings)
    blocks = []
    for trained in dict.fromkeys(path.cube.trained for path in paths):
        own = [path for path in paths if path.cube.trained == trained]
        _check_one_device(own)
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
    paths = _paths(scores, along, group, timings)
    blocks = []
    for base in (p for p in paths if p.cube.names["method"] == reference):
        for path in paths:
            if path is not base and path.cube.trained == base.cube.trained:
                _check_one_device((path, base))
                at = _shared_levels(path, base, LEVELS) if levels is None else levels
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
    prompt groups too.

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
    blocks: list[pd.DataFrame] = []
    for _, runs in scores.groupby("reward", sort=True):
        reference = reference_method(map(str, runs["method"].unique()), references)
        by_group = cubes_by_group(runs)
        for group, cubes in by_group.items():
            for along in get_args(Axis) if group == "seen" else ("training_reward",):
                make = _path_maker(along, by_group["seen"], runs, timings)
                blocks += _against(reference, cubes, make, along, bootstrap)
    return pd.concat(blocks, ignore_index=True)[_DIFFERENCE_COLUMNS]


def _against(
    reference: str,
    cubes: Sequence[Cube],
    make: Callable[[Cube], _Path],
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
            _check_one_device(pair)
            at = _shared_levels(*pair, STEPS + 1)[-STEPS:]
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


def furthest_levels(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each comparison's highest level that has an interval.

    The level is picked by what has an interval, and not by what the interval says.

    Args:
        table: From ``matched_report``.

    Returns:
        Rows of it, those of one level for each trained reward, method, group and axis;
        the highest level of all, or the row without a level, where no level has an
        interval.
    """
    known = table["level"].where(table["low"].notna())
    units = [table[key] for key in _COMPARISON]
    best = known.groupby(units).transform("max")
    best = best.fillna(table["level"].groupby(units).transform("max"))
    chosen = (table["level"] == best) | best.isna()
    return table[chosen].reset_index(drop=True)


_COMPARISON = ["reward", "group", "along", "method"]


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


def first_crossing(x: FloatArray, y: FloatArray, level: float) -> FloatArray:
    """The values of y where x first reaches a level.

    Args:
        x: Shape (..., epochs); its running maximum is what has to reach the level.
        y: Shape (..., epochs, k).
        level: The level. A path that starts at or above it is read at its start.

    Returns:
        Shape (..., k), linear between the two checkpoints around the crossing; NaN
        where the path never reaches the level.
    """
    reached = np.maximum.accumulate(x, axis=-1) >= level
    index = reached.argmax(axis=-1)
    before = np.maximum(index - 1, 0)
    x0, x1 = (np.take_along_axis(x, i[..., None], -1)[..., 0] for i in (before, index))
    y0, y1 = (
        np.take_along_axis(y, i[..., None, None], -2)[..., 0, :]
        for i in (before, index)
    )
    rise = x1 - x0
    part = np.where(rise > 0, (level - x0) / np.where(rise > 0, rise, 1.0), 0.0)
    # x0 is below the level, or index is 0 and both ends are the start.
    value = y0 + part[..., None] * (y1 - y0)
    return np.where(np.expand_dims(reached.any(axis=-1), -1), value, np.nan)


class _Path:
    """A method's way: x at every checkpoint and seed, from resampled prompts.

    Attributes:
        cube: Rewards on the group in question.
        x: From prompt weights (draws, prompts trained on) or, if x knows no prompts,
            from whatever weights: shape (draws or 1, seeds, epochs).
        x_prompts: Number of prompts that x is a mean over; 1 if it knows none.
        shared: Whether x is a mean over the same prompts as the other rewards.
        devices: What x was timed on, where it is seconds.
    """

    def __init__(
        self,
        cube: Cube,
        x: Callable[[FloatArray], FloatArray],
        x_prompts: int,
        *,
        shared: bool,
        devices: frozenset[str] = frozenset(),
    ) -> None:
        self.cube, self.x, self.x_prompts, self.shared = cube, x, x_prompts, shared
        self.devices = devices
        self.plain = x(np.full((1, x_prompts), 1 / x_prompts))[0]
        self.y = cube.changes(cube.rewards)

    @property
    def reached(self) -> float:
        """The furthest level that every seed reaches."""
        return float(self.plain.max(axis=1).min())

    @property
    def sizes(self) -> list[int]:
        """Units to resample besides seeds: prompts of y, then those of x."""
        prompts = self.cube.values.shape[1]
        return [prompts] if self.shared else [prompts, self.x_prompts]

    def at(self, levels: FloatArray, prompts: Sequence[FloatArray]) -> FloatArray:
        """Shape (draws or 1, seeds, levels, rewards): y at the crossings."""
        y = mean_over_prompts(self.y, prompts[0])
        x = self.x(prompts[0] if self.shared else prompts[1])
        draws = max(len(x), len(y))
        x = np.broadcast_to(x, (draws, *x.shape[1:]))
        y = np.broadcast_to(y, (draws, *y.shape[1:]))
        return np.stack([first_crossing(x, y, level) for level in levels], axis=2)


def _paths(
    scores: pd.DataFrame, along: Axis, group: str, timings: pd.DataFrame | None
) -> list[_Path]:
    """The paths of all methods; raises ScoreTableError."""
    if along not in get_args(Axis):
        raise ScoreTableError(f"'{along}' is none of {list(get_args(Axis))}.")
    found = one_cube(scores, group=group)
    seen = one_cube(scores, group="seen") if along == "training_reward" else []
    make = _path_maker(along, seen, scores, timings)
    return [make(cube) for cube in found]


def _path_maker(
    along: Axis,
    seen: Sequence[Cube],
    scores: pd.DataFrame,
    timings: pd.DataFrame | None,
) -> Callable[[Cube], _Path]:
    """What puts a cube along an axis, and raises ScoreTableError where it can't.

    Args:
        along: The axis.
        seen: Cubes of the prompts trained on, for "training_reward".
        scores: Score table of all runs.
        timings: Their timings, for "seconds".
    """
    if along != "training_reward":
        return partial(_known_path, along=along, scores=scores, timings=timings)
    own = {_key(cube): cube for cube in seen}

    def make(cube: Cube) -> _Path:
        if _key(cube) not in own:
            raise ScoreTableError(
                f"{cube.title} was not evaluated on the prompts trained on, where "
                "its training reward is read. Evaluate these too."
            )
        # One ruler for all methods, also where their tables from elsewhere have images of
        # their own of the base model.
        first = next(other for other in seen if other.trained == cube.trained)
        return _reward_path(cube, own[_key(cube)], _ruler(first))

    return make


def _key(cube: Cube) -> tuple[object, ...]:
    return tuple(cube.names[name] for name in METHOD)


def _ruler(cube: Cube) -> float:
    """One base standard deviation of the trained reward."""
    if cube.trained not in cube.rewards:
        raise ScoreTableError(
            f"The trained reward '{cube.trained}' of {cube.title} was not scored."
        )
    ruler = float(cube.base_sd[cube.columns([cube.trained])[0]])
    if not ruler > 0:
        raise ScoreTableError(
            f"'{cube.trained}' does not vary over the base model's images, so that its "
            "rise can't be counted in base standard deviations."
        )
    return ruler


def _reward_path(cube: Cube, seen: Cube, ruler: float) -> _Path:
    """Along the trained reward on its own prompts, in base standard deviations."""
    if (cube.epochs, cube.seeds) != (seen.epochs, seen.seeds):
        raise ScoreTableError(
            f"{cube.title} has other checkpoints or seeds than the prompts "
            "trained on. Evaluate all prompt sets together."
        )
    changes = seen.changes([cube.trained])[..., 0] / ruler

    def x(prompts: FloatArray) -> FloatArray:
        return mean_over_prompts(changes, prompts)

    return _Path(cube, x, len(seen.prompts), shared=seen.prompts == cube.prompts)


def _known_path(
    cube: Cube, along: Axis, scores: pd.DataFrame, timings: pd.DataFrame | None
) -> _Path:
    """Along something that is known of each run and checkpoint."""
    devices: frozenset[str] = frozenset()
    if along == "seconds":
        known = _seconds(cube, scores, timings)
        devices = _devices(cube, scores, timings)
    elif along == "kl":
        known = cube.kl
    else:
        known = cube.queries
    if np.isnan(known).any():
        raise ScoreTableError(
            f"{AXES[along]} was not recorded for every checkpoint of {cube.title}"
        )

    def x(_: FloatArray) -> FloatArray:
        return known[None]

    return _Path(cube, x, 1, shared=False, devices=devices)


def _check_one_device(paths: Iterable[_Path]) -> None:
    """Raise ScoreTableError if runs that are compared were timed on several devices."""
    devices = sorted(set().union(*(path.devices for path in paths)))
    if len(devices) > 1:
        raise ScoreTableError(
            "Equal seconds need runs that were timed on one device, and these were on "
            f"{', '.join(devices)}. Train them on one, or compare at equal queries or KL."
        )


def _runs(cube: Cube, scores: pd.DataFrame) -> pd.Series:
    """A method's runs by their seeds."""
    own = np.logical_and.reduce([scores[k] == cube.names[k] for k in METHOD])
    return scores[own].drop_duplicates("seed").set_index("seed")["run"]


def _devices(
    cube: Cube, scores: pd.DataFrame, timings: pd.DataFrame | None
) -> frozenset[str]:
    """What a method's runs were timed on, as far as the timings say it."""
    if timings is None or "device" not in timings:
        return frozenset()
    runs = _runs(cube, scores)
    found = timings.loc[timings["run"].isin(runs), "device"]
    return frozenset(found.fillna("an unknown device").astype(str))


def _seconds(
    cube: Cube, scores: pd.DataFrame, timings: pd.DataFrame | None
) -> FloatArray:
    """Seconds of training up to each checkpoint, shape (seeds, epochs)."""
    if timings is None or not {"run", "epoch", "total_s"} <= set(timings.columns):
        raise ScoreTableError(
            "Equal seconds need the timings of all runs, with the columns run, epoch "
            "and total_s."
        )
    runs = _runs(cube, scores)
    spent = np.full(cube.kl.shape, np.nan)
    for row, seed in enumerate(cube.seeds):
        run = timings[timings["run"] == runs[seed]].set_index("epoch")["total_s"]
        if run.index.has_duplicates:
            raise ScoreTableError(f"An epoch of {runs[seed]} has two timings.")
        total = run.sort_index().cumsum()
        spent[row] = [0.0 if e == 0 else total.get(e, np.nan) for e in cube.epochs]
    return spent


def _shared_levels(path: _Path, base: _Path, count: int) -> FloatArray:
    """Levels evenly spaced from where both start to where both have been.

    NaN alone if the one ends before the other begins.
    """
    start = max(float(p.plain[:, 0].max()) for p in (path, base))
    end = min(path.reached, base.reached)
    return np.linspace(start, end, count) if end > start else np.array([np.nan])


def _levels(paths: list[_Path], levels: Sequence[float] | None) -> FloatArray:
    if levels is not None:
        return np.asarray(levels, dtype=np.float64)
    return np.linspace(0.0, max(path.reached for path in paths), LEVELS)


def _curve_rows(
    path: _Path, along: Axis, levels: FloatArray, bootstrap: Bootstrap
) -> pd.DataFrame:
    """The rows of one method."""

    def mean(*weights: FloatArray) -> FloatArray:
        return mean_over_seeds(path.at(levels, weights[:-1]), weights[-1])

    sizes = [*path.sizes, len(path.cube.seeds)]
    equal = [np.full((1, n), 1 / n) for n in sizes]
    means = mean(*equal)[0]
    gaps = [_gap(path, along, level) for level in levels]
    parts = resampled(mean, sizes, bootstrap)
    spread = stretched(parts, bootstrap.confidence)
    table = _rows(path.cube, along, levels, path.cube.rewards, means, spread, gaps)
    return table.assign(**_intervals(means, parts, gaps, bootstrap))


def _difference_rows(
    path: _Path,
    base: _Path,
    along: Axis,
    levels: Sequence[float] | FloatArray,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """The rows of one method minus the reference; a level of NaN is that of no overlap."""
    if path.cube.prompts != base.cube.prompts or path.sizes[1:] != base.sizes[1:]:
        raise ScoreTableError(
            f"{path.cube.title} and {base.cube.title} were evaluated on "
            "other prompts. Evaluate them again with one set of prompts."
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
    means = difference(*[np.full((1, n), 1 / n) for n in sizes])[0]
    gaps = [
        _never(path, base, along)
        if np.isnan(level)
        else _gap(path, along, level) or _gap(base, along, level)
        for level in at
    ]
    parts = resampled(difference, sizes, bootstrap)
    spread = stretched(parts, bootstrap.confidence)
    table = _rows(path.cube, along, at, rewards, means, spread, gaps)
    return table.assign(
        **_intervals(means, parts, gaps, bootstrap),
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
    units = "one seed and one prompt" if np.isnan(spread).all() else ""
    gap[known] = units or "too near the end of the path for an interval"
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
    means: FloatArray, parts: Parts, gaps: list[str], bootstrap: Bootstrap
) -> dict[str, FloatArray]:
    """Ends of the intervals of means (levels, rewards), flat; NaN at gaps."""
    spread = stretched(parts, bootstrap.confidence)
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


def _gap(path: _Path, along: Axis, level: float) -> str:
    """Why there is no value at a level; empty if there is one."""
    furthest = path.plain.max(axis=1)
    missing = int((furthest < level).sum())
    if not missing:
        return ""
    return (
        f"{path.cube.names['method']}: {missing} of {len(furthest)} seeds never "
        f"reached {significant(level)} ({AXES[along]}); all of them reached "
        f"{significant(path.reached)}"
    )


def _never(path: _Path, base: _Path, along: Axis) -> str:
    """What to say of two paths that have no level in common."""
    reach = [
        f"{p.cube.names['method']} from {significant(p.plain[:, 0].max())} to "
        f"{significant(p.reached)}"
        for p in (path, base)
    ]
    return f"never at equal {AXES[along]}: {' and '.join(reach)} (all seeds)"
