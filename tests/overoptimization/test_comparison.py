"""Comparisons of methods, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tdpo_pipeline.overoptimization import Bootstrap, ScoreTableError
from tdpo_pipeline.overoptimization.comparison import (
    Power,
    Spread,
    compare_methods,
    compare_report,
    detection_power,
    holm,
    interquartile_mean,
    p_value,
    probability_of_improvement,
    seeds_needed,
    t_ends,
)
from tdpo_pipeline.overoptimization.verdicts import comparison_verdict
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=300)
PROMPTS = {"simple_animals": ["cat", "dog", "fox", "bee", "cow", "goat"]}
GOLD = "gold_taste"


def scores(method: str, seed: int, gold: float, **how: object) -> pd.DataFrame:
    gains = {GOLD: [0, gold]}
    settings = {"epochs": (0, 8), "prompts": PROMPTS, "trained_on": PROMPTS["simple_animals"]}  # fmt: skip
    return synthetic_scores(
        method, "aesthetic-mini", seed, gains=gains, **(settings | how)
    )


def test_a_report_asks_few_and_says_what_it_cannot_compare() -> None:
    table = pd.concat(
        [scores("ddpo", s, 0.0) for s in (0, 1)]
        + [scores("tdpo", s, 2.0) for s in (0, 1)]
        + [scores("rwr", 0, 0.0).assign(reward="pick-mini")],
        ignore_index=True,
    )
    found = compare_report(table, held_out=["hps-mini"], bootstrap=FEW)
    pair = found[found["reward"] == "aesthetic-mini"]
    assert pair["scored"].tolist() == ["aesthetic-mini", GOLD, "hps-mini"]
    assert pair["role"].tolist() == ["trained", "gold", "cross"]
    assert set(pair["reference"]) == {"ddpo"}  # the first by name
    one = pair.set_index("scored")
    assert one.loc[GOLD, "difference"] == pytest.approx(2, abs=0.5)
    # Of three rows the smallest p-value counts three times, and no other reward's do.
    least = pair["p_value"].idxmin()
    assert pair.loc[least, "p_holm"] == pytest.approx(3 * pair.loc[least, "p_value"])
    assert comparison_verdict(one.loc[GOLD]) == "higher"
    other = compare_report(table, references=["rwr", "tdpo"], bootstrap=FEW)
    assert set(other["reference"]) == {"rwr", "tdpo"}
    row = found[found["reward"] == "pick-mini"].iloc[0]
    assert row["note"] == "no other method was trained on pick-mini"
    assert comparison_verdict(row) == row["note"]


def test_one_seed_is_no_verdict() -> None:
    table = pd.concat([scores("ddpo", 0, 0.0), scores("tdpo", 0, 9.0)])
    row = compare_report(table, bootstrap=FEW).query("role == 'gold'").iloc[0]
    assert row["low"] > 0 and row["p_holm"] < 0.05  # over prompts alone
    assert comparison_verdict(row).startswith("cannot tell: one seed")
    assert np.isnan(row["seeds_needed"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 100], 1.5),  # the outer quarters go whole
        ([3, 1, 2], 2.0),
        # Of 6 values 1.5 go at each end: half of 2 and 5, and 3 and 4 whole.
        ([1, 2, 3, 4, 5, 60], (0.5 * 2 + 3 + 4 + 0.5 * 5) / 3),
        ([7], 7),
    ],
)
def test_interquartile_mean(values, expected) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)


def test_interquartile_mean_is_scipys_where_quarters_are_whole() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_probability_of_improvement() -> None:
    one = np.array([[1.0, 5.0], [3.0, 5.0]])
    other = np.array([[2.0, 5.0]])
    # First prompt: 1 of 2 pairs won. Second: two ties.
    assert probability_of_improvement(one, other) == pytest.approx(0.5)
    assert probability_of_improvement(one + 9, other) == 1
    assert probability_of_improvement(one[:, :1], other[:, :1]) == 0.5


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and then
    # none below one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])


def test_holm_does_not_count_tests_that_were_not_made() -> None:
    found = holm([np.nan, 0.02, 0.03])
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.04])
    assert np.isnan(holm([np.nan])).all()


def test_p_value_of_seeds_alone_is_welchs() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(1, 1, (4, 1)), rng.normal(0, 3, (6, 1))
    expected = stats.ttest_ind(one[:, 0], other[:, 0], equal_var=False).pvalue
    found = p_value(float(one.mean() - other.mean()), Spread.of(one, other))
    assert found == pytest.approx(expected)


def test_p_value_of_prompts_alone_is_the_paired_one() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(1, 1, (1, 8)), rng.normal(0, 1, (1, 8))
    expected = stats.ttest_rel(one[0], other[0]).pvalue
    found = p_value(float(one.mean() - other.mean()), Spread.of(one, other))
    assert found == pytest.approx(expected)


def test_one_seed_and_one_prompt_have_no_p_value() -> None:
    assert np.isnan(p_value(1.0, Spread.of(np.ones((1, 1)), np.zeros((1, 1)))))


def test_power_is_the_rate_at_which_the_test_finds_the_effect() -> None:
    """Two groups of 5 seeds with standard deviation 1 and an effect of 2."""
    spread = Spread((1.0, 1.0), np.nan, (5, 5), 1)
    rng = np.random.default_rng(0)
    found = [
        stats.ttest_ind(rng.normal(2, 1, 5), rng.normal(0, 1, 5)).pvalue < 0.05
        for _ in range(2000)
    ]
    assert detection_power(2.0, spread, 5) == pytest.approx(np.mean(found), abs=0.03)
    assert detection_power(0.0, spread, 5) == pytest.approx(0.05)


def test_seeds_needed_by_the_books() -> None:
    # An effect of one standard deviation takes 17 a group at 80 % (Cohen 1988, t test).
    spread = Spread((1.0, 1.0), np.nan, (3, 3), 1)
    assert seeds_needed(1.0, spread, power=Power()) == (17.0, "")
    assert seeds_needed(1.0, spread, power=Power(power=0.9))[0] == 23


def test_seeds_do_not_help_against_too_few_prompts() -> None:
    spread = Spread((1.0, 1.0), 4.0, (3, 3), 4)
    needed, why = seeds_needed(0.5, spread, power=Power())
    assert np.isnan(needed)
    assert "take more prompts" in why


def test_one_seed_does_not_say_how_many_are_needed() -> None:
    needed, why = seeds_needed(
        0.5, Spread((np.nan, 1.0), 1.0, (1, 3), 4), power=Power()
    )
    assert np.isnan(needed)
    assert "one seed" in why


def test_comparison_by_hand() -> None:
    table = pd.concat(
        [scores("a", s, 1.0) for s in range(3)]
        + [scores("b", s, 0.2) for s in range(2)]
    )
    found = compare_methods(table, reference="b", bootstrap=FEW)
    assert set(found["method"]) == {"a"}
    assert len(found) == 8
    row = found.set_index("scored").loc[GOLD]
    changes = table.groupby(["method", "epoch"])[GOLD].mean().unstack()
    expected = changes.loc["a", 8] - changes.loc["a", 0] - changes.loc["b", 8] + changes.loc["b", 0]  # fmt: skip
    assert row["difference"] == pytest.approx(expected)
    assert row["low"] < row["difference"] < row["high"]
    assert (row["n_seeds"], row["n_reference_seeds"], row["n_prompts"]) == (3, 2, 6)
    assert row["role"] == "gold"
    assert 0.9 < row["p_improvement"] <= row["p_improvement_high"] <= 1
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p_value"]).tolist())
    assert row["p_holm"] <= 8 * row["p_value"]


def test_the_interval_of_a_difference_is_the_t_tests() -> None:
    spread = Spread((0.3, 0.2), 0.5, (3, 4), 8)
    error, freedom = spread.error(spread.n_seeds)
    limit = stats.t.ppf(0.975, freedom) * error
    assert t_ends(1.0, spread, 0.95) == pytest.approx((1 - limit, 1 + limit))
    assert p_value(limit, spread) == pytest.approx(0.05)


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_method_that_always_wins_has_an_exact_interval(seeds: int) -> None:
    wins = [scores("a", s, 9.0) for s in range(seeds)]
    table = pd.concat([*wins, scores("b", 0, 0.0)])
    found = compare_methods(table, reference="b", rewards=[GOLD], bootstrap=FEW)
    row = found.iloc[0]
    assert row["p_improvement"] == row["p_improvement_high"] == 1
    # Clopper and Pearson's of 6 of 6 prompts.
    assert row["p_improvement_low"] == pytest.approx(0.025 ** (1 / 6))


def test_where_all_agree_no_spread_is_seen_and_nothing_is_certain() -> None:
    """Answers of yes and no: few seeds and prompts don't speak of others."""
    table = pd.concat([scores(m, s, 0.0) for m in ("ddpo", "tdpo") for s in (0, 1, 2)])
    yes = (table["method"] == "tdpo") & (table["epoch"] > 0)
    # Thirds, which round each difference otherwise.
    level = pd.factorize(table["prompt"])[0] / 3
    row = compare_methods(
        table.assign(**{GOLD: yes + level}), reference="ddpo", rewards=[GOLD]
    ).iloc[0]
    assert row["difference"] == pytest.approx(1)
    assert row[["low", "high", "iqm_low", "p_value", "seeds_needed"]].isna().all()
    assert row["note"] == "all seeds and prompts agree: no spread is seen"
    assert comparison_verdict(row) == "cannot tell"


