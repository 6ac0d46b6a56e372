"""The common look: styles per method, stamps, captions, bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from tdpo_pipeline.figures import save_png, style
from tdpo_pipeline.overoptimization.tables import ordered_groups

METHODS = ("ddpo_2", "ddpo_100", "ddpo_100_timestep_major", "tdpo", "tdpo_r")


def test_methods_differ_in_colour_and_in_marker() -> None:
    looks = [style.method_style(name) for name in METHODS]
    assert len({look.color for look in looks}) == len(METHODS)
    assert len({look.marker for look in looks}) == len(METHODS)
    assert all(colors.is_color_like(look.color) for look in looks)


def test_a_variant_is_its_parent_hollow() -> None:
    parent, variant = style.method_style("tdpo_r"), style.method_style("tdpo_r_paper")
    assert (variant.color, variant.marker) == (parent.color, parent.marker)
    assert not variant.filled and parent.filled


def test_an_unlisted_method_has_a_lasting_style() -> None:
    assert style.method_style("diffexp") == style.method_style("diffexp")
    assert style.method_label("diffexp") == "diffexp"


def test_legend_order() -> None:
    shuffled = ["zeta", "tdpo_r", "ddpo_2", "alpha", "tdpo_r"]
    assert style.sort_methods(shuffled) == ["ddpo_2", "tdpo_r", "alpha", "zeta"]
    assert ordered_groups(["complex", "activities", "seen"]) == [
        "seen",
        "complex",
        "activities",
    ]


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ({"tdpo": 1, "tdpo_r": 1}, "one seed"),
        ({"tdpo": 3, "tdpo_r": 1}, "one seed: 1 of 2"),
        ({"tdpo": 3, "tdpo_r": 5}, ""),
    ],
)
def test_seed_stamp(seeds: dict[str, int], expected: str) -> None:
    rows = pd.DataFrame({"method": seeds.keys(), "n_seeds": seeds.values()})
    assert style.seed_stamp(rows) == expected


def test_seeds_of_several_trained_rewards() -> None:
    rows = pd.DataFrame(
        {
            "method": ["tdpo", "tdpo_r"] * 2,
            "reward": ["aesthetic-mini"] * 2 + ["pick-mini"] * 2,
            "n_seeds": [3, 3, 1, 1],
        }
    )
    assert style.seed_stamp(rows) == "one seed: on pick-mini"
    assert style.seeds_text(rows) == (
        "1 to 3 training seeds per method (one: all on pick-mini)"
    )
    mixed = rows.assign(n_seeds=[3, 1, 1, 1])
    assert style.seed_stamp(mixed) == "one seed: 1 of 2, on pick-mini"
    assert style.seeds_text(mixed) == (
        "1 to 3 training seeds per method (one: TDPO-R; all on pick-mini)"
    )
    assert style.seed_stamp(rows.assign(n_seeds=1)) == "one seed"
    assert style.seed_stamp(rows.assign(n_seeds=3)) == ""


def test_methods_with_fewer_seeds_are_named() -> None:
    rows = pd.DataFrame(
        {
            "method": ["tdpo", "tdpo_r", "rwr"] * 2,
            "reward": ["aesthetic-mini"] * 3 + ["pick-mini"] * 3,
        }
    )

    def said(*seeds: int) -> str:
        text = style.seeds_text(rows.assign(n_seeds=seeds))
        return text.replace(" training seeds per method", "")

    # A method on all of its rewards, or on one of them; then a reward's methods all.
    assert said(3, 2, 3, 3, 2, 3) == "2 to 3 (2: TDPO-R)"
    assert said(3, 3, 3, 3, 2, 3) == "2 to 3 (2: TDPO-R on pick-mini)"
    assert said(3, 3, 3, 2, 2, 2) == "2 to 3 (2: all on pick-mini)"
    assert said(1, 2, 3, 2, 2, 2) == (
        "1 to 3 (one: TDPO on aesthetic-mini; 2: TDPO-R; all on pick-mini)"
    )
    # A method that lost a seed on the way has as many as at its end.
    lost = rows[:2].assign(method="tdpo", n_seeds=[3, 2])
    assert style.seeds_text(lost) == "2 to 3 training seeds per method (2: TDPO)"


def test_sizes_in_words() -> None:
    rows = pd.DataFrame(
        {"n_seeds": [1, 3], "n_prompts": [8, 8], "n_images": [32, 96], "method": "a"}
    )
    assert style.images_text(rows) == "8 prompts x 4 images per checkpoint"
    assert style.seeds_text(rows) == "1 to 3 training seeds per method (one: a)"
    assert style.seeds_text(rows[1:]) == "3 training seeds per method"
    assert style.seeds_text(rows.assign(n_seeds=[2, 3])) == (
        "2 to 3 training seeds per method (2: a)"
    )
    assert style.seeds_text(rows[:1]) == "one training seed per method"
    assert style.over_text(rows[:1]) == "over prompts (not over seeds)"
    assert style.over_text(rows[1:]) == "over prompts and seeds"
    assert "where there are several" in style.over_text(rows)
    assert style.images_text(rows.assign(n_images=[8, 24])).endswith(
        "x 1 image per checkpoint"
    )
    single = pd.DataFrame({"n_seeds": [1], "n_prompts": [1], "n_images": [4]})
    assert style.sizes_text(single) == "1 prompt x 4 images"
    assert style.sizes_text(pd.concat([single, rows])) == "1 or 8 prompts x 4 images"
    # Names keep their letters.
    assert style.sentence("one of TDPO") == "One of TDPO"


def test_a_notice_lies_within_its_figure_below_the_title(tmp_path: Path) -> None:
    figure = style.notice("Title", "Some words that say what is missing. " * 6)
    save_png(figure, tmp_path / "notice.png")
    (text,) = figure.axes[0].texts
    words, page = text.get_window_extent(), figure.bbox
    assert page.x0 <= words.x0 and words.x1 <= page.x1
    assert page.y0 <= words.y0
    assert words.y1 <= figure.texts[0].get_window_extent().y0


def test_a_remark_lies_within_its_panel() -> None:
    figure, axes = style.page(1, 3, panel=(3.25, 2.65))
    panel = axes[0][1]
    style.remark(panel, "Nothing measured: no dormant neurons to compare.")
    figure.draw_without_rendering()
    words, room = panel.texts[0].get_window_extent(), panel.get_window_extent()
    assert room.x0 + 10 < words.x0 and words.x1 < room.x1 - 10


def test_a_caption_has_no_line_that_begins_with_a_percent_sign() -> None:
    figure, _ = style.page(1, 1, panel=(2, 1))
    # 31 letters fit in a line of two inches.
    style.frame(figure, title="", caption=f"{'x' * 28} 95 % of it")
    assert "\n95\u00a0%" in figure.texts[1].get_text()


def test_letters_of_an_enlarged_frame_keep_their_lines() -> None:
    caption = "Some words that fill a line and more of them. " * 3
    small, large = Figure(figsize=(5, 3)), Figure(figsize=(10, 6))
    style.frame(small, title="Title", caption=caption, stamp="one seed")
    style.frame(large, title="Title", caption=caption, stamp="one seed", enlarged=2)
    for one, two in zip(small.texts, large.texts, strict=True):
        assert two.get_text() == one.get_text()
        assert two.get_fontsize() == 2 * one.get_fontsize()
        assert two.get_position() == pytest.approx(one.get_position())
    height = style.caption_height(caption, 5)
    assert style.caption_height(caption, 10, enlarged=2) == 2 * height


def test_equal_figures_give_equal_bytes_without_version(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.png", "b.png"):
        save_png(style.notice("Title", "Nothing to draw."), tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert b"Software" not in data
        digests.add(hashlib.sha256(data).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("labels", "width", "columns"),
    [
        # An entry takes 0.72 + 0.076 inches a letter: 1.024 in for 4, 2.24 in for 20.
        (["TDPO"], 8.8, 4),  # never more than 4
        (["TDPO", "x" * 20], 8.8, 3),
        (["x" * 20], 4.4, 1),
        (["x" * 200], 4.4, 1),  # never fewer than 1
        ([], 4.4, 4),
    ],
)
def test_a_legend_has_as_many_columns_as_fit(
    labels: list[str], width: float, columns: int
) -> None:
    legend = [style.handle(name, style.method_style("tdpo")) for name in labels]
    assert style.legend_columns(legend, width) == columns


def test_an_interval_of_a_change_becomes_one_around_the_level() -> None:
    rows = pd.DataFrame(
        {"base_mean": [2.0], "mean": [2.5], "low": [0.2], "high": [1.0]}
    )
    found = style.levels(rows).iloc[0]
    assert found[["mean", "low", "high"]].tolist() == [2.5, 2.2, 3.0]


def test_bars_survive_rounding_errors():
    _, ax = plt.subplots()
    y = pd.DataFrame({"mean": [1.0], "low": [1.0 + 2e-16], "high": [1.0]})
    style.points(ax, [1.0], y, style.method_style("tdpo"))
    plt.close("all")


def test_names_of_others_are_kept_as_written() -> None:
    names = ["tdpo_r", "tdpo_r_mine", "ddpo"]
    with style.names_as_written(names, sampler_known=False):
        assert style.sampler_text() == ""
        assert style.method_label("tdpo_r") == "tdpo_r"
        assert style.sort_methods(["tdpo_r", "ddpo", "ddpo_2"]) == [
            *("ddpo", "ddpo_2", "tdpo_r")
        ]
        own = style.method_style("tdpo_r")
        variant = style.method_style("tdpo_r_mine")
    assert own[:3] != style.method_style("tdpo_r")[:3]
    assert variant.filled  # no parent
    assert style.sampler_text() == " Sampler: eta 1."
    assert style.method_label("tdpo_r") == "TDPO-R"


def test_methods_of_a_table_are_told_apart() -> None:
    names = [f"run{number}" for number in range(28)]
    with style.names_as_written(names):
        looks = [style.method_style(name) for name in sorted(names)]
    assert len(set(looks)) == 28
    for place in ("color", "marker", "line"):
        pairs = zip(looks, looks[1:], strict=False)
        assert all(getattr(a, place) != getattr(b, place) for a, b in pairs)
    # As few as are in one figure have colours of their own.
    assert len({look.color for look in looks[:7]}) == 7
