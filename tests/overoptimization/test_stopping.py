"""Stopping rules on made-up histories whose best stop is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import ScoreTableError
from tdpo_pipeline.overoptimization.stopping import (
    alarm_of_run,
    epoch_means,
    fixed_epoch,
    kl_budget,
    never,
    onset_rollback,
    onset_stop,
    proxy_plateau,
    stopping_regrets,
    stopping_report,
    summarise_regrets,
)
from tdpo_pipeline.overoptimization.tables import known_rewards

PROXY, GOLD, HELD = "aesthetic-mini", "gold_taste", "pick-mini"


def history(
    peak: int = 10, epochs: int = 30, seed: int = 0, *, noise: float = 0.0
) -> pd.DataFrame:
    """Proxy rises; gold and a held-out reward rise up to row ``peak`` and then fall."""
    rng = np.random.default_rng(seed)
    row = np.arange(epochs)
    tent = 1 - np.abs(row - peak) / 10
    table = {
        "run": f"tdpo-{PROXY}-s{seed}",
        "method": "tdpo",
        "reward": PROXY,
        "seed": seed,
        "epoch": row + 1,
        "reward_queries": 128 * (row + 1),
        "kl_to_base": row * 2.0,
    }
    for name, mean in ((PROXY, row / 10), (GOLD, tent), (HELD, tent)):
        table[f"{name}_mean"] = mean + rng.normal(0, noise, epochs)
        table[f"{name}_std"] = 0.5
    return pd.DataFrame(table)


def test_rules_by_hand() -> None:
    run = history()
    assert never(run) == 29
    assert fixed_epoch(run, 7) == 7
    assert fixed_epoch(run, 70) == 29
    # KL is 0, 2, 4, 6: within 5 nats up to the third row.
    assert kl_budget(run, 5.0) == 2
    assert kl_budget(run, -1.0) == 0
    assert kl_budget(run, 1e9) == 29
    assert proxy_plateau(run, PROXY) == 29  # it never stops rising


def test_a_part_of_the_trained_reward_is_not_watched() -> None:
    run = history()
    run["part_mean"], run["part_std"] = run[f"{HELD}_mean"], 0.5
    run[f"{HELD}_mean"] = np.arange(len(run)) / 10  # now only the part falls
    assert alarm_of_run(run, [HELD, "part"], trained=PROXY).onset == 10
    with known_rewards(parts={PROXY: ["part"]}):
        assert alarm_of_run(run, [HELD, "part"], trained=PROXY) is None
        with pytest.raises(ScoreTableError, match="No reward to watch"):
            alarm_of_run(run, ["part"], trained=PROXY)
        regrets = stopping_report(run, held_out=[HELD, "part"])
    kept = regrets.set_index("rule")["position"]
    assert kept["onset, stop"] == kept["never"] == 29


def test_a_run_that_its_alarm_ended_gets_the_same_alarm_again() -> None:
    differ = 0
    for seed in range(40):
        run = history(peak=12, epochs=40, seed=seed, noise=0.05)
        alarm = alarm_of_run(run, [HELD], trained=PROXY)
        stopped = run[: alarm.position + 1]
        again = alarm_of_run(stopped, [HELD], trained=PROXY, horizon=40)
        assert again == alarm
        differ += alarm_of_run(stopped, [HELD], trained=PROXY) != alarm
    assert differ  # with fewer epochs to test, the same evidence is enough sooner


def test_a_proxy_that_stops_rising_is_a_plateau() -> None:
    run = history()
    run[f"{PROXY}_mean"] = np.minimum(run[f"{PROXY}_mean"], 1.0)
    # 1.0 is reached at row 10; 5 rows later nothing has risen, and that epoch's update
    # has been made.
    assert proxy_plateau(run, PROXY, patience=5) == 16
    assert proxy_plateau(run[:16], PROXY, patience=5) == 15


def test_onset_rules_go_to_the_alarm_or_back_to_the_peak() -> None:
    run = history()
    how = {"trained": PROXY}
    alarm = alarm_of_run(run, [HELD], **how)
    assert alarm.onset == 10
    assert onset_stop(run, [HELD], **how) == alarm.position + 1
    assert onset_rollback(run, [HELD], **how) == 10
    rising = history(peak=100)
    assert alarm_of_run(rising, [HELD], **how) is None
    assert (
        onset_stop(rising, [HELD], **how) == onset_rollback(rising, [HELD], **how) == 29
    )


def test_changes_by_prompt_are_preferred_to_means() -> None:
    run = history()
    means, errors = epoch_means(run, HELD)
    assert means.tolist() == run[f"{HELD}_mean"].tolist()
    assert errors == pytest.approx(np.full(30, 0.5 / 128**0.5))
    # 128 queries an epoch, 8 a sample: 16 samples, and a standard error of 0.5 / 4.
    _, errors = epoch_means(run.assign(samples=16), HELD)
    assert errors == pytest.approx(np.full(30, 0.125))
    run[f"{HELD}_change"], run[f"{HELD}_change_se"] = 3.0, 0.01
    assert [v[0] for v in epoch_means(run, HELD)] == [3.0, 0.01]


def test_regrets_by_hand() -> None:
    table = pd.concat([history(peak=10, seed=0), history(peak=12, seed=1)])
    found = stopping_regrets(table, held_out=[PROXY, HELD, GOLD])
    first = found[found["seed"] == 0].set_index("rule")
    assert set(first["judge"]) == {GOLD}
    assert first.loc["best", ["position", "regret"]].tolist() == [10, 0]
    # Row 29 is 1.9 below the peak, in base standard deviations of 0.5.
    assert first.loc["never", "regret"] == pytest.approx(3.8)
    # Tuned on the other seed, whose peak is at 12: 0.2 below.
    assert first.loc["fixed epoch", "position"] == 12
    assert first.loc["fixed epoch", "regret"] == pytest.approx(0.4)
    assert first.loc["KL budget", "position"] == 12
    assert first.loc["proxy plateau", "regret"] == pytest.approx(3.8)
    assert first.loc["onset, rollback", "regret"] == pytest.approx(0)
    assert 0 < first.loc["onset, stop", "regret"] < 1.5
    assert (found["regret"] >= 0).all()


def test_summary_by_hand() -> None:
    table = pd.concat([history(peak=10, seed=0), history(peak=12, seed=1)])
    found = summarise_regrets(stopping_regrets(table, held_out=[HELD]))
    row = found.set_index("rule").loc["never"]
    # Regrets 3.8 and 3.4: mean 3.6, half width 12.706 * 0.2 (t with one degree).
    assert row["regret"] == pytest.approx(3.6)
    assert row["high"] == pytest.approx(3.6 + 12.7062 * 0.2, rel=1e-4)
    assert row["n_seeds"] == 2
    assert row[["saved", "saved_low", "saved_high"]].tolist() == [0, 0, 0]
    # The fixed epoch is 2 late or early: 3.8 - 0.4 and 3.4 - 0.4 are saved.
    tuned = found.set_index("rule").loc["fixed epoch"]
    assert tuned["saved"] == pytest.approx(3.2)
    assert tuned["saved_low"] == pytest.approx(3.2 - 12.7062 * 0.2, rel=1e-4)


def test_what_a_rule_saves_is_of_one_judge() -> None:
    table = pd.concat([history(peak=10, seed=0), history(peak=12, seed=1)])
    found = stopping_regrets(table, held_out=[HELD])
    twice = pd.concat([found, found.assign(judge="another", regret=0.0)])
    saved = summarise_regrets(twice).set_index(["judge", "rule"])["saved"]
    assert saved[GOLD, "fixed epoch"] == pytest.approx(3.2)
    assert saved["another", "fixed epoch"] == 0


def test_one_seed_has_nothing_to_tune_on_and_no_interval() -> None:
    found = stopping_regrets(history(), held_out=[HELD])
    untuned = found[found["rule"].isin(["fixed epoch", "KL budget"])]
    assert untuned["regret"].isna().all()
    assert untuned["note"].str.contains("no other seed").all()
    summary = summarise_regrets(found).set_index("rule")
    assert np.isnan(summary.loc["never", "low"])
    assert summary.loc["fixed epoch", "n_seeds"] == 0


def test_one_epoch_is_no_run_to_stop() -> None:
    short = pd.concat([history(epochs=1, seed=seed) for seed in range(3)])
    found = summarise_regrets(stopping_report(short, held_out=[HELD]))
    assert found[["regret", "low", "high"]].isna().all(axis=None)
    assert set(found["n_seeds"]) == {0}
    assert found["note"].str.contains("one epoch: there is nothing to stop").all()
    # It tunes no other run's rules either.
    table = pd.concat([history(seed=3), history(peak=12, seed=4)])
    pd.testing.assert_frame_equal(
        stopping_regrets(pd.concat([table, short]), held_out=[HELD])
        .query("seed > 2")
        .reset_index(drop=True),
        stopping_regrets(table, held_out=[HELD]),
        check_dtype=False,
    )


def test_runs_of_unequal_length_are_each_judged_by_themselves() -> None:
    table = pd.concat([history(seed=0), history(seed=1, epochs=8)])
    found = stopping_regrets(table, held_out=[HELD]).set_index(["seed", "rule"])
    assert found.loc[(1, "fixed epoch"), "position"] == 7  # 10 is past its end
    assert found.loc[(1, "best"), "position"] == 7


def lost(
    column: str, epoch: int, value: float = np.nan
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Put a value into a column at one epoch."""
    return lambda t: t.assign(**{column: t[column].mask(t["epoch"] == epoch, value)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t.iloc[[3]]]), "once each"),
        (lambda t: t[t["epoch"] != 4], "once each"),
        (lambda t: t.drop(columns=f"{HELD}_std"), f"no columns {HELD}_mean"),
        (lambda t: t.drop(columns=f"{GOLD}_mean"), "No run has a judge"),
        (lambda t: t.assign(**{f"{GOLD}_std": 0.0}), "does not vary"),
        (lambda t: t.assign(reward="jpeg_compressibility"), "No run has a judge"),
        (lambda t: t.assign(**{f"{GOLD}_mean": np.nan}), "No run has a judge"),
        *(
            (lost(f"{name}_{what}", epoch), f"'{name}_{what}' is NaN .* epoch {epoch}")
            for name in (GOLD, PROXY, HELD)
            for what, epoch in (("mean", 6), ("mean", 30), ("std", 1))
        ),
        (lost(f"{PROXY}_mean", 6, np.inf), "'aesthetic-mini_mean' .* infinite"),
        (lost(f"{HELD}_std", 6), f"'{HELD}_std' is NaN .* epoch 6 of tdpo-"),
        (lambda t: t.assign(explored=t["epoch"] <= 22), "exploration in some epochs"),
    ],
)
def test_histories_that_cannot_be_judged(change, message: str) -> None:
    with pytest.raises(ScoreTableError, match=message):
        stopping_regrets(change(history()), held_out=[HELD])