def test_prompts_that_nobody_trained_on_alone_leave_no_base_sd() -> None:
    table = pd.concat([scores(m, s, 1.0) for m in ("ddpo", "tdpo") for s in (0, 1)])
    row = compare_methods(
        table.assign(seen=False),
        reference="ddpo",
        group="untrained",
        rewards=[GOLD],
        bootstrap=FEW,
    ).iloc[0]
    assert np.isfinite(row["p_value"])
    assert row["note"] == "not evaluated on the prompts trained on: no base SD"


def test_nothing_to_ask_about_is_told() -> None:
    table = pd.concat([scores(m, s, 1.0) for m in "ab" for s in range(2)])
    other = table["method"] == "b"
    table["aesthetic-mini"] = table["aesthetic-mini"].mask(other)
    table[GOLD] = table[GOLD].mask(other)
    (row,) = compare_report(table, held_out=[], bootstrap=FEW).to_dict("records")
    assert "no reward to ask about" in row["note"]


def test_only_rewards_that_are_asked_about_are_paid_for() -> None:
    table = pd.concat([scores(m, s, 1.0) for m in "ab" for s in range(2)])
    found = compare_methods(table, reference="a", rewards=[GOLD], bootstrap=FEW)
    assert found["p_holm"].tolist() == found["p_value"].tolist()


