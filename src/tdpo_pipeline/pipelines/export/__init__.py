"""A checkpoint made ready to upload."""

from tdpo_pipeline.pipelines.export.pipeline import create_pipeline

__all__ = ["create_pipeline"]
