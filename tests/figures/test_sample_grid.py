"""The sample grid: matched checkpoints, columns, whole pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tdpo_pipeline.figures import (
    Strip,
    sample_grid,
    save_png,
)
from tdpo_pipeline.figures.sample_grid import (
    last_checkpoints,
    matched_checkpoints,
    pick_columns,
    spread_checkpoints,
)
from tdpo_pipeline.overoptimization import ScoreTableError

PROMPTS = ("cat", "dog", "snail", "a cat and a dog")
GROUPS = {"aesthetic-mini": dict(zip(PROMPTS, ("seen", "seen", "unseen", "complex"), strict=True))}  # fmt: skip


def curves(levels: dict[str, list[float]], seed: int = 0) -> pd.DataFrame:
    """Trained reward of each method at the epochs 0, 4, 8, ..."""
    return pd.DataFrame(
        [
            {
                "run": f"{method}-aesthetic-mini-s{seed}",
                "method": method,
                "reward": "aesthetic-mini",
                "seed": seed,
                "eta": 1.0,
                "group": "seen",
                "role": "trained",
                "epoch": 4 * position,
                "mean": mean,
                "base_mean": means[0],
                "base_sd": 0.5,
                "n_seeds": 1,
                "n_prompts": 8,
                "n_images": 32,
            }
            for method, means in levels.items()
            for position, mean in enumerate(means)
        ]
    )


def strip(seed: int, size: int = 4) -> Strip:
    rng = np.random.default_rng(seed)
    shape = (len(PROMPTS), size, size, 3)
    images = {e: rng.integers(0, 256, shape, dtype=np.uint8) for e in (0, 4, 8)}
    return Strip(images, PROMPTS)


def spread_strips(*methods: str) -> dict[str, Strip]:
    return {f"{m}-aesthetic-mini-s0": strip(i) for i, m in enumerate(methods)}


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def test_target_is_what_all_methods_reached() -> None:
    found = matched_checkpoints(
        curves(
            {"ddpo_2": [0.0, 0.5, 1.0], "tdpo": [0.0, 0.9, 2.0], "tdpo_r": [0, 3, 4]}
        )
    )
    # Best means 1, 2, 4: the common target is 1.
    assert (found["target"] == 1.0).all()
    assert found.set_index("method")["epoch"].to_dict() == {
        "ddpo_2": 8,  # 1.0 itself
        "tdpo": 4,  # 0.9 is nearer than 2.0
        "tdpo_r": 4,  # 3 is nearer than 4; the base model (0) is no candidate
    }


def test_the_earlier_of_two_equally_near_checkpoints() -> None:
    found = matched_checkpoints(curves({"a": [0.0, 1.0], "b": [0.0, 0.5, 1.5]}))
    assert found.set_index("method")["epoch"].to_dict() == {"a": 4, "b": 4}


def test_each_reward_has_its_own_target() -> None:
    other = curves({"a": [0.0, 7.0]}).assign(reward="hps-mini", run="a-hps-mini-s0")
    found = matched_checkpoints(pd.concat([curves({"a": [0.0, 1.0]}), other]))
    assert found.set_index("reward")["target"].to_dict() == {
        "aesthetic-mini": 1.0,
        "hps-mini": 7.0,
    }


def test_the_last_checkpoint_of_each_run() -> None:
    found = last_checkpoints(curves({"a": [0.0, 2.0, 1.0], "b": [0.0, 3.0]}))
    assert found[["method", "epoch", "mean"]].to_numpy().tolist() == [
        ["a", 8, 1.0],
        ["b", 4, 3.0],
    ]
    assert "target" not in found


def test_checkpoints_spread_over_training() -> None:
    # Epochs 4, 8, ..., 28: places 0, 3 and 6 of seven are 4, 16 and 28.
    found = spread_checkpoints(curves({"a": [0, 1, 2, 3, 4, 5, 6, 7]}), steps=3)
    assert found["epoch"].tolist() == [4, 16, 28]
    few = spread_checkpoints(curves({"a": [0, 1, 2]}), steps=5)
    assert few["epoch"].tolist() == [4, 8]


def test_matching_needs_prompts_trained_on() -> None:
    unseen = curves({"a": [0.0, 1.0]}).assign(group="unseen")
    with pytest.raises(ScoreTableError, match="trained on"):
        matched_checkpoints(unseen)


def test_columns_go_by_group_and_are_at_most_so_many() -> None:
    groups = {
        "cat": "seen",
        "dog": "seen",
        "bee": "seen",
        "moon": "complex",
        "ox": "unseen",
    }
    picked = pick_columns(["moon", "dog", "x", "ox", "cat", "bee"], groups, per_group=2)
    assert picked == [
        ("dog", "seen"),
        ("cat", "seen"),
        ("ox", "unseen"),
        ("moon", "complex"),
        ("x", "other prompts"),
    ]


def test_a_picture_is_cut_into_the_right_tiles() -> None:
    rows, columns, size = 2, 3, 4
    picture = np.zeros((rows * size, columns * size, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            tile = picture[row * size :, column * size :]
            tile[:size, :size] = 10 * row + column
    found = Strip.from_picture(picture, [0, 8], ["a", "b", "c"])
    assert found.images[8].shape == (3, 4, 4, 3)
    assert [int(tile.min()) for tile in found.images[8]] == [10, 11, 12]
    assert [int(tile.max()) for tile in found.images[0]] == [0, 1, 2]


def test_a_picture_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 checkpoints and 3 prompts"):
        Strip.from_picture(np.zeros((8, 13, 3), np.uint8), [0, 8], ["a", "b", "c"])


def test_grid_shows_every_pixel_as_a_square(tmp_path: Path) -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0], "ddpo_2": [0.0, 0.5, 1.0]})
    strips = {
        f"{m}-aesthetic-mini-s0": strip(i) for i, m in enumerate(("tdpo", "ddpo_2"))
    }
    figure, data = sample_grid(table, strips, GROUPS)
    assert data[["method", "epoch"]].to_numpy().tolist() == [["ddpo_2", 8], ["tdpo", 4]]
    save_png(figure, tmp_path / "grid.png")
    page = (imread(tmp_path / "grid.png")[..., :3] * 255).round().astype(np.uint8)
    expected = [
        strips["ddpo_2-aesthetic-mini-s0"].images[0],  # the base model first
        strips["ddpo_2-aesthetic-mini-s0"].images[8],
        strips["tdpo-aesthetic-mini-s0"].images[4],
    ]
    assert len(figure.images) == 3 * len(PROMPTS)
    for position, image in enumerate(figure.images):
        tile = expected[position // 4][position % 4]
        side = image.get_size()[0]
        top, left = len(page) - int(image.oy) - side, int(image.ox)
        block = page[top : top + side, left : left + side]
        scale = side // 4
        assert (block == tile.repeat(scale, 0).repeat(scale, 1)).all()
    labels = [text.get_text() for text in figure.texts]
    assert "TDPO\nepoch 4, 0.90" in labels
    assert "base model\n0.00" in labels
    assert "one seed" in labels


def test_grid_shows_the_first_seed_of_each_method() -> None:
    table = pd.concat([curves({"tdpo": [0.0, 0.9, 2.0]}, seed) for seed in (3, 1)])
    strips = {f"tdpo-aesthetic-mini-s{seed}": strip(seed) for seed in (1, 3)}
    assert sample_grid(table, strips, GROUPS).data["seed"].tolist() == [1]


def shown_tiles(figure: Figure) -> list[np.ndarray]:
    """The tiles of a grid in the order of drawing, at their own size."""
    return [
        np.asarray(image.get_array())[
            :: image.get_size()[0] // 4, :: image.get_size()[0] // 4
        ]
        for image in figure.images
    ]


def test_grid_over_training_has_a_block_per_method() -> None:
    table = curves({"ddpo_2": [0.0, 0.5, 1.0], "tdpo": [0.0, 0.9, 2.0]})
    strips = {
        f"{m}-aesthetic-mini-s0": strip(i) for i, m in enumerate(("ddpo_2", "tdpo"))
    }
    figure, data = sample_grid(
        table, strips, GROUPS, rows="progress", of_groups=["unseen"]
    )
    assert data[["method", "epoch"]].to_numpy().tolist() == [
        *(["ddpo_2", 4], ["ddpo_2", 8], ["tdpo", 4], ["tdpo", 8]),
    ]
    # The third prompt is the only unseen one.
    expected = [s.images[epoch][2] for s in strips.values() for epoch in (0, 4, 8)]
    tiles = shown_tiles(figure)
    assert len(tiles) == 6
    for tile, image in zip(tiles, expected, strict=True):
        assert (tile == image).all()
    labels = [text.get_text() for text in figure.texts]
    assert "DDPO-2\ntrained on\naesthetic-mini" in labels
    assert labels.count("epoch 8, 2.00") == 1


def test_methods_over_training_stand_side_by_side_while_they_fit() -> None:
    methods = ("ddpo_2", "ddpo_100", "tdpo", "tdpo_r", "rwr")
    table = curves({name: [0.0, 0.5, 1.0] for name in methods})
    strips = spread_strips(*methods)

    def corners(groups: list[str]) -> list[tuple[int, int]]:
        """Left and foot of each block's first sample, relative to the first block's."""
        figure = sample_grid(
            table, strips, GROUPS, rows="progress", of_groups=groups
        ).figure
        first = figure.images[:: len(figure.images) // 5]
        return [
            (int(image.ox) - int(first[0].ox), int(image.oy) - int(first[0].oy))
            for image in first
        ]

    few = corners(["unseen"])
    assert [y for _, y in few] == [0] * 5
    assert sorted(set(x for x, _ in few)) == [x for x, _ in few]
    # Four columns and labels take some 750 of at most 2,500 pixels: three in a line.
    many = corners(["seen", "unseen", "complex"])
    assert [x for x, _ in many[:2]] == [x for x, _ in many[3:]]
    assert [y == 0 for _, y in many] == [True, True, True, False, False]


def test_blocks_of_another_reward_begin_a_line() -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    other = table.assign(reward="hps-mini", run="tdpo-hps-mini-s0")
    strips = {**spread_strips("tdpo"), "tdpo-hps-mini-s0": strip(1)}
    groups = {**GROUPS, "hps-mini": GROUPS["aesthetic-mini"]}
    figure = sample_grid(
        pd.concat([table, other]), strips, groups, rows="progress", of_groups=["seen"]
    ).figure
    first, second = figure.images[0], figure.images[6]
    assert int(first.ox) == int(second.ox) and int(first.oy) > int(second.oy)


def test_a_reward_without_such_prompts_is_named() -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    other = table.assign(reward="hps-mini", run="tdpo-hps-mini-s0")
    strips = {**spread_strips("tdpo"), "tdpo-hps-mini-s0": strip(1)}
    unseen = dict.fromkeys(PROMPTS, "unseen")
    figure, data = sample_grid(
        pd.concat([table, other]),
        strips,
        {**GROUPS, "hps-mini": unseen},
        of_groups=["complex"],
    )
    assert set(data["reward"]) == {"aesthetic-mini"}
    assert "Without such prompts in its sample strips: hps-mini." in texts(figure)


def test_captions_say_what_the_numbers_are_over() -> None:
    table = curves({"ddpo_2": [0.0, 0.5, 1.0], "tdpo": [0.0, 0.9, 2.0]})
    for rows in ("matched", "last", "progress"):
        figure = sample_grid(
            table, spread_strips("ddpo_2", "tdpo"), GROUPS, rows=rows
        ).figure
        said = texts(figure)
        assert "mean trained reward (the number; over 8 prompts x 4 images)" in said
        level = "(aesthetic-mini: 1.00, +2.00 base SD)"
        assert (level in said) == (rows == "matched")
    flat = sample_grid(
        table.assign(base_sd=0.0), spread_strips("ddpo_2", "tdpo"), GROUPS
    )
    assert "(aesthetic-mini: 1.00)" in texts(flat.figure)


def test_names_of_groups_stand_on_one_line_close_above_the_prompts() -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    figure = sample_grid(table, spread_strips("tdpo"), GROUPS).figure
    figure.draw_without_rendering()
    of = {text.get_text(): text for text in figure.texts}
    # One column wide, so that they are broken.
    heads = [of[name] for name in ("prompts trained on", "unseen\nanimals", "complex\nprompts")]  # fmt: skip
    assert {head.get_va() for head in heads} == {"baseline"}
    assert len({head.get_position()[1] for head in heads}) == 1
    prompt = of["a cat and a\ndog"].get_window_extent()
    foot = min(head.get_window_extent().y0 for head in heads)
    assert 0 < foot - prompt.y1 < prompt.height


@pytest.mark.parametrize("columns", [4, 14])
def test_letters_grow_with_the_page(columns: int) -> None:
    names = tuple(f"crocodile {n}" for n in range(columns))
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (columns, 4, 4, 3), dtype=np.uint8)
    strips = {"tdpo-aesthetic-mini-s0": Strip(dict.fromkeys((0, 4, 8), images), names)}
    groups = {"aesthetic-mini": dict.fromkeys(names, "seen")}
    figure = sample_grid(table, strips, groups, per_group=columns).figure
    figure.draw_without_rendering()
    width = figure.get_figwidth()
    by_text = {text.get_text(): text for text in figure.texts}
    label = by_text["base model\n0.00"]
    # On paper, 6.5 inches wide. A page of 1,300 pixels is 8.67 inches wide.
    printed = label.get_fontsize() * 6.5 / width
    assert printed > 6.5 if columns > 4 else label.get_fontsize() == 10
    # Nothing touches its neighbour or leaves the page.
    prompts = [text for text in figure.texts if text.get_text().startswith("croc")]
    extents = [text.get_window_extent() for text in prompts]
    assert len(extents) == columns
    assert all(a.x1 < b.x0 for a, b in zip(extents, extents[1:], strict=False))
    assert label.get_window_extent().x1 < figure.images[0].ox
    for text in figure.texts:
        extent = text.get_window_extent()
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1


def test_the_name_of_a_group_does_not_run_into_the_next() -> None:
    # Of one prompt trained on, on a page whose letters are large.
    others = tuple(f"{word} {n}" for word in ("horse", "snail") for n in range(8))
    prompts = ("cat", *others)
    groups = ["seen", *["untrained"] * 8, *["unseen"] * 8]
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    images = dict.fromkeys((0, 4, 8), np.zeros((len(prompts), 4, 4, 3), np.uint8))
    figure = sample_grid(
        table,
        {"tdpo-aesthetic-mini-s0": Strip(images, prompts)},
        {"aesthetic-mini": dict(zip(prompts, groups, strict=True))},
        per_group=8,
    ).figure
    figure.draw_without_rendering()
    names = ("prompts trained on", "simple animals not trained on", "unseen animals")
    heads = [t for t in figure.texts if t.get_text().replace("\n", " ") in names]
    extents = sorted((text.get_window_extent() for text in heads), key=lambda e: e.x0)
    assert len(extents) == 3
    assert all(a.x1 < b.x0 for a, b in zip(extents, extents[1:], strict=False))


def test_long_names_do_not_run_into_the_next_row() -> None:
    method = "alignprop_diffexp_guidance"  # AlignProp, weak guidance at noisy steps
    table = curves({method: [0.0, 0.9, 2.0]})
    prompts = tuple(f"prompt {n}" for n in range(16))
    images = dict.fromkeys((0, 4, 8), np.zeros((16, 4, 4, 3), np.uint8))
    strips = {f"{method}-aesthetic-mini-s0": Strip(images, prompts)}
    groups = {"aesthetic-mini": dict.fromkeys(prompts, "seen")}
    figure = sample_grid(table, strips, groups, per_group=16).figure
    figure.draw_without_rendering()
    upper, lower = (
        next(t for t in figure.texts if t.get_text().startswith(head))
        for head in ("base model", "AlignProp")
    )
    assert lower.get_text().count("\n") >= 3
    assert lower.get_window_extent().y1 < upper.get_window_extent().y0


def test_grid_of_the_last_checkpoints_shows_chosen_prompts() -> None:
    table = curves({"tdpo": [0.0, 0.9, 12.5]})
    strips = {"tdpo-aesthetic-mini-s0": strip(0)}
    figure, data = sample_grid(
        table, strips, GROUPS, rows="last", prompts=["snail", "cat", "not there"]
    )
    assert data["epoch"].tolist() == [8]
    images = strips["tdpo-aesthetic-mini-s0"].images
    # Prompts trained on come first.
    for tile, image in zip(
        shown_tiles(figure),
        [images[0][0], images[0][2], images[8][0], images[8][2]],
        strict=True,
    ):
        assert (tile == image).all()
    assert "TDPO\nepoch 8, 12.5" in [text.get_text() for text in figure.texts]


def test_grid_without_such_prompts_says_what_to_do() -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    strips = {"tdpo-aesthetic-mini-s0": strip(0)}
    figure, data = sample_grid(table, strips, GROUPS, prompts=["unicorn"])
    assert data.empty
    text = " ".join(figure.axes[0].texts[0].get_text().split())
    assert "none of: unicorn" in text
    assert (
        "strip_prompts (evaluation or own_evaluation)" in text and "dvc repro" in text
    )


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    digests = set()
    for name in ("a", "b"):
        figure = sample_grid(table, {"tdpo-aesthetic-mini-s0": strip(0)}, GROUPS).figure
        save_png(figure, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_missing_strip_or_checkpoint_is_an_error() -> None:
    table = curves({"tdpo": [0.0, 0.9, 2.0]})
    with pytest.raises(ScoreTableError, match="No sample strip"):
        sample_grid(table, {}, GROUPS)
    short = Strip({0: strip(0).images[0]}, PROMPTS)
    with pytest.raises(ScoreTableError, match=r"has the epochs \[0\]"):
        sample_grid(table, {"tdpo-aesthetic-mini-s0": short}, GROUPS)
