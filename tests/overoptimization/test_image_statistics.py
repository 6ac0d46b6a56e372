"""Image statistics of pictures small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tdpo_pipeline.overoptimization.image_statistics import (
    RANGES,
    STATISTICS,
    colour_entropy,
    dark_fraction,
    edge_density,
    image_statistics,
    luma,
    saturation,
)


def flat(*colour: float) -> np.ndarray:
    """One picture of 4 x 4 pixels of one colour."""
    return np.tile(np.reshape(colour, (1, 3, 1, 1)), (1, 1, 4, 4)).astype(np.float32)


def grey(*rows: list[float]) -> np.ndarray:
    """One grey picture of these rows."""
    return np.tile(np.array(rows, np.float32)[None, None], (1, 3, 1, 1))


def test_luma_by_hand() -> None:
    # 0.299 x 1 + 0.587 x 0.5 + 0.114 x 0.25 = 0.621
    assert luma(flat(1, 0.5, 0.25))[0, 0, 0] == pytest.approx(0.621)


def test_edges_by_hand() -> None:
    # Of 2 x 3 pixels with both neighbours: those left of the step and those above the
    # bright row differ. Row 0: (0,0) step right; (0,1) none right, below 0; (0,2) none.
    # Row 1: below every pixel is 1, so all three differ. 4 of 6.
    picture = grey([0, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 0])
    assert edge_density(picture)[0] == pytest.approx(4 / 6)


def test_a_smooth_shade_has_no_edge() -> None:
    # Steps of 0.06 both ways have the length 0.085 < 0.1; of 0.08, 0.113.
    ramp = np.add.outer(np.arange(4), np.arange(4))
    assert edge_density(grey(*(0.06 * ramp).tolist()))[0] == 0
    assert edge_density(grey(*(0.08 * ramp).tolist()))[0] == 1


def test_entropy_by_hand() -> None:
    assert colour_entropy(flat(0.3, 0.9, 1.0))[0] == 0
    # Half black, a quarter white, a quarter grey: 1/2 + 2/4 + 2/4 = 1.5 bits.
    picture = grey([0, 0, 1, 0.5], [0, 0, 1, 0.5])
    assert colour_entropy(picture)[0] == pytest.approx(1.5)
    # 0.01 and 0.12 share the lowest of the 8 levels, 0.13 is in the next.
    assert colour_entropy(grey([0.01, 0.12], [0.12, 0.01]))[0] == 0
    assert colour_entropy(grey([0.01, 0.13], [0.01, 0.13]))[0] == pytest.approx(1)


def test_entropy_is_at_most_nine_bits() -> None:
    # Every one of the 512 colours once.
    levels = (np.arange(8) + 0.5) / 8
    colours = np.stack(np.meshgrid(levels, levels, levels), 0).reshape(1, 3, 16, 32)
    assert colour_entropy(colours)[0] == pytest.approx(9)


def test_entropies_of_a_batch_do_not_mix() -> None:
    pictures = np.random.default_rng(0).random((5, 3, 6, 4))
    one_by_one = [colour_entropy(picture[None])[0] for picture in pictures]
    np.testing.assert_allclose(colour_entropy(pictures), one_by_one)


def test_dark_by_hand() -> None:
    assert dark_fraction(grey([0, 0.19, 0.21, 1]).repeat(2, axis=2))[0] == 0.5
    # Pure blue has the luma 0.114, pure red 0.299.
    assert dark_fraction(flat(0, 0, 1))[0] == 1
    assert dark_fraction(flat(1, 0, 0))[0] == 0


def test_saturation_by_hand() -> None:
    assert saturation(flat(0.7, 0.7, 0.7))[0] == 0
    assert saturation(flat(0, 0, 0))[0] == 0
    assert saturation(flat(0.1, 0, 0))[0] == pytest.approx(1)
    # (0.8 - 0.2) / 0.8 = 0.75
    assert saturation(flat(0.8, 0.2, 0.5))[0] == pytest.approx(0.75)


def test_a_column_each_within_its_range() -> None:
    pictures = np.random.default_rng(1).random((6, 3, 8, 8)).astype(np.float32)
    table = image_statistics(pictures)
    assert tuple(table.columns) == STATISTICS
    assert len(table) == 6
    for name, (low, high) in RANGES.items():
        assert table[name].between(low, high).all()
        assert table[name].dtype == np.float32
    assert table["edge_density"].to_numpy() == pytest.approx(edge_density(pictures))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((2, 1, 4, 4)), r"\(2, 1, 4, 4\)"),
        (np.zeros((2, 3, 1, 4)), "2 x 2 pixels"),
        (np.full((1, 3, 4, 4), 255.0), "from 255 to 255"),
        (np.full((1, 3, 4, 4), np.nan), "in \\[0, 1\\]"),
    ],
)
def test_other_pictures_are_errors(pictures: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_statistics(pictures)
