"""Curves at equal x: by hand, with gaps instead of extrapolation, and coverage."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import Bootstrap, ScoreTableError
from tdpo_pipeline.overoptimization.matched import (
    furthest_levels,
    levels_beyond,
    matched_curves,
    matched_differences,
    matched_report,
)
from tdpo_pipeline.overoptimization.paths import first_crossing, timed_together
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=300)
PROMPTS = {"simple_animals": ["cat", "dog", "fox"], "unseen_animals": ["snail", "yak"]}
PROXY = "aesthetic-mini"


def scores(
    method: str = "tdpo",
    seed: int = 0,
    proxy: tuple[float, ...] = (0, 1, 2),
    gold: tuple[float, ...] = (0, 4, 2),
    **how: object,
) -> pd.DataFrame:
    settings = {
        "epochs": (0, 4, 8),
        "prompts": PROMPTS,
        "trained_on": ("cat", "dog", "fox"),
        "seed_sd": 0.0,
    }
    gains = {PROXY: proxy, "gold_taste": gold}
    return synthetic_scores(method, PROXY, seed, gains=gains, **(settings | how))


def at(table: pd.DataFrame, level: float, scored: str = "gold_taste") -> pd.Series:
    rows = table[np.isclose(table["level"], level) & (table["scored"] == scored)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_first_crossing_by_hand() -> None:
    x = np.array([0.0, 2.0, 1.0, 4.0])
    y = np.array([[0.0], [10.0], [50.0], [80.0]])
    # 1 is passed on the way to 2 (halfway: 5), again on the way down, and up: first.
    assert first_crossing(x, y, 1.0) == pytest.approx([5.0])
    assert first_crossing(x, y, 2.0) == pytest.approx([10.0])
    # 3 lies two thirds of the way from 1 to 4: 50 + 2/3 * 30.
    assert first_crossing(x, y, 3.0) == pytest.approx([70.0])
    assert first_crossing(x, y, 0.0) == pytest.approx([0.0])
    assert first_crossing(x, y, -5.0) == pytest.approx([0.0])
    assert np.isnan(first_crossing(x, y, 4.1)).all()


def test_an_epoch_that_was_not_timed_leaves_later_seconds_unknown() -> None:
    seconds = pd.DataFrame(
        {"run": f"tdpo-{PROXY}-s0", "epoch": range(1, 9), "total_s": 10.0}
    )
    for gap in (seconds[seconds["epoch"] != 2], seconds.replace({"epoch": {2: 20}})):
        with pytest.raises(ScoreTableError, match="was not recorded"):
            matched_curves(scores(), "seconds", timings=gap, bootstrap=FEW)


def test_methods_that_trained_on_other_prompts_are_not_resampled_together() -> None:
    prompts = {"simple_animals": ["a", "b", "c"], "complex": ["x", "y"]}
    one = scores("tdpo", prompts=prompts, trained_on=("a", "b"))
    other = scores("ddpo", prompts=prompts, trained_on=("a", "c"))
    with pytest.raises(ScoreTableError, match="other prompts trained on"):
        matched_differences(
            pd.concat([one, other]),
            "training_reward",
            reference="ddpo",
            group="complex",
            bootstrap=FEW,
        )


def test_first_crossing_of_many_paths_at_once() -> None:
    x = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 2.0]])
    y = np.array([[[0.0], [1.0], [4.0]], [[0.0], [6.0], [7.0]]])
    assert first_crossing(x, y, 1.5)[:, 0] == pytest.approx([2.5, 4.5])


def test_a_flat_path_is_read_where_it_gets_to_the_level() -> None:
    x, y = np.array([0.0, 1.0, 1.0]), np.array([[0.0], [1.0], [9.0]])
    assert first_crossing(x, y, 1.0) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("along", "level", "gold"),
    [
        # Halfway between the checkpoints 4 and 8: gold halfway between 4 and 2.
        ("reward_queries", 6 * 128, 3.0),
        ("kl", 1.5, 3.0),
        ("seconds", 60.0, 3.0),
        ("reward_queries", 0, 0.0),
    ],
)
def test_values_by_hand(along, level: float, gold: float) -> None:
    seconds = pd.DataFrame(
        {"run": f"tdpo-{PROXY}-s0", "epoch": range(1, 9), "total_s": 10.0}
    )
    found = matched_curves(
        scores(), along, levels=[level], timings=seconds, bootstrap=FEW
    )
    row = at(found, level)
    assert row["mean"] == pytest.approx(gold)
    assert (row["gap"], row["n_seeds"], row["n_prompts"]) == ("", 1, 3)


def test_equal_queries_are_those_of_each_seed() -> None:
    slow = scores(seed=1)
    slow["reward_queries"] *= 3
    found = matched_curves(
        pd.concat([scores(seed=0), slow]),
        "reward_queries",
        levels=[6 * 128, 12 * 128],
        bootstrap=FEW,
    )
    # Seed 0 is halfway between its checkpoints 4 and 8 (gold 4 and 2), seed 1 halfway to
    # its first, at 1536 queries: gold 3 and 2.
    assert at(found, 6 * 128)["mean"] == pytest.approx(2.5)
    # Seed 0 ended at 1024.
    assert "1 of 2 seeds never reached" in at(found, 12 * 128)["gap"]


def test_training_reward_is_in_base_sd_whatever_the_group() -> None:
    table = scores()
    ruler = table[(table["epoch"] == 0) & table["seen"]][PROXY].std()
    for group in ("seen", "unseen"):
        found = matched_curves(
            table,
            "training_reward",
            group=group,
            levels=[0.5 / ruler],
            bootstrap=FEW,
        )
        # Proxy +0.5 is halfway to the first checkpoint, where gold is 2.
        assert at(found, 0.5 / ruler)["mean"] == pytest.approx(2.0)
        assert at(found, 0.5 / ruler, PROXY)["mean"] == pytest.approx(0.5)


def test_nothing_is_extrapolated() -> None:
    table = pd.concat([scores("tdpo"), scores("ddpo", proxy=(0, 0.2, 0.4))])
    found = matched_curves(table, "training_reward", bootstrap=FEW)
    far = found["level"] > found.loc[found["gap"] != "", "level"].min()
    assert found[far & (found["method"] == "ddpo")]["mean"].isna().all()
    assert found[found["method"] == "tdpo"]["mean"].notna().all()
    gap = found[far & (found["method"] == "ddpo")]["gap"].iloc[-1]
    assert "ddpo: 1 of 1 seeds never reached" in gap
    differences = matched_differences(
        table, "training_reward", reference="ddpo", bootstrap=FEW
    )
    # Only as far as the slower one got: 0.4 of the base's standard deviation.
    base = table[(table["epoch"] == 0) & (table["method"] == "ddpo") & table["seen"]]
    ruler = base[PROXY].std()
    assert differences["level"].max() == pytest.approx(0.4 / ruler, rel=1e-6)
    assert differences["mean"].notna().all()


def test_a_level_counts_only_if_every_seed_reaches_it() -> None:
    table = pd.concat([scores(seed=0), scores(seed=1, proxy=(0, 0.5, 0.5))])
    ruler = table.query("epoch == 0 and seen and seed == 0")[PROXY].std()
    levels = [0.4 / ruler, 1.0 / ruler]
    found = matched_curves(table, "training_reward", levels=levels, bootstrap=FEW)
    # Seed 0 is at 0.4 of the way to gold 4, seed 1 at 0.8 of it: 1.6 and 3.2.
    assert at(found, levels[0])["mean"] == pytest.approx(2.4)
    beyond = at(found, levels[1])
    assert "1 of 2 seeds never reached" in beyond["gap"]
    assert beyond[["mean", "low", "high"]].isna().all()


def test_curves_that_never_overlap_are_told_so() -> None:
    table = pd.concat([scores("tdpo"), scores("ddpo", proxy=(0, -1, -2))])
    found = matched_differences(
        table, "training_reward", reference="ddpo", bootstrap=FEW
    )
    assert found["gap"].str.contains("never at equal trained reward").all()
    assert found["gap"].iloc[0].count("ddpo") == 1
    assert found[["level", "mean", "low", "high"]].isna().all(axis=None)


def test_one_checkpoint_has_no_overlap_either() -> None:
    table = pd.concat([scores("tdpo"), scores("ddpo")])
    only_base = table[table["epoch"] == 0]
    found = matched_differences(
        only_base, "reward_queries", reference="ddpo", bootstrap=FEW
    )
    assert found["gap"].str.contains("tdpo from 0 to 0").all()
    assert found["mean"].isna().all()


def test_equal_methods_do_not_differ() -> None:
    one = scores("tdpo", seed_sd=0.1)
    two = one.assign(method="ddpo", run=f"ddpo-{PROXY}-s0")
    found = matched_differences(
        pd.concat([one, two]), "reward_queries", reference="ddpo", bootstrap=FEW
    )
    # The same prompts and noise for both, one seed each: no doubt is left.
    assert (found[["mean", "low", "high"]].abs() < 1e-9).all(axis=None)
    assert found["low"].dtype == float


def test_where_a_method_has_no_checkpoint_nothing_is_compared() -> None:
    """Far beyond what the other ever reaches at its first checkpoint."""
    slow = [scores("slow", s, proxy=(0, 0.5, 1)) for s in (0, 1)]
    for first, seen in ((9.0, False), (1.5, True)):
        fast = [scores("fast", s, proxy=(0, first, 10)) for s in (0, 1)]
        found = matched_report(
            pd.concat([*slow, *fast]), references=["slow"], bootstrap=FEW
        )
        rows = found[found["along"] == "training_reward"]
        assert rows["low"].notna().any() == seen
        if not seen:
            assert rows["gap"].str.contains("fast is at .* first checkpoint").all()


def test_runs_of_unequal_length_end_at_the_common_checkpoint() -> None:
    stopped = scores(seed=1)
    table = pd.concat([scores(seed=0), stopped[stopped["epoch"] <= 4]])
    found = matched_curves(table, "reward_queries", bootstrap=FEW)
    assert found["level"].max() == 4 * 128


def test_one_seed_and_one_prompt_have_no_interval() -> None:
    table = scores(prompts={"simple_animals": ["cat"]}, trained_on=("cat",))
    row = at(matched_curves(table, "kl", levels=[1.0], bootstrap=FEW), 1.0)
    assert row["mean"] == pytest.approx(4.0)
    assert np.isnan(row["low"])
    assert row["gap"] == "one seed and one prompt"


@pytest.mark.parametrize(
    ("change", "along", "message"),
    [
        (lambda t: t.assign(kl_to_base=np.nan), "kl", "not recorded"),
        (lambda t: t, "seconds", "need the timings"),
        (lambda t: t, "epochs", "is none of"),
        (lambda t: t.drop(columns=PROXY), "training_reward", "was not scored"),
        (lambda t: t.assign(**{PROXY: 1.0}), "training_reward", "does not vary"),
    ],
)
def test_what_cannot_be_matched(change, along, message: str) -> None:
    with pytest.raises(ScoreTableError, match=message):
        matched_curves(change(scores()), along, bootstrap=FEW)


def test_training_reward_is_read_on_the_prompts_trained_on() -> None:
    other = scores("ddpo")
    table = pd.concat([scores("tdpo"), other[~other["seen"]]])
    with pytest.raises(
        ScoreTableError, match="not evaluated on the prompts trained on"
    ):
        matched_curves(table, "training_reward", group="unseen", bootstrap=FEW)


def test_an_unknown_reference_is_an_error_that_lists_the_methods() -> None:
    with pytest.raises(ScoreTableError, match=r"'ddpo', only of \['tdpo'\]"):
        matched_differences(scores(), "kl", reference="ddpo")


@pytest.mark.parametrize("uneven", ["tdpo", "ddpo"])
def test_seeds_that_differ_widen_the_interval(uneven: str) -> None:
    def width(apart: float) -> float:
        table = pd.concat(
            [
                scores(m, s, gold=(0, apart * s * (m == uneven), 1), seed_sd=0.01)
                for m in ("ddpo", "tdpo")
                for s in (0, 1)
            ]
        )
        found = matched_differences(
            table, "training_reward", reference="ddpo", levels=[1.0], bootstrap=FEW
        )
        row = at(found, 1.0)
        return row["high"] - row["low"]

    assert width(0.0) < 0.2
    # Two seeds whose golds are 0 and 2 say little of where a third would be.
    assert width(2.0) > 2


def test_intervals_at_equal_training_reward_cover_the_truth() -> None:
    """Gold falls by 1 for each proxy point, whatever prompt and seed do to the proxy.

    Levels and bands must cover; a method's x and y are both random here.
    """
    rng = np.random.default_rng(0)
    hits, bands, n = 0, 0, 60
    for trial in range(n):
        runs = []
        for seed in range(4):
            run = scores(seed=seed, images=1, proxy=(0, 2, 4), gold=(0, -2, -4))
            late = run["epoch"] / 8
            speed, slope = rng.normal(0, 0.3), rng.normal(0, 0.3)
            by_prompt = {
                prompt: rng.normal(0, 0.3) for prompt in run["prompt"].unique()
            }
            run[PROXY] += late * speed
            run["gold_taste"] -= late * (speed + slope + run["prompt"].map(by_prompt))
            runs.append(run)
        table = pd.concat(runs)
        ruler = table.query("epoch == 0 and seen and seed == 0")[PROXY].std()
        levels = np.array([0.5, 1.5, 2.5]) / ruler
        found = matched_curves(
            table,
            "training_reward",
            levels=levels,
            bootstrap=Bootstrap(draws=200, rng=trial),
        ).query("scored == 'gold_taste'")
        truth = -found["level"] * ruler
        inside = (found["low"] <= truth) & (truth <= found["high"])
        hits += bool(inside.iloc[-1])
        bands += bool(
            ((found["band_low"] <= truth) & (truth <= found["band_high"])).all()
        )
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)
    assert hits / n > least
    assert bands / n > least


def report(*tables: pd.DataFrame, **how: object) -> pd.DataFrame:
    return matched_report(
        pd.concat(tables), references=["rwr", "ddpo"], bootstrap=FEW, **how
    )


def test_seconds_of_different_devices_are_not_compared() -> None:
    def timed(method: str, device: str | None) -> pd.DataFrame:
        row = {"run": f"{method}-{PROXY}-s0", "epoch": range(1, 9), "total_s": 10.0}
        return pd.DataFrame(row).assign(device=device)

    three = [scores("tdpo"), scores("ddpo"), scores("alignprop_2023")]
    seconds = [timed("tdpo", "cpu"), timed("ddpo", "cpu")]
    other = pd.concat([*seconds, timed("alignprop_2023", "NVIDIA H200")])
    found = report(*three, timings=other).set_index("method")
    rows = found[found["along"] == "seconds"]
    # Those that share a device are compared all the same.
    assert rows.loc["tdpo", "level"].notna().all()
    assert pd.isna(rows.loc["alignprop_2023", "level"])
    assert "on NVIDIA H200, cpu. Train them on one" in rows.loc["alignprop_2023", "gap"]
    for measure in (matched_curves, partial(matched_differences, reference="ddpo")):
        with pytest.raises(ScoreTableError, match="NVIDIA H200, cpu"):
            measure(pd.concat(three), "seconds", timings=other, bootstrap=FEW)
    unknown = pd.concat([*seconds, timed("alignprop_2023", None)])
    with pytest.raises(ScoreTableError, match="an unknown device, cpu"):
        matched_curves(pd.concat(three), "seconds", timings=unknown, bootstrap=FEW)


def test_seeds_of_the_device_with_most_runs_are_compared_at_equal_seconds() -> None:
    places = {
        ("tdpo", 0): ["H200"],
        ("tdpo", 1): ["H200"],
        ("tdpo", 2): ["cpu"],
        ("ddpo", 0): ["H200"],
        ("ddpo", 1): ["cpu"],
        ("ddpo", 2): ["H200", "cpu"],  # went on elsewhere
        # Most runs are on what the reference was never timed on.
        **{("rwr", seed): ["laptop"] for seed in range(4)},
    }
    tables = pd.concat([scores(*run) for run in places])
    timings = pd.concat(
        pd.DataFrame(
            {"run": f"{method}-{PROXY}-s{seed}", "epoch": range(1, 9), "total_s": 1.0}
        ).assign(device=[devices[0]] * 4 + [devices[-1]] * 4)
        for (method, seed), devices in places.items()
    )
    kept = timed_together(tables, timings, reference="ddpo")
    runs = kept.drop_duplicates("run").groupby("method")["seed"].apply(list).to_dict()
    assert runs == {"tdpo": [0, 1], "ddpo": [0], "rwr": [0, 1, 2, 3]}
    found = matched_report(
        tables, references=["ddpo"], timings=timings, bootstrap=FEW
    ).query("along == 'seconds'")
    tdpo, rwr = (found[found["method"] == name] for name in ("tdpo", "rwr"))
    assert set(tdpo["n_seeds"]) == {2} and set(tdpo["n_reference_seeds"]) == {1}
    assert tdpo["level"].notna().all()
    assert "H200, laptop" in rwr["gap"].item()
    # What nobody knows is no device, however many runs were timed there.
    unknown = timings.assign(device=timings["device"].replace("cpu", None))
    kept = timed_together(tables, unknown, reference="ddpo")
    assert kept.loc[kept["method"] == "tdpo", "seed"].unique().tolist() == [0, 1]
    # Without devices nobody knows better than to compare all.
    assert timed_together(tables, timings.drop(columns="device"), reference="ddpo") is (
        tables
    )


def test_a_report_compares_with_the_reference_on_all_terms() -> None:
    seconds = pd.DataFrame(
        {"run": f"tdpo-{PROXY}-s0", "epoch": range(1, 9), "total_s": 10.0}
    )
    other = seconds.assign(run=f"ddpo-{PROXY}-s0", total_s=5.0)
    slow = scores("ddpo", gold=(0, 1, 2))
    found = report(scores("tdpo"), slow, timings=pd.concat([seconds, other]))
    assert set(found["method"]) == {"tdpo"}
    assert set(found["reference"]) == {"ddpo"}
    terms = found.groupby(["group", "along"])["level"].unique()
    assert terms["seen", "reward_queries"].tolist() == [256, 512, 768, 1024]
    # DDPO ends after 40 s, where TDPO is at epoch 4: gold 4 against 2.
    assert terms["seen", "seconds"].tolist() == [10, 20, 30, 40]
    rows = found[(found["along"] == "seconds") & (found["scored"] == "gold_taste")]
    assert rows["mean"].iloc[-1] == pytest.approx(2.0)
    assert set(found.loc[found["group"] == "unseen", "along"]) == {"training_reward"}
    assert (found["gap"].eq("") == found["low"].notna()).all()
    # Of all that an interval was lost for, only the last level is told, and only where a
    # lower one was kept.
    last, told = furthest_levels(found), levels_beyond(found)
    keys = ["group", "along", "scored"]
    assert told["low"].isna().all()
    both = told.merge(last, on=keys)
    assert len(both) == len(told) > 0
    assert (both["level_x"] > both["level_y"]).all()
    assert both["mean_x"].notna().all()
    assert not last.duplicated(["group", "along", "scored"]).any()
    queries = last[last["along"] == "reward_queries"]
    assert set(queries["level"]) == {1024}


def test_a_report_says_what_cannot_be_compared() -> None:
    never = scores("tdpo", proxy=(0, -1, -2)).assign(kl_to_base=np.nan)
    found = report(never, scores("ddpo"))
    said = found[found["level"].isna()].groupby("along")["gap"].unique()
    assert said["kl"].item().endswith("every checkpoint of tdpo on aesthetic-mini")
    assert "need the timings" in said["seconds"].item()
    assert said["training_reward"].item().startswith("never at equal trained reward")
    assert found[found["level"].isna()]["mean"].isna().all()
    kinds = furthest_levels(found).groupby("along")["level"].count()
    assert kinds.to_dict() == {
        **dict.fromkeys(("kl", "seconds", "training_reward"), 0),
        "reward_queries": 8,
    }


def test_a_report_of_one_method_has_nothing_to_compare() -> None:
    found = report(scores("tdpo"))
    assert set(found["gap"]) == {f"no other method was trained on {PROXY}"}
    assert len(found) == 4 + 1  # all axes on the prompts trained on, one on the others
