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
    assert last["gap"] == ""


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(kl_to_base=np.nan),
            "KL to the base model were not recorded",
        ),
        (lambda t: t[t["prompt"] != "ant"], "other prompts"),
        (lambda t: t.assign(**{PROXY: 1.0}), "never at equal"),
    ],
)
def test_what_cannot_be_compared_is_said(change, message: str) -> None:
    found = report(scores("ddpo"), change(scores("tdpo")))
    bad = found[found["gap"].str.contains(message)]
    assert len(bad) >= 1
    assert bad[["level", "ratio", "low", "high"]].isna().all(axis=None)


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
    assert report(scores("ddpo")).empty
