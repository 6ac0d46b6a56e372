from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from tdpo_pipeline.datasets import ImageGridDataset


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_round_trip_is_exact(tmp_path: Path, picture: np.ndarray) -> None:
    dataset = ImageGridDataset(filepath=tmp_path / "deep" / "strip.png")
    assert not dataset.exists()
    dataset.save(picture)
    assert dataset.exists()
    np.testing.assert_array_equal(dataset.load(), picture)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["strip.png"]


def test_equal_pictures_give_equal_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        ImageGridDataset(filepath=tmp_path / name).save(picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_preview_is_the_file_in_base64(tmp_path: Path, picture: np.ndarray) -> None:
    dataset = ImageGridDataset(filepath=tmp_path / "strip.png")
    dataset.save(picture)
    decoded = base64.b64decode(dataset.preview())
    assert decoded == (tmp_path / "strip.png").read_bytes()
    assert decoded.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_anything_else_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(DatasetError, match=r"uint8 \(H, W, 3\)"):
        ImageGridDataset(filepath=tmp_path / "strip.png").save(wrong)
