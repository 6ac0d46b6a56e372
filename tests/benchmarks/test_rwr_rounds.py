"""What the benchmark of guidance in RWR's training makes of a log of epochs."""

import pandas as pd
import pytest

from tests.conftest import ROOT


@pytest.fixture
def rwr_rounds(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import rwr_rounds

    return rwr_rounds


def test_the_epochs_of_a_round_are_those_that_one_policy_sampled(rwr_rounds):
    epochs = pd.DataFrame({"epoch": range(1, 6), "reward": [1.0, 3, 10, 20, 33]})
    means = rwr_rounds.round_means(epochs, [2, 5])
    assert means["reward"].to_dict() == {0: 2, 1: 21}


def test_seeds_are_paired_and_one_without_its_partner_is_left_out(rwr_rounds):
    params = rwr_rounds.parameters("base")
    log = []
    for method, gains in {"rwr": (0, 0, 0), "rwr_no_cfg": (1, 3)}.items():
        for seed, gain in enumerate(gains):
            config = rwr_rounds.configuration(params, method, "aesthetic-mini", seed)
            epochs = range(1, config.training.epochs + 1)
            rewards = [10 * seed + gain * (epoch > 2) for epoch in epochs]
            run = {"epoch": epochs, "digest": rwr_rounds.digest(config)}
            run |= {"trained_mean": rewards, "gold_taste_mean": rewards}
            log.append(pd.DataFrame(run))
    rows = pd.DataFrame(
        rwr_rounds.differences(pd.concat(log), params, "aesthetic-mini")
    )
    assert rows[["method", "minus"]].drop_duplicates().to_numpy().tolist() == [
        ["rwr_no_cfg", "rwr"]
    ]
    gold = rows[rows["of"] == "gold_taste"].set_index("rounds_trained")
    assert gold["n"].eq(2).all()
    assert gold["mean"].tolist() == [0, 2, 2, 2, 2]
    # Two seeds, 1 and 3: the t interval of one degree of freedom.
    assert gold["low"].loc[1] == pytest.approx(2 - 12.7062, abs=1e-3)
