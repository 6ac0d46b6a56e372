"""Diversity of embeddings by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization.diversity import (
    diversity_by_prompt,
    mean_pairwise_distance,
    vendi_score,
)


def at_angle(degrees: float) -> np.ndarray:
    """Two unit vectors in the plane."""
    angle = np.deg2rad(degrees)
    return np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])


def test_equal_images_are_one() -> None:
    equal = np.tile([0.6, 0.8], (5, 1))
    assert vendi_score(equal) == pytest.approx(1)
    assert mean_pairwise_distance(equal) == pytest.approx(0)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_orthogonal_images_are_all_different(n: int) -> None:
    orthogonal = np.eye(8)[:n]
    assert vendi_score(orthogonal) == pytest.approx(n)


def test_distance_of_orthogonal_and_of_opposite_images() -> None:
    assert mean_pairwise_distance(np.eye(3)) == pytest.approx(1)
    assert mean_pairwise_distance(at_angle(180)) == pytest.approx(2)


def test_two_images_by_hand() -> None:
    # cos 60 = 1/2: K / 2 = [[1/2, 1/4], [1/4, 1/2]] has the eigenvalues 3/4 and 1/4,
    # entropy 3/4 ln(4/3) + 1/4 ln 4 = 0.5623, exp 1.7548.
    assert vendi_score(at_angle(60)) == pytest.approx(1.7548, abs=1e-4)
    assert mean_pairwise_distance(at_angle(60)) == pytest.approx(0.5)


def test_three_images_by_hand() -> None:
    # Two equal ones and an orthogonal one: eigenvalues 2/3, 1/3, 0; the entropy is
    # 2/3 ln(3/2) + 1/3 ln 3 = 0.6365, exp 1.8899. Distances 0, 1, 1: mean 2/3.
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert vendi_score(embeddings) == pytest.approx(1.8899, abs=1e-4)
    assert mean_pairwise_distance(embeddings) == pytest.approx(2 / 3)


def test_both_products_have_the_same_eigenvalues() -> None:
    # 3 vectors of 5 numbers take K, and repeated twice 6 vectors take E^T E: the same
    # pictures twice are no more diverse.
    rows = np.random.default_rng(0).normal(size=(3, 5))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert vendi_score(np.repeat(unit, 2, axis=0)) == pytest.approx(vendi_score(unit))


def test_single_precision_is_no_error() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [1 - float(a @ b) for i, a in enumerate(unit) for b in unit[:i]]
    assert mean_pairwise_distance(unit) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert vendi_score(np.tile(unit[:1], (4, 1))) == pytest.approx(1)


def test_one_image_has_no_distance() -> None:
    assert np.isnan(mean_pairwise_distance(np.eye(3)[:1]))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((2, 3)), "from 1.732 to 1.732"),
        (np.full((2, 3), np.nan), "L2-normalised"),
        (np.empty((0, 3)), r"\(0, 3\)"),
        (np.ones(3), r"\(3,\)"),
    ],
)
def test_other_embeddings_are_errors(embeddings: np.ndarray, message: str) -> None:
    for measure in (vendi_score, mean_pairwise_distance):
        with pytest.raises(ValueError, match=message):
            measure(embeddings)


def test_a_row_a_prompt() -> None:
    images = pd.DataFrame(
        {"prompt": ["cat", "dog", "cat", "dog"], "eta": 1.0, "image": [0, 0, 1, 1]}
    )
    # The cats are orthogonal, the dogs equal.
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    table = diversity_by_prompt(images, embeddings, ["prompt", "eta"])
    assert table["prompt"].tolist() == ["cat", "dog"]
    assert table["n_images"].tolist() == [2, 2]
    np.testing.assert_allclose(table["pairwise_distance"], [1, 0], atol=1e-12)
    np.testing.assert_allclose(table["vendi_score"], [2, 1])
