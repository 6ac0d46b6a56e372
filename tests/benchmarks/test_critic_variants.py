"""What the benchmark of the critic's variants makes of its runs."""

import pandas as pd
import pytest

from tests.conftest import ROOT


@pytest.fixture
def critic_variants(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import critic_variants

    return critic_variants


def test_seeds_do_not_stand_for_variants(critic_variants):
    # Within each seed the gold falls as the dormant part grows; the second seed has
    # more of both. Minus their seed's means the pairs are (-1, 1/4), (0, 0), (1, -1/4), twice.
    rows = [
        ("a", 0, 1.0, 0.75),
        ("b", 0, 2.0, 0.5),
        ("c", 0, 3.0, 0.25),
        ("a", 1, 11.0, 1.75),
        ("b", 1, 12.0, 1.5),
        ("c", 1, 13.0, 1.25),
    ]
    names = [f"{name} at aesthetic-mini 0.4" for name in critic_variants.OTHERS]
    table = pd.DataFrame(
        [[dormant] + [gold] * len(names) for _, _, dormant, gold in rows],
        columns=["critic_dormant_pct at aesthetic-mini 0.4", *names],
        index=pd.MultiIndex.from_tuples(
            [row[:2] for row in rows], names=["method", "seed"]
        ),
    )
    found = critic_variants.dormancy(table, [0.4])
    assert set(found) == set(names)
    gold = found["gold_taste at aesthetic-mini 0.4"]
    assert (gold["variants"], gold["seeds"]) == (3, 2)
    # Whatever variants are drawn, as long as two of them differ.
    assert (gold["spearman"], gold["low"], gold["high"]) == (-1, -1, -1)


def test_a_level_that_hardly_a_variant_reaches_tells_nothing(critic_variants):
    key = "critic_dormant_pct at aesthetic-mini 0.4"
    names = [f"{name} at aesthetic-mini 0.4" for name in critic_variants.OTHERS]
    index = pd.MultiIndex.from_product(
        [["a", "b", "c"], [0, 1]], names=["method", "seed"]
    )
    table = pd.DataFrame(1.0, index=index, columns=[key, *names])
    table.loc[("c", 1), names] = float("nan")
    found = critic_variants.dormancy(table, [0.4])["gold_taste at aesthetic-mini 0.4"]
    assert found["variants"] == 2
    assert pd.isna([found["spearman"], found["low"], found["high"]]).all()


def test_dormancy_is_read_where_the_reward_is(critic_variants):
    history = pd.DataFrame(
        {"trained_mean": [0.2, 0.4, 0.6], "critic_dormant_pct": [0.0, 10.0, 50.0]}
    )
    found = critic_variants.dormant_at(history, [0.3, 0.5, 0.7])
    key = "critic_dormant_pct at aesthetic-mini "
    assert found[key + "0.3"] == pytest.approx(5.0)
    assert found[key + "0.5"] == pytest.approx(30.0)
    assert pd.isna(found[key + "0.7"])


def test_one_thing_differs_from_the_baseline(critic_variants):
    from common import parameters

    configs = critic_variants.configurations(parameters("base"), [0])
    baseline, *others = (c.algorithm.model_dump() for c in configs)
    assert configs[0].key == "tdpo-aesthetic-mini-s0"
    for config, settings in zip(configs[1:], others, strict=True):
        changed = {name for name in settings if settings[name] != baseline[name]}
        expected = {"neurons"} if "reset" in config.method else set()
        if not config.method.startswith("reset"):
            expected |= {"critic"}
        assert changed == expected, config.method
    every = [
        config.algorithm.neurons.reset_every(config.training.epochs)
        for config in configs
        if config.method.startswith("reset_all")
    ]
    assert every == [1, 2, 3, 5]
