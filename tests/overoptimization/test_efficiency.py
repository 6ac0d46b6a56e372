"""What equal training reward costs: ratios by hand, gaps, and coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import Bootstrap, cost_report
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=300)
PROXY = "aesthetic-mini"
PROMPTS = ("cat", "dog", "fox", "cow", "bee", "ant")


def scores(
    method: str, seed: int = 0, proxy: tuple[float, ...] = (0, 1, 2), **how: object
) -> pd.DataFrame:
    """Checkpoints at epochs 0, 4 and 8, of 128 queries and a quarter nat each."""
    settings: dict[str, object] = {
        "epochs": (0, 4, 8),
        "prompts": {"simple_animals": PROMPTS},
        "trained_on": PROMPTS,
        "seed_sd": 0.0,
    }
    return synthetic_scores(
        method, PROXY, seed, gains={PROXY: proxy}, **(settings | how)
    )


def report(*tables: pd.DataFrame) -> pd.DataFrame:
    return cost_report(pd.concat(tables), references=["ddpo"], bootstrap=FEW)


def queries(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["cost"] == "reward_queries"].reset_index(drop=True)


def test_ratios_by_hand() -> None:
    # ddpo rises by 1 in 4 epochs, tdpo by 2: it needs half of the queries everywhere.
    found = report(scores("ddpo"), scores("tdpo", proxy=(0, 2, 4)))
    own = queries(found)
    assert own["level"].iloc[-1] == pytest.approx(4 * own["level"].iloc[0])
    assert own["ratio"].tolist() == pytest.approx([0.5] * 4)
    assert own["reference_spent"].tolist() == pytest.approx([256, 512, 768, 1024])
    assert own["spent"].tolist() == pytest.approx([128, 256, 384, 512])
    assert own["low"][:3].tolist() == pytest.approx([0.5] * 3)  # one seed, no spread
    kl = found[found["cost"] == "kl"]
    assert kl["spent"].tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert kl["ratio"].tolist() == pytest.approx([0.5] * 4)


def test_the_first_crossing_counts_and_nothing_beyond_what_both_reached() -> None:
    # tdpo gets to 2 after 4 epochs, and falls; ddpo only ever gets to 1.
    found = queries(
        report(scores("ddpo", proxy=(0, 0.5, 1)), scores("tdpo", proxy=(0, 2, 0)))
    )
    last = found.iloc[-1]
    assert last["reference_spent"] == pytest.approx(1024)
    assert last["spent"] == pytest.approx(256)
    assert last["gap"].startswith("before a first checkpoint")  # tdpo's 256 of 512


def test_the_mean_is_over_seeds_each_at_its_own_crossing() -> None:
    slow, fast = scores("tdpo", 0), scores("tdpo", 1, proxy=(0, 2, 4))
    found = queries(report(scores("ddpo"), slow, fast))
    # 1024 and 512 queries where ddpo takes 1024.
    assert found["ratio"].iloc[-1] == pytest.approx(0.75)
    assert found["n_seeds"].tolist() == [2] * 4


def test_intervals_hold_the_truth() -> None:
    """tdpo needs 0.8 of the queries; its seeds and prompts differ."""
    hits, n = 0, 25
    for trial in range(n):
        own = [
            scores("tdpo", 10 * trial + s, proxy=(0, 1.25, 2.5), seed_sd=0.1)
            for s in range(4)
        ]
        other = [scores("ddpo", 10 * trial + s, seed_sd=0.1) for s in range(4)]
        row = queries(report(*own, *other)).iloc[1]
        hits += row["low"] <= 0.8 <= row["high"]
    assert hits / n > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)


def test_intervals_narrow_with_what_is_known() -> None:
    """And don't hold everything: four seeds that differ by a tenth tell 0.8 from 1.2."""
    own = [scores("tdpo", s, proxy=(0, 1.25, 2.5), seed_sd=0.02) for s in range(4)]
    other = [scores("ddpo", 10 + s, seed_sd=0.02) for s in range(4)]
    row = queries(report(*own, *other)).iloc[2]
    assert 0.6 < row["low"] < row["ratio"] < row["high"] < 1.0


