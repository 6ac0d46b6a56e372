"""Kedro datasets of this project: folders, image grids, and tables that may be absent."""

from tdpo_pipeline.datasets.directory import DirectoryDataset
from tdpo_pipeline.datasets.image_grid import ImageGridDataset
from tdpo_pipeline.datasets.optional_table import OptionalTableDataset

__all__ = ["DirectoryDataset", "ImageGridDataset", "OptionalTableDataset"]