def test_a_seed_that_no_judge_saw_is_named_and_tunes_nothing() -> None:
    unseen = history(peak=3, seed=2).assign(**{f"{GOLD}_mean": np.nan})
    table = pd.concat([history(seed=0), history(peak=12, seed=1), unseen])
    found = stopping_regrets(table, held_out=[HELD])
    pd.testing.assert_frame_equal(
        found[found["seed"] != 2].reset_index(drop=True),
        stopping_regrets(table[table["seed"] != 2], held_out=[HELD]),
        check_dtype=False,
    )
    rows = found[found["seed"] == 2]
    assert set(rows["rule"]) == set(found["rule"])
    assert rows[["position", "value", "regret"]].isna().all(axis=None)
    why = f"'{GOLD}' was not scored in tdpo-{PROXY}-s2"
    assert set(rows["note"]) == {why}
    summary = summarise_regrets(found).set_index("rule")
    assert summary.loc["never", "n_seeds"] == 2
    assert summary.loc["never", "note"] == why


def test_a_first_epoch_has_no_error_of_its_change_and_later_ones_do() -> None:
    run = history()
    for name in (PROXY, HELD):
        changes = run[f"{name}_mean"] - run[f"{name}_mean"].iloc[0]
        run[f"{name}_change"], run[f"{name}_change_se"] = changes, 0.05
    first = lost(f"{HELD}_change_se", 1)(run)
    assert alarm_of_run(first, [HELD], trained=PROXY).onset == 10
    for column in (f"{HELD}_change", f"{HELD}_change_se", f"{PROXY}_change"):
        with pytest.raises(ScoreTableError, match=f"'{column}' is NaN .* epoch 7"):
            alarm_of_run(lost(column, 7)(first), [HELD], trained=PROXY)


