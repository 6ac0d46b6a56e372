"""Goodhart fits: known parameters, peaks by hand, and no peak where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import Bootstrap, known_rewards
from tdpo_pipeline.overoptimization.goodhart import (
    fit_goodhart,
    goodhart_bands,
    goodhart_report,
    peak_distance,
    peak_value,
    preferred_first,
)
from tests.synthetic_tables import synthetic_scores

FEW = Bootstrap(draws=300)
PROMPTS = {"simple_animals": ["cat", "dog", "fox", "bee", "cow", "goat"]}
GOLD = "gold_taste"
DISTANCES = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def scores(gold, seed: int = 0, *, noise: float = 0.0, kl=None) -> pd.DataFrame:
    """Gold that changes by ``gold`` at the distances 0 to 5."""
    epochs = range(len(gold))
    table = synthetic_scores(
        "tdpo",
        "aesthetic-mini",
        seed,
        gains={GOLD: list(gold)},
        epochs=epochs,
        prompts=PROMPTS,
        trained_on=PROMPTS["simple_animals"],
        images=1,
        seed_sd=noise,
    )
    kl = DISTANCES**2 if kl is None else kl
    return table.assign(kl_to_base=table["epoch"].map(dict(enumerate(kl))))


def fits(table: pd.DataFrame, **how: object) -> pd.DataFrame:
    found = fit_goodhart(table, rewards=[GOLD], bootstrap=FEW, **how)
    return found.set_index("form")


def by_seed_and_prompt(
    table: pd.DataFrame, rng: np.random.Generator, sd: float
) -> pd.Series:
    """How far each of four seeds, and each prompt, happens to be off."""
    by_seed = dict(enumerate(rng.normal(0, sd, 4)))
    by_prompt = {p: rng.normal(0, sd) for p in table["prompt"].unique()}
    return table["seed"].map(by_seed) + table["prompt"].map(by_prompt)


def linear(alpha: float, beta: float) -> np.ndarray:
    return DISTANCES * (alpha - beta * DISTANCES)


def test_peaks_by_hand() -> None:
    at = 1.0, 5.0
    # d (3 - 0.5 d) is highest at 3, where it is 4.5.
    assert peak_distance(3.0, 0.5, "linear", at) == pytest.approx(3)
    assert peak_value(3.0, 0.5, "linear", at) == pytest.approx(4.5)
    # d (2 - log d): 2 - log d - 1 = 0 at d = e, where it is e.
    assert peak_distance(2.0, 1.0, "log", at) == pytest.approx(np.e)
    assert peak_value(2.0, 1.0, "log", at) == pytest.approx(np.e)
    # Never falls; or not before 5.
    assert peak_distance(1.0, -0.1, "linear", at) == np.inf
    assert peak_value(1.0, 0.0, "log", at) == np.inf
    assert peak_distance(3.0, 0.2, "linear", at) == np.inf
    # Falls from the start.
    assert peak_distance(-1.0, 0.1, "linear", at) == 0
    assert peak_distance(-1.0, 0.0, "linear", at) == 0
    assert peak_value(-1.0, 0.0, "linear", at) == 0


def test_a_turn_before_the_first_checkpoint_by_hand() -> None:
    at = 1.0, 5.0
    # d (0.8 - d) turns at 0.4 and is below 0 from 0.8 on: no checkpoint saw it rise.
    assert peak_distance(0.8, 1.0, "linear", at) == 0
    # d (1.2 - d) turns at 0.6 and is 0.2 at the first checkpoint, above the base model.
    assert peak_distance(1.2, 1.0, "linear", at) == 1
    assert peak_value(1.2, 1.0, "linear", at) == pytest.approx(0.2)
    # d (-4 - log d) turns at exp(-5): of the log form nothing falls from the very start.
    assert peak_distance(-4.0, 1.0, "log", at) == 0
    # d (-3 + log d) falls to exp(2) = 7.4 and never gets back to 0 before.
    assert peak_distance(-3.0, -1.0, "log", at) == 0


def test_peaks_of_many_draws_are_those_of_each() -> None:
    alpha, beta = np.array([3.0, -1.0, 1.0]), np.array([0.5, 0.1, -0.1])
    found = peak_distance(alpha, beta, "linear", (1.0, 5.0))
    assert found.tolist() == [3, 0, np.inf]


@pytest.mark.parametrize("form", ["linear", "log"])
def test_known_parameters_are_found_and_the_true_form_preferred(form: str) -> None:
    log = np.log(np.maximum(DISTANCES, 1e-9))
    gold = DISTANCES * (2.0 - 0.8 * (DISTANCES if form == "linear" else log))
    found = fits(scores(gold)).loc[form]
    assert found[["alpha", "beta"]].tolist() == pytest.approx([2.0, 0.8])
    assert found["rmse"] == pytest.approx(0, abs=1e-9)
    assert bool(found["preferred"])


def test_the_preferred_form_comes_first() -> None:
    # Without a fit neither form is preferred, and they stay in their order.
    table = pd.DataFrame(
        {"form": ["a", "b", "c", "d"], "preferred": [False, None, True, np.nan]}
    )
    assert preferred_first(table)["form"].tolist() == ["c", "a", "b", "d"]


def test_a_peak_within_the_data() -> None:
    table = pd.concat([scores(linear(3, 0.5), s, noise=0.05) for s in range(3)])
    found = fits(table).loc["linear"]
    assert found["statement"] == "it has a peak within the data"
    assert found["peak_distance"] == pytest.approx(3, abs=0.3)
    assert found["peak_kl"] == pytest.approx(found["peak_distance"] ** 2)
    assert found["peak_distance_low"] < 3 < found["peak_distance_high"]
    assert found["peak_value_low"] < 4.5 < found["peak_value_high"]
    assert (found["max_distance"], found["n_checkpoints"], found["n_seeds"]) == (
        5,
        5,
        3,
    )


@pytest.mark.parametrize(
    ("alpha", "beta", "statement"),
    [
        (3.0, 0.2, "it has no peak within the data"),  # it would be at 7.5
        (2.0, -0.3, "it has no peak within the data"),
        (-1.0, 0.1, "it falls from the start"),
    ],
)
def test_no_peak_within_the_data_is_said_and_none_is_given(alpha, beta, statement):
    found = fits(scores(linear(alpha, beta), noise=0.01)).loc["linear"]
    assert found["statement"] == statement
    if "no peak" in statement:
        assert found[["peak_distance", "peak_value", "peak_distance_high"]].isna().all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_what_only_falls_has_no_peak(power: float) -> None:
    """A reward that falls and never rises, with so much noise that it is hardly seen."""
    rng = np.random.default_rng(0)
    trials, wrong = 40, {"linear": 0, "log": 0}
    truth = -0.2 * (DISTANCES / 5) ** power
    base = pd.concat([scores(truth, s) for s in range(4)], ignore_index=True)
    late = base["epoch"] / 5
    for trial in range(trials):
        deviation = by_seed_and_prompt(base, rng, 0.15)
        noise = rng.normal(0, 0.1, len(base)) * (base["epoch"] > 0)
        table = base.assign(**{GOLD: base[GOLD] + late * deviation + noise})
        boot = Bootstrap(draws=300, rng=trial)
        found = fit_goodhart(table, rewards=[GOLD], bootstrap=boot)
        for row in found.to_dict("records"):
            wrong[row["form"]] += row["statement"] == "it has a peak within the data"
    # The interval of the peak's distance may leave out 0 in one of 20, more or less.
    assert max(wrong.values()) <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)


def test_what_does_not_change_has_no_peak_and_does_not_fall() -> None:
    table = pd.concat([scores(linear(1, 0), s) for s in range(2)])
    found = fits(table.assign(**{GOLD: 0.5}))
    assert set(found["statement"]) == {"it doesn't change"}
    assert found["peak_distance"].isna().all()


def test_noise_makes_it_impossible_to_tell() -> None:
    table = pd.concat([scores(linear(0.05, 0.006), s, noise=1.0) for s in range(2)])
    found = fits(table).loc["linear"]
    assert found["statement"].startswith("cannot tell")
    assert np.isnan(found["peak_value"])


def test_too_few_checkpoints_are_told() -> None:
    found = fits(scores([0, 1, 2, 1], kl=[0, 1, 4, 9]))
    assert found["statement"].str.contains("3 checkpoints .* it takes 4").all()
    assert found[["alpha", "peak_distance"]].isna().all(axis=None)
    bands = goodhart_bands(scores([0, 1, 2, 1], kl=[0, 1, 4, 9]), rewards=[GOLD])
    assert bands.empty
    one = scores([0, 1], kl=[0, 1])
    assert fits(one[one["epoch"] == 0])["statement"].str.contains("0 checkpoints").all()


def test_checkpoints_at_one_distance_are_one() -> None:
    found = fits(scores([0, 1, 2, 1, 3, 1], kl=[0, 4, 4, 4, 4, 9]))
    assert found["statement"].str.contains("2 checkpoints").all()


def test_kl_that_was_not_recorded_is_told() -> None:
    found = fits(scores(linear(3, 0.5)).assign(kl_to_base=np.nan))
    assert found["statement"].str.contains("KL .* not recorded").all()


def test_one_seed_and_one_prompt_have_a_fit_and_no_interval() -> None:
    table = scores(linear(3, 0.5))
    found = fits(table[table["prompt"] == "cat"]).loc["linear"]
    assert found["peak_distance"] == pytest.approx(3)
    assert found["statement"] == "no interval: one seed and one prompt"
    assert found[["alpha_low", "peak_distance_low"]].isna().all()


def test_bands_hold_the_fit_and_end_with_the_data() -> None:
    table = pd.concat([scores(linear(3, 0.5), s, noise=0.2) for s in range(3)])
    bands = goodhart_bands(table, rewards=[GOLD], points=11, bootstrap=FEW)
    rows = bands[bands["form"] == "linear"]
    assert rows["distance"].tolist() == pytest.approx(np.linspace(0, 5, 11))
    away = rows[1:]
    widths = (away["band_high"] - away["band_low"]) / (away["high"] - away["low"])
    assert widths.between(1, 2).all()
    assert ((rows["low"] <= rows["fitted"]) & (rows["fitted"] <= rows["high"])).all()
    assert rows["fitted"].iloc[0] == 0
    assert (rows["kl"] == rows["distance"] ** 2).all()


def test_the_interval_of_the_peak_covers_it() -> None:
    rng = np.random.default_rng(0)
    n, hits = 80, 0
    truth = linear(3, 0.5)
    base = pd.concat([scores(truth, s) for s in range(4)], ignore_index=True)
    late = base["epoch"] / 5
    for trial in range(n):
        deviation = by_seed_and_prompt(base, rng, 0.7)
        table = base.assign(**{GOLD: base[GOLD] + late * deviation})
        boot = Bootstrap(draws=300, rng=trial)
        found = fit_goodhart(table, rewards=[GOLD], bootstrap=boot).iloc[0]
        low, high = found["peak_distance_low"], found["peak_distance_high"]
        hits += low <= 3 and not high < 3  # NaN: beyond the data
    assert hits / n > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)


def test_a_report_is_of_the_gold_or_else_of_held_out_rewards() -> None:
    table = scores(linear(3.0, 0.5))
    found = goodhart_report(table, bootstrap=FEW)
    assert found[["scored", "role"]].drop_duplicates().to_numpy().tolist() == [
        [GOLD, "gold"]
    ]
    without = goodhart_report(table.drop(columns=GOLD), bootstrap=FEW)
    assert set(without["role"]) == {"cross"}
    assert "aesthetic-mini" not in set(without["scored"])
    with known_rewards(parts={"aesthetic-mini": ["pick-mini", "hps-mini"]}):
        left = goodhart_report(table.drop(columns=GOLD), bootstrap=FEW)
    assert set(without["scored"]) - set(left["scored"]) == {"pick-mini", "hps-mini"}
    held_out = [name for name in table if name.startswith("gold")]
    others = ["pick-mini", "hps-mini", "imagereward-mini"]
    alone = goodhart_report(table.drop(columns=[*held_out, *others]), bootstrap=FEW)
    assert alone["statement"].tolist() == ["no fit: scored by the trained reward alone"]
