from __future__ import annotations

import json
from pathlib import Path

import pytest
from kedro.io import DatasetError

from tdpo_pipeline.datasets import DirectoryDataset


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "unet").mkdir(parents=True)
    (folder / "index.json").write_text("{}")
    (folder / "unet" / "weights.bin").write_bytes(b"12345")
    return folder


def test_round_trip(tmp_path: Path, source: Path) -> None:
    dataset = DirectoryDataset(filepath=tmp_path / "deep" / "place")
    assert not dataset.exists()
    dataset.save(source)
    assert dataset.exists()
    assert dataset.load() == tmp_path / "deep" / "place"
    assert (dataset.load() / "unet" / "weights.bin").read_bytes() == b"12345"
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["place"]


def test_saving_replaces_the_whole_folder(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "stale.txt").write_text("old")
    DirectoryDataset(filepath=place).save(source)
    assert sorted(path.name for path in place.iterdir()) == ["index.json", "unet"]


def test_saving_a_folder_onto_itself_changes_nothing(source: Path) -> None:
    DirectoryDataset(filepath=source).save(source)
    assert (source / "index.json").read_text() == "{}"


def test_a_failed_copy_leaves_what_was_there(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DirectoryDataset(filepath=tmp_path / "place")
    dataset.save(source)

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tdpo_pipeline.datasets.directory.shutil.copytree", fail)
    with pytest.raises(DatasetError, match="No space left"):
        dataset.save(source)
    assert (tmp_path / "place" / "index.json").read_text() == "{}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["place", "source"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    dataset = DirectoryDataset(filepath=tmp_path / "none")
    with pytest.raises(DatasetError, match=f"{tmp_path / 'none'} is missing"):
        dataset.load()


@pytest.mark.parametrize("kind", ["empty", "file", "missing"])
def test_only_a_folder_with_files_can_be_saved(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    with pytest.raises(DatasetError, match="not a folder with files"):
        DirectoryDataset(filepath=tmp_path / "place").save(path)


def test_preview_lists_files_and_sizes(source: Path) -> None:
    preview = DirectoryDataset(filepath=source).preview()
    assert json.loads(preview) == {"index.json": 2, "unet/weights.bin": 5}
