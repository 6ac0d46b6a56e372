"""Joint outcomes, fronts and hypervolumes, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tdpo_pipeline.overoptimization import Bootstrap, ScoreTableError
from tdpo_pipeline.overoptimization.pareto import (
    exact_interval,
    hypervolume,
    hypervolume_report,
    hypervolumes,
    joint_outcomes,
    joint_report,
    on_front,
    pareto_points,
)
from tdpo_pipeline.overoptimization.report import hypervolume_finding
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS, known_rewards
from tdpo_pipeline.overoptimization.verdicts import joint_verdict
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=200)
TWO = ["pick-mini", "hps-mini"]
PROMPTS = {"simple_animals": ["cat", "dog", "fox", "bee"]}


def scores(method: str = "tdpo", seed: int = 0, **gains: object) -> pd.DataFrame:
    return synthetic_scores(
        method,
        "aesthetic-mini",
        seed,
        gains={name.replace("_", "-"): gain for name, gain in gains.items()},
        epochs=(0, 4, 8),
        prompts=PROMPTS,
        trained_on=PROMPTS["simple_animals"],
        seed_sd=0.0,
    )


def test_joint_outcomes_by_hand() -> None:
    table = scores(pick_mini=[0, 1, 1], hps_mini=[0, 1, -1])
    later = table["epoch"] == 8
    table.loc[later & (table["prompt"] == "cat"), "pick-mini"] -= 3  # both fell
    table.loc[later & (table["prompt"] == "dog"), "hps-mini"] += 3  # both rose
    found = joint_outcomes(table, rewards=TWO, bootstrap=FEW)
    rates = found.rates.set_index("epoch")
    assert rates.loc[4, ["dominated", "collapsed"]].tolist() == [1.0, 0.0]
    assert rates.loc[8, ["dominated", "collapsed"]].tolist() == [0.25, 0.25]
    assert rates["net"].tolist() == [1.0, 0.0]
    assert rates["rewards"].iloc[0] == "pick-mini, hps-mini"
    outcome = found.prompts.query("epoch == 8").set_index("prompt")["outcome"]
    assert outcome.to_dict() == {
        "bee": "mixed",
        "cat": "collapsed",
        "dog": "dominated",
        "fox": "mixed",
    }
    changes = found.prompts.query("epoch == 8 and prompt == 'cat'")[TWO]
    assert changes.to_numpy().ravel() == pytest.approx([-2.0, -1.0])


def test_all_prompts_alike_are_not_certainty() -> None:
    rates = joint_outcomes(
        scores(pick_mini=[0, 1, 1], hps_mini=[0, 1, 1]), rewards=TWO, bootstrap=FEW
    ).rates.iloc[0]
    # 4 of 4: the lower end p has p^4 = 0.025.
    assert rates["dominated_low"] == pytest.approx(0.025**0.25)
    assert rates["dominated_high"] == 1
    assert rates["collapsed_low"] == 0
    assert rates["collapsed_high"] == pytest.approx(1 - 0.025**0.25)
    # p - (1 - p), with the lower end p.
    assert rates["net_low"] == pytest.approx(2 * 0.025**0.25 - 1)
    assert rates["net_high"] == 1


def test_no_prompt_either_way_is_no_certainty() -> None:
    rates = joint_outcomes(
        scores(pick_mini=[0, 1, 1], hps_mini=[0, -1, -1]), rewards=TWO, bootstrap=FEW
    ).rates.iloc[0]
    assert rates[["dominated", "collapsed", "net"]].tolist() == [0, 0, 0]
    # As much as 4 of 4 could have hidden, either way.
    reach = 1 - 0.025**0.25
    assert rates[["net_low", "net_high"]].tolist() == pytest.approx([-reach, reach])


def test_rewards_that_are_alike_are_not_taken_for_an_effect() -> None:
    """Nothing changed but noise that three rewards share, as rewards with one encoder do."""
    rng = np.random.default_rng(0)
    three = ["pick-mini", "hps-mini", "imagereward-mini"]
    prompts = {"simple_animals": [f"animal {i}" for i in range(40)]}
    base = synthetic_scores(
        *("tdpo", "aesthetic-mini", 0),
        gains={},
        epochs=(0, 4),
        prompts=prompts,
        trained_on=prompts["simple_animals"],
        images=1,
        seed_sd=0.0,
    )
    trials, told = 60, 0
    for trial in range(trials):
        shared, own = rng.normal(0, 1, (len(base), 1)), rng.normal(0, 1, (len(base), 3))
        noise = np.sqrt(0.6) * shared + np.sqrt(0.4) * own
        later = (base["epoch"] > 0).to_numpy()[:, None]
        table = base.assign(**dict(zip(three, (noise * later).T, strict=True)))
        boot = Bootstrap(draws=200, rng=trial)
        (row,) = joint_outcomes(table, rewards=three, bootstrap=boot).rates.to_dict(
            "records"
        )
        # Independent rewards would all rise on 1 prompt of 8; these do on 1 of 4.
        told += not joint_verdict(row).startswith("cannot tell")
    assert told / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_verdicts_on_joint_outcomes() -> None:
    gains = {"pick_mini": [0, 1, 1], "hps_mini": [0, 1, 1]}
    falls = {name: [0, -1, -1] for name in gains}
    both = [
        joint_outcomes(scores(**g), rewards=TWO, bootstrap=FEW).rates.iloc[-1]
        for g in (gains, falls)
    ]
    # 4 prompts of 4: the exact interval of the part, [0.40, 1], leaves out a half no more
    # than that of a coin that fell on one side four times does.
    assert [joint_verdict(row) for row in both] == [
        "cannot tell which was on more prompts"
    ] * 2
    sure = [row | {"net_low": 0.1, "net_high": 0.5} for row in map(dict, both)]
    assert joint_verdict(sure[0]) == "all rose together on more prompts than all fell"
    fell = sure[0] | {"net_low": -0.5, "net_high": -0.1}
    assert joint_verdict(fell) == "all fell together on more prompts than all rose"


def test_parts_of_an_ensemble_do_not_count() -> None:
    # Both other proxies rise; the third, a part, falls: held-out rewards all rose.
    table = scores(
        pick_mini=[0, 1, 1], imagereward_mini=[0, 1, 1], hps_mini=[0, -1, -1]
    )
    three = ["pick-mini", "imagereward-mini", "hps-mini"]
    table = table[[*INDEX_COLUMNS, "aesthetic-mini", *three]]
    assert joint_report(table, bootstrap=FEW).rates["dominated"].tolist() == [0, 0]
    with known_rewards(parts={"aesthetic-mini": ["hps-mini"]}):
        rates = joint_report(table, bootstrap=FEW).rates
    assert rates["rewards"].tolist() == ["pick-mini, imagereward-mini"] * 2
    assert rates["dominated"].tolist() == [1, 1]
    with known_rewards(parts={"aesthetic-mini": three[1:]}):
        (row,) = joint_report(table, bootstrap=FEW).rates.to_dict("records")
    assert row["note"].endswith("there are scores of pick-mini alone")


def test_exact_interval_is_scipys() -> None:
    expected = stats.binomtest(3, 10).proportion_ci(0.95, method="exact")
    assert exact_interval(0.3, 10, 0.95) == pytest.approx(tuple(expected))


def test_no_checkpoint_gives_empty_tables() -> None:
    table = scores()
    found = joint_outcomes(table[table["epoch"] == 0], rewards=TWO)
    assert found.rates.empty and found.prompts.empty
    assert "dominated_low" in found.rates.columns


def test_a_reward_that_was_not_scored_is_an_error() -> None:
    with pytest.raises(ScoreTableError, match=r"not scored by \['hpsv2'\]"):
        joint_outcomes(scores(), rewards=["hpsv2"])


def test_front_by_hand() -> None:
    points = [[0, 3], [1, 2], [1, 1], [2, 0], [1, 2], [0, 2.9]]
    assert on_front(points).tolist() == [True, True, False, True, True, False]


def test_hypervolume_by_hand() -> None:
    # Staircase of (1, 3), (2, 2), (3, 1): columns of width 1 and heights 3, 2, 1.
    assert hypervolume([[1, 3], [2, 2], [3, 1]]) == 6
    assert hypervolume([[1, 3], [2, 2], [3, 1], [1, 1]]) == 6  # dominated: nothing
    assert hypervolume([[2, 3]], [1, 1]) == 2
    assert hypervolume([[2, -1], [-1, 5]]) == 0
    assert hypervolume(np.empty((0, 2))) == 0
    # Two boxes 2 x 2 x 1 and 1 x 1 x 3 that share 1 x 1 x 1.
    assert hypervolume([[2, 2, 1], [1, 1, 3]]) == 4 + 3 - 1
    assert hypervolume([[2, 2, 2], [2, 2, 2]]) == 8


def test_hypervolume_is_the_part_of_a_box_that_is_dominated() -> None:
    rng = np.random.default_rng(0)
    for dimensions in (2, 3, 4):
        points = rng.uniform(0, 1, (7, dimensions))
        darts = rng.uniform(0, 1, (40_000, dimensions))
        below = (darts[:, None] <= points[None]).all(axis=2).any(axis=1).mean()
        assert hypervolume(points) == pytest.approx(below, abs=0.012)


def test_points_and_fronts_of_two_methods() -> None:
    table = pd.concat(
        [
            scores("tdpo", pick_mini=[0, 1, 2], hps_mini=[0, 2, 1]),
            scores("ddpo", pick_mini=[0, 0.5, 3], hps_mini=[0, 0.5, 0.2]),
        ]
    )
    found = pareto_points(table, rewards=TWO).set_index(["method", "epoch"])
    ruler = table[(table["epoch"] == 0) & (table["method"] == "tdpo")][
        "pick-mini"
    ].std()
    assert found.loc[("tdpo", 8), "pick-mini"] == pytest.approx(2 / ruler)
    assert found["on_own_front"].to_dict() == {
        ("ddpo", 4): True,
        ("ddpo", 8): True,
        ("tdpo", 4): True,
        ("tdpo", 8): True,
    }
    assert not found.loc[("ddpo", 4), "on_front"]
    assert found["on_front"].sum() == 3


def test_hypervolumes_of_methods() -> None:
    table = pd.concat(
        [scores(seed=s, pick_mini=[0, 1, 2], hps_mini=[0, 2, 1]) for s in (0, 1)]
    )
    found = hypervolumes(table, rewards=TWO, bootstrap=FEW).iloc[0]
    ruler = table.query("epoch == 0 and seed == 0")[TWO].std().prod()
    assert found["hypervolume"] == pytest.approx(3 / ruler)
    # All seeds and prompts change alike.
    assert found["low"] == pytest.approx(found["hypervolume"])
    assert found["high"] == pytest.approx(found["hypervolume"])
    assert (found["n_checkpoints"], found["n_seeds"], found["n_prompts"]) == (2, 2, 4)


def test_a_hypervolume_that_is_0_in_every_draw_has_no_interval() -> None:
    table = pd.concat(
        [scores(seed=s, pick_mini=[0, 1, 2], hps_mini=[0, -2, -1]) for s in (0, 1)]
    )
    found = hypervolumes(table, rewards=TWO, bootstrap=FEW).iloc[0]
    assert found["hypervolume"] == 0
    assert found[["low", "high"]].isna().all()


def test_a_report_takes_the_gold_or_else_held_out_rewards() -> None:
    table = pd.concat(
        [scores(seed=s, aesthetic_mini=[0, 1, 2], hps_mini=[0, 2, 1]) for s in (0, 1)]
    )
    table["gold_taste"] = table["hps-mini"]
    found = hypervolume_report(table, bootstrap=FEW).iloc[0]
    assert found["rewards"] == "aesthetic-mini, gold_taste"
    base = table.query("epoch == 0 and seed == 0")
    # Points (1, 2) and (2, 1) over (0, 0): 1 x 2 + 1 x 1.
    ruler = base[["aesthetic-mini", "gold_taste"]].std().prod()
    assert found["hypervolume"] == pytest.approx(3 / ruler)
    held_out = ["imagereward-mini", "hpsv2", "hps-mini"]
    without = hypervolume_report(
        table.drop(columns="gold_taste"), held_out=held_out, bootstrap=FEW
    ).iloc[0]
    assert without["rewards"] == "aesthetic-mini, imagereward-mini, hps-mini"
    assert without["hypervolume"] == 0  # imagereward-mini never rose


def test_a_report_says_why_there_is_no_hypervolume() -> None:
    alone = scores(aesthetic_mini=[0, 1, 2])[[*INDEX_COLUMNS, "aesthetic-mini"]]
    (row,) = hypervolume_report(alone, bootstrap=FEW).to_dict("records")
    assert row["note"].endswith("there are scores of aesthetic-mini")
    base = scores()[lambda table: table["epoch"] == 0]
    (row,) = hypervolume_report(base, bootstrap=FEW).to_dict("records")
    assert row["note"] == "no checkpoint besides the base model"
    (row,) = hypervolume_report(scores().assign(gold_taste=1.0)).to_dict("records")
    assert "do not vary" in row["note"] and np.isnan(row["hypervolume"])


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        (np.ones((6, 2)), 1.0),  # the best of six equal ones is six times too lucky
        (np.stack([np.linspace(0.5, 1.5, 6), np.linspace(1.5, 0.5, 6)], axis=1), 1.65),
        (np.linspace(0.2, 1.2, 6)[:, None] * [1.0, 1.0], 1.44),
        (np.array([[1.0, 0.1]]), 0.1),  # often none at all is seen
    ],
)
def test_intervals_of_a_hypervolume_hold_the_truth(path, volume: float) -> None:
    assert hypervolume(path) == pytest.approx(volume)
    rng, hits, trials = np.random.default_rng(0), 0, 40
    for _ in range(trials):
        n = len(path)
        noise = rng.normal(0, 0.3, (4, 1, n, 2)) + rng.normal(0, 0.5, (1, 8, n, 2))
        changes = np.concatenate([np.zeros((4, 8, 1, 2)), path + noise], axis=2)
        (row,) = hypervolumes(table_of(changes), rewards=TWO, bootstrap=FEW).to_dict(
            "records"
        )
        hits += row["low"] <= volume <= row["high"]
    assert hits >= 34  # of 38 at 95 %; by chance alone fewer in one of 300


def table_of(changes: np.ndarray) -> pd.DataFrame:
    """Scores that change by so much, shape (seeds, prompts, epochs, 2), and base SD 1."""
    seeds, prompts, epochs, _ = changes.shape
    names = ["seed", "prompt", "epoch", "image"]
    index = pd.MultiIndex.from_product(
        [range(seeds), map(str, range(prompts)), range(epochs), range(2)], names=names
    )
    # Of a prompt's two images, at every checkpoint.
    noise = np.tile([-1.0, 1.0], prompts)
    noise = (noise / noise.std(ddof=1)).reshape(1, prompts, 1, 2, 1)
    scores = (changes[:, :, :, None] + noise).reshape(-1, 2)
    table = pd.DataFrame(scores, index, columns=TWO).reset_index()
    run = "tdpo-aesthetic-mini-s" + table["seed"].astype(str)
    return table.assign(
        run=run,
        method="tdpo",
        reward="aesthetic-mini",
        reward_queries=table["epoch"],
        kl_to_base=table["epoch"],
        eta=1.0,
        prompt_set="simple_animals",
        seen=True,
    )


def test_what_has_no_hypervolume() -> None:
    with pytest.raises(ScoreTableError, match="2 to 4 rewards, not 1"):
        hypervolumes(scores(), rewards=TWO[:1])
    with pytest.raises(ScoreTableError, match="do not vary"):
        hypervolumes(scores().assign(**{"hps-mini": 1.0}), rewards=TWO)


def test_one_seed_and_one_prompt_have_no_interval() -> None:
    table = scores(pick_mini=[0, 1, 2], hps_mini=[0, 2, 1])
    found = hypervolumes(table[table["prompt"] == "cat"], rewards=TWO).iloc[0]
    assert found["hypervolume"] > 0
    assert np.isnan(found["low"])


def test_the_base_model_alone_offers_no_trade_offs() -> None:
    table = scores()
    only_base = table[table["epoch"] == 0]
    found = hypervolumes(only_base, rewards=TWO, bootstrap=FEW).iloc[0]
    assert (found["hypervolume"], found["n_checkpoints"]) == (0, 0)
    assert np.isnan(found["low"])
    assert pareto_points(only_base, rewards=TWO).empty


def test_a_report_joins_what_is_held_out_and_scored() -> None:
    table = scores(pick_mini=[0, 1, 1], hps_mini=[0, 1, -1])
    watched = ["aesthetic-mini", *TWO, "gold_taste", "clip"]
    found = joint_report(table, held_out=watched, bootstrap=FEW)
    plain = joint_outcomes(table, rewards=TWO, bootstrap=FEW)
    pd.testing.assert_frame_equal(found.rates.drop(columns="note"), plain.rates)
    assert (found.rates["note"] == "").all()
    assert set(found.prompts["epoch"]) == {8}
    assert set(found.prompts["outcome"]) == {"mixed"}
    few = joint_report(table, held_out=["pick-mini", "aesthetic-mini"], bootstrap=FEW)
    assert few.rates["note"].tolist() == [
        "joint outcomes take two held-out rewards; there are scores of pick-mini alone"
    ]
    assert few.prompts.empty
    base = joint_report(table[table["epoch"] == 0], held_out=TWO, bootstrap=FEW)
    assert base.rates["note"].tolist() == ["no checkpoint besides the base model"]


def volumes(
    *rows: tuple[str, float, float, float, int], seeds: int = 3
) -> pd.DataFrame:
    columns = ["method", "hypervolume", "low", "high", "n_checkpoints"]
    table = pd.DataFrame(rows, columns=columns).assign(
        n_seeds=seeds, n_images=8 * seeds
    )
    return table.assign(reward="pick-mini", rewards="pick-mini, hps-mini")


def test_a_method_has_the_largest_hypervolume_where_intervals_say_so() -> None:
    few = ("few", 9.0, 8.0, 10.0, 2)
    clear = volumes(few, ("a", 5.0, 4.0, 6.0, 8), ("b", 2.0, 1.0, 3.0, 8))
    (said,) = hypervolume_finding(clear).said
    assert said == ("on pick-mini", ["a, 5.00 [4.00, 6.00] (pick-mini, hps-mini)"])
    near = volumes(few, ("a", 5.0, 2.5, 6.0, 8), ("b", 2.0, 1.0, 3.0, 8))
    ((_, (text,)),) = hypervolume_finding(near).said
    assert text.startswith("cannot tell; the highest mean is that of a, 5.00 [2.50")
    ((_, (text,)),) = hypervolume_finding(clear[:2]).said
    assert text.startswith("nothing to compare with a")
    one = volumes(few, ("a", 5.0, 4.0, 6.0, 8), ("b", 2.0, 1.0, 3.0, 8), seeds=1)
    ((_, (text,)),) = hypervolume_finding(one).said
    assert text.startswith("cannot tell from one seed; the highest mean is that of a")
    # The noise of fewer seeds makes a volume larger, so that it isn't ranked.
    noisy = pd.concat([clear, volumes(("c", 9.0, 8.0, 10.0, 8), seeds=1)])
    ((_, (text,)),) = hypervolume_finding(noisy).said
    assert text.startswith("a, 5.00")
    apart = pd.concat([clear[:1].assign(n_seeds=5), clear[1:]])
    ((_, (text,)),) = hypervolume_finding(apart).said
    assert text == "no method has the most of all three"
    lost = volumes(("d", np.nan, np.nan, np.nan, 20), seeds=9)
    assert hypervolume_finding(pd.concat([clear, lost])).said == [said]
