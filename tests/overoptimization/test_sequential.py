"""The sequential test: by hand, false alarms by simulation, onset where it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from tdpo_pipeline.overoptimization.sequential import (
    Baseline,
    first_alarm,
    log_evidence,
    unimodal_peak,
)


def alarm(held_out, *, errors=0.1, trained=None, **how):
    held_out = np.asarray(held_out, float)
    held_out = held_out[:, None] if held_out.ndim == 1 else held_out
    trained = np.arange(len(held_out)) if trained is None else trained
    settings = {"horizon": len(held_out)} | how
    return first_alarm(trained, held_out, np.full(held_out.shape, errors), **settings)


def bets(difference: float, variance: float, scale: float) -> float:
    """Mean wealth over half-normal bets, by numerical integration."""

    def wealth(delta: float) -> float:
        log = delta * difference / variance - delta**2 / (2 * variance)
        return np.exp(log) * 2 * stats.norm.pdf(delta, scale=scale)

    return integrate.quad(wealth, 0, np.inf)[0]


def test_evidence_of_two_epochs_is_the_integral_over_bets() -> None:
    # Half of alpha is for a later reference; the fall is 1 - 0.2, variance 0.09 + 0.16.
    found = log_evidence(np.array([1.0, 0.2]), np.array([0.3, 0.4]), horizon=2)
    expected = bets(0.8, 0.25, 0.3) / 2
    assert np.exp(found.values) == pytest.approx([0.0, expected])
    assert found.ends.tolist() == [-1, 0]


def test_evidence_of_three_epochs_by_hand() -> None:
    values, errors = np.array([0.0, 3.0, 1.0]), np.array([1.0, 0.5, 2.0])
    found = log_evidence(values, errors, horizon=3)
    # Three ends of a reference get a third of alpha each; the second has two lengths.
    first = bets(0 - (3 * 4 + 1 / 4) / 4.25, 1 + 1 / 4.25, 1.0)
    short = bets(3 - 1, 0.25 + 4, 0.5)
    long = bets(12 / 5 - 1, 1 / 5 + 4, 0.5)
    expected = max(first, short / 2, long / 2) / 3
    assert np.exp(found.values[2]) == pytest.approx(expected)


def test_epochs_without_an_error_are_left_out() -> None:
    values, errors = np.array([5.0, 1.0, 0.2]), np.array([np.nan, 0.3, 0.4])
    whole = log_evidence(values, errors, horizon=2)
    part = log_evidence(values[1:], errors[1:], horizon=2)
    assert whole.values[0] == -np.inf
    assert whole.values[1:] == pytest.approx(part.values)
    assert whole.ends[2] == 1


def test_adding_a_constant_or_changing_the_unit_changes_nothing() -> None:
    values = np.random.default_rng(0).normal(size=20)
    errors = np.full(20, 0.7)
    found = log_evidence(values, errors, horizon=20).values
    shifted = log_evidence(9 + values, errors, horizon=20).values
    scaled = log_evidence(5 * values, 5 * errors, horizon=20).values
    assert shifted == pytest.approx(found)
    assert scaled == pytest.approx(found)


def test_the_wealth_is_one_on_average_if_nothing_falls() -> None:
    """One reference, the first epoch, and a test of the seven after it."""
    rng = np.random.default_rng(0)
    paths = rng.normal(0, 0.1, (3000, 8))
    errors = np.full(8, 0.1)
    wealth = [np.exp(log_evidence(p, errors, horizon=1).values[-1]) for p in paths]
    assert np.mean(wealth) == pytest.approx(1, abs=0.1)


def test_a_run_beyond_the_planned_epochs_goes_on() -> None:
    path = np.concatenate([np.zeros(10), np.full(20, -1.0)])
    assert alarm(path, horizon=10).position < 13
    assert alarm(path, horizon=5).position < 13


def test_a_clear_fall_is_found_and_its_onset() -> None:
    path = np.concatenate([np.linspace(0, 1, 10), np.linspace(0.9, 0, 10)])
    found = alarm(path, errors=0.05)
    assert found.onset == 9
    assert 10 <= found.position <= 14
    assert found.log_evidence >= np.log(20)


def test_a_fall_without_a_rise_of_the_trained_reward_is_no_overoptimization() -> None:
    path = np.concatenate([np.linspace(0, 1, 10), np.linspace(0.9, 0, 10)])
    assert alarm(path, errors=0.05, trained=path) is None


def test_no_alarm_before_the_minimum_number_of_epochs() -> None:
    falling = -np.arange(20.0)
    assert alarm(falling).position == 1
    assert alarm(falling, min_epochs=7).position == 6


def test_one_of_several_rewards_may_fall() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(0, 0.1, (20, 3))
    flat[10:, 1] -= 1.0
    found = alarm(flat)
    assert found.reward == 1
    assert found.onset <= 9


def test_smaller_alpha_waits_longer() -> None:
    path = np.concatenate([np.zeros(10), np.full(20, -0.25)])
    positions = [alarm(path, alpha=alpha).position for alpha in (0.2, 0.05, 0.001)]
    assert positions == sorted(positions)
    assert positions[0] < positions[2]


def test_shapes_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"trained has the shape \(3,\)"):
        first_alarm([1, 2, 3], [[1.0], [2.0]], [[1.0], [2.0]], horizon=3)


@pytest.mark.parametrize("shape", ["flat", "rising", "saturating"])
def test_false_alarms_are_at_most_as_frequent_as_stated(shape: str) -> None:
    """40 epochs, 3 rewards that share half of their noise, and alpha 10 %."""
    means = {
        "flat": np.zeros(40),
        "rising": np.linspace(0, 3, 40),
        "saturating": 1 - np.exp(-np.arange(40) / 8),
    }[shape]
    rng = np.random.default_rng(0)
    n, alarms = 300, 0
    for _ in range(n):
        noise = rng.normal(0, 0.1, (40, 3)) + rng.normal(0, 0.1, (40, 1))
        path = means[:, None] + noise
        alarms += alarm(path, errors=np.sqrt(0.02), alpha=0.1) is not None
    assert alarms / n <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / n)


def test_errors_that_are_understated_give_more_false_alarms() -> None:
    """So that the test above could fail."""
    rng = np.random.default_rng(0)
    paths = rng.normal(0, 0.3, (100, 40))
    assert sum(alarm(path, errors=0.1, alpha=0.1) is not None for path in paths) > 50


@pytest.mark.parametrize(
    ("values", "peak"),
    [
        ([0, 1, 2, 1, 0], 2),
        ([0, 1, 2], 2),
        ([2, 1, 0], 0),
        ([0, 2, 2, 2, 0], 3),  # a plateau: the fall begins after its last
        # The spike costs least if 5 is the peak by itself: no other error at all.
        ([0, 1, 5, 1, 0], 2),
        # Rising 0 1.5 1.5 4, falling 4 1: the dip 2, 1 is smoothed away.
        ([0, 2, 1, 4, 1], 3),
        ([7], 0),
    ],
)
def test_unimodal_peak_by_hand(values, peak: int) -> None:
    assert unimodal_peak(values) == peak


def test_values_that_are_not_known_well_do_not_make_a_peak() -> None:
    assert unimodal_peak([0, 3, 0, 2, 2, 0]) == 1
    assert unimodal_peak([0, 3, 0, 2, 2, 0], [1, 9, 1, 1, 1, 1]) == 4
    assert unimodal_peak([9, 0, 1, 0], [np.nan, 1, 1, 1]) == 2
    with pytest.raises(ValueError, match="No value"):
        unimodal_peak([1.0], [np.nan])


def test_baseline_by_hand() -> None:
    # Two prompts, two samples each: means 1 and 5, within-prompt variance 2; between
    # (2 * 4 + 2 * 4) / 1 = 16, (16 - 2) / 2 = 7 of true spread, so 7 / (7 + 2 / 2).
    found = Baseline.of(["a", "a", "b", "b"], [0.0, 2.0, 4.0, 6.0])
    assert found.overall == 3
    assert found.by_prompt == pytest.approx({"a": 3 - 2 * 7 / 8, "b": 3 + 2 * 7 / 8})
    change, error = found.change(["a", "c"], [1.25, 5.0])
    # a changed by 0, c (not known) by 2 from the overall mean.
    assert change == pytest.approx(1.0)
    assert error == pytest.approx(1.0)


def test_prompts_that_do_not_differ_share_one_baseline() -> None:
    found = Baseline.of(["a", "a", "b", "b"], [0.0, 2.0, 0.0, 2.0])
    assert found.by_prompt == {"a": 1.0, "b": 1.0}
    once = Baseline.of(["a", "b"], [0.0, 2.0])
    assert once.by_prompt == {"a": 1.0, "b": 1.0}


def test_known_prompts_make_epochs_differ_by_less_chance() -> None:
    rng = np.random.default_rng(0)
    levels = dict(zip("abcdefgh", rng.normal(0, 2, 8), strict=True))

    def epoch():
        prompts = rng.choice(list(levels), 128)
        return prompts, [levels[p] + rng.normal(0, 0.5) for p in prompts]

    baseline = Baseline.of(*epoch())
    changes, errors = zip(*(baseline.change(*epoch()) for _ in range(200)), strict=True)
    assert np.std(changes) == pytest.approx(np.mean(errors), rel=0.2)
    assert np.mean(errors) < 0.06  # 2 / sqrt(128) = 0.18 without
