"""Curves against numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import (
    RUN,
    ScoreTableError,
    in_base_sd,
    neuron_curves,
    paired_difference,
    reward_curves,
    training_curves,
    with_group,
)
from tests.synthetic_tables import synthetic_history, synthetic_scores

GAINS = {"aesthetic-mini": [0, 0.5, 1.0], "gold_taste": [0, 0.2, -0.2]}
PROMPTS = {
    "simple_animals": ["cat", "dog", "fox", "bee"],
    "unseen_animals": ["snail", "lobster"],
}


def scores(seed: int = 0, method: str = "tdpo", **how: object) -> pd.DataFrame:
    settings = {"epochs": (0, 4, 8), "prompts": PROMPTS, "trained_on": ("cat", "dog")}
    return synthetic_scores(
        method, "aesthetic-mini", seed, gains=GAINS, **(settings | how)
    )


def row(curves: pd.DataFrame, **where: object) -> pd.Series:
    for name, value in where.items():
        curves = curves[curves[name] == value]
    assert len(curves) == 1
    return curves.iloc[0]


def test_groups_roles_and_sizes() -> None:
    curves = reward_curves(scores())
    assert list(curves["group"].unique()) == ["seen", "untrained", "unseen"]
    roles = curves.groupby("role")["scored"].unique().map(set).to_dict()
    assert roles["trained"] == {"aesthetic-mini"}
    assert roles["gold"] == {"gold_taste"}
    assert len(roles["cross"]) == 4
    assert roles["size"] == {"jpeg_compressibility", "jpeg_incompressibility"}
    # 3 groups, 3 epochs, 8 rewards
    assert len(curves) == 72
    last = row(curves, group="seen", epoch=8, scored="gold_taste")
    assert (last["n_seeds"], last["n_prompts"], last["n_images"]) == (1, 2, 8)
    assert last["reward_queries"] == 8 * 128
    assert last["kl_to_base"] == 8 * 0.25


def test_a_picture_whose_prompt_is_in_several_sets_counts_once() -> None:
    overlapping = PROMPTS | {"imagenet_animals/2": ["cat", "dog", "snail"]}
    twice = scores(prompts=overlapping, noise_sd=0.3)
    of_set = twice["prompt_set"] == "imagenet_animals/2"
    trained_on = twice["prompt"].isin(["cat", "dog"])
    once = reward_curves(twice[~(of_set & trained_on)])
    pd.testing.assert_frame_equal(reward_curves(twice), once)
    assert row(once, group="seen", epoch=8, scored="pick-mini")["n_prompts"] == 2
    # Another group has the prompt too.
    apart = once[once["scored"] == "pick-mini"].groupby("group")["n_prompts"].max()
    assert apart["unseen"] == 2
    assert apart["imagenet_animals/2"] == 1


def test_a_reward_that_only_some_runs_have_is_theirs_alone() -> None:
    own = scores().assign(run="tdpo-redness-s0", reward="redness", redness=1.0)
    curves = reward_curves(pd.concat([scores(), own]))
    assert set(curves.loc[curves["scored"] == "redness", "reward"]) == {"redness"}
    assert curves["mean"].notna().all()


def test_means_and_differences_by_hand() -> None:
    table = scores(noise_sd=0.3)
    found = row(reward_curves(table), group="seen", epoch=8, scored="aesthetic-mini")
    seen = table[table["seen"]].groupby(["epoch", "prompt"])["aesthetic-mini"].mean()
    base, trained = seen[0].mean(), seen[8].mean()
    assert found["base_mean"] == pytest.approx(base)
    assert found["mean"] == pytest.approx(trained)
    assert found["difference"] == pytest.approx(trained - base)
    images = table[(table["epoch"] == 0) & table["seen"]]["aesthetic-mini"]
    assert found["base_sd"] == pytest.approx(np.std(images, ddof=1))


def test_a_base_sd_does_not_depend_on_the_number_of_seeds() -> None:
    one = reward_curves(scores(noise_sd=0.3))
    two = reward_curves(pd.concat([scores(seed, noise_sd=0.3) for seed in (0, 1)]))
    # All runs start from the same images of the base model.
    assert two["base_sd"].to_numpy() == pytest.approx(one["base_sd"].to_numpy())


def test_interval_is_that_of_the_paired_difference() -> None:
    table = scores()
    found = row(reward_curves(table), group="untrained", epoch=4, scored="hps-mini")
    images = with_group(table).query("group == 'untrained'")
    expected = paired_difference(images, "hps-mini", epoch=4)
    assert found["low"] == pytest.approx(expected.low, rel=1e-12)
    assert found["high"] == pytest.approx(expected.high, rel=1e-12)


def test_the_base_model_does_not_differ_from_itself() -> None:
    base = reward_curves(scores()).query("epoch == 0")
    assert (base[["difference", "low", "high"]].abs() < 1e-12).all(axis=None)
    assert base["mean"].to_numpy() == pytest.approx(base["base_mean"].to_numpy())


def test_seeds_are_put_together_by_method_and_kept_apart_by_run() -> None:
    table = pd.concat([scores(seed) for seed in range(3)])
    where = {"group": "seen", "epoch": 8, "scored": "gold_taste"}
    pooled = row(reward_curves(table), **where)
    runs = reward_curves(table, by=RUN)
    single = [
        row(runs, run=f"tdpo-aesthetic-mini-s{seed}", **where) for seed in range(3)
    ]
    assert pooled["n_seeds"] == 3
    assert pooled["n_images"] == 24
    mean = np.mean([one["difference"] for one in single])
    assert pooled["difference"] == pytest.approx(mean)


def test_etas_are_kept_apart() -> None:
    table = scores(etas=(1.0, 0.0))
    table.loc[table["eta"] == 0, "kl_to_base"] = np.nan
    shifted = (table["eta"] == 0) & (table["epoch"] > 0)
    table.loc[shifted, "gold_match"] += 5
    curves = reward_curves(table)
    where = {"group": "seen", "epoch": 4, "scored": "gold_match"}
    gap = row(curves, eta=0.0, **where)["mean"] - row(curves, eta=1.0, **where)["mean"]
    assert 4 < gap < 6
    assert np.isnan(row(curves, eta=0.0, **where)["kl_to_base"])


def test_a_seed_that_stopped_early_ends_its_curve() -> None:
    stopped = scores(1)
    table = pd.concat([scores(0), stopped[stopped["epoch"] <= 4]])
    curves = reward_curves(table).query("group == 'seen' and scored == 'gold_taste'")
    assert curves.set_index("epoch")["n_seeds"].to_dict() == {0: 2, 4: 2, 8: 1}


def test_without_the_base_model_nothing_can_be_measured() -> None:
    table = scores()
    with pytest.raises(ScoreTableError, match="untouched base model"):
        reward_curves(table[table["epoch"] > 0])


def test_without_prompts_trained_on_there_is_no_ruler() -> None:
    with pytest.raises(ScoreTableError, match="hold the training prompts"):
        reward_curves(scores(trained_on=("horse",)))


def test_scores_that_would_mislead_are_refused() -> None:
    with pytest.raises(ScoreTableError, match="more than once"):
        reward_curves(pd.concat([scores(), scores()]))
    table = scores().reset_index(drop=True)
    table.loc[0, "hps-mini"] = np.nan
    with pytest.raises(ScoreTableError, match="'hps-mini' is NaN"):
        reward_curves(table)


def test_missing_columns_are_named() -> None:
    with pytest.raises(ScoreTableError, match=r"\['seen'\]"):
        reward_curves(scores().drop(columns="seen").assign(seen_=1))


def test_base_standard_deviations_by_hand() -> None:
    curves = pd.DataFrame(
        {
            "base_sd": [0.5, 0.0],
            "difference": [1.0, 1.0],
            "low": [0.2, 0],
            "high": [2, 2],
        }
    )
    found = in_base_sd(curves)
    assert found.loc[0, ["difference_sd", "low_sd", "high_sd"]].tolist() == [2, 0.4, 4]
    assert found.loc[1, ["difference_sd", "low_sd", "high_sd"]].isna().all()


def history(mean: float, seed: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": f"tdpo-aesthetic-mini-s{seed}",
            "method": "tdpo",
            "reward": "aesthetic-mini",
            "seed": seed,
            "epoch": [1, 2],
            "reward_queries": [100, 200],
            "aesthetic-mini_mean": [mean, mean + 1],
            "aesthetic-mini_std": [0.5, 0.5],
        }
    )


def test_training_curve_of_one_seed_by_hand() -> None:
    found = training_curves(history(1.0, 0)).iloc[1]
    assert (found["reward_queries"], found["n_samples"], found["n_seeds"]) == (
        200,
        100,
        1,
    )
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(1.959964 * 0.5 / 10, rel=1e-6)
    assert 2 - found["low"] == pytest.approx(1.959964 * 0.5 / 10, rel=1e-6)


def test_a_mean_is_over_samples_however_often_each_was_scored() -> None:
    # 100 queries an epoch, 4 a sample: 25 samples, and a standard error of 0.5 / 5.
    # Another run's history may have been written without the column.
    scored_often = history(1.0, 0).assign(samples=25)
    other = history(1.0, 0).assign(run="ddpo-aesthetic-mini-s0", method="ddpo")
    found = training_curves(pd.concat([scored_often, other])).query("epoch == 2")
    assert found["reward_queries"].tolist() == [200, 200]
    assert found.set_index("method")["n_samples"].to_dict() == {"tdpo": 25, "ddpo": 100}
    half = found.set_index("method").eval("(high - low) / 2")
    assert half["tdpo"] == pytest.approx(1.959964 * 0.5 / 5, rel=1e-6)
    assert half["ddpo"] == pytest.approx(1.959964 * 0.5 / 10, rel=1e-6)


def test_training_curve_of_three_seeds_is_a_t_interval() -> None:
    table = pd.concat(
        [history(mean, seed) for seed, mean in enumerate((1.0, 2.0, 3.0))]
    )
    found = training_curves(table).iloc[0]
    assert (found["mean"], found["n_seeds"], found["n_samples"]) == (2, 3, 300)
    # standard deviation 1, so the half width is t(0.975; 2) / sqrt(3)
    assert found["high"] - 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)


def test_where_one_of_several_seeds_is_left_there_is_no_interval() -> None:
    """The spread of its own samples would be another, much narrower, interval."""
    found = training_curves(pd.concat([history(1.0, 0), history(2.0, 1)[:1]]))
    assert found["n_seeds"].tolist() == [2, 1]
    assert found["low"].notna().tolist() == [True, False]


def three_seeds() -> pd.DataFrame:
    """The histories of three seeds of TDPO, its critic measured at the second epoch."""
    runs = [history(float(seed), seed) for seed in range(3)]
    return pd.concat(runs, ignore_index=True).assign(
        critic_dormant_pct=[np.nan, 10.0] * 3, critic_overlap_pct=np.nan
    )


def spoiled(column: str, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Put a value into a column at the last epoch of the second seed."""
    return lambda table: table.assign(
        **{column: [*table[column][:3], value, *table[column][4:]]}
    )


