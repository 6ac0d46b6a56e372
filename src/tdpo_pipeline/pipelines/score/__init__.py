"""What pictures of any origin are worth to the rewards."""

from tdpo_pipeline.pipelines.score.pipeline import create_pipeline

__all__ = ["create_pipeline"]
