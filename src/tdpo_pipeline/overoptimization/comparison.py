"""Is one method better than another? Effects, multiplicity, and how many seeds it takes.

A *cell* is the change of a reward since the base model, for one training seed and one
prompt, averaged over the prompt's images. Two methods are compared on the same prompts
and noise, each with its own training seeds. As recommended by Agarwal et al. 2021 ("Deep
Reinforcement Learning at the Edge of the Statistical Precipice"), the difference of means
stands beside one of interquartile means, which few wild cells don't move, and beside the
probability of improvement; prompts are what tasks are there. Unlike there, a seed is
resampled with all its prompts: it is one training run, not a run a task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, check_same_prompts, one_cube
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    FloatArray,
    crossed_deviations,
    ends,
    equal_weights,
    exact_interval,
    t_quantile,
)
from tdpo_pipeline.overoptimization.tables import (
    ASKED,
    ROLES,
    ScoreTableError,
    role_of,
)

MOST_SEEDS = 1000
"""More seeds than that are as good as "more than anyone will train"."""


@dataclass(frozen=True)
class Power:
    """What a comparison should be able to see.

    Attributes:
        effect: Difference between two methods, in base standard deviations.
        alpha: Two-sided error rate of the test.
        power: Probability of finding the effect if it is there.
    """

    effect: float = 0.5
    alpha: float = 0.05
    power: float = 0.8


def compare_methods(
    scores: pd.DataFrame,
    *,
    reference: str,
    group: str = "seen",
    rewards: Sequence[str] | None = None,
    power: Power | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Every method against a reference method, reward by reward.

    Both are taken at the last checkpoint that both have, so at equal epochs. (For equal
    training reward, queries, KL or seconds see ``matched_differences``.)

    Args:
        scores: Score table of any number of runs.
        reference: The method to compare with.
        group: Prompt group.
        rewards: Scored rewards; by default all that both were scored by. Ask about few:
            the correction for multiplicity counts every row of the result.
        power: What ``seeds_needed`` is asked for.
        bootstrap: How the intervals are made.

    Returns:
        One row per trained reward, method and scored reward: method, reference, reward,
        group, epoch, scored, role;
        difference, low, high (of means, in the reward's own units);
        iqm_difference, iqm_low, iqm_high (of interquartile means over the cells);
        p_improvement, p_improvement_low, p_improvement_high (the probability that a seed
        of the method beats one of the reference on a prompt, ties count half);
        p_value (t test with the variances of seeds and prompts), p_holm (corrected by
        Holm's method for the rows with the same trained reward);
        base_sd, seeds_needed (of each method, to see ``power.effect`` on these
        prompts; NaN if it can't be told or not be done) and note (why not, or why there
        is nothing to compare);
        n_seeds, n_reference_seeds, n_prompts, n_images.
        With one seed a side, intervals and p-values are over prompts only.

    Raises:
        ScoreTableError: If the table is not what it should be, no run is of the
            reference, or the two were evaluated on other prompts.
    """
    found = one_cube(scores, group=group)
    methods = sorted({str(cube.names["method"]) for cube in found})
    if reference not in methods:
        raise ScoreTableError(f"No run of the method '{reference}', only of {methods}.")
    rows = []
    for base in (cube for cube in found if cube.names["method"] == reference):
        for cube in found:
            if cube.trained == base.trained and cube is not base:
                rows += _pair(cube, base, rewards, power or Power(), bootstrap)
    return _corrected(rows)


