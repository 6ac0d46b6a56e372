"""A whole folder as a dataset: checkpoints, a diffusers pipeline, reward weights."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview


class DirectoryDataset(AbstractDataset[Path, Path]):
    """A folder: saving copies one into place whole, loading gives its path.

    A node returns the path of the folder it wrote; the dataset copies it beside its
    place and then renames it, so that a reader never sees half a folder.

    Args:
        filepath: The folder.
        metadata: For plugins, such as Kedro-Viz' layer.
    """

    def __init__(
        self,
        *,
        filepath: str | os.PathLike[str],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """The path of the folder.

        Raises:
            DatasetError: If the folder is missing or empty.
        """
        if not self._exists():
            raise DatasetError(
                f"The folder {self._filepath} is missing or empty. What makes it "
                "depends on the environment: `kedro run --env ...` of a pipeline that "
                "reads it names the command."
            )
        return self._filepath

    def save(self, data: Path) -> None:
        """Put a copy of the folder ``data`` in place of what was there.

        Raises:
            DatasetError: If ``data`` isn't a folder, or is empty.
        """
        source = Path(data)
        if not source.is_dir() or not any(source.iterdir()):
            raise DatasetError(f"{source} is not a folder with files in it.")
        if source.resolve() == self._filepath.resolve():
            return
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{self._filepath.name}-", dir=self._filepath.parent
        ) as scratch:
            shutil.copytree(source, Path(scratch) / "new")
            if self._filepath.exists():
                self._filepath.rename(Path(scratch) / "old")
            (Path(scratch) / "new").rename(self._filepath)

    def preview(self) -> JSONPreview:
        """The folder's files and their sizes in bytes, as JSON for Kedro-Viz."""
        files = sorted(path for path in self._filepath.rglob("*") if path.is_file())
        sizes = {
            path.relative_to(self._filepath).as_posix(): path.stat().st_size
            for path in files
        }
        return JSONPreview(json.dumps(sizes))

    def _exists(self) -> bool:
        return self._filepath.is_dir() and any(self._filepath.iterdir())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
