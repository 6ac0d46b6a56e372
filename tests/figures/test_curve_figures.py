"""Figures of curves: what is drawn is what the table says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tdpo_pipeline import overoptimization
from tdpo_pipeline.figures import (
    Drawn,
    FigureSettings,
    cross_reward,
    draw,
    evaluated_reward,
    final_rewards,
    neurons,
    pairwise_agreement,
    paper_scales,
    prompt_curves,
    proxy_vs_gold,
    sample_efficiency,
    save_png,
    style,
)
from tdpo_pipeline.figures.sample_efficiency import by_round
from tdpo_pipeline.overoptimization import (
    Bootstrap,
    ScoreTableError,
    gold_of,
    known_rewards,
    reward_curves,
)
from tests.synthetic_tables import REWARDS, synthetic_history, synthetic_scores

FEW = Bootstrap(draws=100)
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
    return reward_curves(
        pd.concat([scores(method) for method in METHODS]), bootstrap=FEW
    )


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


def notice_of(figure: Figure) -> str:
    (text,) = figure.axes[0].texts
    return text.get_text().replace("\n", " ")


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


def test_a_caption_says_where_intervals_end_with_the_seeds() -> None:
    """Of three seeds two stopped early: what is left has no interval, and no other one."""
    history = pd.concat(
        [
            synthetic_history("tdpo", "pick-mini", seed, gain=1, epochs=epochs)
            for seed, epochs in enumerate((6, 3, 3))
        ]
    )
    figure, data = sample_efficiency(history)
    assert data.query("epoch > 3")["low"].isna().all()
    text = texts(figure)
    assert "intervals over training seeds, none where one of them is left" in text
    assert "not over seeds" not in text


def test_a_panel_per_trained_reward() -> None:
    rewards = ("aesthetic-mini", "hps-mini")
    history = pd.concat(
        [synthetic_history("tdpo", r, 0, gain=1, epochs=3) for r in rewards]
    )
    figure, _ = sample_efficiency(history)
    assert [ax.get_ylabel() for ax in figure.axes] == list(rewards)


def test_the_caption_names_who_explored(history: pd.DataFrame) -> None:
    assert "Explored" not in texts(sample_efficiency(history)[0])
    first = (history["method"] == "tdpo_r") & (history["epoch"] <= 4)
    explored = history.assign(explored=np.where(first, 1.0, np.nan))
    told = texts(sample_efficiency(explored)[0])
    assert "Explored in part: the samples of TDPO-R." in told


def test_neurons_draws_its_table_and_the_resets(history: pd.DataFrame) -> None:
    figure, data = neurons(history)
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


def test_panels_of_neurons_differ_in_title_and_have_the_range_of_their_data() -> None:
    rows = [
        {"run": f"tdpo-{reward}-s0", "method": "tdpo", "reward": reward, "seed": 0}
        | {"epoch": epoch, "critic_dormant_pct": dormant, "critic_overlap_pct": 50.0}
        for reward, most in (("hps-mini", 12.0), ("pick-mini", 0.0))
        for epoch, dormant in ((1, 0.0), (2, most))
    ]
    figure, _ = neurons(pd.DataFrame(rows))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        f"trained on {reward}: {what}"
        for reward in ("hps-mini", "pick-mini")
        for what in ("dormancy", "overlap")
    ]
    tops = [ax.get_ylim()[1] for ax in figure.axes]
    # Rewards share the scale of what is 12 % at most; an overlap has all of 100 %.
    assert 12 < tops[0] < 15 and tops == [tops[0], 103, tops[0], 103]
    nothing = pd.DataFrame(rows).assign(critic_dormant_pct=0.0)
    assert neurons(nothing).figure.axes[0].get_ylim()[1] == 1


def test_neurons_without_critics_says_so(history: pd.DataFrame) -> None:
    figure, data = neurons(history[history["method"] == METHODS[0]])
    assert data.empty
    (ax,) = figure.axes
    assert "None of these methods has a temporal critic" in ax.texts[0].get_text()


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


def test_parts_of_an_ensemble_are_drawn_as_such_and_not_as_held_out() -> None:
    whole = scores("tdpo")
    with known_rewards(parts={"aesthetic-mini": ["hps-mini", "jpeg_compressibility"]}):
        curves = reward_curves(whole, bootstrap=FEW)
    figure, _ = cross_reward(curves)
    drawn = {ax.get_ylabel() for ax in figure.axes if ax.axison}
    assert drawn & {"hps-mini", "pick-mini"} == {"pick-mini"}
    (ax,) = final_rewards(curves)[0].axes
    assert [tick.get_text() for tick in ax.get_xticklabels()][:4] == [
        "aesthetic-\nmini\n(trained)",
        "hps-mini\n(a part of it)",
        "jpeg_compressibility\n(a part of it)",
        "gold_taste\n(its gold)",
    ]


def test_cross_reward_of_a_group_that_was_not_evaluated(curves: pd.DataFrame) -> None:
    figure, data = cross_reward(curves, group="activities")
    assert data.empty
    assert "evaluated" in figure.axes[0].texts[0].get_text()


def of_two_rewards(unseen_of: str) -> pd.DataFrame:
    """Curves of two trained rewards, one of them evaluated on unseen animals."""
    table = pd.concat(
        [scores("tdpo", reward) for reward in ("aesthetic-mini", "hps-mini")]
    )
    there = (table["prompt_set"] != "unseen_animals") | (table["reward"] == unseen_of)
    return reward_curves(table[there], bootstrap=FEW)


def test_a_reward_that_was_not_evaluated_on_the_prompts_is_named() -> None:
    figure, data = cross_reward(of_two_rewards("hps-mini"), group="unseen")
    assert set(data["reward"]) == {"hps-mini"}
    assert "Not evaluated on these prompts: aesthetic-mini." in texts(figure)
    figure, _ = cross_reward(of_two_rewards("hps-mini"), group="complex")
    assert "Not evaluated" not in texts(figure)
    figure, _ = evaluated_reward(
        of_two_rewards("hps-mini"), groups=["unseen", "complex"]
    )
    said = [" ".join(t.get_text().split()) for ax in figure.axes for t in ax.texts]
    assert "aesthetic-mini: not evaluated on unseen animals" in said


def test_rows_of_panels_per_trained_reward() -> None:
    rewards = ("aesthetic-mini", "hps-mini")
    curves = reward_curves(
        pd.concat([scores("tdpo", reward) for reward in rewards]), bootstrap=FEW
    )
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
            for line, role in zip(lines, ("trained", "gold"), strict=True):
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
    curves = reward_curves(scores("tdpo", "jpeg_compressibility"), bootstrap=FEW)
    figure, data = proxy_vs_gold(curves)
    assert data.empty
    assert "gold" in figure.axes[0].texts[0].get_text()


def test_agreement_draws_its_table() -> None:
    table = pd.concat([scores(method) for method in METHODS])
    agreement = overoptimization.pairwise_agreement(table, bootstrap=FEW)
    figure, data = pairwise_agreement(agreement, groups=["seen", "untrained"])
    assert set(data["scored"]) == {"gold_taste"}  # its gold
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "aesthetic-mini: prompts trained on",
        "aesthetic-mini: simple animals not trained on",
    ]
    for method in METHODS:
        rows = data[(data["method"] == method) & (data["group"] == "seen")]
        (line,) = drawn_lines(figure, 0, method)
        assert line == pytest.approx(rows[["reward_queries", "mean"]].to_numpy())
    assert "by chance one half" in texts(figure)
    assert "1 or 2 prompts x 2 images" in texts(figure)
    _, other = pairwise_agreement(agreement, scored="hps-mini")
    assert set(other["scored"]) == {"hps-mini"}
    with known_rewards(golds={}):
        nobody = overoptimization.pairwise_agreement(table, bootstrap=FEW)
    figure, data = pairwise_agreement(nobody)
    assert data.empty
    assert "No prompt has several images that a gold scored" in notice_of(figure)
    single = overoptimization.pairwise_agreement(table.query("image == 0"))
    settings = FigureSettings(
        draws="pairwise_agreement", title="Pairs", methods=METHODS
    )
    figure, data = draw(settings, single)
    assert data.empty
    assert "No prompt has several images that a gold scored" in notice_of(figure)


@pytest.mark.parametrize("make", [cross_reward, proxy_vs_gold])
def test_equal_curves_give_equal_bytes(
    curves: pd.DataFrame, make: Callable[[pd.DataFrame], Drawn]
) -> None:
    assert digest(make(curves).figure) == digest(make(curves.copy()).figure)


@pytest.mark.parametrize("make", [sample_efficiency, neurons])
def test_equal_histories_give_equal_bytes(
    history: pd.DataFrame, make: Callable[[pd.DataFrame], Drawn]
) -> None:
    assert digest(make(history).figure) == digest(make(history.copy()).figure)


def test_points_without_interval_are_drawn() -> None:
    table = scores("tdpo")
    one = table[table["prompt"].isin(["cat", "snail", "a cat and a dog"])]
    figure, data = cross_reward(reward_curves(one, bootstrap=FEW), group="unseen")
    assert data["low"].isna().all()
    assert len(drawn_lines(figure, 0, "tdpo")[0]) == 3
    digest(figure)


# ------------------------------------------------------------------ rounds
def rounds_history() -> pd.DataFrame:
    """One run of 5 epochs that trained after its second and after its last one."""
    return pd.DataFrame(
        {
            "run": "rwr-pick-mini-s0",
            "method": "rwr",
            "reward": "pick-mini",
            "seed": 0,
            "epoch": [1, 2, 3, 4, 5],
            "reward_queries": [100, 200, 300, 400, 500],
            "updates": [0, 50, 0, 0, 50],
            "pick-mini_mean": [1.0, 3.0, 4.0, 5.0, 6.0],
            "pick-mini_std": [2.0, 2.0, 1.0, 1.0, 1.0],
        }
    )


def test_epochs_that_sampled_with_the_same_weights_are_one_round() -> None:
    found = by_round(rounds_history())
    assert found["epoch"].tolist() == [0, 1]
    assert found["reward_queries"].tolist() == [200, 500]
    assert found["samples"].tolist() == [200, 300]
    often = by_round(rounds_history().assign(samples=25))  # 4 queries a sample
    assert often["samples"].tolist() == [50, 75]
    assert found["pick-mini_mean"].tolist() == [2.0, 5.0]
    # Within 2^2 and between 1^2 make 5; within 1 and between 2/3 make 5/3.
    assert found["pick-mini_std"].tolist() == pytest.approx([5**0.5, (5 / 3) ** 0.5])


def test_reward_over_rounds() -> None:
    figure, data = sample_efficiency(rounds_history(), x="rounds")
    assert data[["rounds", "mean", "n_samples"]].to_numpy().tolist() == [
        [0, 2.0, 200],
        [1, 5.0, 300],
    ]
    # 1.96 standard errors of 200 samples: 1.96 x sqrt(5 / 200) = 0.3099
    assert data["high"].iloc[0] == pytest.approx(2 + 0.3099, abs=1e-4)
    (line,) = drawn_lines(figure, 0, "rwr")
    assert line.tolist() == [[0, 2.0], [1, 5.0]]
    assert figure.axes[0].get_xlabel() == "rounds trained before"
    assert "200 or 300 training samples" in texts(figure)
    assert "one round's samples (not over seeds)" in texts(figure)


def test_rounds_need_the_number_of_updates() -> None:
    with pytest.raises(ScoreTableError, match="'updates'"):
        sample_efficiency(rounds_history().drop(columns="updates"), x="rounds")


def test_rounds_of_two_runs_are_counted_apart() -> None:
    first, second = rounds_history(), rounds_history()
    second = second.assign(run="rwr-pick-mini-s1", seed=1, updates=[50] * 5)
    found = by_round(pd.concat([first, second]))
    assert found.groupby("run")["epoch"].apply(list).to_dict() == {
        "rwr-pick-mini-s0": [0, 1],
        "rwr-pick-mini-s1": [0, 1, 2, 3, 4],
    }


# ------------------------------------------------------------------ many methods
CROWD = ("ddpo_2", "ddpo_100", "tdpo", "tdpo_r")


def bars_of(figure: Figure, panel: int) -> list[np.ndarray]:
    """Ends (2, 2) of a panel's bars."""
    return [
        segment
        for collection in figure.axes[panel].collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]


