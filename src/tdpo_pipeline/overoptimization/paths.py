"""The way that each method went: x at every checkpoint, and what is read off at equal x.

Two methods can only be compared where both have been. A method's path is known at its
evaluated checkpoints; between two of them all quantities are taken to be linear in the
checkpoint's position, and beyond the last nothing is known and nothing is said.

What a path is put along, x, need not be monotone: a training reward that rises, falls
and rises again passes a level three times. The rule is the *first crossing*: the first
moment at which the running maximum of x reaches the level, read off by linear
interpolation. It is what somebody would have seen who stopped as soon as the level was
reached. A level counts as reached by a method if *each* of its seeds reaches it, because
an average over those that happen to get there would compare lucky seeds with all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, one_cube
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    FloatArray,
    mean_over_prompts,
    significant,
)
from tdpo_pipeline.overoptimization.tables import ScoreTableError

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

ONE_UNIT = "one seed and one prompt"
TOO_NEAR = "too near the end of the path for an interval"
"""Why there is a value and no interval."""

UNKNOWN_DEVICE = "an unknown device"


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


class TrainingPath:
    """A method's way: x at every checkpoint and seed, from resampled prompts.

    Attributes:
        cube: Rewards on the group in question.
        x: From prompt weights (draws, prompts trained on) or, if x knows no prompts,
            from whatever weights: shape (draws or 1, seeds, epochs).
        shared: Whether x is a mean over the same prompts as the other rewards.
        x_prompts: The prompts that x is a mean over; none if it knows none.
        devices: What x was timed on, where it is seconds.
    """

    def __init__(
        self,
        cube: Cube,
        x: Callable[[FloatArray], FloatArray],
        x_prompts: tuple[tuple[str, str], ...] = (),
        *,
        devices: frozenset[str] = frozenset(),
    ) -> None:
        self.cube, self.x, self.x_prompts = cube, x, x_prompts
        self.shared = x_prompts == cube.prompts
        self.devices = devices
        self.plain = x(np.full((1, self.n_x_prompts), 1 / self.n_x_prompts))[0]
        self.y = cube.changes(cube.rewards)

    @property
    def reached(self) -> float:
        """The furthest level that every seed reaches."""
        return float(self.plain.max(axis=1).min())

    @property
    def sizes(self) -> list[int]:
        """Units to resample besides seeds: prompts of y, then those of x."""
        prompts = self.cube.values.shape[1]
        return [prompts] if self.shared else [prompts, self.n_x_prompts]

    @property
    def n_x_prompts(self) -> int:
        """Units of x to resample; 1 where it knows no prompts."""
        return len(self.x_prompts) or 1

    def at(self, levels: FloatArray, prompts: Sequence[FloatArray]) -> FloatArray:
        """Shape (draws or 1, seeds, levels, rewards): y at the crossings."""
        y = mean_over_prompts(self.y, prompts[0])
        x = self.x(prompts[0] if self.shared else prompts[1])
        return self._crossings(levels, x, y)

    def costs_at(
        self, levels: FloatArray, prompts: FloatArray, spent: FloatArray
    ) -> FloatArray:
        """Shape (draws or 1, seeds, levels): something known of each checkpoint.

        Args:
            levels: Shape (levels,).
            prompts: Weights of the prompts that x is a mean over.
            spent: Shape (seeds, epochs).
        """
        return self._crossings(levels, self.x(prompts), spent[None, ..., None])[..., 0]

    @staticmethod
    def _crossings(levels: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
        """Shape (draws or 1, seeds, levels, k): y where x first reaches each level."""
        draws = max(len(x), len(y))
        x = np.broadcast_to(x, (draws, *x.shape[1:]))
        y = np.broadcast_to(y, (draws, *y.shape[1:]))
        return np.stack([first_crossing(x, y, level) for level in levels], axis=2)


def training_paths(
    scores: pd.DataFrame, along: Axis, group: str, timings: pd.DataFrame | None
) -> list[TrainingPath]:
    """The paths of all methods; raises ScoreTableError."""
    if along not in get_args(Axis):
        raise ScoreTableError(f"'{along}' is none of {list(get_args(Axis))}.")
    found = one_cube(scores, group=group)
    seen = one_cube(scores, group="seen") if along == "training_reward" else []
    make = path_maker(along, seen, scores, timings)
    return [make(cube) for cube in found]


def path_maker(
    along: Axis,
    seen: Sequence[Cube],
    scores: pd.DataFrame,
    timings: pd.DataFrame | None,
) -> Callable[[Cube], TrainingPath]:
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

    def make(cube: Cube) -> TrainingPath:
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


def _reward_path(cube: Cube, seen: Cube, ruler: float) -> TrainingPath:
    """Along the trained reward on its own prompts, in base standard deviations."""
    if (cube.epochs, cube.seeds) != (seen.epochs, seen.seeds):
        raise ScoreTableError(
            f"{cube.title} has other checkpoints or seeds than the prompts "
            "trained on. Evaluate all prompt sets together."
        )
    changes = seen.changes([cube.trained])[..., 0] / ruler

    def x(prompts: FloatArray) -> FloatArray:
        return mean_over_prompts(changes, prompts)

    return TrainingPath(cube, x, seen.prompts)


def _known_path(
    cube: Cube, along: Axis, scores: pd.DataFrame, timings: pd.DataFrame | None
) -> TrainingPath:
    """Along something that is known of each run and checkpoint."""
    devices: frozenset[str] = frozenset()
    if along == "seconds":
        known = _seconds(cube, scores, timings)
        by_run = _devices(timings)
        devices = frozenset().union(
            *(by_run.get(run, frozenset()) for run in _runs(cube, scores))
        )
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

    return TrainingPath(cube, x, devices=devices)


def check_one_device(paths: Iterable[TrainingPath]) -> None:
    """Raise ScoreTableError if runs that are compared were timed on several devices."""
    devices = sorted(set().union(*(path.devices for path in paths)))
    if len(devices) > 1:
        raise ScoreTableError(
            "Equal seconds need runs that were timed on one device, and these were on "
            f"{', '.join(devices)}. Train them on one, or compare at equal queries or KL."
        )


def timed_together(
    scores: pd.DataFrame, timings: pd.DataFrame | None, *, reference: str
) -> pd.DataFrame:
    """The rows of the runs whose seconds can be held against those of a reference.

    Args:
        scores: Score table of the methods of one trained reward.
        timings: Their timings; without them or their column device all rows are kept.
        reference: A method among them.

    Returns:
        Of each method the rows of the runs that were timed on one known device alone: of
        those on which the reference was, the one on which most runs were. A method without
        a run there keeps all of its own, for ``check_one_device`` to refuse. A device is
        known by its name alone, and "cpu" is any.
    """
    runs = scores.drop_duplicates("run").set_index("run")["method"]
    devices = _devices(timings)
    alone = {
        run: own
        for run in runs.index
        if len(own := devices.get(run, frozenset())) == 1 and UNKNOWN_DEVICE not in own
    }
    counts = Counter(alone.values())
    places = [d for run, d in alone.items() if runs[run] == reference]
    if not places:
        return scores
    device = max(places, key=counts.__getitem__)
    there = [run for run, d in alone.items() if d == device]
    elsewhere = runs.index[~runs.isin(runs[there])]
    return scores[scores["run"].isin([*there, *elsewhere])]


def _devices(timings: pd.DataFrame | None) -> dict[str, frozenset[str]]:
    """What each run was timed on, as far as the timings say it."""
    if timings is None or "device" not in timings:
        return {}
    named = timings["device"].fillna(UNKNOWN_DEVICE).astype(str)
    return {run: frozenset(own) for run, own in named.groupby(timings["run"])}


def _runs(cube: Cube, scores: pd.DataFrame) -> pd.Series:
    """The runs of a cube by their seeds."""
    own = np.logical_and.reduce([scores[k] == cube.names[k] for k in METHOD])
    own &= scores["seed"].isin(cube.seeds)
    return scores[own].drop_duplicates("seed").set_index("seed")["run"]


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
        # An epoch that wasn't timed leaves all later ones unknown.
        total = run.reindex(range(1, cube.epochs[-1] + 1)).cumsum(skipna=False)
        spent[row] = [0.0 if epoch == 0 else total[epoch] for epoch in cube.epochs]
    return spent


def shared_levels(path: TrainingPath, base: TrainingPath, count: int) -> FloatArray:
    """Levels evenly spaced from where both start to where both have been.

    NaN alone if the one ends before the other begins.
    """
    start = max(float(p.plain[:, 0].max()) for p in (path, base))
    end = min(path.reached, base.reached)
    return np.linspace(start, end, count) if end > start else np.array([np.nan])


def gap_at(path: TrainingPath, along: Axis, level: float) -> str:
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


def check_seen_at(path: TrainingPath, level: float, along: Axis) -> None:
    """Refuse a level that is nearer to the base model than to a trained checkpoint.

    Before its first checkpoint a path is a straight line from the base model; where every
    seed is that far from it, no image speaks for what is read off.

    Raises:
        ScoreTableError: If that is so.
    """
    first = path.plain[:, :2].max(axis=1)
    if (first > 2 * level).all():
        raise ScoreTableError(
            f"never seen at equal {AXES[along]}: {path.cube.names['method']} is at "
            f"{significant(float(first.min()))} or more at its first checkpoint, where "
            f"{significant(level)} is the furthest that both have reached"
        )


def never_equal(path: TrainingPath, base: TrainingPath, along: Axis) -> str:
    """What to say of two paths that have no level in common."""
    reach = [
        f"{p.cube.names['method']} from {significant(p.plain[:, 0].max())} to "
        f"{significant(p.reached)}"
        for p in (path, base)
    ]
    return f"never at equal {AXES[along]}: {' and '.join(reach)} (all seeds)"
