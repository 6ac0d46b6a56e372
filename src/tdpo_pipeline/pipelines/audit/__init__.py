"""What a reward can be fooled by, before anything is trained on it."""

from tdpo_pipeline.pipelines.audit.pipeline import create_pipeline

__all__ = ["create_pipeline"]
