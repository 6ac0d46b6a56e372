"""Golds, verdicts, and the last rows."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.menagerie.vocabulary import ANIMALS, UNSEEN_ANIMALS
from tdpo_pipeline.overoptimization import (
    RUN,
    Estimate,
    ScoreTableError,
    final_rows,
    gold_of,
    gold_report,
    reward_curves,
    summarise_methods,
    summarise_runs,
    verdict,
)
from tdpo_pipeline.overoptimization.intervals import significant
from tdpo_pipeline.overoptimization.report import (
    comparison_finding,
    cost_finding,
    gold_sentences,
    markdown,
    matched_finding,
    metrics,
    onset_finding,
    screen_text,
    stopping_finding,
)
from tests.synthetic_tables import COMPLEX, synthetic_history, synthetic_scores

RISE = [0, 0.5, 0.8, 1.0, 1.2]
PROMPTS = {
    "simple_animals": ANIMALS[:12],  # the first 8 are trained on
    "unseen_animals": UNSEEN_ANIMALS,
    "complex": COMPLEX,
}
FIGURES = {"proxy_vs_gold": "proxy and its gold"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (-12.345, "-12.3"), (999.6, "1,000"), (12345.6, "12,300")],
)
def test_large_numbers_have_three_digits_and_no_powers_of_ten(
    value: float, text: str
) -> None:
    assert significant(value) == text


def scores(gold: list[float], seed: int = 0, **how: object) -> pd.DataFrame:
    gains = {"aesthetic-mini": RISE, "gold_taste": gold}
    settings = {"prompts": PROMPTS, "images": 2} | how
    return synthetic_scores("tdpo", "aesthetic-mini", seed, gains=gains, **settings)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.5, "rose"),
        (-0.5, -0.1, "fell"),
        (-0.1, 0.5, "cannot tell"),
        (0.0, 0.5, "cannot tell"),
        (np.nan, np.nan, "cannot tell"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, 1, 8, 32)) == expected


@pytest.mark.parametrize(
    ("reward", "gold"),
    [
        ("aesthetic-mini", "gold_taste"),
        ("pick-mini", "gold_match"),
        ("hps-mini", "gold_match"),
        ("imagereward-mini", "gold_match"),
        ("gold_taste", None),
        ("jpeg_compressibility", None),
        ("aesthetic", None),
    ],
)
def test_each_proxy_has_one_gold(reward: str, gold: str | None) -> None:
    assert gold_of(reward) == gold


@pytest.mark.parametrize(
    ("gold", "base", "peak_epoch", "peak"),
    [
        ([0, 1.0, 2.0, 1.0, -2.0], "fell", 8, "fell"),
        ([0, 1.0, 3.0, 2.5, 1.5], "rose", 8, "fell"),
        ([0, 0.5, 1.0, 1.5, 2.0], "rose", 16, "is at its peak"),
        ([0, -0.5, -1.0, -1.5, -2.0], "fell", 0, "fell"),
    ],
)
def test_gold_report(gold: list[float], base: str, peak_epoch: int, peak: str) -> None:
    report = gold_report(scores(gold)).set_index("group")
    assert set(report["gold"]) == {"gold_taste"}
    seen = report.loc["seen"]
    assert seen[["verdict", "peak_epoch", "peak_verdict"]].tolist() == [
        base,
        peak_epoch,
        peak,
    ]
    assert seen["change"] == pytest.approx(gold[-1], abs=0.5)


def test_a_small_change_of_gold_cannot_be_told() -> None:
    gold = [0, 0.01, 0.02, 0.01, 0.0]
    table = pd.concat([scores(gold, seed=seed, seed_sd=0.3) for seed in range(3)])
    report = gold_report(table).set_index("group")
    assert report.loc["seen", "verdict"] == "cannot tell"
    assert report.loc["seen", "n_seeds"] == 3


def test_eta_zero_does_not_count_for_the_verdict() -> None:
    table = scores([0, 0, 0, 0, -2], etas=(1.0, 0.0))
    deployed = (table["eta"] == 0) & (table["epoch"] > 0)
    table.loc[deployed, "gold_taste"] += 100
    assert (gold_report(table)["verdict"] == "fell").all()


def test_no_report_for_a_reward_without_gold() -> None:
    table = synthetic_scores(
        "tdpo", "jpeg_compressibility", 0, gains={}, prompts=PROMPTS
    )
    report = gold_report(table)
    assert report.empty
    assert "verdict" in report.columns
    assert "nobody knows" in gold_sentences(report, ["seen"])[0]


def test_final_rows_are_those_that_all_seeds_reached() -> None:
    stopped = scores([0, 0, 0, 0, 0], seed=1)
    table = pd.concat([scores([0, 0, 0, 0, 0]), stopped[stopped["epoch"] <= 8]])
    last = final_rows(reward_curves(table))
    assert set(last["epoch"]) == {8}
    assert set(last["n_seeds"]) == {2}
    by_run = final_rows(reward_curves(table, by=RUN))
    assert by_run.groupby("seed")["epoch"].first().to_dict() == {0: 16, 1: 8}


def test_seeds_with_only_the_base_model_in_common_have_no_change() -> None:
    one, other = scores([0, 0, 0, 0, 1]), scores([0, 0, 0, 0, 1], seed=1)
    table = pd.concat([one[one["epoch"] <= 4], other[other["epoch"].isin([0, 8])]])
    last = summarise_methods(reward_curves(table))
    assert set(last["epoch"]) == {0}
    assert last[["difference", "low", "high"]].isna().all(axis=None)
    text = screen_text(last, gold_report(table), FIGURES, "data")
    assert "unknown" in text and "+0.00" not in text


def test_summary_of_runs() -> None:
    table = pd.concat([scores([0, 0, 0, 0, -1], seed=seed) for seed in (0, 1)])
    history = pd.concat(
        [synthetic_history("tdpo", "aesthetic-mini", seed, gain=1) for seed in (0, 1)]
    )
    rows = summarise_runs(history, reward_curves(table, by=RUN))
    # 2 runs, 4 groups, 8 rewards
    assert len(rows) == 64
    assert (rows["epochs_trained"] == 16).all()
    proxy = rows[(rows["role"] == "trained") & (rows["group"] == "seen")]
    assert (proxy["low_sd"] > 0).all()
    ratio = proxy["difference"] / proxy["base_sd"]
    assert proxy["difference_sd"].tolist() == pytest.approx(ratio.tolist())


def test_scores_without_history_are_an_error() -> None:
    history = synthetic_history("tdpo", "aesthetic-mini", 7, gain=1)
    curves = reward_curves(scores([0, 0, 0, 0, 0]), by=RUN)
    with pytest.raises(ScoreTableError, match="tdpo-aesthetic-mini-s0"):
        summarise_runs(history, curves)


@pytest.fixture(scope="module")
def outcome() -> tuple[pd.DataFrame, pd.DataFrame]:
    table = scores([0, 1.0, 2.0, 1.0, -2.0], etas=(1.0, 0.0))
    return summarise_methods(reward_curves(table)), gold_report(table)


def test_screen_text(outcome: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    text = screen_text(*outcome, FIGURES, "data/08_reporting")
    assert max(map(len, text.splitlines())) <= 100
    summary, golds = outcome
    seen = golds[golds["group"] == "seen"].iloc[0]
    change = f"{seen['change']:+.2f} [{seen['low']:+.2f}, {seen['high']:+.2f}]"
    assert f"below the base model: yes, {change}" in text
    assert "below its best checkpoint (epoch 8): yes," in text
    proxy = summary.query("eta == 1 and group == 'seen' and role == 'trained'").iloc[0]
    moved = f"{proxy['difference_sd']:+.2f} [{proxy['low_sd']:+.2f}, {proxy['high_sd']:+.2f}]"
    (line,) = [line for line in text.splitlines() if "aesthetic-mini, trained" in line]
    assert moved in line
    assert "one seed" in text
    assert "data/08_reporting/figures" in text
    assert "proxy_vs_gold.png" in text


def test_many_methods_get_a_shorter_text(
    outcome: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    summary, golds = outcome
    many = pd.concat([summary.assign(method=f"m{i}") for i in range(5)])
    text = screen_text(many, golds, FIGURES, "data")
    assert text.count("aesthetic-mini, trained") == 5
    assert text.count("gold_taste, its gold") == 5
    assert "hps-mini" not in text
    assert "hps-mini" in screen_text(summary, golds, FIGURES, "data")


def test_markdown_has_both_units_all_groups_and_both_samplers(
    outcome: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    text = markdown(*outcome, FIGURES)
    assert text.count("| in base SD |") == 2
    assert text.count("| in the reward's own units |") == 2
    assert "simple animals not trained on (4 x 2 images)" in text
    assert "eta 1.0" in text and "eta 0.0" in text
    assert text.index("eta 1.0") < text.index("eta 0.0")
    assert "![proxy and its gold](figures/proxy_vs_gold.png)" in text
    heads = [line.count("|") for line in text.splitlines() if line.startswith("| ")]
    assert set(heads) == {6, 11}


def test_metrics_are_json_and_say_what_the_tables_say(
    outcome: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    found = metrics(*outcome)
    json.dumps(found, allow_nan=False)
    group = found["tdpo"]["aesthetic-mini"]["seen"]
    summary = outcome[0].query("eta == 1 and group == 'seen' and scored == 'hps-mini'")
    assert group["hps-mini"]["low"] == pytest.approx(summary["low"].item(), rel=1e-5)
    assert group["gold_verdict"] == {"from_base": "fell", "from_best": "fell"}


def test_metrics_of_one_prompt_have_no_interval() -> None:
    table = scores([0, 0, 0, 0, 1], prompts={"simple_animals": ["cat"]})
    summary = summarise_methods(reward_curves(table))
    text = json.dumps(metrics(summary, gold_report(table)), allow_nan=False)
    assert '"low": null' in text
    for words in (
        screen_text(summary, gold_report(table), FIGURES, "data"),
        markdown(summary, gold_report(table), FIGURES),
    ):
        assert "nan" not in words
        assert ", no interval" in words


def test_a_reward_that_the_base_does_not_vary_in_has_no_base_sd() -> None:
    table = scores([0, 0, 0, 0, 1]).assign(gold_taste=0.0)
    table.loc[table["epoch"] == 16, "gold_taste"] = 0.25
    summary, golds = summarise_methods(reward_curves(table)), gold_report(table)
    text = screen_text(summary, golds, FIGURES, "data")
    (line,) = [line for line in text.splitlines() if "gold_taste, its gold" in line]
    assert line.count("the base did not vary") == 3
    assert "+0.250 [+0.250, +0.250]" in text
    assert "nan" not in text + markdown(summary, golds, FIGURES)


def test_a_gold_that_was_not_scored_for_a_run_is_not_reported() -> None:
    other = synthetic_scores("tdpo", "gold_taste", 0, gains={}, prompts=PROMPTS)
    table = pd.concat([scores([0, 0, 0, 0, 1]).drop(columns="gold_taste"), other])
    assert gold_report(table).empty


def test_tiny_golds_have_a_power_of_ten_and_not_twenty_zeros() -> None:
    row = {"gold": "gold_match", "group": "seen", "change": 1.5e-22, "low": -1e-23}
    row |= {"high": 3e-22, "verdict": "cannot tell", "peak_epoch": 8}
    golds = pd.DataFrame([row | {"peak_verdict": "is at its peak"}])
    _, base, _ = gold_sentences(golds, ["seen"])
    assert base.endswith("cannot tell, +1.50e-22 [-1.00e-23, +3.00e-22]")
    golds[["change", "low", "high"]] = [0.00123, -0.00001, 0.002]
    assert "+0.00123 [-0.00001, +0.00200]" in gold_sentences(golds, ["seen"])[1]


def test_seeds_without_a_common_checkpoint_leave_the_gold_unknown() -> None:
    first, second = scores(RISE), scores(RISE, seed=1)
    apart = pd.concat([first, second.assign(epoch=second["epoch"] * 7)])
    whole = scores(RISE).assign(method="other", run="other-s0")
    golds = gold_report(pd.concat([apart, whole]))
    rows = golds[golds["method"] == "tdpo"]
    assert len(rows) == 4 and rows[["change", "low", "peak_change"]].isna().all(
        axis=None
    )
    assert set(rows["verdict"]) == set(rows["peak_verdict"]) == {"cannot tell"}
    _, base, best = gold_sentences(rows, ["seen"])
    assert base.endswith("cannot tell, unknown") and best.endswith(
        "cannot tell, unknown"
    )
    assert (golds.loc[golds["method"] == "other", "verdict"] == "rose").any()


def test_one_seed_says_nothing_of_methods_at_equal_reward() -> None:
    row = {"method": "slow", "reference": "fast", "reward": "a", "group": "seen"}
    row |= {"along": "training_reward", "role": "gold", "scored": "g", "gap": ""}
    row |= {"level": 1.0, "low": 0.1, "high": 0.3, "mean": 0.2, "n_seeds": 3}
    for seeds, said in ((3, "higher"), (1, "cannot tell: one seed")):
        found = matched_finding(pd.DataFrame([row | {"n_reference_seeds": seeds}]))
        ((verdict_of_it, runs),) = found.said
        assert verdict_of_it.startswith(said) and runs == ["slow minus fast on a"]


def test_costs_are_told_at_the_highest_level_that_has_an_interval() -> None:
    row = {"method": "slow", "reference": "fast", "reward": "a", "gap": ""}
    row |= {"n_seeds": 3, "n_reference_seeds": 3, "cost": "reward_queries"}
    levels = [
        row | {"level": 1.0, "ratio": 1.5, "low": 1.2, "high": 1.9},
        row | {"level": 2.0, "ratio": 0.7, "low": 0.5, "high": 0.9},
        row | {"level": 3.0, "ratio": 3.0, "low": np.nan, "high": np.nan},
    ]
    kl = row | {"level": 9.0, "ratio": 9.0, "low": 8.0, "high": 10.0, "cost": "kl"}
    lost = row | {"method": "none", "ratio": np.nan, "gap": "never at equal reward"}
    costs = pd.DataFrame([*levels, kl, lost])
    # An empty gap comes back from a file as NaN.
    read = pd.read_csv(io.StringIO(costs.to_csv(index=False)))
    for table in (costs, read):
        said = dict(cost_finding(table).said)
        assert said == {
            "fewer": ["slow over fast on a, 0.700 [0.500, 0.900] at +2.00 base SD"],
            "never at equal reward": ["none on a"],
        }
    alone = pd.DataFrame(levels).assign(n_seeds=1)
    ((verdict_of_it, _),) = cost_finding(alone).said
    assert verdict_of_it.startswith("cannot tell: one seed")


def test_stops_that_nobody_judged_are_named_beside_those_that_were() -> None:
    judged = {"method": "fast", "reward": "a", "rule": "never", "note": ""}
    judged |= {"regret": 0.5, "low": 0.4, "high": 0.6, "n_seeds": 3}
    # Of one seed alone, which may have been an easy one.
    some = judged | {"rule": "onset, stop", "regret": 0.1, "n_seeds": 1}
    lost = {"method": "slow", "reward": "a", "note": "no gold was scored in training"}
    set_on_gold = judged | {"rule": "KL budget", "reward": "b"}
    said = dict(stopping_finding(pd.DataFrame([judged, some, lost, set_on_gold])).said)
    assert said == {
        "KL budget (set on the gold of other seeds)": [
            "fast on b, 0.500 [0.400, 0.600]"
        ],
        "never": ["fast on a, 0.500 [0.400, 0.600]"],
        "no gold was scored in training": ["slow on a"],
    }


def test_findings_name_the_methods_on_screen_and_in_markdown(
    outcome: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    fall = {"high_epoch": 8, "low_epoch": 2, "onset_epoch": 4, "role": "cross"}
    fall |= {"n_seeds": 3}
    rows = [
        {"method": "fast", "reward": "a", "scored": "pick", "trained_rise_low": 0.1},
        {"method": "slow", "reward": "a", "scored": "pick", "high_epoch": np.nan}
        | {"n_seeds": 1},
    ]
    onsets = pd.DataFrame([fall | {"trained_rise_high": 0.3} | row for row in rows])
    pair = {"method": "slow", "reference": "fast", "reward": "a", "scored": "a"}
    # -1.0 [-2.0, 0.0] in units of half a base SD.
    sizes = {"difference": -0.5, "low": -1.0, "high": 0.0, "base_sd": 0.5}
    tested = {"n_seeds": 3, "n_reference_seeds": 3, "p_holm": 0.04, "role": "trained"}
    found = [
        onset_finding(onsets),
        comparison_finding(pd.DataFrame([pair | sizes | tested])),
    ]
    falls = "fast on a: pick since epoch 4 (2 to 8), while the trained reward rises"
    lower = "lower: slow minus fast on a, a -1.00 [-2.00, +0.00] base SD"
    screen = screen_text(*outcome, FIGURES, "data", findings=found, page="curves")
    assert max(map(len, screen.splitlines())) <= 100
    assert "with curves,\nfor a browser" in screen
    text = markdown(*outcome, FIGURES, findings=found, table=["Counted: a."])
    alone = "slow on a (one seed): none was shown to fall"
    for line in (falls, alone, lower):
        assert f"\n- {line}\n" in screen
        assert f"\n  - {line}\n" in text
    assert "## The table\n\n- Counted: a.\n" in text
    flat = comparison_finding(pd.DataFrame([pair | sizes | tested | {"base_sd": 0.0}]))
    assert flat.said == [("lower", ["slow minus fast on a, a the base did not vary"])]
