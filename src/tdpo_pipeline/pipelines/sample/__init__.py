"""Pictures for prompts of one's own, from any checkpoint."""

from tdpo_pipeline.pipelines.sample.pipeline import create_pipeline

__all__ = ["create_pipeline"]
