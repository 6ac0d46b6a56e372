"""Menagerie's base model: trained from nothing, and measured."""

from tdpo_pipeline.pipelines.base_model.pipeline import create_pipeline

__all__ = ["create_pipeline"]
