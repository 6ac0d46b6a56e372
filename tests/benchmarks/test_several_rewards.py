"""What the benchmark of one reward against several makes of score tables."""

import json

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.synthetic_tables import synthetic_scores


@pytest.fixture
def several_rewards(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import several_rewards

    return several_rewards


def scores(reward, golds):
    """Three seeds whose pick-mini rises evenly, and whose gold does as it is told."""
    gains = {"pick-mini": (0.0, 1.0, 2.0), "gold_match": golds}
    runs = [
        synthetic_scores(
            "tdpo", reward, seed, gains=gains, epochs=(0, 10, 20), seed_sd=0.001
        )
        for seed in range(3)
    ]
    # A sum of rewards is a column that its runs alone have.
    return pd.concat(runs).assign(**{reward: 0.0} if "_" in reward else {})


def test_trainings_are_compared_by_what_none_of_them_is_named_after(several_rewards):
    one, two = several_rewards.TRAININGS[:2]
    assert (one.name, two.name) == ("tdpo on pick-mini", "tdpo on pick_hps-mini")
    runs = {
        one: scores("pick-mini", (0.0, 0.5, 0.25)),
        two: scores("pick_hps-mini", (0.0, 0.5, 0.75)),
    }
    found = several_rewards.comparison(two, one, runs)
    end = {
        row["scored"]: row for row in found["last checkpoint"] if row["group"] == "seen"
    }
    assert set(end) == set(several_rewards.JUDGES)
    assert all(row["method"] == two.name for row in end.values())
    gold = end["gold_match"]
    assert gold["difference"] == pytest.approx(0.5, abs=0.01)
    assert gold["low"] > 0 and gold["p_holm"] < 0.05
    assert end["hps-mini"]["difference"] == pytest.approx(0, abs=0.01)
    # The one trained on hps-mini, both on pick-mini; the gold is no proxy.
    held_out = {name for name, row in end.items() if row["held_out"]}
    assert held_out == {"imagereward-mini", "aesthetic-mini"}
    # KL and pick-mini go alike, so that at equal KL the same difference is found.
    by_axis = {
        row["along"]: row["mean"]
        for row in found["matched"]
        if row["scored"] == "gold_match"
    }
    assert by_axis["kl"] == pytest.approx(0.5, abs=0.01)
    assert set(by_axis) == set(several_rewards.ALONG)
    since = {
        row["scored"]: row["difference"]
        for row in several_rewards.changes(two, runs[two])
        if row["group"] == "seen"
    }
    assert since["gold_match"] == pytest.approx(0.75, abs=0.01)
    assert since["pick-mini"] == pytest.approx(2.0, abs=0.01)
    json.dumps(found)  # numpy's numbers would not be written


def test_a_constraint_is_compared_with_its_method_without(several_rewards):
    constrained = [t for t in several_rewards.TRAININGS if "constrained" in t.method]
    assert len(constrained) == 2
    for training in constrained:
        assert several_rewards.reference_of(training).name == "tdpo on pick-mini"


def test_trainings_that_were_not_run_are_named(several_rewards, monkeypatch, tmp_path):
    monkeypatch.setattr(several_rewards, "SCORES", tmp_path)
    with pytest.raises(ValueError, match=r"no run of tdpo on pick-mini, .*planned"):
        several_rewards.main()
