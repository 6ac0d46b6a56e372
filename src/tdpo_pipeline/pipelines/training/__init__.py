"""Fine-tuning: one run of the grid for each method, reward and seed."""

from tdpo_pipeline.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
