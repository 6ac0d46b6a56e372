"""Since when has a reward been falling? Found afterwards, from evaluated checkpoints.

The onset of a reward is the last checkpoint before its mean begins to fall, the top of a
curve that rises and then falls. It is estimated by the best unimodal fit (isotonic
regression up to every split and down after it), which knows no more than that shape; a
fit of straight pieces would ask for corners that these curves don't have.

The interval is not that of the resampled estimate: where two checkpoints are nearly
equally high, the resampled maximum jumps between them and its percentiles cover too
little. It is a confidence set for where the maximum is: all checkpoints that no other one
is significantly above, by simultaneous intervals of all pairwise differences (max-t over
a joint bootstrap of seeds and prompts). It covers the true maximum with the given
confidence, ties or none. If the last checkpoint is in the set, no fall has been shown.

While a run is going on, ``sequential`` asks the same question after every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, one_cube
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    Cells,
    FloatArray,
    estimates,
    normal_quantile,
    resampled_mean,
    simultaneous_reach,
)
from tdpo_pipeline.overoptimization.sequential import unimodal_peak
from tdpo_pipeline.overoptimization.tables import ScoreTableError, role_of


class PeakSet(NamedTuple):
    """Where a mean curve may be highest.

    Attributes:
        peak: Index of the estimate.
        first: Index of the first checkpoint that may be the highest.
        last: Index of the last one.
    """

    peak: int
    first: int
    last: int


def peak_set(values: FloatArray, bootstrap: Bootstrap = BOOTSTRAP) -> PeakSet:
    """The best checkpoint and its confidence set.

    Args:
        values: Shape (seeds, prompts, epochs).
        bootstrap: How the set is made; its confidence is that of holding the maximum.

    Returns:
        Indices of epochs; the set is everything from ``first`` to ``last``. With one seed
        and one prompt nothing can be ruled out.
    """
    means = values.mean(axis=(0, 1))
    peak = unimodal_peak(means)
    parts = resampled_mean(values, bootstrap)
    if np.isnan(parts[0][1]).any():
        return PeakSet(peak, 0, len(means) - 1)
    ahead = means[:, None] - means[None, :]  # of j over k
    floor = 1e-12 * max(float(np.abs(values).max()), 1.0)  # equal but for rounding
    pairs = [(n, _pairwise(part, floor)) for n, part in parts]
    reach = simultaneous_reach(pairs, bootstrap.confidence).reshape(ahead.shape)
    beaten = (ahead > np.maximum(reach, floor)).any(axis=0)
    possible = np.flatnonzero(~beaten)
    first, last = int(possible[0]), int(possible[-1])
    return PeakSet(min(max(peak, first), last), first, last)


def epoch_peak_set(
    means: FloatArray, errors: FloatArray, confidence: float = BOOTSTRAP.confidence
) -> PeakSet:
    """The best epoch of a history and its confidence set.

    As ``peak_set``, for means of independent samples whose standard errors are known: an
    epoch is in the set unless another one is surely above it. The true maximum is held
    against k - 1 others, so each of these may mislead with (1 - confidence) / (k - 1).

    Args:
        means: Of each epoch, shape (epochs,).
        errors: Their standard errors, shape (epochs,); an epoch whose error is NaN is left
            out, one whose error is 0 is known exactly.
        confidence: That of holding the maximum.
    """
    used = np.flatnonzero(np.isfinite(errors))
    if len(used) < 2:
        return PeakSet(*[len(means) - 1] * 3)
    x, variance = means[used], errors[used] ** 2
    above = x - x[:, None]  # [i, j]: of j over i
    # The quantile is of two tails, and only one of them counts.
    reach = normal_quantile(1 - 2 * (1 - confidence) / (len(used) - 1))
    surely = above > reach * np.sqrt(variance + variance[:, None])
    kept = used[~surely.any(axis=1)]
    # The fit takes no weight without end: what is exact counts as the surest of the rest.
    known = errors[errors > 0]
    weighed = np.where(errors == 0, known.min() if len(known) else 1.0, errors)
    return PeakSet(unimodal_peak(means, weighed), int(kept[0]), int(kept[-1]))


def _pairwise(part: FloatArray, floor: float) -> FloatArray:
    """Deviations of all pairwise differences, (draws, k) to (draws, k * k).

    Those that don't vary but for rounding are 0.
    """
    pairs = (part[:, :, None] - part[:, None, :]).reshape(len(part), -1)
    return np.where(pairs.std(axis=0) > floor, pairs, 0.0)


def find_onsets(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str] | None = None,
    group: str = "seen",
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """The onset of every reward's fall, and whether the trained one rises meanwhile.

    Args:
        scores: Score table of any number of runs.
        rewards: Scored rewards; by default all but the trained one and ``SIZES``.
        group: Prompt group of these; the trained reward is taken on the same.
        by: What a curve is of, see ``reward_curves``.
        bootstrap: How the intervals are made.

    Returns:
        One row per curve and scored reward: the columns ``by``, group, scored, role,
        onset_epoch, onset_queries (estimate); low_epoch, high_epoch, low_queries,
        high_queries (the confidence set, widened to its neighbours, because a maximum
        between two checkpoints shows at one of them; high is NaN if no fall was shown);
        fall, fall_low, fall_high (the last checkpoint minus the onset; the onset was
        picked, so judge by the set); trained_rise with low and high (of the trained
        reward over the same time); statement, n_checkpoints, n_seeds, n_prompts,
        n_images.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    rows = [
        _row(cube, scored, bootstrap)
        for cube in one_cube(scores, group=group, by=by)
        for scored in rewards or _watched(cube)
    ]
    return pd.DataFrame(rows, columns=[*by, *_COLUMNS])


