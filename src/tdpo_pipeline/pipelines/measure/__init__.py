"""The measurement alone, for scores that another trainer wrote."""

from tdpo_pipeline.pipelines.measure.pipeline import create_pipeline

__all__ = ["create_pipeline"]
