"""Alarms against golds: runs whose four outcomes can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from tdpo_pipeline.overoptimization.alarms import (
    AT_ALARM,
    AT_END,
    FELL,
    NOT_SHOWN,
    count_alarms,
    judge_alarms,
)
from tdpo_pipeline.overoptimization.report import alarm_finding

PROXY, GOLD, HELD = "aesthetic-mini", "gold_taste", "pick-mini"
EPOCHS = 30


def tent(peak: int) -> np.ndarray:
    """Rises by a tenth an epoch up to row ``peak``, and falls as fast from there."""
    return 1 - np.abs(np.arange(EPOCHS) - peak) / 10


UP = tent(EPOCHS)


def history(
    seed: int,
    *,
    gold: np.ndarray | None,
    held: np.ndarray,
    method: str = "tdpo",
    reward: str = PROXY,
) -> pd.DataFrame:
    """A run without noise whose standard errors are 0.5 / sqrt(128) = 0.044."""
    row = np.arange(EPOCHS)
    columns = {reward: row / 10, HELD: held} | ({} if gold is None else {GOLD: gold})
    return pd.DataFrame(
        {
            "run": f"{method}-{reward}-s{seed}",
            "method": method,
            "reward": reward,
            "seed": seed,
            "epoch": row + 1,
            "reward_queries": 128 * (row + 1),
        }
        | {f"{name}_mean": mean for name, mean in columns.items()}
        | {f"{name}_std": 0.5 for name in columns}
    )


def judged(*runs: pd.DataFrame, **how: object) -> pd.DataFrame:
    return judge_alarms(pd.concat(runs), held_out=[PROXY, HELD, GOLD], **how)


# A run for each cell of the table: alarm and fall, alarm alone, fall alone, neither.
FOUR = (
    history(0, gold=tent(10), held=tent(10)),
    history(1, gold=UP, held=tent(10)),
    history(2, gold=tent(10), held=UP),
    history(3, gold=UP, held=UP),
)


def test_each_run_by_hand() -> None:
    found = judged(*FOUR).set_index("seed")
    # The held-out reward's fall is found some epochs after row 10.
    assert found["alarm"].notna().tolist() == [True, True, False, False]
    assert found["alarm"].dropna().between(11, 16).all()
    assert found["onset"].dropna().tolist() == [10, 10]
    assert found[AT_END].tolist() == [FELL, NOT_SHOWN, FELL, NOT_SHOWN]
    # Neighbours of the peak are 0.1 lower. A difference has the standard error 0.0625,
    # and one of 29 others has to be 2.92 of these above: 0.18.
    assert (
        found.loc[[0, 2], ["gold_low", "gold_peak", "gold_high"]].to_numpy().tolist()
        == [[9, 10, 11]] * 2
    )
    assert found.loc[[1, 3], "gold_high"].tolist() == [29, 29]
    assert set(found["judge"]) == {GOLD}


def test_a_gold_that_falls_after_the_alarm_had_not_fallen_by_then() -> None:
    early = judged(history(0, gold=tent(20), held=tent(10))).iloc[0]
    assert early["alarm"] < 20
    assert (early[AT_ALARM], early[AT_END]) == (NOT_SHOWN, FELL)
    # Fallen at the alarm, and recovered by the end.
    gold = np.where(np.arange(EPOCHS) < 20, tent(5), 5.0)
    back = judged(history(0, gold=gold, held=tent(10))).iloc[0]
    assert (back[AT_ALARM], back[AT_END]) == (FELL, NOT_SHOWN)
    # Without an alarm there is the end alone.
    silent = judged(history(0, gold=tent(20), held=UP)).iloc[0]
    assert (silent[AT_ALARM], silent[AT_END]) == (FELL, FELL)


def test_counts_and_exact_intervals_by_hand() -> None:
    again = [run.assign(run=f"a{i}", method="ddpo") for i, run in enumerate(FOUR[:1])]
    counts = count_alarms(judged(*FOUR, *again))
    assert counts["when"].tolist() == [AT_END, AT_ALARM]
    row = counts.iloc[0]
    cells = ["alarm_fell", "alarm_not", "silent_fell", "silent_not"]
    assert row[cells].tolist() == [2, 1, 1, 1]
    assert (row["reward"], row["judge"], row["n_runs"]) == (PROXY, GOLD, 5)
    # Of 3 falls 2 were found, of 2 runs without a fall 1 had an alarm, of 3 alarms 2
    # were right.
    for name, k, n in (("found", 2, 3), ("false", 1, 2), ("right", 2, 3)):
        exact = binomtest(k, n).proportion_ci(0.95, "exact")
        ends = [row[f"{name}_low"], row[f"{name}_high"]]
        assert row[name] == pytest.approx(k / n)
        assert ends == pytest.approx([exact.low, exact.high])


def test_no_alarm_has_no_rate_of_right_ones() -> None:
    (row, _) = count_alarms(judged(FOUR[3])).to_dict("records")
    assert [row["alarm_fell"], row["alarm_not"], row["silent_fell"]] == [0, 0, 0]
    assert (row["n_runs"], row["silent_not"]) == (1, 1)
    for name in ("found", "right"):
        assert np.isnan([row[name], row[f"{name}_low"], row[f"{name}_high"]]).all()
    # One run without a false alarm: at most 97.5 %, as 0.025 of one trial.
    assert (row["false"], row["false_low"]) == (0, 0)
    assert row["false_high"] == pytest.approx(0.975)


def test_without_a_gold_nobody_can_say() -> None:
    unscored = history(0, gold=None, held=tent(10))
    without = history(0, gold=tent(10), held=UP, reward="jpeg_compressibility")
    for run in (unscored, without):
        found = judged(run)
        assert found[[AT_END, AT_ALARM, "judge"]].isna().all(axis=None)
        (row,) = count_alarms(found).to_dict("records")
        assert (row["n_runs"], row["alarm_fell"], row["silent_not"]) == (0, 0, 0)
        assert pd.isna(row["when"]) and pd.isna(row["found"])
        assert row["note"] == "no gold was scored in training"


def test_a_run_is_watched_by_what_it_was_scored_by() -> None:
    both = FOUR[0].assign(**{"hps-mini_mean": 0.0, "hps-mini_std": 0.5}, run="b")
    table = pd.concat([FOUR[1], both])  # hps-mini is there, and empty, for FOUR[1]
    found = judge_alarms(table, held_out=[HELD, "hps-mini", "never-scored"])
    assert found["alarm"].notna().tolist() == [True, True]
    assert set(found["note"]) == {""}


def test_a_run_that_cannot_be_judged_is_left_out_and_named() -> None:
    bad = FOUR[2].assign(**{f"{GOLD}_mean": [np.nan, *FOUR[2][f"{GOLD}_mean"][1:]]})
    counts = count_alarms(judged(FOUR[0], bad))
    assert counts["n_runs"].tolist() == [1, 1]
    assert "NaN or infinite in epoch 1 of tdpo-aesthetic-mini-s2" in counts["note"][0]


def test_a_run_too_short_for_an_alarm_is_no_trial() -> None:
    for epochs, judged_runs in ((4, 0), (5, 1)):
        counts = count_alarms(judged(FOUR[3][:epochs], min_epochs=5))
        assert counts["n_runs"].iloc[0] == judged_runs


def test_a_run_of_one_epoch_is_no_trial() -> None:
    (row,) = count_alarms(judged(FOUR[0][:1])).to_dict("records")
    assert row["n_runs"] == 0
    assert np.isnan([row["false"], row["false_low"], row["false_high"]]).all()
    assert "has too few epochs for an alarm (1)" in row["note"]
    counts = count_alarms(judged(FOUR[0], FOUR[1][:1]))
    assert counts["n_runs"].tolist() == [1, 1]


def test_a_run_that_ended_at_its_alarm_is_judged_there() -> None:
    whole = judged(FOUR[0]).iloc[0]
    ended = FOUR[0][: int(whole["alarm"]) + 1]
    found = judged(ended, horizons={"tdpo": EPOCHS}).iloc[0]
    assert found["alarm"] == whole["alarm"]
    assert found[AT_END] == found[AT_ALARM] == whole[AT_ALARM]


def test_the_finding_says_what_was_counted() -> None:
    other = history(0, gold=None, held=UP, reward="hps-mini")
    finding = alarm_finding(count_alarms(judged(*FOUR, other)))
    said = dict(finding.said)
    assert said[f"on {PROXY}"] == [
        "an alarm in 2 of 4 runs",
        "the gold was shown to fall in 1 of these and 1 of the others",
        "falls found 50% [1%, 99%]",
        "false alarms 50% [1%, 99%]",
    ]
    assert said["on hps-mini"] == ["no gold was scored in training"]
    silent = dict(alarm_finding(count_alarms(judged(FOUR[3]))).said)
    assert silent[f"on {PROXY}"][2] == "falls found \N{EN DASH}"
