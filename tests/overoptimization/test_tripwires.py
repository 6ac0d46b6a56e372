"""What leaves the base model's range is found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.menagerie.vocabulary import ANIMALS
from tdpo_pipeline.overoptimization import Bootstrap, ScoreTableError
from tdpo_pipeline.overoptimization.image_statistics import STATISTICS
from tdpo_pipeline.overoptimization.tripwires import (
    left_range,
    place,
    robust_scale,
    tripwires,
    tripwires_markdown,
)

FEW = Bootstrap(draws=500)
SPREAD = {
    "edge_density": 0.05,
    "colour_entropy": 0.5,
    "dark_fraction": 0.04,
    "saturation": 0.1,
}


def statistics(
    moves: dict[str, list[float]] | None = None,
    *,
    seeds: int = 3,
    prompts: int = 12,
    epochs: int = 3,
    rng: int = 0,
) -> pd.DataFrame:
    """A made-up table: ``moves`` in standard deviations at each epoch after 0."""
    draw = np.random.default_rng(rng)
    names = ANIMALS[:prompts]
    index = pd.DataFrame(
        [(name, image) for name in names for image in range(4)],
        columns=["prompt", "image"],
    ).assign(prompt_set="simple_animals", eta=1.0)
    index["seen"] = index["prompt"].isin(names[: prompts // 2])
    base = {name: draw.normal(0.5, sd, len(index)) for name, sd in SPREAD.items()}
    tables = []
    for seed in range(seeds):
        for epoch in range(epochs + 1):
            columns = {
                name: base[name]
                + (epoch > 0) * draw.normal(0, 0.1 * sd, len(index))
                + sd * ([0, *(moves or {}).get(name, [0] * epochs)])[epoch]
                for name, sd in SPREAD.items()
            }
            head = {"run": f"tdpo-aesthetic-mini-s{seed}", "method": "tdpo"}
            head |= {"reward": "aesthetic-mini", "seed": seed}
            head |= {"epoch": epoch, "reward_queries": 128 * epoch}
            tables.append(index.assign(**head, **columns))
    return pd.concat(tables, ignore_index=True)


def test_robust_scale_by_hand() -> None:
    # Median 3, deviations 2, 1, 0, 1, 97: their median is 1.
    assert robust_scale([1, 2, 3, 4, 100]) == pytest.approx(1.4826)
    # Most are equal: the mean deviation is 5 / 5 = 1.
    assert robust_scale([0, 0, 0, 0, 5]) == pytest.approx(1.2533)
    assert robust_scale([2, 2, 2]) == 0


def test_robust_scale_of_normal_values_is_their_deviation() -> None:
    values = np.random.default_rng(0).normal(7, 3, 20_000)
    assert robust_scale(values) == pytest.approx(3, rel=0.03)
    values[:500] = 1e6
    assert robust_scale(values) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.1, 5.0, "above"),
        (-5.0, -2.1, "below"),
        (-1.0, 2.0, "inside"),
        (1.0, 3.0, "cannot tell"),
        (np.nan, np.nan, "cannot tell"),
    ],
)
def test_places_by_hand(low: float, high: float, expected: str) -> None:
    assert place(low, high, 2.0) == expected


def test_z_by_hand() -> None:
    table = statistics(prompts=2, seeds=1, epochs=1)
    values = {(0, 0): 0.10, (0, 1): 0.20, (0, 2): 0.30, (0, 3): 0.40}
    changed = {(1, 0): 0.5, (1, 1): 0.6, (1, 2): 0.7, (1, 3): 0.8}
    table["saturation"] = [
        (values | changed)[epoch, image]
        for epoch, image in zip(table["epoch"], table["image"], strict=True)
    ]
    found = tripwires(table).set_index(["group", "statistic"])
    row = found.loc[("seen", "saturation")]
    # Median 0.25, deviations 0.15, 0.05, 0.05, 0.15: median 0.1, scale 0.14826; the
    # change is 0.4 everywhere.
    assert row["base_median"] == pytest.approx(0.25)
    assert row["base_scale"] == pytest.approx(0.14826)
    assert row["mean"] == pytest.approx(0.65)
    assert row["z"] == pytest.approx(0.4 / 0.14826)
    # One prompt and one seed have no interval, and nothing to say.
    assert np.isnan(row["low"])
    assert row["place"] == "cannot tell"


def test_what_leaves_is_found_once() -> None:
    table = tripwires(
        statistics({"dark_fraction": [1, 4, 6], "edge_density": [0, 0, -5]})
    )
    assert len(table) == 2 * 3 * len(STATISTICS)  # groups x epochs x statistics
    places = table.set_index(["group", "statistic", "epoch"])["place"]
    assert places["seen", "dark_fraction", 1] == "inside"
    assert places["seen", "dark_fraction", 2] == "above"
    assert places["seen", "saturation", 3] == "inside"
    first = left_range(table)
    found = set(zip(first["group"], first["statistic"], first["epoch"], strict=True))
    assert found == {
        (group, *what)
        for group in ("seen", "untrained")
        for what in (("dark_fraction", 2), ("edge_density", 3))
    }


def test_hardly_any_alarm_where_nothing_left() -> None:
    # At the limit itself the range is not left: with 95 % no place is wrong at once.
    at_limit = {name: [2.0, 2.0, 2.0] for name in SPREAD}
    alarms = 0
    for rng in range(10):
        table = statistics(at_limit, rng=rng, seeds=4, prompts=8)
        # The true scale is known here; the estimated one would move the limit.
        for name, sd in SPREAD.items():
            once = table[(table["epoch"] == 0) & (table["seed"] == 0)]
            for seen in (True, False):
                scale = robust_scale(once.loc[once["seen"] == seen, name])
                rows = (table["epoch"] > 0) & (table["seen"] == seen)
                table.loc[rows, name] += 2 * (scale - sd)
        alarms += int((tripwires(table, bootstrap=FEW)["place"] == "above").any())
    assert alarms <= 2


def test_a_statistic_that_the_base_never_varies_is_no_hair_trigger() -> None:
    table = statistics()
    table["dark_fraction"] = np.where(table["epoch"] == 3, 0.005, 0.0)
    found = tripwires(table).query("statistic == 'dark_fraction'")
    assert (found["place"] == "inside").all()
    assert found["base_scale"].unique().tolist() == [0.01]
    table["dark_fraction"] = np.where(table["epoch"] == 3, 0.9, 0.0)
    assert set(left_range(tripwires(table))["epoch"]) == {3}


def test_only_the_training_sampler_counts() -> None:
    table = statistics()
    other = statistics({"saturation": [9, 9, 9]}).assign(eta=0.0)
    pd.testing.assert_frame_equal(
        tripwires(pd.concat([table, other], ignore_index=True)), tripwires(table)
    )


def test_an_untrained_model_has_nothing_to_say() -> None:
    table = tripwires(statistics(epochs=0))
    assert table.empty
    assert {"place", "z", "group"} <= set(table.columns)
    assert left_range(table).empty


def test_bad_tables_are_errors() -> None:
    table = statistics()
    with pytest.raises(ScoreTableError, match="epoch 0"):
        tripwires(table[table["epoch"] > 0])
    with pytest.raises(
        ScoreTableError, match="lacks the statistics \\['saturation'\\]"
    ):
        tripwires(table.drop(columns="saturation"))
    with pytest.raises(ScoreTableError, match="'saturation'\\] are NaN"):
        tripwires(table.assign(saturation=np.nan))
    with pytest.raises(ScoreTableError, match="alone"):
        tripwires(table.drop(index=table.index[-1]))


def test_words_by_hand() -> None:
    text = tripwires_markdown(tripwires(statistics({"dark_fraction": [1, 4, 6]})))
    assert "the range ends at 2" in text
    line = (
        "- tdpo trained on aesthetic-mini, prompts trained on: dark fraction above it"
    )
    assert f"{line} first at epoch 2 (z +" in text
    quiet = tripwires_markdown(tripwires(statistics()))
    assert quiet.endswith(
        "tdpo trained on aesthetic-mini: no statistic was surely outside."
    )
    assert tripwires_markdown(tripwires(statistics(epochs=0))) == ""
