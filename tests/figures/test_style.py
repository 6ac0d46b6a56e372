"""The common look: styles per method, stamps, captions, bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

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


def test_sizes_in_words() -> None:
    rows = pd.DataFrame(
        {"n_seeds": [1, 3], "n_prompts": [8, 8], "n_images": [32, 96], "method": "a"}
    )
    assert style.images_text(rows) == "8 prompts x 4 images per checkpoint"
    assert style.seeds_text(rows) == "1 to 3 training seeds per method (one: a)"
    assert style.seeds_text(rows[1:]) == "3 training seeds per method"
    assert style.seeds_text(rows.assign(n_seeds=[2, 3])) == (
        "2 to 3 training seeds per method"
    )
    assert style.seeds_text(rows[:1]) == "one training seed per method"
    assert style.over_text(rows[:1]) == "over prompts (not over seeds)"
    assert style.over_text(rows[1:]) == "over prompts and seeds"
    assert "where there are several" in style.over_text(rows)
    assert style.images_text(rows.assign(n_images=[8, 24])).endswith(
        "x 1 image per checkpoint"
    )
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
    with style.names_as_written():
        assert style.method_label("tdpo_r") == "tdpo_r"
        assert style.sort_methods(["tdpo_r", "ddpo", "ddpo_2"]) == [
            *("ddpo", "ddpo_2", "tdpo_r")
        ]
        own = style.method_style("tdpo_r")
        variant = style.method_style("tdpo_r_mine")
    assert own[:3] != style.method_style("tdpo_r")[:3]
    assert variant.filled  # no parent
    assert style.method_label("tdpo_r") == "TDPO-R"
