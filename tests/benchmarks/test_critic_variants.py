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
        columns=["critic_dormant_pct", *names],
        index=pd.MultiIndex.from_tuples(
            [row[:2] for row in rows], names=["method", "seed"]
        ),
    )
    found = critic_variants.dormancy(table, [0.4])
    assert set(found) == set(names)
    assert found["gold_taste at aesthetic-mini 0.4"]["n"] == 6
    assert found["gold_taste at aesthetic-mini 0.4"]["spearman"] == -1


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