def test_a_report_says_which_epoch_is_lost_and_judges_the_other_methods() -> None:
    other = lost(f"{GOLD}_mean", 6)(history()).assign(method="rwr", run="rwr-s0")
    found = stopping_report(pd.concat([history(), other]), held_out=[HELD])
    (row,) = found[found["method"] == "rwr"].to_dict("records")
    assert "'gold_taste_mean' is NaN or infinite in epoch 6 of rwr-s0" in row["note"]
    assert found.loc[found["method"] == "tdpo", "regret"].notna().sum() == 5


def test_a_run_that_explores_in_all_epochs_alike_is_judged() -> None:
    plain = stopping_regrets(history(), held_out=[HELD])
    found = stopping_regrets(history().assign(explored=1.0), held_out=[HELD])
    pd.testing.assert_frame_equal(found, plain)


def test_a_report_watches_what_a_method_was_scored_by() -> None:
    """In the table of all methods a column of others is there, and empty."""
    other = history().assign(method="rwr", run="rwr-s0", **{"hps-mini_mean": 0.0})
    table = pd.concat([history(), other.assign(**{"hps-mini_std": 0.5})])
    report = stopping_report(table, held_out=[HELD, "hps-mini", "never-scored"])
    assert report["regret"].notna().sum() == 2 * 5
    alone = stopping_report(history(), held_out=[HELD])
    pd.testing.assert_frame_equal(
        report[report["method"] == "tdpo"].reset_index(drop=True), alone
    )


