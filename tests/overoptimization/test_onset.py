"""Onsets found afterwards: known peaks, coverage of the set, and what can't be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import Bootstrap, ScoreTableError
from tdpo_pipeline.overoptimization.onset import (
    epoch_peak_set,
    find_onsets,
    peak_set,
)
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=300)
PROMPTS = {"simple_animals": ["cat", "dog", "fox", "bee", "cow", "goat"]}
GOLD, PROXY = "gold_taste", "aesthetic-mini"


def scores(gold, proxy=(0, 1, 2, 3, 4), seed: int = 0, **how: object) -> pd.DataFrame:
    settings = {
        "epochs": (0, 4, 8, 12, 16),
        "prompts": PROMPTS,
        "trained_on": PROMPTS["simple_animals"],
        "seed_sd": 0.05,
    }
    gains = {GOLD: gold, PROXY: proxy}
    return synthetic_scores("tdpo", PROXY, seed, gains=gains, **(settings | how))


def onset(table: pd.DataFrame, **how: object) -> pd.Series:
    return find_onsets(table, rewards=[GOLD], bootstrap=FEW, **how).iloc[0]


def test_a_clear_onset() -> None:
    table = pd.concat([scores([0, 1, 3, 1, -1], seed=s) for s in range(3)])
    found = onset(table)
    assert (found["onset_epoch"], found["onset_queries"]) == (8, 8 * 128)
    # The maximum is at 8 for certain, so the true one lies between 4 and 12.
    assert (found["low_epoch"], found["high_epoch"]) == (4, 12)
    assert (found["low_queries"], found["high_queries"]) == (4 * 128, 12 * 128)
    assert found["fall"] == pytest.approx(-4, abs=0.3)
    assert found["trained_rise"] == pytest.approx(2, abs=0.3)
    assert found["statement"] == "falls while the trained reward rises"
    assert (found["n_checkpoints"], found["n_seeds"]) == (4, 3)


@pytest.mark.parametrize(
    ("gold", "proxy", "statement"),
    [
        ([0, 1, 2, 3, 4], (0, 1, 2, 3, 4), "no fall shown: the last checkpoint may"),
        (
            [0, -1, -2, -3, -4],
            (0, 1, 2, 3, 4),
            "falls from the start while the trained",
        ),
        ([0, 1, 3, 1, -1], (0, 1, 3, 1, -1), "falls, and so does the trained reward"),
        ([0, 1, 3, 1, -1], (0, 1, 3, 3, 3), "falls; cannot tell whether"),
        ([0, 0, 0, 0, 0], (0, 1, 2, 3, 4), "no fall shown"),
    ],
)
def test_statements(gold, proxy, statement: str) -> None:
    table = pd.concat([scores(gold, proxy, seed=s) for s in range(3)])
    found = onset(table)
    assert found["statement"].startswith(statement)
    assert np.isnan(found["high_epoch"]) == statement.startswith("no fall")


def test_nearly_equal_checkpoints_widen_the_set() -> None:
    table = pd.concat([scores([0, 2.98, 3.0, 2.99, -3], seed=s) for s in range(3)])
    found = onset(table)
    assert (found["low_epoch"], found["high_epoch"]) == (0, 16)


def test_one_checkpoint_is_too_few() -> None:
    table = scores([0, 1, 3, 1, -1])
    found = onset(table[table["epoch"] == 0])
    assert found["statement"].startswith("no checkpoint besides the base model")
    assert np.isnan(found["onset_epoch"])


def test_one_seed_and_one_prompt_tell_nothing() -> None:
    found = onset(scores([0, 1, 3, 1, -1], prompts={"simple_animals": ["cat"]}))
    assert found["statement"] == "cannot tell: one seed and one prompt"
    assert np.isnan(found["high_epoch"])
    assert np.isnan(found["fall_low"])


def test_unequal_lengths_end_at_the_common_checkpoint() -> None:
    stopped = scores([0, 1, 3, 1, -1], seed=1)
    table = pd.concat([scores([0, 1, 3, 1, -1]), stopped[stopped["epoch"] <= 8]])
    found = onset(table)
    assert found["n_checkpoints"] == 2
    assert found["statement"].startswith("no fall shown")


def test_the_trained_reward_has_to_be_scored() -> None:
    with pytest.raises(ScoreTableError, match="nobody knows whether it rises"):
        onset(scores([0, 1, 3, 1, -1]).drop(columns=PROXY))


def test_all_rewards_but_the_trained_one_by_default() -> None:
    found = find_onsets(scores([0, 1, 3, 1, -1]), bootstrap=FEW)
    # Of 8 scored rewards one is trained on, and the two sizes say nothing.
    assert len(found) == 5
    assert PROXY not in set(found["scored"])


def test_without_noise_only_the_highest_is_in_the_set() -> None:
    values = np.broadcast_to([0.0, 2.0, 2.0, 1.0], (3, 4, 4))
    assert peak_set(values, FEW) == (2, 1, 2)


@pytest.mark.parametrize("means", [[0, 1, 1.2, 1.1, 0.5], [0, 1, 1, 1, 1]])
def test_the_set_holds_the_true_maximum(means) -> None:
    """4 seeds, 6 prompts; each deviates by a random walk. All tied maxima count."""
    rng = np.random.default_rng(0)
    truth = set(np.flatnonzero(np.array(means) == max(means)))
    n, hits = 200, 0
    for trial in range(n):
        walks = [rng.normal(0, 0.2, (k, 5)).cumsum(axis=1) for k in (4, 6)]
        values = np.array(means) + walks[0][:, None] + walks[1][None]
        found = peak_set(values, Bootstrap(draws=200, rng=trial))
        hits += truth <= set(range(found.first, found.last + 1))
    assert hits / n > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)
    # And it is not simply everything: a clear peak is found.
    sharp = np.array([0, 1, 5, 1, 0]) + rng.normal(0, 0.2, (4, 6, 5))
    assert peak_set(sharp, FEW) == (2, 2, 2)


def test_the_set_of_epochs_by_hand() -> None:
    # A difference has the standard error 0.1 sqrt(2), and of 4 epochs 3 are held against
    # each: with 0.05 / 3 for each, 2.128 of these, 0.301.
    errors = np.full(4, 0.1)
    assert epoch_peak_set(np.array([0.7, 1.0, 0.69, 0.0]), errors) == (1, 0, 1)
    assert epoch_peak_set(np.array([0.0, 1.0, 0.69, 0.70]), errors) == (1, 1, 3)
    # An epoch without an error is left out; one whose error is 0 is known exactly, and the
    # others are 0.1 x 2.128 from it.
    exact = np.array([0.1, 0.1, 0.1, 0.0])
    assert epoch_peak_set(np.array([0.0, 0.2, 0.1, 0.4]), exact) == (3, 1, 3)
    assert epoch_peak_set(np.array([0.2, 0.2, 0.2, 0.2]), np.zeros(4)) == (3, 0, 3)
    baseline = np.array([np.nan, 0.1, 0.1, 0.1])
    assert epoch_peak_set(np.array([9.0, 0.0, 1.0, 0.0]), baseline) == (2, 2, 2)
    # Of one epoch nothing can be told.
    assert epoch_peak_set(np.array([0.0, 1.0]), np.array([np.nan, 0.1])) == (1, 1, 1)


def test_the_set_of_epochs_is_around_a_peak() -> None:
    """With unequal errors it holds the peak nearly always, and not all epochs."""
    rng = np.random.default_rng(1)
    means = 6 - np.abs(np.arange(30) - 12.0) / 2
    errors = np.linspace(0.5, 1.5, 30)
    found = [
        epoch_peak_set(means + errors * rng.normal(size=30), errors) for _ in range(500)
    ]
    # 0.05 at most; of 500 draws twice the standard error is 0.02.
    assert np.mean([one.first <= 12 <= one.last for one in found]) >= 0.93
    assert np.mean([one.last - one.first for one in found]) < 25
    assert all(one.first <= one.peak <= one.last for one in found)


def test_the_set_of_epochs_holds_the_highest() -> None:
    """Where all are equally high, and where the last is the highest by a little."""
    rng = np.random.default_rng(0)
    for means in (np.zeros(30), np.linspace(0, 0.5, 30)):
        noise = rng.normal(0, 1, (2000, 30))
        found = [epoch_peak_set(means + row, np.ones(30)) for row in noise]
        misled = np.mean([one.last < 29 for one in found])
        # 0.05 at most; of 2000 draws twice the standard error is 0.01.
        assert misled <= 0.06
