"""The figure of the Goodhart fits: its peak is where it was put, or it says why not."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from tdpo_pipeline.figures import FigureSettings, draw, goodhart, save_png, style
from tdpo_pipeline.overoptimization import (
    cubes,
    fit_goodhart,
    goodhart_bands,
    known_rewards,
)
from tests.synthetic_tables import synthetic_scores

PROMPTS = {
    "simple_animals": ["cat", "dog", "fox", "bee", "cow", "goat"],
    "complex": ["a cat and a dog"],
}
GOLD = "gold_taste"
DISTANCES = np.arange(6.0)
PEAK = DISTANCES * (3 - 0.5 * DISTANCES)  # 4.5 at d = 3, which is 9 nats
RISE = DISTANCES * (3 - 0.2 * DISTANCES)  # would peak at d = 7.5
CANNOT_TELL = "cannot tell whether it has a peak within the data"


def scores(
    gold: np.ndarray = PEAK,
    *,
    method: str = "tdpo",
    reward: str = "aesthetic-mini",
    seeds: int = 3,
    noise: float = 0.05,
) -> pd.DataFrame:
    """Scores of runs whose gold changes by ``gold`` at the distances 0, 1, 2, ..."""
    kl = dict(enumerate((DISTANCES**2)[: len(gold)]))
    tables = [
        synthetic_scores(
            method,
            reward,
            seed,
            gains={GOLD: list(gold)},
            epochs=range(len(gold)),
            prompts=PROMPTS,
            trained_on=PROMPTS["simple_animals"],
            images=2,
            seed_sd=noise,
        )
        for seed in range(seeds)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(kl_to_base=table["epoch"].map(kl))


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.axison]


def said(ax: Axes) -> str:
    """What a panel says of its fit."""
    (text,) = ax.texts
    return " ".join(text.get_text().split())


def bands(ax: Axes) -> list[np.ndarray]:
    """Corners (n, 2) of a panel's filled bands."""
    return [
        path.vertices
        for collection in ax.collections
        if isinstance(collection, PolyCollection)
        for path in collection.get_paths()
    ]


def drawn(ax: Axes, method: str = "tdpo") -> dict[str, list[np.ndarray]]:
    """Points (n, 2) of a panel's markers, curves, upright lines and bars."""
    look = style.method_style(method)
    found: dict[str, list[np.ndarray]] = {"dots": [], "fit": [], "peak": [], "bar": []}
    for line in ax.lines:
        points = np.column_stack([np.asarray(v, float) for v in line.get_data()])
        if line.get_color() == look.color:
            found["fit" if line.get_linestyle() == "-" else "dots"].append(points)
        elif line.get_linestyle() == ":":
            found["peak"].append(points)
        elif line.get_linewidth() > 2:
            found["bar"].append(points)
    return found


def texts(figure: Figure) -> str:
    caption = " | ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    return caption.replace("\u00a0", " ")