TWICE = r"epoch 1 of tdpo-aesthetic-mini-s0 .* there 2 times"
MEAN, STD = "aesthetic-mini_mean", "aesthetic-mini_std"
SEED_1 = "in epoch 2 of tdpo-aesthetic-mini-s1"


@pytest.mark.parametrize("curve", [training_curves, neuron_curves])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: pd.concat([table, table]),
        lambda table: pd.concat([table, table[:1]]),
        # One seed under two names is still one seed.
        lambda table: pd.concat([table, table[:1].assign(run="again")]),
    ],
)
def test_an_epoch_that_is_there_twice_is_refused(curve, spoil) -> None:
    """Counted as further seeds, equal rows would narrow the interval."""
    with pytest.raises(ScoreTableError, match=TWICE):
        curve(spoil(three_seeds()))


@pytest.mark.parametrize(
    ("curve", "spoil", "message"),
    [
        (training_curves, spoiled(MEAN, np.nan), f"'{MEAN}' is NaN .* {SEED_1}"),
        (training_curves, spoiled(MEAN, np.inf), f"'{MEAN}' is NaN .* {SEED_1}"),
        (training_curves, spoiled(STD, np.nan), f"'{STD}' is NaN .* {SEED_1}"),
        (
            neuron_curves,
            spoiled("critic_dormant_pct", np.inf),
            f"'critic_dormant_pct' is NaN .* {SEED_1}",
        ),
    ],
)
def test_a_history_that_is_not_finite_is_refused(curve, spoil, message: str) -> None:
    with pytest.raises(ScoreTableError, match=message):
        curve(spoil(three_seeds()))


