"""Main effects and interaction of TDPO's two parts, on tables whose effects are known."""

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import Bootstrap, cubes
from tests.conftest import ROOT
from tests.synthetic_tables import synthetic_scores

REWARD, GOLD = "aesthetic-mini", "gold_taste"
FEW = Bootstrap(draws=300)


@pytest.fixture
def two_by_two(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import two_by_two

    return two_by_two


def test_effects_by_hand(two_by_two):
    # With both 4, with temporal rewards 2, with the order 1, with none 0.
    gains = {"tdpo": 4, "tdpo_sample_major": 2, "tdpo_no_critic": 1, "ddpo_100": 0}
    tables = [
        synthetic_scores(
            *(method, REWARD, seed),
            gains={GOLD: (0, gain)},
            epochs=(0, 8),
            seed_sd=0.02,
        )
        for method, gain in gains.items()
        for seed in range(4 if method == "tdpo" else 3)
    ]
    found = {
        str(cube.names["method"]): cube
        for cube in cubes(pd.concat(tables), groups=["seen"])
    }
    rows = pd.DataFrame(two_by_two.on_rewards(found, FEW)).set_index(["of", "part"])
    gold = rows.loc[GOLD]
    # (4 + 2 - 1 - 0) / 2, (4 + 1 - 2 - 0) / 2 and (4 - 1) - (2 - 0).
    for part, effect in zip(gold.index, (2.5, 1.5, 1.0), strict=True):
        assert gold.loc[part, "effect"] == pytest.approx(effect, abs=0.1)
        assert gold.loc[part, "low"] < gold.loc[part, "effect"] < gold.loc[part, "high"]
    assert gold["low"].gt(0).all()
    still = rows.loc["hps-mini"]
    assert still["effect"].abs().max() < 0.15
    assert list(gold.index) == ["temporal rewards", "order of timesteps", "interaction"]


def test_methods_on_other_prompts_are_refused_and_epochs_are_shared(two_by_two):
    def cube(method, epochs, prompts):
        table = synthetic_scores(
            *(method, REWARD, 0),
            gains={GOLD: [float(epoch) for epoch in epochs]},
            epochs=epochs,
            seed_sd=0.0,
            trained_on=prompts,
        )
        return next(cubes(table, groups=["seen"]))

    found = {name: cube(name, (0, 4, 8), ("cat", "dog")) for name in two_by_two.CELLS}
    short = found | {"tdpo": cube("tdpo", (0, 4), ("cat", "dog"))}
    rows = two_by_two.on_rewards(short, FEW)
    assert {row["epoch"] for row in rows} == {4}
    assert all(abs(row["effect"]) < 1e-6 for row in rows)
    other = found | {"ddpo_100": cube("ddpo_100", (0, 4, 8), ("cat", "horse"))}
    with pytest.raises(ValueError, match="other prompts"):
        two_by_two.on_rewards(other, FEW)


def test_the_spread_of_gradients_has_intervals_over_seeds(two_by_two):
    spreads = {
        "tdpo": [5.0, 5.2],
        "tdpo_sample_major": [5.1, 5.1, 5.1],
        "tdpo_no_critic": [6.0, 6.2],
        "ddpo_100": [6.1, 6.1],
    }
    rows = {row["part"]: row for row in two_by_two.on_spread(spreads, FEW)}
    assert rows["temporal rewards"]["effect"] == pytest.approx(-1.0)
    assert rows["order of timesteps"]["effect"] == pytest.approx(0)
    assert rows["interaction"]["effect"] == pytest.approx(0)
    assert rows["temporal rewards"]["low"] < -1 < rows["temporal rewards"]["high"]
    assert np.isfinite([row["low"] for row in rows.values()]).all()


def test_a_method_that_was_not_run_is_named(two_by_two, monkeypatch, tmp_path):
    monkeypatch.setattr("common.STUDY", tmp_path)
    with pytest.raises(ValueError, match=r"No run of tdpo on aesthetic-mini .*planned"):
        two_by_two.main()