@pytest.fixture(scope="module")
def crowd() -> pd.DataFrame:
    return reward_curves(pd.concat([scores(method) for method in CROWD]), bootstrap=FEW)


def test_intervals_of_many_methods_stand_apart_at_the_end(crowd: pd.DataFrame) -> None:
    figure, data = evaluated_reward(crowd)
    last = data[data["epoch"] == 8].set_index("method").loc[list(CROWD)]
    found = bars_of(figure, 0)
    assert np.array([bar[:, 1] for bar in found]) == pytest.approx(
        last[["low", "high"]].to_numpy()
    )
    assert (np.diff([bar[0, 0] for bar in found]) > 0).all()
    assert "Bars, beside the curves' ends (the table has all): 95" in texts(figure)
    assert "may leave the reward's range" in texts(figure)


def test_proxies_and_golds_of_many_methods_stand_apart(crowd: pd.DataFrame) -> None:
    figure, data = proxy_vs_gold(crowd)
    last = data[data["epoch"] == 8].set_index(["method", "role"])
    order = [(method, role) for method in CROWD for role in ("trained", "gold")]
    for panel in (0, 1):  # queries and KL are equal for all
        found = bars_of(figure, panel)
        assert np.array([bar[:, 1] for bar in found]) == pytest.approx(
            last.loc[order, ["low", "high"]].to_numpy()
        )
        assert (np.diff([bar[0, 0] for bar in found]) > 0).all()