def labels(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def digest(figure: Figure) -> str:
    data = BytesIO()
    save_png(figure, data)  # type: ignore[arg-type]
    return hashlib.sha256(data.getvalue()).hexdigest()


def test_what_is_drawn_is_its_table() -> None:
    figure, data = goodhart(scores())
    (ax,) = panels(figure)
    part = {name: rows for name, rows in data.groupby("part")}
    assert {name: len(rows) for name, rows in part.items()} == {
        "checkpoint": 3 * 5,
        "fit": 50,
        "peak": 1,
    }
    found = drawn(ax)
    (dots,), (fit,) = found["dots"], found["fit"]
    assert dots == pytest.approx(part["checkpoint"][["kl_to_base", "mean"]].to_numpy())
    assert fit == pytest.approx(part["fit"][["kl_to_base", "mean"]].to_numpy())
    (band,) = bands(ax)
    assert band[:, 1].min() == pytest.approx(part["fit"]["low"].min())
    assert band[:, 1].max() == pytest.approx(part["fit"]["high"].max())
    peak = part["peak"].iloc[0]
    (upright,), (bar,) = found["peak"], found["bar"]
    assert set(upright[:, 0]) == {peak["kl_to_base"]}
    assert bar[:, 0].tolist() == [peak["kl_low"], peak["kl_high"]]


def test_checkpoints_are_means_of_one_seed_in_base_deviations() -> None:
    table = scores()
    _, data = goodhart(table)
    (cube,) = cubes(table, groups=["seen"])
    base_sd = cube.base_sd[cube.rewards.index(GOLD)]
    change = cube.changes([GOLD]).mean(axis=1)[..., 0] / base_sd
    dots = data[data["part"] == "checkpoint"].set_index(["seed", "epoch"])
    assert set(data["base_sd"]) == {base_sd}
    for seed in range(3):
        for epoch in range(1, 6):
            row = dots.loc[(seed, epoch)]
            assert row["mean"] == pytest.approx(change[seed, epoch])
            assert row["kl_to_base"] == epoch**2


def test_the_fit_is_the_preferred_one() -> None:
    table = scores()
    _, data = goodhart(table)
    curve = goodhart_bands(table, rewards=[GOLD])
    curve = curve[curve["preferred"].astype(bool)]
    fit, base_sd = data[data["part"] == "fit"], data["base_sd"].iloc[0]
    assert set(fit["form"]) == set(curve["form"]) == {"linear"}
    for name, source in (
        *(("mean", "fitted"), ("low", "band_low"), ("high", "band_high")),
    ):
        expected = (curve[source] / base_sd).to_numpy()
        assert fit[name].to_numpy() == pytest.approx(expected)
    row = fit_goodhart(table, rewards=[GOLD]).set_index("form").loc["linear"]
    peak = data[data["part"] == "peak"].iloc[0]
    assert peak["kl_to_base"] == pytest.approx(row["peak_kl"])
    assert peak["kl_high"] == pytest.approx(row["peak_distance_high"] ** 2)
    assert peak["high"] == pytest.approx(row["peak_value_high"] / base_sd)


def test_the_peak_is_where_it_was_put() -> None:
    figure, data = goodhart(scores())
    (peak,) = data[data["part"] == "peak"].to_dict("records")
    assert peak["kl_to_base"] == pytest.approx(9, abs=0.5)
    assert peak["kl_low"] < 9 < peak["kl_high"]
    assert peak["low"] < 4.5 / peak["base_sd"] < peak["high"]
    (ax,) = panels(figure)
    assert said(ax).startswith("peak at ") and " nats [" in said(ax)
    assert "(linear form" in said(ax)
    assert "peak and its interval" in labels(figure)


@pytest.mark.parametrize(
    ("gold", "noise", "statement"),
    [
        (RISE, 0.01, "it has no peak within the data"),
        (-RISE, 0.01, "it falls from the start"),
        (0.1 * PEAK, 1.0, CANNOT_TELL),
    ],
)
def test_a_curve_without_a_peak_says_so(
    gold: np.ndarray, noise: float, statement: str
) -> None:
    figure, data = goodhart(scores(gold, noise=noise))
    (ax,) = panels(figure)
    found = drawn(ax)
    assert said(ax).startswith(f"{statement} (")
    assert len(found["fit"]) == len(bands(ax)) == 1
    assert not found["peak"] and not found["bar"]
    (peak,) = data[data["part"] == "peak"].to_dict("records")
    assert peak["statement"] == statement
    assert np.isnan([peak["kl_to_base"], peak["kl_low"], peak["mean"]]).all()
    assert labels(figure) == ["checkpoint of one seed", "fit", "its 95 % band"]


def test_a_panel_says_whether_the_forms_agree() -> None:
    figure, data = goodhart(scores(RISE, noise=0.01))
    peak = data[data["part"] == "peak"].iloc[0]
    assert peak["other"] == peak["statement"]
    assert said(panels(figure)[0]).endswith("(linear form)")
    # Of one that rises for long the log form has its peak beyond the data.
    late = DISTANCES * (3 - 0.35 * DISTANCES)
    figure, data = goodhart(scores(late, noise=0.05))
    peak = data[data["part"] == "peak"].iloc[0]
    assert peak["statement"] == "it has a peak within the data" != peak["other"]
    assert said(panels(figure)[0]).endswith("(linear form; log form differs)")


def without_kl(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(kl_to_base=np.nan)


@pytest.mark.parametrize(
    ("table", "statement", "dots"),
    [
        (scores(PEAK[:4]), "no fit: 3 checkpoints at different distances", 9),
        (scores(PEAK[:2]), "no fit: 1 checkpoints at different distances", 3),
        (scores().query("epoch == 0"), "no fit: 0 checkpoints", 0),
        (without_kl(scores()), "no fit: KL to the base model was not recorded", 0),
    ],
)
def test_where_nothing_can_be_fitted_no_line_is_made_up(
    table: pd.DataFrame, statement: str, dots: int
) -> None:
    figure, data = goodhart(table)
    (ax,) = panels(figure)
    found = drawn(ax)
    assert said(ax).startswith(statement) and "form" not in said(ax)
    assert not found["fit"] and not found["peak"] and not bands(ax)
    assert sum(map(len, found["dots"])) == dots
    assert data["part"].value_counts().to_dict() == {
        "peak": 1,
        **({"checkpoint": dots} if dots else {}),
    }
    assert not figure.legends or labels(figure) == ["checkpoint of one seed"]
    assert bool(figure.legends) == bool(dots)
    digest(figure)


def test_one_seed_and_one_prompt_have_a_line_and_no_band() -> None:
    table = scores(seeds=1)
    figure, data = goodhart(table[table["prompt"] == "cat"])
    (ax,) = panels(figure)
    assert said(ax) == "no interval: one seed and one prompt (linear form)"
    assert len(drawn(ax)["fit"]) == 1
    assert not drawn(ax)["peak"] and not any(map(len, bands(ax)))
    assert data["low"].isna().all()
    assert "one seed" in [text.get_text() for text in figure.texts]


def test_a_reward_without_a_gold_says_so() -> None:
    nobody = scores(reward="jpeg_compressibility")
    settings = FigureSettings(draws="goodhart", title="Gold", methods=("tdpo",))
    not_scored = scores().drop(columns=GOLD)
    constant = scores().assign(**{GOLD: 1.0})
    unseen = scores().assign(seen=False)
    for table in (nobody, not_scored, constant, unseen, scores().iloc[:0]):
        figure, data = draw(settings, table)
        assert data.empty
        (text,) = figure.axes[0].texts
        assert "No trained reward has a gold that was scored" in text.get_text()
    both = pd.concat([scores(), nobody], ignore_index=True)
    figure, data = goodhart(both)
    assert set(data["reward"]) == {"aesthetic-mini"}
    assert "Without a gold to draw: jpeg_compressibility." in texts(figure)


def test_a_method_that_its_gold_did_not_score_has_no_panel() -> None:
    table = pd.concat(
        [scores(), scores(method="tdpo_r").assign(**{GOLD: np.nan})], ignore_index=True
    )
    _, data = goodhart(table)
    assert set(data["method"]) == {"tdpo"}
    with known_rewards(golds={"aesthetic-mini": "gold_match"}):
        _, other = goodhart(table)
    assert set(other["scored"]) == {"gold_match"}
    assert set(other["method"]) == {"tdpo", "tdpo_r"}


def test_only_the_prompts_trained_on_and_the_main_sampler_count() -> None:
    table = scores()
    off = table["epoch"] * 10.0
    others = table["prompt_set"] == "complex"
    moved = table.assign(**{GOLD: table[GOLD] + off * others})
    eta_0 = table.assign(eta=0.0, **{GOLD: table[GOLD] + off})
    _, data = goodhart(table)
    for changed in (moved, pd.concat([table, eta_0], ignore_index=True)):
        pd.testing.assert_frame_equal(goodhart(changed).data, data)


def test_panels_of_a_reward_share_their_axes_and_are_four_in_a_line() -> None:
    methods = ["ddpo_2", "ddpo_100", "tdpo", "tdpo_r", "alignprop_2023"]
    near, far = scores(PEAK[:5]), scores(20 * PEAK)
    tables = [near.assign(method=name, run=name + near["run"]) for name in methods[1:]]
    tables.append(far.assign(method=methods[0], run="far" + far["run"]))
    other = scores(method="tdpo", reward="pick-mini").assign(
        gold_match=lambda rows: rows[GOLD]
    )
    figure, data = goodhart(pd.concat([*tables, other], ignore_index=True))
    of_first, of_other = panels(figure)[:5], panels(figure)[5:]
    assert [ax.get_title(loc="left") for ax in of_first] == [
        style.method_label(name) for name in methods
    ]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in of_first}) == 1
    assert len(of_other) == 1 and of_other[0].get_ylim() != of_first[0].get_ylim()
    lines = [round(ax.get_position().y0, 6) for ax in of_first]
    assert len(set(lines[:4])) == 1 and lines[4] < lines[0]
    left, right = of_first[0].get_xlim()
    assert left == 0 and right > data["kl_to_base"].max()
    # What is in the middle of the axis is at half the distance, a quarter of the KL.
    middle = (
        of_first[0]
        .transAxes.inverted()
        .transform(of_first[0].transData.transform((right / 4, 0)))
    )
    assert middle[0] == pytest.approx(0.5)
    assert [ax.get_ylabel() != "" for ax in of_first] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert [ax.get_xlabel() != "" for ax in of_first] == [False, True, True, True, True]


