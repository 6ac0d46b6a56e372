"""Watching a training run: have held-out scores begun to fall? A test at every epoch.

Looking at every epoch and stopping at the first alarm finds a fall sooner or later even
where there is none, unless the test pays for it. This one does, by an e-process: a
wealth that starts at 1, that no betting strategy can be expected to raise as long as the
held-out reward does not fall, and that therefore ever reaches 1 / alpha with probability
at most alpha (Ville's inequality; Ramdas, Gruenwald, Vovk and Shafer 2023, "Game-theoretic
statistics and safe anytime-valid inference"). One may look as often as one likes.

Each epoch's own training samples give the mean X_t of a held-out reward and its standard
error s_t; nothing is sampled for the test. To know a fall one needs a level to fall from,
and that level is itself an estimate. For every choice of *reference* epochs a..k, let D_t
be their precision-weighted mean minus that of the epochs k+1..t, and V_t its variance.
The wealth

    exp(delta D_t / V_t - delta^2 / (2 V_t)),    delta >= 0

is the likelihood ratio of "after epoch k the mean is lower by delta" and "it is the same"
for what the differences of the epoch means show. It is the product over t of
exp(b_t e_t - b_t^2 / 2), where e_t are the recursive residuals (Brown, Durbin and Evans
1975, "Techniques for Testing the Constancy of Regression Relationships over Time"): mean
of all epochs since a minus X_t, in standard errors, and b_t >= 0 is known beforehand. If
the true means never fall, no e_t has a positive mean, since a mean of earlier epochs is
not above a later one; so the wealth is a supermartingale, whatever the level, and however
much the reward rises meanwhile. Mixing delta over a half-normal distribution (Robbins
1970, "Statistical Methods Related to the Law of the Iterated Logarithm") gives a closed
form.

References end at every epoch k, so that the reward may rise first, and have the lengths 1,
2, 4, 8, ... Each is a test of its own that spends its share of alpha, and so is each
held-out reward (union bound). Averaging their wealths would be a little sharper but is
not allowed: they are supermartingales given different information, and their average
need not be one.

What is assumed: epoch means are nearly normal with the given standard errors (they are
means over a hundred samples or so), samples of an epoch are independent given the policy,
and the noise of an epoch's held-out mean does not steer the later true means. The last is
not exactly so, because these samples also train the policy. benchmarks/onset_test.py
measures the rate of false alarms and the delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BET_SCALE = 1.0
"""Scale of delta's half-normal distribution, in standard errors of the reference's last
epoch: falls of about that size are found soonest."""


@dataclass(frozen=True)
class Baseline:
    """What each prompt's scores are compared with: those of the first epoch.

    Attributes:
        overall: Mean over all samples; also for prompts that were not drawn.
        by_prompt: Mean of each prompt, drawn towards ``overall`` as far as the few
            samples of a prompt say little (the usual empirical Bayes estimate).
    """

    overall: float
    by_prompt: Mapping[str, float]

    @classmethod
    def of(cls, prompts: Sequence[str], scores: npt.ArrayLike) -> Baseline:
        """From the first epoch's prompts and scores."""
        names, index = np.unique(np.asarray(prompts), return_inverse=True)
        values = np.asarray(scores, dtype=np.float64)
        overall, count = float(values.mean()), np.bincount(index).astype(np.float64)
        means = np.bincount(index, weights=values) / count
        weights = _reliability(values, means, index, count)
        shrunken = overall + weights * (means - overall)
        return cls(overall, dict(zip(names.tolist(), shrunken.tolist(), strict=True)))

    def change(
        self, prompts: Sequence[str], scores: npt.ArrayLike
    ) -> tuple[float, float]:
        """Mean change since the baseline, prompt by prompt, and its standard error.

        Prompts are drawn anew each epoch. Taking out what is known of each makes the
        means of two epochs differ by less chance; it shifts all epochs' means alike.
        """
        before = np.array([self.by_prompt.get(p, self.overall) for p in prompts])
        changes = np.asarray(scores, dtype=np.float64) - before
        error = (
            changes.std(ddof=1) / np.sqrt(len(changes)) if len(changes) > 1 else np.nan
        )
        return float(changes.mean()), float(error)