def test_another_judge_where_there_is_no_gold() -> None:
    found = stopping_regrets(history(), held_out=[HELD, PROXY], judge=GOLD)
    assert set(found["judge"]) == {GOLD}
    blind = stopping_regrets(history(), held_out=[HELD], judge=HELD).set_index("rule")
    assert blind.loc["never", "regret"] >= 0
    for rule in ("onset, stop", "onset, rollback"):
        assert np.isnan(blind.loc[rule, "regret"])
        assert blind.loc[rule, "note"].startswith("no reward that it could watch")


def test_a_seed_that_lacks_a_watched_reward_costs_no_other_rule() -> None:
    """As when a reward was added to what is monitored after the first seed had run."""
    before = history(seed=1).drop(columns=[f"{HELD}_mean", f"{HELD}_std"])
    report = stopping_report(pd.concat([history(seed=0), before]), held_out=[HELD])
    regrets = report.set_index(["seed", "rule"])["regret"]
    assert regrets.loc[0].notna().all()
    lost = regrets.loc[1][regrets.loc[1].isna()].index
    assert sorted(lost) == ["onset, rollback", "onset, stop"]


def test_a_noisy_fall_is_still_worth_stopping_for() -> None:
    table = pd.concat([history(seed=s, noise=0.05) for s in range(5)])
    mean = summarise_regrets(stopping_regrets(table, held_out=[HELD])).set_index("rule")
    assert mean.loc["onset, rollback", "regret"] < 0.5
    assert mean.loc["never", "regret"] > 3


def test_a_report_says_which_methods_cannot_be_judged() -> None:
    table = pd.concat([history(), history().assign(method="rwr", reward="jpeg")])
    report = stopping_report(table, held_out=[PROXY, HELD])
    judged = report[report["method"] == "tdpo"].reset_index(drop=True)
    plain = stopping_regrets(history(), held_out=[PROXY, HELD])
    pd.testing.assert_frame_equal(judged, plain, check_dtype=False)
    (row,) = summarise_regrets(report).query("method == 'rwr'").to_dict("records")
    assert row["note"] == "no gold was scored in training: nobody knows the best epoch"
    assert (row["n_seeds"], pd.isna(row["regret"])) == (0, True)


@pytest.mark.parametrize(
    "without",
    [
        lambda t: t.assign(kl_to_base=np.nan),
        lambda t: t.drop(columns="kl_to_base"),
    ],
)
def test_a_budget_needs_the_kl_and_the_other_rules_do_not(without) -> None:
    table = without(pd.concat([history(seed=0), history(seed=1)]))
    found = summarise_regrets(stopping_regrets(table, held_out=[HELD]))
    found = found.set_index("rule")
    assert "KL to the base model was not recorded" in found.loc["KL budget", "note"]
    assert np.isnan(found.loc["KL budget", "regret"])
    assert found.loc["fixed epoch", "regret"] == pytest.approx(0)
