"""How a reward that is not trained on depends on the distance from the base model.

Gao, Schulman and Hilton 2023 ("Scaling Laws for Reward Model Overoptimization", section
3) found for language models that the gold reward, as a function of the distance
d = sqrt(KL from the base model), has one of the forms

    R(d) = d (alpha - beta d)        "linear"  (best-of-n sampling there)
    R(d) = d (alpha - beta log d)    "log"     (reinforcement learning there)

R being the change since the base model. Both are linear in alpha and beta, so least
squares have one solution and need no starting values. There is no theory that says which
form holds for diffusion models, and there both have two parameters: the one with the
smaller residuals is called preferred, and both are reported. Where they disagree about
the peak, the data don't tell.

The fit goes through all checkpoints of all seeds; seeds and prompts are resampled whole.
A peak is only reported within the distances that were evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, one_cube
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    FloatArray,
    Parts,
    ends,
    equal_weights,
    mean_over_prompts,
    mean_over_seeds,
    resampled,
    simultaneous_reach,
    stretched,
)
from tdpo_pipeline.overoptimization.tables import held_out_of, role_of

Form = Literal["linear", "log"]

FEWEST_CHECKPOINTS = 4
"""Checkpoints away from the base model that a fit takes: two for its parameters, and two
by which it could be wrong."""

HAS_PEAK = "it has a peak within the data"
"""The statement of a fit whose peak's interval excludes both ends of the data."""


@dataclass(frozen=True)
class _Fit:
    """A fitted form.

    Attributes:
        form: Which one.
        alpha: As fitted.
        beta: As fitted.
        draws: The resampled (alpha, beta), shape (draws, 2).
        parts: Their deviations by kind of unit, not yet stretched.
        rmse: Of the seeds' means.
    """

    form: Form
    alpha: float
    beta: float
    draws: FloatArray
    parts: Parts
    rmse: float


def fit_goodhart(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str] | None = None,
    group: str = "seen",
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Fit both forms to every reward of every curve.

    Args:
        scores: Score table of any number of runs, with ``kl_to_base``.
        rewards: Scored rewards; by default all.
        group: Prompt group.
        by: What a curve is of, see ``reward_curves``.
        bootstrap: How the intervals are made.

    Returns:
        One row per curve, scored reward and form: the columns ``by``, group, scored,
        role, form, preferred, alpha, alpha_low, alpha_high, beta, beta_low, beta_high,
        rmse (of the seeds' means, in the reward's own units), peak_distance with low and
        high, peak_kl (nats), peak_value (change at the peak) with low and high,
        statement, max_distance, n_checkpoints, n_seeds, n_prompts, n_images. What is
        unknown or would lie beyond ``max_distance`` is NaN, and the statement says so.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    rows = []
    for cube in one_cube(scores, group=group, by=by):
        for scored in rewards or cube.rewards:
            rows += _rows(cube, scored, bootstrap)
    return pd.DataFrame(rows, columns=[*by, *_COLUMNS])


