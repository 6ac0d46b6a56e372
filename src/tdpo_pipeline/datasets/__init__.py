"""Kedro datasets of this project: folders of checkpoints, and image grids."""

from tdpo_pipeline.datasets.directory import DirectoryDataset
from tdpo_pipeline.datasets.image_grid import ImageGridDataset

__all__ = ["DirectoryDataset", "ImageGridDataset"]
