"""Methods minus one of them, on tables whose differences are known."""

import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import ScoreTableError
from tests.conftest import ROOT
from tests.synthetic_tables import synthetic_scores

REWARD, GOLD = "aesthetic-mini", "gold_taste"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import method_differences

    return method_differences


def test_differences_at_the_end_and_at_equal_reward(benchmark):
    # The reference gets to a proxy of 4 and a gold of 4; the other to 2, and 1 of the gold.
    gains = {"tdpo_r": (4.0, 4.0), "tdpo": (2.0, 1.0)}
    scores = pd.concat(
        synthetic_scores(
            *(method, REWARD, seed),
            gains={REWARD: (0, proxy / 2, proxy), GOLD: (0, gold / 2, gold)},
            epochs=(0, 4, 8),
            seed_sd=0.02,
        )
        for method, (proxy, gold) in gains.items()
        for seed in range(3)
    )
    found = benchmark.differences(scores, "tdpo_r")
    last = pd.DataFrame(found["last checkpoint"]).set_index(["group", "scored"])
    assert set(last["method"]) == {"tdpo"}
    assert last.loc[("seen", GOLD), "difference"] == pytest.approx(-3, abs=0.1)
    assert last.loc[("unseen", REWARD), "difference"] == pytest.approx(-2, abs=0.1)
    assert last.loc[("seen", GOLD), "p_holm"] < 0.001
    matched = pd.DataFrame(found["matched"]).set_index(["along", "group", "scored"])
    # At an equal rise of the proxy the other has half of the gold.
    at = matched.loc[("training_reward", "seen", GOLD)]
    rise = at["level"] * matched.loc[("training_reward", "seen", REWARD), "base_sd"]
    assert at["mean"] == pytest.approx(-rise / 2, abs=0.2)
    assert at["low"] < at["mean"] < at["high"] < 0


def test_a_method_without_a_run_is_named(benchmark):
    with pytest.raises(ScoreTableError, match=r"No run of tdpo on nothing.*planned"):
        benchmark.left_by("scores", "tdpo", "nothing")
