"""Figures of curves: what is drawn is what the table says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tdpo_pipeline.figures import (
    Drawn,
    cross_reward,
    dormant,
    proxy_vs_gold,
    sample_efficiency,
    save_png,
    style,
)
from tdpo_pipeline.overoptimization import gold_of, reward_curves
from tests.synthetic_tables import REWARDS, synthetic_history, synthetic_scores

METHODS = ("ddpo_100_timestep_major", "tdpo_r")
PROMPTS = {
    "simple_animals": ["cat", "dog", "fox"],
    "unseen_animals": ["snail", "lobster"],
    "complex": ["a cat and a dog", "a dog on the moon"],
}


def scores(method: str, reward: str = "aesthetic-mini", seed: int = 0) -> pd.DataFrame:
    gold = gold_of(reward)
    gains = {reward: [0, 0.6, 1.0], **({gold: [0, 0.2, -0.2]} if gold else {})}
    return synthetic_scores(
        method,
        reward,
        seed,
        gains=gains,
        epochs=(0, 4, 8),
        prompts=PROMPTS,
        trained_on=("cat", "dog"),
        images=2,
    )


@pytest.fixture(scope="module")
def curves() -> pd.DataFrame:
    return reward_curves(pd.concat([scores(method) for method in METHODS]))


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return pd.concat(
        [
            synthetic_history(m, "aesthetic-mini", 0, gain=1, epochs=6, reset_every=3)
            for m in METHODS
        ]
    )


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def drawn_lines(figure: Figure, panel: int, method: str) -> list[np.ndarray]:
    """Points (n, 2) of the curves in a method's colour that have markers."""
    look = style.method_style(method)
    return [
        np.column_stack([np.asarray(v, float) for v in line.get_data()])
        for line in figure.axes[panel].lines
        if line.get_color() == look.color and line.get_marker() == look.marker
    ]


def digest(figure: Figure) -> str:
    data = BytesIO()
    save_png(figure, data)  # type: ignore[arg-type]
    return hashlib.sha256(data.getvalue()).hexdigest()


def test_sample_efficiency_draws_its_table(history: pd.DataFrame) -> None:
    figure, data = sample_efficiency(history)
    assert list(data.groupby("method").size()) == [6, 6]
    for method in METHODS:
        rows = data[data["method"] == method]
        (line,) = drawn_lines(figure, 0, method)
        assert line == pytest.approx(rows[["reward_queries", "mean"]].to_numpy())
    # A band around every curve.
    assert len(figure.axes[0].collections) == 2
    assert "one seed" in texts(figure)
    assert "128 training samples" in texts(figure)
    assert "not over seeds" in texts(figure)


def test_several_seeds_are_not_stamped() -> None:
    history = pd.concat(
        [synthetic_history("tdpo", "pick-mini", s, gain=1, epochs=3) for s in range(3)]
    )
    figure, data = sample_efficiency(history)
    assert "one seed" not in texts(figure)
    assert "3 training seeds per method" in texts(figure)
    assert (data["n_seeds"] == 3).all()


def test_a_panel_per_trained_reward() -> None:
    rewards = ("aesthetic-mini", "hps-mini")
    history = pd.concat(
        [synthetic_history("tdpo", r, 0, gain=1, epochs=3) for r in rewards]
    )
    figure, _ = sample_efficiency(history)
    assert [ax.get_ylabel() for ax in figure.axes] == list(rewards)


def test_dormant_draws_its_table_and_the_resets(history: pd.DataFrame) -> None:
    figure, data = dormant(history)
    assert set(data["method"]) == {"tdpo_r"}
    for panel, quantity in enumerate(("critic_dormant_pct", "critic_overlap_pct")):
        rows = data[data["quantity"] == quantity]
        (line,) = drawn_lines(figure, panel, "tdpo_r")
        assert line == pytest.approx(rows[["epoch", "mean"]].to_numpy(float))
    color = style.method_style("tdpo_r").color
    resets = [
        line.get_xdata()[0]
        for line in figure.axes[0].lines
        if line.get_color() == color and line.get_marker() in (None, "None", "")
    ]
    assert resets == [3, 6]
    assert "one seed gives no interval" in texts(figure)


def test_dormant_without_critics_says_so(history: pd.DataFrame) -> None:
    figure, data = dormant(history[history["method"] == METHODS[0]])
    assert data.empty
    (ax,) = figure.axes
    assert "critic" in ax.texts[0].get_text()


@pytest.mark.parametrize("group", ["seen", "untrained", "unseen", "complex"])
def test_cross_reward_draws_its_table(curves: pd.DataFrame, group: str) -> None:
    figure, data = cross_reward(curves, group=group)
    panels = [ax.get_ylabel() for ax in figure.axes if ax.axison]
    assert panels[0] == "gold_taste (its gold)"
    assert set(panels[1:]) == {
        "pick-mini",
        "hps-mini",
        "imagereward-mini",
        "gold_match",
    }
    for panel, label in enumerate(panels):
        for method in METHODS:
            rows = data[
                (data["method"] == method) & (data["scored"] == label.split()[0])
            ]
            (line,) = drawn_lines(figure, panel, method)
            assert line == pytest.approx(rows[["x_mean", "mean"]].to_numpy())
            assert rows["epoch"].tolist() == [0, 4, 8]