def test_a_level_that_resampled_paths_miss_has_no_interval() -> None:
    own = [scores("tdpo", s, seed_sd=0.1) for s in range(3)]
    other = [scores("ddpo", 10 + s, seed_sd=0.1) for s in range(3)]
    last = queries(report(*own, *other)).iloc[-1]
    assert np.isfinite(last["ratio"])
    assert np.isnan([last["low"], last["high"]]).all()
    assert last["gap"] == "too near the end of the path for an interval"


def test_a_ratio_from_before_the_first_checkpoint_is_marked() -> None:
    found = queries(report(scores("ddpo"), scores("tdpo", proxy=(0, 2, 4))))
    before = found["gap"].str.contains("before a first checkpoint")
    # The first checkpoint is at 512 queries, which tdpo has spent at the last level alone.
    assert before.tolist() == [True, True, True, False]


def test_one_seed_that_was_there_before_its_first_checkpoint_marks_both_costs() -> None:
    fast, slow = (
        scores("tdpo", 0, proxy=(0, 1.75, 3)),
        scores("tdpo", 1, proxy=(0, 0.1, 2.5)),
    )
    found = report(scores("ddpo"), fast, slow)
    for cost in ("reward_queries", "kl"):
        before = found.loc[found["cost"] == cost, "gap"].str.contains(
            "first checkpoint"
        )
        assert before.tolist() == [True, True, True, False]


@pytest.mark.parametrize("kl", [0.0, -0.1])
def test_what_costs_nothing_has_no_ratio(kl: float) -> None:
    """An estimate of the KL may be 0 or a little below."""
    free = [scores("tdpo", s).assign(kl_to_base=kl) for s in range(2)]
    found = report(scores("ddpo"), *free).query("cost == 'kl'")
    assert found[["ratio", "low", "high"]].isna().all(axis=None)
    assert found["gap"].str.contains("no KL to the base model spent").all()


@pytest.mark.parametrize(
    ("change", "costs", "message"),
    [
        (lambda t: t.assign(kl_to_base=np.nan), {"kl"}, "not recorded"),
        (
            lambda t: t.assign(reward_queries=np.where(t["epoch"] > 0, np.nan, 0)),
            {"reward_queries"},
            "not recorded",
        ),
        (lambda t: t[t["prompt"] != "ant"], {"kl", "reward_queries"}, "other prompts"),
        (
            lambda t: t.assign(**{PROXY: 1.0}),
            {"kl", "reward_queries"},
            "never at equal",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(change, costs, message: str) -> None:
    found = report(scores("ddpo"), change(scores("tdpo")))
    bad = found[found["gap"].str.contains(message)]
    assert set(bad["cost"]) == costs
    assert bad[["level", "ratio", "low", "high"]].isna().all(axis=None)
    assert found.loc[~found["cost"].isin(costs), "ratio"].notna().all()


def test_a_method_that_falls_from_the_start_has_no_level() -> None:
    found = report(scores("ddpo"), scores("tdpo", proxy=(0, -1, -2)))
    assert found["ratio"].isna().all()
    assert found["gap"].str.contains("never at equal").all()


def test_a_reward_that_does_not_vary_has_no_levels() -> None:
    flat = [scores(name).assign(**{PROXY: 1.0}) for name in ("ddpo", "tdpo")]
    found = report(*flat)
    assert found["ratio"].isna().all()
    assert found["gap"].str.contains("does not vary").all()


def test_one_seed_and_one_prompt_have_no_interval() -> None:
    one = {"prompts": {"simple_animals": ("cat",)}, "trained_on": ("cat",)}
    found = queries(report(scores("ddpo", **one), scores("tdpo", **one)))
    assert found["ratio"].tolist() == pytest.approx([1.0] * 4)
    assert found[["low", "high"]].isna().all(axis=None)
    assert set(found["gap"]) == {"one seed and one prompt"}


def test_alone_a_method_has_nothing_to_be_compared_with() -> None:
    found = report(scores("ddpo"))
    assert found["cost"].tolist() == ["reward_queries", "kl"]
    assert found["ratio"].isna().all()
    assert set(found["gap"]) == {f"no other method was trained on {PROXY}"}
