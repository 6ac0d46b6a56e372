"""Score tables as arrays, and tables that are not what they should be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization.cubes import cubes, one_cube
from tdpo_pipeline.overoptimization.curves import RUN
from tdpo_pipeline.overoptimization.tables import ScoreTableError, check_scores
from tests.synthetic_tables import REWARDS, synthetic_scores

PROMPTS = {"simple_animals": ["fox", "cat", "dog"], "complex": ["a cat and a dog"]}


def scores(seed: int = 0, **how: object) -> pd.DataFrame:
    gains = {"aesthetic-mini": [0, 0.5, 1.0]}
    settings = {"epochs": (0, 4, 8), "prompts": PROMPTS, "trained_on": ("cat", "dog")}
    return synthetic_scores(
        "tdpo", "aesthetic-mini", seed, gains=gains, **(settings | how)
    )


def test_values_are_means_over_the_images_of_a_prompt() -> None:
    table = pd.concat([scores(1), scores(0)]).sample(frac=1, random_state=0)
    (cube,) = one_cube(table, group="seen")
    assert cube.values.shape == (2, 2, 3, 8)
    assert (cube.seeds, cube.epochs, cube.rewards) == ((0, 1), (0, 4, 8), REWARDS)
    assert cube.prompts == (("simple_animals", "cat"), ("simple_animals", "dog"))
    rows = table.query("seed == 1 and prompt == 'dog' and epoch == 8")
    assert cube.values[1, 1, 2, 4] == pytest.approx(rows["gold_match"].mean())
    assert cube.queries.tolist() == [[0, 512, 1024]] * 2
    assert cube.kl.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert cube.n_images == 2 * 2 * 4
    base = table.query("epoch == 0 and seen and seed == 0")["hps-mini"]
    assert cube.base_sd[2] == pytest.approx(base.std())
    assert (cube.changes(["gold_match"])[:, :, 0] == 0).all()


def test_the_base_model_is_at_no_distance_and_has_cost_nothing() -> None:
    table = scores()
    table.loc[table["epoch"] == 0, ["kl_to_base", "reward_queries"]] = np.nan
    (cube,) = one_cube(table, group="seen")
    assert cube.kl.tolist() == [[0, 1, 2]]
    assert cube.queries.tolist() == [[0, 512, 1024]]


def test_every_run_or_method_and_group_has_a_cube() -> None:
    table = pd.concat([scores(0), scores(1)])
    groups = [cube.names["group"] for cube in cubes(table)]
    assert groups == ["seen", "untrained", "complex"]
    assert len(list(cubes(table, by=RUN))) == 6


def test_a_run_that_stopped_early_shortens_the_curve() -> None:
    stopped = scores(1)
    table = pd.concat([scores(0), stopped[stopped["epoch"] <= 4]])
    (cube,) = one_cube(table, group="seen")
    assert cube.epochs == (0, 4)


def test_a_reward_that_a_run_was_not_scored_by_is_left_out_for_it() -> None:
    other = synthetic_scores("ddpo", "pick-mini", 0, gains={}, prompts=PROMPTS)
    table = pd.concat([scores().drop(columns="jpeg_compressibility"), other])
    found = {cube.trained: cube for cube in cubes(table, groups=["complex"])}
    assert "jpeg_compressibility" not in found["aesthetic-mini"].rewards
    assert "jpeg_compressibility" in found["pick-mini"].rewards
    with pytest.raises(ScoreTableError, match=r"not scored by \['jpeg_compress"):
        found["aesthetic-mini"].columns(["jpeg_compressibility"])


def test_duplicated_rows_are_an_error_that_names_one() -> None:
    table = pd.concat([scores(), scores().iloc[[5]]])
    with pytest.raises(ScoreTableError, match=r"1 rows .* more than once.*tdpo-aes"):
        check_scores(table)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_an_error(value: float) -> None:
    table = scores().reset_index(drop=True)
    table.loc[3, "gold_match"] = value
    with pytest.raises(ScoreTableError, match="'gold_match' is NaN or infinite for 1"):
        check_scores(table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"epoch": lambda t: t["epoch"] / 16}, "'epoch' needs whole numbers.* 0.25"),
        ({"seed": np.nan}, "'seed' needs whole numbers.* nan"),
        ({"seen": "False"}, "'seen' needs True or False.* False as"),
        ({"seen": np.nan}, "'seen' needs True or False.* nan"),
        ({"file": "x.png"}, r"\['file'\] are no numbers"),
    ],
)
def test_values_that_would_be_taken_for_others_are_errors(columns, message) -> None:
    with pytest.raises(ScoreTableError, match=message):
        check_scores(scores().assign(**columns))


def test_any_type_that_holds_the_same_numbers_does() -> None:
    table = scores()
    table["epoch"] = table["epoch"].astype("Int64")
    table["gold_match"] = table["gold_match"].astype(object)
    table["jpeg_compressibility"] = None  # by which no run was scored
    check_scores(table.assign(seed=0.0, seen=table["seen"].astype(int)))
    table.loc[3, "epoch"] = pd.NA
    with pytest.raises(ScoreTableError, match="'epoch' needs whole numbers"):
        check_scores(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["epoch"] > 0], "no image of epoch 0"),
        (lambda t: t.drop(columns="prompt"), r"lacks the columns \['prompt'\]"),
        (lambda t: t.drop(columns=list(REWARDS)), "no reward column"),
        (lambda t: t[t["epoch"] < 0], "no rows"),
        (lambda t: t.assign(eta=0.5), "no image of eta 1.0"),
        (lambda t: t[(t["epoch"] != 4) | (t["image"] > 0)], "epoch 4 was evaluated on"),
        (lambda t: t[t["prompt_set"] == "complex"], "No image of the prompt group"),
    ],
)
def test_tables_that_cannot_be_measured(change, message: str) -> None:
    with pytest.raises(ScoreTableError, match=message):
        one_cube(change(scores()), group="seen")


def test_a_reward_that_only_some_seeds_were_scored_by_is_an_error() -> None:
    one, other = scores(0), scores(1)
    other["gold_match"] = np.nan
    with pytest.raises(ScoreTableError, match="'gold_match' is NaN"):
        check_scores(pd.concat([one, other]))
    check_scores(other)  # none was