def test_what_a_curve_does_not_read_may_be_missing() -> None:
    """Other rewards, and what a method doesn't measure or hasn't measured yet."""
    table = three_seeds().assign(**{"pick-mini_mean": np.nan})
    without = history(1.0, 0).assign(run="ddpo-aesthetic-mini-s0", method="ddpo")
    both = pd.concat([table, without])
    assert training_curves(both)["n_seeds"].tolist() == [1, 1, 3, 3]
    # No mean reward is needed for neurons.
    (found,) = neuron_curves(both.assign(**{MEAN: np.nan})).to_dict("records")
    assert (found["method"], found["epoch"], found["n_seeds"]) == ("tdpo", 2, 3)


def test_a_history_without_its_reward_is_an_error() -> None:
    with pytest.raises(ScoreTableError, match="aesthetic-mini_std"):
        training_curves(history(1.0, 0).drop(columns="aesthetic-mini_std"))


def test_neuron_curves_leave_out_what_was_not_measured() -> None:
    table = pd.concat(
        [
            synthetic_history(
                "tdpo_r", "aesthetic-mini", 0, gain=1, epochs=4, reset_every=2
            ),
            synthetic_history("ddpo_2", "aesthetic-mini", 0, gain=1, epochs=4),
        ]
    )
    found = neuron_curves(table)
    assert set(found["method"]) == {"tdpo_r"}
    assert found["quantity"].value_counts().to_dict() == {
        "critic_dormant_pct": 4,
        "critic_overlap_pct": 3,
    }
    dormant = found[found["quantity"] == "critic_dormant_pct"]
    assert dormant["mean"].tolist() == table["critic_dormant_pct"].dropna().tolist()
    assert dormant["neurons_reset"].tolist() == [0, 1000, 0, 1000]
    assert dormant["low"].isna().all()


