"""Prompt sets: what is trained on, and what is evaluated on."""

from tdpo_pipeline.pipelines.prompts.pipeline import create_pipeline

__all__ = ["create_pipeline"]
