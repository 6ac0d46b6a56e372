"""Downloads: a published base model, the weights of rewards, prompt files."""

from tdpo_pipeline.pipelines.fetch.pipeline import create_pipeline

__all__ = ["create_pipeline"]