def _watched(cube: Cube) -> list[str]:
    """The rewards whose fall says something."""
    roles = {name: role_of(name, cube.trained) for name in cube.rewards}
    return [name for name, role in roles.items() if role not in ("trained", "size")]


_COLUMNS = [
    *("group", "scored", "role", "onset_epoch", "onset_queries"),
    *("low_epoch", "high_epoch", "low_queries", "high_queries"),
    *("fall", "fall_low", "fall_high"),
    *("trained_rise", "trained_rise_low", "trained_rise_high"),
    *("statement", "n_checkpoints", "n_seeds", "n_prompts", "n_images"),
]


def _row(cube: Cube, scored: str, bootstrap: Bootstrap) -> dict[str, object]:
    """The row of one reward."""
    head = {**cube.names, "scored": scored, "role": role_of(scored, cube.trained)}
    tail = {"n_checkpoints": len(cube.epochs) - 1, **cube.sizes()}
    if len(cube.epochs) == 1:
        why = "no checkpoint besides the base model that all seeds have"
        return head | {"statement": why} | tail
    values = cube.values[..., cube.columns([scored])[0]]
    found = peak_set(values, bootstrap)
    end, queries = len(cube.epochs) - 1, cube.queries.mean(axis=0)
    low, high = max(found.first - 1, 0), min(found.last + 1, end)
    place: dict[str, object] = {
        "onset_epoch": cube.epochs[found.peak],
        "onset_queries": queries[found.peak],
        "low_epoch": cube.epochs[low],
        "low_queries": queries[low],
    }
    if found.last < end:
        place |= {"high_epoch": cube.epochs[high], "high_queries": queries[high]}
    fall, rise = _since(cube, [scored, _trained(cube)], found.peak, bootstrap)
    return (
        head
        | place
        | dict(zip(("fall", "fall_low", "fall_high"), fall, strict=True))
        | {
            f"trained_rise{n}": v
            for n, v in zip(("", "_low", "_high"), rise, strict=True)
        }
        | {"statement": _statement(cube, found, rise)}
        | tail
    )


def _trained(cube: Cube) -> str:
    if cube.trained not in cube.rewards:
        raise ScoreTableError(
            f"The trained reward '{cube.trained}' of {cube.title} was not scored, "
            "so that nobody knows whether it rises while others fall."
        )
    return cube.trained


def _since(
    cube: Cube, rewards: list[str], start: int, bootstrap: Bootstrap
) -> list[tuple[float, float, float]]:
    """Change of rewards from a checkpoint to the last: mean, low and high."""
    values = cube.values[..., cube.columns(rewards)]
    cells = Cells(values[:, :, -1] - values[:, :, start], cube.n_images)
    return [(e.mean, e.low, e.high) for e in estimates(cells, bootstrap)]


def _statement(cube: Cube, found: PeakSet, rise: tuple[float, float, float]) -> str:
    """What the set allows to say."""
    if cube.values.shape[:2] == (1, 1):
        return "cannot tell: one seed and one prompt"
    if found.last == len(cube.epochs) - 1:
        return "no fall shown: the last checkpoint may be the highest"
    _, low, high = rise
    falls = "falls from the start" if found.last == 0 else "falls"
    if low > 0:
        return f"{falls} while the trained reward rises"
    if high < 0:
        return f"{falls}, and so does the trained reward"
    return f"{falls}; cannot tell whether the trained reward rises meanwhile"