def compare_report(
    scores: pd.DataFrame,
    *,
    references: Sequence[str] = (),
    held_out: Collection[str] | None = None,
    power: Power | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Every method against one other that was trained on the same reward.

    Args:
        scores: Score table of any number of runs.
        references: Methods to compare with, see ``reference_method``.
        held_out: Rewards to ask about, besides the trained one and its gold; by default
            all that are held out.
        power: What ``seeds_needed`` is asked for.
        bootstrap: How the intervals are made.

    Returns:
        The rows of ``compare_methods`` on the prompts trained on, rewards in the order of
        their roles. What can't be compared is one row without a reward, whose note says
        why.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    rows: list[dict[str, object]] = []
    found = one_cube(scores, group="seen")
    for trained in sorted({cube.trained for cube in found}):
        own = {str(c.names["method"]): c for c in found if c.trained == trained}
        reference = reference_method(own, references)
        base = own.pop(reference)
        head = {"reference": reference, "n_reference_seeds": len(base.seeds)}
        for cube in own.values():
            try:
                asked = _asked(cube, base, held_out)
                if not asked:
                    raise ScoreTableError("no reward to ask about was scored for both")
                rows += _pair(cube, base, asked, power or Power(), bootstrap)
            except ScoreTableError as error:
                rows.append({**cube.names, **cube.sizes(), **head, "note": str(error)})
        if not own:
            why = f"no other method was trained on {trained}"
            rows.append({**base.names, **base.sizes(), **head, "note": why})
    return _corrected(rows)


def reference_method(methods: Iterable[str], references: Sequence[str]) -> str:
    """The method to compare others with.

    Args:
        methods: The methods at hand.
        references: Methods to take, the best first; without any, the first by name.
    """
    there = sorted(methods)
    return next((name for name in references if name in there), there[0])


def _asked(cube: Cube, base: Cube, held_out: Collection[str] | None) -> list[str]:
    """What both were scored by and a report asks about, in the order of the roles."""
    roles = {
        name: role_of(name, cube.trained)
        for name in cube.rewards
        if name in base.rewards
    }
    asked = [
        name
        for name, role in roles.items()
        if role in ASKED or (role == "cross" if held_out is None else name in held_out)
    ]
    return sorted(asked, key=lambda name: ROLES.index(roles[name]))


def _corrected(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """The table of these rows, p-values corrected for those of one trained reward."""
    table = pd.DataFrame(rows, columns=_COLUMNS)
    p_values = table["p_value"].astype(np.float64)
    corrected = p_values.groupby(table["reward"]).transform(
        lambda values: holm(values.to_numpy())
    )
    return table.assign(p_holm=corrected)


_COLUMNS = [
    *("method", "reference", "reward", "group", "epoch", "scored", "role"),
    *("difference", "low", "high", "iqm_difference", "iqm_low", "iqm_high"),
    *("p_improvement", "p_improvement_low", "p_improvement_high"),
    *("p_value", "p_holm", "base_sd", "seeds_needed", "note"),
    *("n_seeds", "n_reference_seeds", "n_prompts", "n_images"),
]


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of the middle half of the values; a value cut by a quartile counts in part."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(_weighted_iqm(flat, np.full((1, flat.size), 1 / flat.size))[0])


def probability_of_improvement(one: FloatArray, other: FloatArray) -> float:
    """How often a seed of one method beats one of another, mean over prompts.

    Args:
        one: Cells of the one method, shape (seeds, prompts).
        other: Cells of the other, shape (other seeds, prompts).

    Returns:
        In [0, 1]; 0.5 if they are equal. Ties count half.
    """
    return float(_wins(one, other).mean())


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """P-values corrected for their number by Holm's step-down method (Holm 1979).

    Rejecting where the corrected value is at most alpha rejects any true hypothesis with
    probability at most alpha, however the tests depend on each other.

    Args:
        p_values: Shape (n,); NaN is no test, and stays NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of a difference of two methods comes from.

    Attributes:
        seed_variances: Variance over seeds of each method's mean over prompts; NaN for a
            method with one seed.
        prompt_variance: Variance over prompts of the difference.
        n_seeds: Seeds of each method.
        n_prompts: Prompts.
    """

    seed_variances: tuple[float, float]
    prompt_variance: float
    n_seeds: tuple[int, int]
    n_prompts: int

    @classmethod
    def of(cls, one: FloatArray, other: FloatArray) -> Spread:
        """Of two methods' cells, shapes (seeds, prompts) and (other seeds, prompts)."""
        rounding = 1e-12 * max(np.abs(one).max(), np.abs(other).max())
        seeds = [_variance(cells.mean(axis=1), rounding) for cells in (one, other)]
        return cls(
            (seeds[0], seeds[1]),
            _variance(one.mean(axis=0) - other.mean(axis=0), rounding),
            (len(one), len(other)),
            one.shape[1],
        )

    def error(self, n_seeds: tuple[int, int]) -> tuple[float, float]:
        """Standard error of the difference, and its degrees of freedom.

        The freedom is Welch's and Satterthwaite's: each part of the variance counts by
        its share. Parts with one unit are left out; NaN if none is left.
        """
        units = [*n_seeds, self.n_prompts]
        variances = [*self.seed_variances, self.prompt_variance]
        parts = [
            (variance / n, n)
            for variance, n in zip(variances, units, strict=True)
            if n > 1 and not np.isnan(variance)
        ]
        total = sum(part for part, _ in parts)
        if not parts:
            return np.nan, np.nan
        if total == 0:
            return 0.0, float(min(n for _, n in parts) - 1)
        return total**0.5, total**2 / sum(part**2 / (n - 1) for part, n in parts)


def t_ends(difference: float, spread: Spread, confidence: float) -> tuple[float, float]:
    """Ends of the t interval of a difference; NaN where no spread is seen."""
    error, freedom = spread.error(spread.n_seeds)
    if error == 0:
        return np.nan, np.nan
    reach = t_quantile(freedom, confidence) * error
    return difference - reach, difference + reach


def p_value(difference: float, spread: Spread) -> float:
    """Two-sided p-value of a difference being none (t test); NaN if no spread is seen.

    Where all seeds and prompts agree, as answers of yes and no may, they don't show how
    much others would differ.
    """
    from scipy import special

    error, freedom = spread.error(spread.n_seeds)
    if np.isnan(error) or error == 0:
        return np.nan
    return float(2 * special.stdtr(freedom, -abs(difference) / error))


def detection_power(
    effect: float, spread: Spread, n_seeds: int, *, alpha: float = 0.05
) -> float:
    """Probability that the t test finds an effect with ``n_seeds`` of each method.

    Args:
        effect: True difference, in the units of the spread.
        spread: Variances, taken as known.
        n_seeds: Seeds of each method, at least 2.
        alpha: Two-sided error rate.
    """
    from scipy import special

    error, freedom = spread.error((n_seeds, n_seeds))
    if error == 0:
        return 1.0 if effect else alpha
    limit = special.stdtrit(freedom, 1 - alpha / 2)
    shift = abs(effect) / error
    above = 1 - special.nctdtr(freedom, shift, limit)
    below = special.nctdtr(freedom, shift, -limit)  # NaN where it is below 1e-12
    return float(above + np.nan_to_num(below))


def seeds_needed(effect: float, spread: Spread, *, power: Power) -> tuple[float, str]:
    """Seeds of each method that an effect takes, on the same prompts.

    The variances are taken as they were seen; those of three seeds are themselves known
    badly (a standard deviation of three values is off by a factor of 2 in either
    direction one time in six or so), so read the answer as an order of magnitude.

    Args:
        effect: Difference to be seen, in the units of the spread.
        spread: From ``Spread.of``.
        power: Error rate and power; its effect is not used.

    Returns:
        The smallest number from 2 on and an empty text, or NaN and why there is none.
    """
    if np.isnan(spread.seed_variances).any():
        return np.nan, "one seed does not show how much seeds differ"
    if not effect > 0:
        return np.nan, "an effect of no size can't be seen"

    def enough(n: int) -> bool:
        return detection_power(effect, spread, n, alpha=power.alpha) >= power.power

    if not enough(MOST_SEEDS):
        return np.nan, (
            f"no number of seeds up to {MOST_SEEDS} is enough: the "
            f"{spread.n_prompts} prompts differ too much; take more prompts"
        )
    low, high = 1, MOST_SEEDS  # power grows with n, so halve the range
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high), ""


def _pair(
    cube: Cube,
    base: Cube,
    rewards: Sequence[str] | None,
    power: Power,
    bootstrap: Bootstrap,
) -> list[dict[str, object]]:
    """The rows of one method against the reference."""
    check_same_prompts(cube, base)
    names = rewards
    if names is None:
        names = [name for name in cube.rewards if name in base.rewards]
    epoch = max(set(cube.epochs) & set(base.epochs))
    one, other = (c.changes(names)[:, :, c.epochs.index(epoch)] for c in (cube, base))
    head = {
        "method": cube.names["method"],
        "reference": base.names["method"],
        "reward": cube.trained,
        "group": cube.names["group"],
        "epoch": epoch,
        **cube.sizes(),
        "n_reference_seeds": len(base.seeds),
    }
    if epoch == 0:
        why = "no checkpoint besides the base model that both have"
        return [
            head
            | {"scored": scored, "role": role_of(scored, cube.trained), "note": why}
            for scored in names
        ]
    rulers = base.base_sd[base.columns(names)]
    rows = []
    for column, (scored, ruler) in enumerate(zip(names, rulers, strict=True)):
        pair = one[..., column], other[..., column]
        spread = Spread.of(*pair)
        if spread.error(spread.n_seeds)[0] == 0:
            needed, note = np.nan, "all seeds and prompts agree: no spread is seen"
        elif ruler > 0:
            needed, note = seeds_needed(power.effect * ruler, spread, power=power)
        elif np.isnan(ruler):
            needed, note = np.nan, "not evaluated on the prompts trained on: no base SD"
        else:
            needed, note = np.nan, "the base model does not vary in this reward"
        effects = _effects(*pair, spread, bootstrap)
        rows.append(
            head
            | {"scored": scored, "role": role_of(scored, cube.trained)}
            | effects
            | {"p_value": p_value(effects["difference"], spread), "base_sd": ruler}
            | {"seeds_needed": needed, "note": note}
        )
    return rows


def _effects(
    one: FloatArray, other: FloatArray, spread: Spread, bootstrap: Bootstrap
) -> dict[str, float]:
    """The three effects of one reward, with their intervals."""
    wins = _wins(one, other)
    sizes = [spread.n_prompts, *spread.n_seeds]

    def statistic(
        prompts: FloatArray, seeds: FloatArray, other_seeds: FloatArray
    ) -> FloatArray:
        middles = [
            _weighted_iqm(cells.ravel(), _products(weights, prompts))
            for cells, weights in ((one, seeds), (other, other_seeds))
        ]
        won = np.einsum("sop,...p->...so", wins, prompts)
        won = np.einsum("...so,...s,...o->...", won, seeds, other_seeds)
        return np.stack([middles[0] - middles[1], won], axis=1)

    plain = statistic(*equal_weights(sizes))[0]
    plain[1] = wins.mean()  # thirds and fifths don't add up to 1
    drawn = crossed_deviations(statistic, sizes, bootstrap)
    low, high = ends(plain, drawn, bootstrap.confidence)
    low[1], high[1] = np.clip([low[1], high[1]], 0, 1)  # a probability
    if plain[1] in (0.0, 1.0):  # no prompt differs from another, and shows no spread
        low[1], high[1] = exact_interval(plain[1], sizes[0], bootstrap.confidence)
    difference = float(one.mean() - other.mean())
    own_low, own_high = t_ends(difference, spread, bootstrap.confidence)
    if np.isnan(own_low):
        low[0] = high[0] = np.nan
    return {
        **{"difference": difference, "low": own_low, "high": own_high},
        **{"iqm_difference": float(plain[0]), "iqm_low": low[0], "iqm_high": high[0]},
        **{"p_improvement": float(plain[1])},
        **{"p_improvement_low": low[1], "p_improvement_high": high[1]},
    }


def _products(seeds: FloatArray, prompts: FloatArray) -> FloatArray:
    """Weights of the cells, shape (draws, seeds x prompts)."""
    weights = seeds[:, :, None] * prompts[:, None, :]
    return weights.reshape(len(weights), -1)


def _weighted_iqm(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Interquartile mean of values (n,) for each row of weights (draws, n)."""
    order = np.argsort(values)
    ordered = weights[:, order]
    upper = ordered.cumsum(axis=1)
    inside = np.minimum(upper, 0.75) - np.maximum(upper - ordered, 0.25)
    return np.maximum(inside, 0.0) @ values[order] / 0.5


def _wins(one: FloatArray, other: FloatArray) -> FloatArray:
    """Shape (seeds, other seeds, prompts): 1 won, 0.5 tied, 0 lost."""
    ahead = one[:, None] - other[None]
    return (ahead > 0) + 0.5 * (ahead == 0)


def _variance(values: FloatArray, rounding: float) -> float:
    """Variance, 0 of values that differ by rounding alone; NaN of one value."""
    if len(values) == 1:
        return np.nan
    return float(values.var(ddof=1)) if np.ptp(values) > rounding else 0.0