def test_one_seed_a_side_is_told() -> None:
    table = pd.concat([scores("a", 0, 1.0), scores("b", 0, 0.0)])
    found = compare_methods(table, reference="b", bootstrap=FEW)
    assert found["seeds_needed"].isna().all()
    assert found["note"].str.contains("one seed").all()
    assert found["low"].notna().all()  # over prompts


def test_methods_are_compared_at_equal_epochs() -> None:
    table = pd.concat([scores("a", 0, 1.0), scores("b", 0, 0.0, epochs=(0, 4))])
    found = compare_methods(table, reference="b", bootstrap=FEW)
    # The base model is all that both have, and it does not differ from itself.
    assert set(found["epoch"]) == {0}
    assert found[["difference", "low", "p_value", "p_holm"]].isna().all(axis=None)
    assert found["note"].str.contains("no checkpoint besides the base model").all()


def test_methods_on_other_prompts_or_an_unknown_one_are_errors() -> None:
    table = scores("a", 0, 1.0)
    with pytest.raises(ScoreTableError, match=r"'b', only of \['a'\]"):
        compare_methods(table, reference="b")
    other = scores("b", 0, 1.0, prompts={"simple_animals": ["cat"]})
    with pytest.raises(ScoreTableError, match="on other prompts"):
        compare_methods(pd.concat([table, other]), reference="b")