def test_neuron_curves_without_critics_are_empty() -> None:
    table = synthetic_history("ddpo_2", "aesthetic-mini", 0, gain=1)
    assert neuron_curves(table).empty


def test_neurons_of_the_policy_have_their_own_thresholds_and_resets() -> None:
    table = pd.DataFrame(
        {
            "run": ["a-s0", "a-s1"] * 2,
            "method": "tdpo_policy_reset_active",
            "reward": "pick-mini",
            "seed": [0, 1, 0, 1],
            "epoch": [1, 1, 2, 2],
            "lora_dormant_pct_t0": [0.0, 0.0, 2.0, 4.0],
            "lora_dormant_pct_t01": [30.0, 34.0, 40.0, 40.0],
            "neurons_reset": 7.0,  # the critic's, which isn't asked for
            "policy_neurons_reset": [np.nan, np.nan, 10.0, 20.0],
        }
    )
    found = neuron_curves(table, quantities=["lora_dormant_pct_t01"])
    assert found["quantity"].unique().tolist() == ["lora_dormant_pct_t01"]
    assert found["mean"].tolist() == [32.0, 40.0]
    assert found["neurons_reset"].tolist() == [0.0, 15.0]
    # sd of (30, 34) is 2.828, so the half width is t(0.975; 1) * 2.828 / sqrt(2) = 25.4
    assert found["high"].tolist() == pytest.approx([32 + 12.7062 * 2, 40.0], rel=1e-5)