def test_cross_reward_takes_x_from_the_prompts_trained_on(curves: pd.DataFrame) -> None:
    _, data = cross_reward(curves, group="complex")
    trained = curves[(curves["role"] == "trained") & (curves["group"] == "seen")]
    expected = trained.set_index(["method", "epoch"])["mean"]
    for row in data.itertuples():
        assert row.x_mean == expected[row.method, row.epoch]
    last = data[data["epoch"] == 8].iloc[0]
    change = curves[
        (curves["method"] == last["method"])
        & (curves["epoch"] == 8)
        & (curves["group"] == "complex")
        & (curves["scored"] == last["scored"])
    ].iloc[0]
    assert last["low"] == pytest.approx(change["base_mean"] + change["low"])
    assert last["high"] == pytest.approx(change["base_mean"] + change["high"])


def test_cross_reward_draws_chosen_rewards(curves: pd.DataFrame) -> None:
    figure, data = cross_reward(curves, held_out=["jpeg_compressibility"])
    assert set(data["scored"]) == {"jpeg_compressibility"}
    assert [ax.get_ylabel() for ax in figure.axes if ax.axison] == [
        "jpeg_compressibility"
    ]


def test_cross_reward_of_a_group_that_was_not_evaluated(curves: pd.DataFrame) -> None:
    figure, data = cross_reward(curves, group="activities")
    assert data.empty
    assert "evaluated" in figure.axes[0].texts[0].get_text()


def test_rows_of_panels_per_trained_reward() -> None:
    rewards = ("aesthetic-mini", "hps-mini")
    curves = reward_curves(pd.concat([scores("tdpo", reward) for reward in rewards]))
    figure, data = cross_reward(curves)
    labels = [ax.get_xlabel() for ax in figure.axes if ax.axison]
    assert labels == ["aesthetic-mini, trained"] * 5 + ["hps-mini, trained"] * 5
    golds = [ax.get_ylabel() for ax in figure.axes if "gold)" in ax.get_ylabel()]
    assert golds == ["gold_taste (its gold)", "gold_match (its gold)"]
    assert set(data["scored"]) <= set(REWARDS)


def test_proxy_vs_gold_draws_its_table(curves: pd.DataFrame) -> None:
    figure, data = proxy_vs_gold(curves)
    assert set(data["scored"]) == {"aesthetic-mini", "gold_taste"}
    for panel, x in enumerate(("reward_queries", "kl_to_base")):
        for method in METHODS:
            lines = drawn_lines(figure, panel, method)
            for line, role in zip(lines, ("gold", "trained"), strict=True):
                rows = data[(data["method"] == method) & (data["role"] == role)]
                assert line == pytest.approx(rows[[x, "mean"]].to_numpy(float))
    # From the base model, in its standard deviations.
    start = data[data["epoch"] == 0]
    assert start["mean"].abs().max() < 1e-12
    row = data[(data["epoch"] == 8) & (data["role"] == "trained")].iloc[0]
    source = curves[
        (curves["method"] == row["method"])
        & (curves["epoch"] == 8)
        & (curves["role"] == "trained")
        & (curves["group"] == "seen")
    ].iloc[0]
    assert row["mean"] == pytest.approx(source["difference"] / source["base_sd"])
    assert row["low"] == pytest.approx(source["low"] / source["base_sd"])


def test_only_its_own_gold_is_held_against_a_proxy(curves: pd.DataFrame) -> None:
    _, data = proxy_vs_gold(curves)
    assert "gold_match" not in set(data["scored"])


def test_proxy_vs_gold_without_gold_says_so() -> None:
    curves = reward_curves(scores("tdpo", "jpeg_compressibility"))
    figure, data = proxy_vs_gold(curves)
    assert data.empty
    assert "gold" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("make", [cross_reward, proxy_vs_gold])
def test_equal_curves_give_equal_bytes(
    curves: pd.DataFrame, make: Callable[[pd.DataFrame], Drawn]
) -> None:
    assert digest(make(curves).figure) == digest(make(curves.copy()).figure)


@pytest.mark.parametrize("make", [sample_efficiency, dormant])
def test_equal_histories_give_equal_bytes(
    history: pd.DataFrame, make: Callable[[pd.DataFrame], Drawn]
) -> None:
    assert digest(make(history).figure) == digest(make(history.copy()).figure)


def test_points_without_interval_are_drawn() -> None:
    table = scores("tdpo")
    one = table[table["prompt"].isin(["cat", "snail", "a cat and a dog"])]
    figure, data = cross_reward(reward_curves(one), group="unseen")
    assert data["low"].isna().all()
    assert len(drawn_lines(figure, 0, "tdpo")[0]) == 3
    digest(figure)