def _reliability(
    values: FloatArray,
    means: FloatArray,
    index: npt.NDArray[np.int64],
    count: FloatArray,
) -> FloatArray:
    """Part of each prompt's deviation that is not chance, from one-way ANOVA."""
    n, prompts = len(values), len(means)
    if prompts < 2 or n <= prompts:
        return np.zeros(prompts)
    within = np.square(values - means[index]).sum() / (n - prompts)
    between = (count * np.square(means - values.mean())).sum() / (prompts - 1)
    size = (n - np.square(count).sum() / n) / (prompts - 1)
    spread = max((between - within) / size, 0.0)
    total = spread + within / count
    return np.where(total > 0, spread / np.where(total > 0, total, 1.0), 0.0)


@dataclass(frozen=True)
class Alarm:
    """A fall that was found.

    Attributes:
        position: Index of the epoch at which it was found.
        onset: Index of the last epoch before the fall: where a unimodal fit is highest,
            up to the end of the reference with the strongest evidence. If the reward
            stood still before it fell, that is some epoch of that time.
        reward: Index of the held-out reward with the strongest evidence.
        log_evidence: Logarithm of the strongest reference's e-value times its share of
            alpha; at least -log(alpha).
    """

    position: int
    onset: int
    reward: int
    log_evidence: float


def first_alarm(
    trained: npt.ArrayLike,
    held_out: npt.ArrayLike,
    errors: npt.ArrayLike,
    *,
    horizon: int,
    alpha: float = 0.05,
    min_epochs: int = 1,
) -> Alarm | None:
    """The first epoch at which held-out rewards have fallen while the trained one rose.

    Args:
        trained: Mean of the trained reward in each epoch, shape (epochs,).
        held_out: Mean of each held-out reward, shape (epochs, rewards). Epochs with NaN
            as error are left out (the first, which is the baseline).
        errors: Their standard errors, shape (epochs, rewards).
        horizon: Number of epochs that are planned, see ``log_evidence``.
        alpha: Probability of any alarm, at whatever epoch, if no reward falls.
        min_epochs: Epochs before which no alarm is given (which can only make false
            alarms rarer).

    Returns:
        The alarm, or None. That the trained reward rose since (from the epochs up to the
        onset to those after it) is a condition and not tested: it, too, only makes
        alarms rarer.

    Raises:
        ValueError: If the shapes don't fit or there is no held-out reward.
    """
    rewards, noise = (
        np.atleast_2d(np.asarray(v, np.float64)) for v in (held_out, errors)
    )
    rise = np.asarray(trained, dtype=np.float64)
    if rewards.shape != noise.shape or rewards.shape[0] != len(rise):
        raise ValueError(
            f"trained has the shape {rise.shape}, held_out {rewards.shape} and errors "
            f"{noise.shape}; (epochs,), (epochs, rewards) and the same are needed."
        )
    found = [
        log_evidence(values, sigmas, horizon=horizon)
        for values, sigmas in zip(rewards.T, noise.T, strict=True)
    ]
    evidence = np.stack([one.values for one in found], axis=1)
    strongest = evidence.max(axis=1) - np.log(evidence.shape[1])
    for position in map(int, np.flatnonzero(strongest >= -np.log(alpha))):
        reward = int(evidence[position].argmax())
        onset = _onset(rewards[:, reward], noise[:, reward], found[reward], position)
        if position + 1 >= min_epochs and _rose(rise[: position + 1], onset):
            return Alarm(position, onset, reward, float(strongest[position]))
    return None


def _onset(
    values: FloatArray, errors: FloatArray, evidence: Evidence, position: int
) -> int:
    """See ``Alarm.onset``."""
    before = slice(0, evidence.ends[position] + 1)
    return unimodal_peak(values[before], errors[before])


def _rose(trained: FloatArray, onset: int) -> bool:
    """Whether the mean after the onset is above that of as many epochs up to it."""
    after = trained[onset + 1 :]
    before = trained[max(onset + 1 - len(after), 0) : onset + 1]
    return bool(len(after) and after.mean() > before.mean())


class Evidence(NamedTuple):
    """Evidence of a fall, after each epoch.

    Attributes:
        values: Logarithm of the largest of the references' e-values times their shares of
            alpha, shape (epochs,); -inf while there is none.
        ends: End of the reference with the strongest evidence, shape (epochs,); -1
            while there is none.
    """

    values: FloatArray
    ends: npt.NDArray[np.int64]