def goodhart_report(
    scores: pd.DataFrame, *, bootstrap: Bootstrap = BOOTSTRAP
) -> pd.DataFrame:
    """The fits to the gold of each trained reward, or to held-out rewards without one.

    Args:
        scores: As for ``fit_goodhart``.
        bootstrap: As there.

    Returns:
        The rows of ``fit_goodhart`` by method, on the prompts trained on, whose role is
        "gold" where the trained reward's own gold was scored, and "cross" elsewhere. A
        method that was scored by the trained reward alone has a row that says so.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    rows: list[dict[str, object]] = []
    for cube in one_cube(scores, group="seen"):
        golds = [r for r in cube.rewards if role_of(r, cube.trained) == "gold"]
        fitted = golds or held_out_of(cube.trained, cube.rewards)
        for scored in fitted:
            rows += _rows(cube, scored, bootstrap)
        if not fitted:
            text = "no fit: scored by the trained reward alone"
            rows.append({**cube.names, "statement": text} | cube.sizes())
    return pd.DataFrame(rows, columns=[*METHOD, *_COLUMNS])


def preferred_first(goodhart: pd.DataFrame) -> pd.DataFrame:
    """The rows, the preferred form's before the other's.

    Args:
        goodhart: From ``fit_goodhart`` or ``goodhart_report``.
    """
    return goodhart.sort_values(
        "preferred", key=lambda column: ~column.eq(True), kind="stable"
    )


def goodhart_bands(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str] | None = None,
    group: str = "seen",
    by: Sequence[str] = METHOD,
    points: int = 50,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """The fitted curves over the distances evaluated, to be drawn.

    Args:
        scores: As for ``fit_goodhart``.
        rewards: As there.
        group: As there.
        by: As there.
        points: Distances of a curve.
        bootstrap: As there.

    Returns:
        One row per curve, scored reward, form and distance: the columns ``by``, group,
        scored, role, form, preferred, distance, kl, fitted, low, high (at that
        distance), band_low, band_high (along the whole curve). No rows where there are
        too few checkpoints.
    """
    blocks = []
    for cube in one_cube(scores, group=group, by=by):
        for scored in rewards or cube.rewards:
            if _reason(cube):
                continue
            distance = np.linspace(0, _distances(cube).max(), points)
            for fit, preferred in _fits(cube, scored, bootstrap):
                shape = _basis(distance, fit.form)
                fitted = shape @ np.array([fit.alpha, fit.beta])
                spread = fit.draws @ shape.T - fitted
                low, high = ends(fitted, spread, bootstrap.confidence)
                parts = [(n, part @ shape.T) for n, part in fit.parts]
                reach = simultaneous_reach(parts, bootstrap.confidence)
                block = {
                    **cube.names,
                    "scored": scored,
                    "role": role_of(scored, cube.trained),
                    "form": fit.form,
                    "preferred": preferred,
                    "distance": distance,
                    "kl": distance**2,
                    "fitted": fitted,
                    "low": low,
                    "high": high,
                    "band_low": fitted - reach,
                    "band_high": fitted + reach,
                }
                blocks.append(pd.DataFrame(block))
    table = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
    return table.reindex(columns=[*by, *_BAND_COLUMNS])


_WHAT = ["group", "scored", "role", "form", "preferred"]
_COLUMNS = [
    *_WHAT,
    *("alpha", "alpha_low", "alpha_high", "beta", "beta_low", "beta_high", "rmse"),
    *("peak_distance", "peak_distance_low", "peak_distance_high", "peak_kl"),
    *("peak_value", "peak_value_low", "peak_value_high"),
    *("statement", "max_distance", "n_checkpoints"),
    *("n_seeds", "n_prompts", "n_images"),
]
_BAND_COLUMNS = [
    *_WHAT,
    *("distance", "kl", "fitted", "low", "high", "band_low", "band_high"),
]


def peak_distance(
    alpha: FloatArray, beta: FloatArray, form: Form, evaluated: tuple[float, float]
) -> FloatArray:
    """Where R(d) is highest: at the base model, or among the distances evaluated.

    R turns at alpha / (2 beta), or exp(alpha / beta - 1). What it does between the base
    model and the nearest checkpoint is no more known than what it does beyond the
    furthest, so a turn there counts for nothing by itself.

    Args:
        alpha: Parameters, shape (...).
        beta: Parameters, shape (...).
        form: The form that they are of.
        evaluated: Distance of the nearest checkpoint, and of the furthest.

    Returns:
        Shape (...): 0 where R falls from the start, infinity where it is highest at the
        furthest distance.
    """
    alpha, beta = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)
    nearest, furthest = evaluated
    safe = np.where(beta > 0, beta, 1.0)
    ratio = np.where(beta > 0, alpha / safe, np.inf)
    turn = ratio / 2 if form == "linear" else np.exp(np.minimum(ratio - 1, 700.0))
    inside = np.clip(turn, nearest, furthest)
    ends = np.ones(alpha.shape)
    places = np.stack([0 * ends, nearest * ends, inside, furthest * ends], axis=-1)
    values = _value(places, alpha[..., None], beta[..., None], form)
    best = np.take_along_axis(places, values.argmax(axis=-1)[..., None], axis=-1)
    return np.asarray(np.where(best[..., 0] < furthest, best[..., 0], np.inf))


def peak_value(
    alpha: FloatArray, beta: FloatArray, form: Form, evaluated: tuple[float, float]
) -> FloatArray:
    """R at ``peak_distance``; infinity where that is."""
    peak = peak_distance(alpha, beta, form, evaluated)
    finite = np.where(np.isfinite(peak), peak, 0.0)
    value = _value(finite, np.asarray(alpha), np.asarray(beta), form)
    return np.asarray(np.where(np.isfinite(peak), value, np.inf), np.float64)


def _value(
    distance: FloatArray, alpha: FloatArray, beta: FloatArray, form: Form
) -> FloatArray:
    """R at distances of any shape."""
    basis = _basis(distance, form)
    return np.asarray(basis[..., 0] * alpha + basis[..., 1] * beta, np.float64)


def _basis(distance: FloatArray, form: Form) -> FloatArray:
    """What alpha and beta are multiplied by, shape (..., 2)."""
    if form == "linear":
        return np.stack([distance, -(distance**2)], axis=-1)
    log = np.log(np.where(distance > 0, distance, 1.0))
    return np.stack([distance, -distance * log], axis=-1)


def _distances(cube: Cube) -> FloatArray:
    """sqrt(KL), shape (seeds, epochs); the base model is at 0."""
    return np.asarray(np.sqrt(np.maximum(cube.kl, 0.0)), np.float64)


def _reason(cube: Cube) -> str:
    """Why nothing can be fitted; empty if it can."""
    distances = _distances(cube)
    if np.isnan(distances).any():
        return "no fit: KL to the base model was not recorded for every checkpoint"
    away = len(
        np.unique(distances.mean(axis=0)[1:].round(9)[distances[:, 1:].min(0) > 0])
    )
    if away < FEWEST_CHECKPOINTS:
        return (
            f"no fit: {away} checkpoints at different distances from the base model, "
            f"and it takes {FEWEST_CHECKPOINTS}"
        )
    return ""


def _fits(cube: Cube, scored: str, bootstrap: Bootstrap) -> Iterator[tuple[_Fit, bool]]:
    """Both forms, and whether each is the one with the smaller residuals."""
    fits = [_fit(cube, scored, form, bootstrap) for form in get_args(Form)]
    best = min(fits, key=lambda fit: fit.rmse)
    for fit in fits:
        yield fit, fit is best


def _fit(cube: Cube, scored: str, form: Form, bootstrap: Bootstrap) -> _Fit:
    """Least squares over all checkpoints of all seeds, and its resampled solutions."""
    changes = cube.changes([scored])[..., 0]  # (seeds, prompts, epochs)
    shape = _basis(_distances(cube), form)  # (seeds, epochs, 2)
    squares = np.einsum("sei,sej->sij", shape, shape)
    products = np.einsum("sei,spe->spi", shape, changes)

    def solve(prompts: FloatArray, seeds: FloatArray) -> FloatArray:
        right = mean_over_seeds(mean_over_prompts(products, prompts), seeds)
        left = mean_over_seeds(squares[None], seeds)
        solved = np.linalg.solve(left, right[..., None])[..., 0]
        return np.asarray(solved, np.float64)

    sizes = [len(cube.prompts), len(cube.seeds)]
    found = solve(*equal_weights(sizes))[0]
    parts = resampled(solve, sizes, bootstrap)
    draws = found + stretched(parts, bootstrap.confidence)
    residuals = changes.mean(axis=1) - shape @ found
    rmse = float(np.sqrt(np.square(residuals[:, 1:]).mean()))
    return _Fit(form, float(found[0]), float(found[1]), draws, parts, rmse)


def _rows(cube: Cube, scored: str, bootstrap: Bootstrap) -> list[dict[str, object]]:
    """The rows of one reward."""
    head = {**cube.names, "scored": scored, "role": role_of(scored, cube.trained)}
    tail: dict[str, object] = {"n_checkpoints": len(cube.epochs) - 1, **cube.sizes()}
    if why := _reason(cube):
        return [
            head | {"form": form, "statement": why} | tail for form in get_args(Form)
        ]
    distances = _distances(cube)
    evaluated = float(distances[distances > 0].min()), float(distances.max())
    tail["max_distance"] = evaluated[1]
    return [
        head
        | {"form": fit.form, "preferred": preferred, "rmse": fit.rmse}
        | _parameters(fit, bootstrap)
        | _peak(fit, evaluated, bootstrap)
        | tail
        for fit, preferred in _fits(cube, scored, bootstrap)
    ]


def _parameters(fit: _Fit, bootstrap: Bootstrap) -> dict[str, float]:
    found = np.array([fit.alpha, fit.beta])
    low, high = ends(found, fit.draws - found, bootstrap.confidence)
    return {
        **{"alpha": fit.alpha, "alpha_low": low[0], "alpha_high": high[0]},
        **{"beta": fit.beta, "beta_low": low[1], "beta_high": high[1]},
    }


def _peak(
    fit: _Fit, evaluated: tuple[float, float], bootstrap: Bootstrap
) -> dict[str, object]:
    """The columns on the peak, as far as it lies within the data."""
    if not fit.draws.any():
        return {"statement": "it doesn't change"}
    fitted = np.array(fit.alpha), np.array(fit.beta), fit.form, evaluated
    at = float(peak_distance(*fitted))
    inside = {"peak_distance": at, "peak_kl": at**2} if isfinite(at) else {}
    if np.isnan(fit.draws).any():
        return inside | {"statement": "no interval: one seed and one prompt"}
    tail = (1 - bootstrap.confidence) / 2
    drawn = fit.draws[:, 0], fit.draws[:, 1], fit.form, evaluated
    low, high = _drawn_quantiles(peak_distance(*drawn), tail)
    found: dict[str, object] = dict(inside)
    if isfinite(low):
        found["peak_distance_low"] = low
    if isfinite(high):
        found["peak_distance_high"] = high
        found["peak_value"] = float(peak_value(*fitted))
        values = _drawn_quantiles(peak_value(*drawn), tail)
        found["peak_value_low"], found["peak_value_high"] = values
    return found | {"statement": _statement(low, high)}


def _drawn_quantiles(values: FloatArray, tail: float) -> tuple[float, float]:
    """Values that were drawn, because between a number and infinity there is none."""
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def _statement(low: float, high: float) -> str:
    """What the interval of the peak's distance allows to say.

    Args:
        low: Its lower end; 0 where the reward may fall from the start.
        high: Its upper end; infinity where it may be highest at the furthest distance.
    """
    if high == 0:
        return "it falls from the start"
    if isfinite(high):
        return HAS_PEAK if low > 0 else "it falls, and may have risen before"
    if isfinite(low):
        return "cannot tell whether it has a peak within the data"
    return "it has no peak within the data"
