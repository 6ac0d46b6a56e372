"""A picture of pictures as a dataset: a uint8 array in memory, a PNG on disk."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image


class ImageGridDataset(AbstractDataset[np.ndarray, np.ndarray]):
    """An RGB picture: uint8 (H, W, 3) in memory, PNG on disk, shown by Kedro-Viz.

    Args:
        filepath: The PNG file.
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

    def load(self) -> np.ndarray:
        """The picture, uint8 (H, W, 3)."""
        with Image.open(self._filepath) as image:
            return np.asarray(image.convert("RGB"))

    def save(self, data: np.ndarray) -> None:
        """Write the picture ``data``, uint8 (H, W, 3); equal pictures, equal bytes.

        Raises:
            DatasetError: If the array is of another type or shape.
        """
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise DatasetError(
                "A picture is an array of uint8 (H, W, 3); got "
                f"{data.dtype} {data.shape}."
            )
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._filepath.with_name(f".{self._filepath.name}.new")
        Image.fromarray(data).save(scratch, format="PNG")
        scratch.replace(self._filepath)

    def preview(self) -> ImagePreview:
        """The PNG in base64, for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode())

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