def log_evidence(values: FloatArray, errors: FloatArray, *, horizon: int) -> Evidence:
    """Evidence against "it never falls" of one held-out reward.

    With probability at least 1 - alpha it stays below -log(alpha) for ever if the true
    means never fall.

    Args:
        values: Epoch means, shape (epochs,).
        errors: Their standard errors; an epoch whose error is NaN or 0 is left out.
        horizon: Number of planned epochs, over whose references alpha is spread. A run
            that goes on beyond it stays under the same bound, with no new ones.
    """
    out = Evidence(np.full(len(values), -np.inf), np.full(len(values), -1))
    used = np.flatnonzero(np.isfinite(values) & (errors > 0))
    if not len(used):
        return out
    x, precision = values[used], errors[used] ** -2.0
    weight = np.concatenate([[0.0], precision.cumsum()])
    weighted = np.concatenate([[0.0], (precision * x).cumsum()])
    first, last, share = _references(horizon, len(x))
    level = weight[last + 1] - weight[first]
    mean = (weighted[last + 1] - weighted[first]) / level
    scale = BET_SCALE * errors[used][last]
    epoch = np.arange(len(x))[:, None]
    begun = last < epoch  # (epochs, references)
    after = np.where(begun, weight[epoch + 1] - weight[last + 1], 1.0)
    difference = mean - (weighted[epoch + 1] - weighted[last + 1]) / after
    clock = 1 / (1 / level + 1 / after)
    wealth = np.log(share) + _log_wealth(difference * clock, clock, scale)
    wealth = np.where(begun, wealth, -np.inf)
    best = wealth.argmax(axis=1)
    ends = np.where(begun.any(axis=1), used[last[best]], -1)
    for i, position in enumerate(used):
        out.values[position:], out.ends[position:] = wealth[i, best[i]], ends[i]
    return out


def _references(
    horizon: int, epochs: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """First and last epoch of every reference there is yet, and its share of alpha.

    The shares are even over the last epochs, and for each over the lengths 1, 2, 4, ...
    """
    rows = [
        (last + 1 - 2**power, last, 1 / horizon / (last + 1).bit_length())
        for last in range(min(epochs, horizon))
        for power in range((last + 1).bit_length())
    ]
    first, last, share = zip(*rows, strict=True)
    return np.array(first), np.array(last), np.array(share)


def _log_wealth(total: FloatArray, clock: FloatArray, scale: FloatArray) -> FloatArray:
    """Log of the mean of exp(delta S - delta^2 C / 2), delta half-normal.

    With A = C + 1 / scale^2: 2 / (scale sqrt(A)) exp(S^2 / (2 A)) Phi(S / sqrt(A)).

    Args:
        total: S = D / V.
        clock: C = 1 / V.
        scale: Of delta.
    """
    from scipy.special import log_ndtr

    a = clock + scale**-2.0
    log_factor = np.log(2) - np.log(scale) - 0.5 * np.log(a)
    return np.asarray(log_factor + total**2 / (2 * a) + log_ndtr(total / np.sqrt(a)))


def unimodal_peak(values: npt.ArrayLike, errors: npt.ArrayLike | None = None) -> int:
    """Where a curve that first rises and then falls is highest, by least squares.

    For every split, a rising fit up to it and a falling one after it (isotonic
    regression); the best split wins. Neighbours that the fit can't tell apart make a
    plateau, of which the last is given: there the fall begins.

    Args:
        values: Shape (n,); NaN is left out.
        errors: Standard errors, shape (n,); values whose error is NaN or 0 are left out.
            None weighs all alike.

    Returns:
        Index into ``values``.

    Raises:
        ValueError: If nothing is left.
    """
    y = np.asarray(values, dtype=np.float64)
    sigma = np.ones(len(y)) if errors is None else np.asarray(errors, np.float64)
    places = np.flatnonzero(np.isfinite(y) & (sigma > 0))
    if not len(places):
        raise ValueError("No value with a standard error to find a peak of.")
    y, weights = y[places], sigma[places] ** -2.0
    fits = [_unimodal_fit(y, weights, split) for split in range(1, len(y) + 1)]
    losses = [float((weights * np.square(y - fit)).sum()) for fit in fits]
    best = fits[int(np.argmin(losses))]
    return int(places[np.flatnonzero(best >= best.max() - 1e-12)[-1]])


def _unimodal_fit(y: FloatArray, weights: FloatArray, split: int) -> FloatArray:
    """Rising before ``split``, falling from it on."""
    from scipy.optimize import isotonic_regression

    parts = [
        isotonic_regression(y[part], weights=weights[part], increasing=rising).x
        for part, rising in ((slice(0, split), True), (slice(split, None), False))
        if len(y[part])
    ]
    return np.concatenate(parts)
