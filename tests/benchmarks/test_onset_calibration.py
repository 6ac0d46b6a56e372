"""What the benchmark of the onset test's rates makes of histories."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT

EPOCHS = 30
REWARD, GOLD, HELD = "aesthetic-mini", "gold_taste", "pick-mini"


@pytest.fixture
def onset_calibration(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import onset_calibration

    return onset_calibration


def history(*, gold_falls: bool, held_falls: bool) -> pd.DataFrame:
    """What falls does so from epoch 11 on, by two standard errors an epoch."""
    epoch = np.arange(1, EPOCHS + 1)
    up, tent = epoch / 10, 1 - np.abs(epoch - 11) / 10
    means = {REWARD: up, GOLD: tent if gold_falls else up}
    means[HELD] = tent if held_falls else up
    return pd.DataFrame(
        {"epoch": epoch, "reward_queries": 128 * epoch}
        | {f"{name}_mean": mean for name, mean in means.items()}
        | {f"{name}_std": 0.5 for name in means}
    )


def test_alarms_are_counted_by_alpha_and_reward(onset_calibration, tmp_path):
    for seed, (gold, held) in enumerate([(True, True), (True, False), (False, True)]):
        path = tmp_path / "tdpo" / REWARD / f"s{seed}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        history(gold_falls=gold, held_falls=held).to_csv(path, index=False)
    table = onset_calibration.histories(tmp_path)
    assert table["run"].unique().tolist() == [f"tdpo-{REWARD}-s{s}" for s in range(3)]
    params = {
        "training": {"epochs": EPOCHS, "early_stop": {"min_epochs": 5}},
        "reporting": {"held_out": [HELD]},
        **{"methods": {"tdpo": {}}, "rewards": {}},
    }
    rows = onset_calibration.calibration(table, params)
    found = pd.DataFrame(rows).set_index(["alpha", "reward", "when"])
    assert set(found.index.unique("alpha")) == set(onset_calibration.ALPHAS)
    for reward in (REWARD, "all"):
        row = found.loc[(0.05, reward, "by the end")]
        # A fall with an alarm, one without, and an alarm without a fall.
        cells = ["alarm_fell", "silent_fell", "alarm_not", "silent_not"]
        assert row[cells].tolist() == [1, 1, 1, 0]
        assert row["found"] == 0.5 and row["false"] == 1.0