def test_false_discoveries_are_as_rare_as_stated() -> None:
    """Two methods without a difference; 3 seeds each and 6 prompts, both random."""
    rng = np.random.default_rng(0)
    n, wrong = 2000, 0
    for _ in range(n):
        cells = rng.normal(0, 1, (6, 1)) + rng.normal(0, 0.5, (6, 6))
        one, other = cells[:3] + rng.normal(0, 1, 6), cells[3:]
        spread = Spread.of(one, other)
        wrong += p_value(float(one.mean() - other.mean()), spread) < 0.05
    # Both deviations hold the interaction, so the test is rather too careful.
    assert wrong / n < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
    assert wrong / n > 0.01


@pytest.mark.parametrize("uneven", ["tdpo", "ddpo"])
def test_seeds_that_differ_widen_the_interval(uneven: str) -> None:
    table = pd.concat(
        [
            scores(m, s, g, seed_sd=0.01)
            for m, g in (("ddpo", 0.0), ("tdpo", 1.0))
            for s in (0, 1)
        ],  # fmt: skip
        ignore_index=True,
    )
    even = compare_methods(table, reference="ddpo", rewards=[GOLD]).iloc[0]
    assert even["high"] - even["low"] < 0.2
    # All prompts of one seed rise by 2 more: the method's two seeds are 0 and 2 apart
    # from their common mean, and nothing else tells how far a third would be.
    one = (table["method"] == uneven) & (table["seed"] == 1) & (table["epoch"] > 0)
    table.loc[one, GOLD] += 2
    apart = compare_methods(table, reference="ddpo", rewards=[GOLD]).iloc[0]
    assert apart["high"] - apart["low"] > 2


def test_intervals_of_the_effects_cover() -> None:
    """Known truth: difference and IQM difference 0.4, one method wins 0.6112 of pairs."""
    rng = np.random.default_rng(0)
    n, hits = 80, np.zeros(3)
    names = {f"{p}{i}": i for i in range(6) for p in "p"}
    win = stats.norm.cdf(0.4 / np.sqrt(2))
    for trial in range(n):
        tables = []
        for method, gain in (("a", 0.4), ("b", 0.0)):
            for seed in range(4):
                rows = pd.DataFrame({"prompt": [*names, *names], "epoch": [0] * 6 + [8] * 6})  # fmt: skip
                level = np.concatenate([np.zeros(6), gain + rng.normal(0, 1, 6)])
                rows = rows.assign(gold_taste=level, run=f"{method}-x-s{seed}")
                rows = rows.assign(method=method, reward="x", seed=seed, kl_to_base=0.0)
                rows = rows.assign(reward_queries=0, eta=1.0, prompt_set="q", seen=True, image=0)  # fmt: skip
                tables.append(rows)
        found = compare_methods(
            pd.concat(tables), reference="b", bootstrap=Bootstrap(draws=200, rng=trial)
        ).iloc[0]
        for i, (low, high, truth) in enumerate(
            [
                ("low", "high", 0.4),
                ("iqm_low", "iqm_high", 0.4),
                ("p_improvement_low", "p_improvement_high", win),
            ]
        ):
            hits[i] += found[low] <= truth <= found[high]
    assert (hits / n > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)).all()