def test_many_methods_have_bars_rather_than_bands() -> None:
    history = pd.concat(
        [
            synthetic_history(method, "aesthetic-mini", seed, gain=1, epochs=6)
            for method in CROWD
            for seed in range(3)
        ]
    )
    for figure, data in (sample_efficiency(history), neurons(history)):
        methods = style.sort_methods(data["method"])
        for ax in figure.axes:
            bands = [c for c in ax.collections if not isinstance(c, LineCollection)]
            assert len(bands) == (0 if len(methods) == 4 else 2)
    figure, data = sample_efficiency(history)
    last = data[data["epoch"] == 6].set_index("method").loc[list(CROWD)]
    assert np.array([bar[:, 1] for bar in bars_of(figure, 0)]) == pytest.approx(
        last[["low", "high"]].to_numpy()
    )
    assert "Bars, beside the curves' ends (the table has all): 95" in texts(figure)


@pytest.mark.parametrize("table", ["curves", "crowd"])
def test_axes_of_held_out_rewards_are_those_of_the_curves(
    table: str, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue(table)
    # Intervals of a hundred times the curve's length.
    wide = given.assign(low=given["low"] - 100, high=given["high"] + 100)
    figure, data = cross_reward(wide)
    for ax in (ax for ax in figure.axes if ax.axison):
        rows = data[data["scored"] == ax.get_ylabel().split()[0]]
        for values, limits in (
            (rows["mean"], ax.get_ylim()),
            (rows["x_mean"], ax.get_xlim()),
        ):
            length = values.max() - values.min()
            assert limits[0] < values.min() and values.max() < limits[1]
            assert limits[1] - limits[0] < 2 * length
        arrows = [line for line in ax.lines if isinstance(line.get_marker(), int)]
        barred = 4 if table == "crowd" else 2 * 3  # every checkpoint of two methods
        assert sum(len(line.get_xdata()) for line in arrows) == 4 * barred
    assert "an arrow at an edge is where a bar goes on" in texts(figure)


# ------------------------------------------------------------------ neurons
def test_percentages_of_neurons_stay_percentages() -> None:
    # Overlaps of 20 and 100 % have a t interval over two seeds far beyond 0 and 100 %.
    rows = [
        {
            "run": f"tdpo-pick-mini-s{seed}",
            "method": "tdpo",
            "reward": "pick-mini",
            "seed": seed,
        }
        | {"epoch": 1, "critic_dormant_pct": 0.0, "critic_overlap_pct": overlap}
        for seed, overlap in enumerate([20.0, 100.0])
    ]
    _, data = neurons(pd.DataFrame(rows))
    overlap = data.set_index("quantity").loc["critic_overlap_pct"]
    assert (overlap["mean"], overlap["low"], overlap["high"]) == (60, 0, 100)


def test_a_reward_without_dormant_neurons_says_so() -> None:
    rows = [
        {"run": f"tdpo-{reward}-s0", "method": "tdpo", "reward": reward, "seed": 0}
        | {"epoch": 1, "critic_dormant_pct": 0.0, "critic_overlap_pct": overlap}
        for reward, overlap in (("pick-mini", float("nan")), ("hps-mini", 50.0))
    ]
    figure, _ = neurons(pd.DataFrame(rows))
    said = [ax.get_title(loc="left") for ax in figure.axes if ax.texts]
    assert said == ["trained on pick-mini: overlap"]


def test_neurons_of_the_policy() -> None:
    history = pd.DataFrame(
        {
            "run": "tdpo_policy_reset_active-pick-mini-s0",
            "method": "tdpo_policy_reset_active",
            "reward": "pick-mini",
            "seed": 0,
            "epoch": [1, 2, 3],
            "lora_dormant_pct_t0": [0.0, 1.0, 2.0],
            "lora_dormant_pct_t01": [30.0, 40.0, 20.0],
            "policy_neurons_reset": [0.0, 12.0, 0.0],
        }
    )
    figure, data = neurons(
        history, quantities=["lora_dormant_pct_t0", "lora_dormant_pct_t01"]
    )
    for panel, expected in enumerate(([0.0, 1.0, 2.0], [30.0, 40.0, 20.0])):
        (line,) = drawn_lines(figure, panel, "tdpo_policy_reset_active")
        assert line[:, 1].tolist() == expected
    assert data.groupby("epoch")["neurons_reset"].max().to_dict() == {1: 0, 2: 12, 3: 0}
    assert "LoRA layer" in texts(figure)
    empty, rows = neurons(
        history.drop(columns=["lora_dormant_pct_t0"]),
        quantities=["lora_dormant_pct_t0"],
    )
    assert rows.empty
    assert "has such neurons" in empty.axes[0].texts[0].get_text()


# ------------------------------------------------------------------ evaluated rewards
def test_evaluated_reward_draws_its_table(curves: pd.DataFrame) -> None:
    figure, data = evaluated_reward(curves, groups=["unseen", "complex"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "unseen animals",
        "complex prompts",
    ]
    for panel, group in enumerate(("unseen", "complex")):
        for method in METHODS:
            chosen = (data["method"] == method) & (data["group"] == group)
            rows = data[chosen]
            (line,) = drawn_lines(figure, panel, method)
            assert line == pytest.approx(rows[["reward_queries", "mean"]].to_numpy())
            assert rows["reward_queries"].tolist() == [0, 512, 1024]
    assert set(data["scored"]) == {"aesthetic-mini"}
    assert "one seed" in texts(figure)


def test_evaluated_reward_has_the_interval_of_the_change(curves: pd.DataFrame) -> None:
    _, data = evaluated_reward(curves, scored="hps-mini")
    row = data[(data["method"] == "tdpo_r") & (data["epoch"] == 8)].iloc[0]
    source = curves[
        (curves["method"] == "tdpo_r")
        & (curves["epoch"] == 8)
        & (curves["scored"] == "hps-mini")
        & (curves["group"] == "seen")
    ].iloc[0]
    assert row["mean"] == source["mean"]
    assert row["low"] == pytest.approx(source["base_mean"] + source["low"])
    assert row["high"] == pytest.approx(source["base_mean"] + source["high"])


def test_evaluated_reward_of_what_was_not_evaluated(curves: pd.DataFrame) -> None:
    figure, data = evaluated_reward(curves, groups=["activities"])
    assert data.empty
    assert "not evaluated on activities" in figure.axes[0].texts[0].get_text()
    figure, data = evaluated_reward(curves, scored="clip-mini")
    assert data.empty
    assert "clip-mini was not evaluated" in figure.axes[0].texts[0].get_text()


def test_rewards_of_one_group_stand_side_by_side() -> None:
    rewards = ("aesthetic-mini", "hps-mini")
    curves = reward_curves(
        pd.concat([scores("tdpo", reward) for reward in rewards]), bootstrap=FEW
    )
    figure, _ = evaluated_reward(curves)
    first, second = (ax.get_position() for ax in figure.axes)
    assert [ax.get_ylabel() for ax in figure.axes] == list(rewards)
    assert first.y0 == pytest.approx(second.y0) and first.x0 < second.x0


# ------------------------------------------------------------------ papers' units
def test_a_second_axis_has_the_papers_units(
    curves: pd.DataFrame, history: pd.DataFrame
) -> None:
    scales = {
        "hps-mini": {"factor": 100.0, "offset": 0.0},
        "aesthetic-mini": {"factor": 2.0, "offset": 1.0},
    }
    plain = digest(evaluated_reward(curves, scored="pick-mini")[0])
    with paper_scales(scales):
        figure, data = cross_reward(curves, held_out=["hps-mini"])
        trained, _ = sample_efficiency(history)
        assert digest(evaluated_reward(curves, scored="pick-mini")[0]) == plain
    figure.draw_without_rendering()
    (ax,) = (ax for ax in figure.axes if ax.axison)
    top, right = ax.child_axes
    assert right.get_ylabel() == "hps-mini, as in its paper"
    assert right.get_ylim() == pytest.approx([100 * end for end in ax.get_ylim()])
    assert top.get_xlim() == pytest.approx([2 * end + 1 for end in ax.get_xlim()])
    expected = cross_reward(curves, held_out=["hps-mini"])
    pd.testing.assert_frame_equal(data, expected.data)
    assert not expected.figure.axes[0].child_axes
    (own,) = trained.axes[0].child_axes
    assert own.get_ylabel() == "aesthetic-mini, as in its paper"


# ------------------------------------------------------------------ final rewards
def test_final_rewards_draws_its_table(curves: pd.DataFrame) -> None:
    figure, data = final_rewards(curves)
    assert (data["epoch"] == 8).all()
    (ax,) = figure.axes
    labels = [tick.get_text() for tick in ax.get_xticklabels()]
    assert labels[:2] == ["aesthetic-\nmini\n(trained)", "gold_taste\n(its gold)"]
    assert not any(label.startswith("jpeg") for label in labels)
    names = [label.split("\n(")[0].replace("\n", "") for label in labels]
    for place, method in enumerate(METHODS):
        bars = ax.containers[2 * place]
        rows = data[data["method"] == method].set_index("scored").loc[names]
        assert [bar.get_height() for bar in bars] == pytest.approx(
            rows["mean"].tolist()
        )
        middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        # Two methods: clusters 0.8 wide, so bars stand 0.2 left and right of the tick.
        offset = (-0.2, 0.2)[place]
        assert middles == pytest.approx([i + offset for i in range(len(names))])
    row = data[(data["method"] == "tdpo_r") & (data["scored"] == "gold_taste")].iloc[0]
    source = curves[
        (curves["method"] == "tdpo_r")
        & (curves["epoch"] == 8)
        & (curves["scored"] == "gold_taste")
        & (curves["group"] == "seen")
    ].iloc[0]
    for end, name in (("mean", "difference"), ("low", "low"), ("high", "high")):
        assert row[end] == pytest.approx(source[name] / source["base_sd"])
    assert "one seed" in texts(figure)


def test_final_rewards_without_what_never_varied(curves: pd.DataFrame) -> None:
    flat = curves["base_sd"].where(curves["scored"] != "hps-mini", 0.0)
    figure, data = final_rewards(curves.assign(base_sd=flat))
    assert "hps-mini" not in set(data["scored"])
    assert "Without hps-mini: no such SD." in texts(figure)


def test_final_rewards_of_chosen_rewards_and_group(curves: pd.DataFrame) -> None:
    _, data = final_rewards(curves, group="unseen", scored=["imagereward-mini"])
    assert set(data["scored"]) == {"imagereward-mini"}
    figure, data = final_rewards(curves, group="activities")
    assert data.empty
    assert "activities" in figure.axes[0].texts[0].get_text()


# ------------------------------------------------------------------ classes of prompts
def alignment_scores() -> pd.DataFrame:
    """One run, two epochs, three prompts of two classes and one of none."""
    levels = {
        "a cat riding a bike": (1.0, 3.0),
        "a dog riding a bike": (3.0, 9.0),
        "a cat playing chess": (0.0, 1.0),
        "a cat": (5.0, 5.0),
    }
    rows = [
        {
            "run": "ddpo_is-pick-mini-s0",
            "method": "ddpo_is",
            "reward": "pick-mini",
            "seed": 0,
            "epoch": epoch,
            "reward_queries": 64 * epoch,
            "kl_to_base": 0.1 * epoch,
            "eta": 1.0,
            "prompt_set": "activities",
            "prompt": prompt,
            "seen": True,
            "image": image,
            "pick-mini": level + (0.5 if image else -0.5),
        }
        for prompt, pair in levels.items()
        for epoch, level in zip((0, 4), pair, strict=True)
        for image in range(2)
    ]
    return pd.DataFrame(rows)


def test_prompts_and_their_classes() -> None:
    figure, data = prompt_curves(
        alignment_scores(), classes=["riding a bike", "playing chess"]
    )
    means = data.set_index(["class", "prompt", "epoch"])["mean"].to_dict()
    assert means == pytest.approx(
        {
            ("riding a bike", "", 0): 2.0,
            ("riding a bike", "", 4): 6.0,
            ("riding a bike", "a cat riding a bike", 0): 1.0,
            ("riding a bike", "a cat riding a bike", 4): 3.0,
            ("riding a bike", "a dog riding a bike", 0): 3.0,
            ("riding a bike", "a dog riding a bike", 4): 9.0,
            ("playing chess", "", 0): 0.0,
            ("playing chess", "", 4): 1.0,
            ("playing chess", "a cat playing chess", 0): 0.0,
            ("playing chess", "a cat playing chess", 4): 1.0,
        }
    )
    last = data[(data["prompt"] == "") & (data["epoch"] == 4)].set_index("class")
    # Changes 2 and 6 of two prompts; one prompt and one seed have no interval.
    assert last.loc["riding a bike", "low"] < 6 < last.loc["riding a bike", "high"]
    assert np.isnan(last.loc["playing chess", "low"])
    (ax,) = figure.axes
    thick = [line for line in ax.lines if line.get_linewidth() > 2]
    faint = [line for line in ax.lines if line.get_linewidth() < 1]
    assert (len(thick), len(faint)) == (2, 3)
    assert [list(line.get_ydata()) for line in thick] == [[0, 1], [2, 6]]
    assert ax.get_title(loc="left").startswith("DDPO, importance sampling")
    assert "one seed" in texts(figure)


def test_a_prompt_in_two_prompt_sets_is_counted_once() -> None:
    table = alignment_scores()
    # Its pictures are the same, whichever set it is from.
    also = table[table["prompt"] == "a cat riding a bike"].assign(prompt_set="more")
    unseen = also.assign(prompt_set="again", seen=False)  # and whatever its group
    classes = ["riding a bike", "playing chess"]
    figure, data = prompt_curves(table, classes=classes)
    twice, found = prompt_curves(pd.concat([table, also, unseen]), classes=classes)
    pd.testing.assert_frame_equal(found, data)
    assert digest(twice) == digest(figure)


def test_prompts_of_no_class_say_what_to_evaluate() -> None:
    figure, data = prompt_curves(alignment_scores(), classes=["doing laundry"])
    assert data.empty
    text = " ".join(figure.axes[0].texts[0].get_text().split())
    assert "'doing laundry'" in text
    assert "(own_evaluation) in the parameters file of the environment" in text


@pytest.mark.parametrize("classes", [[], ["a", "b", "c", "d", "e"]])
def test_prompts_have_one_to_four_classes(classes: list[str]) -> None:
    with pytest.raises(ValueError, match="shows 1 to 4 of them"):
        prompt_curves(alignment_scores(), classes=classes)