def test_long_names_and_statements_stay_in_their_panels() -> None:
    table = scores(0.1 * PEAK, noise=1.0)
    names = [f"alignprop_{kind}" for kind in ("diffexp_guidance", "low_guidance")]
    names += ["ddpo_diffexp_guidance", "tdpo_policy_reset_dormant"]
    whole = pd.concat(
        [table.assign(method=name, run=name + table["run"]) for name in names]
    )
    figure, _ = goodhart(whole)
    figure.draw_without_rendering()
    step = figure.bbox.width / len(names)
    for ax in panels(figure):
        for text in (ax._left_title, *ax.texts):
            assert text.get_window_extent().width < step
        assert (
            ax._left_title.get_window_extent().y0 > ax.texts[0].get_window_extent().y1
        )


def test_the_caption_says_what_is_drawn() -> None:
    text = texts(goodhart(scores())[0])
    assert "means over 6 prompts x 2 images on prompts trained on, 3 training" in text
    assert "d (a - b d), linear form, or d (a - b log d), log form" in text
    assert "along the whole curve, over prompts and seeds" in text
    assert "Sampler: eta 1." in text


def test_equal_scores_give_equal_bytes() -> None:
    table = scores()
    assert digest(goodhart(table).figure) == digest(goodhart(table.copy()).figure)
