"""Reporting: figures, tables and a summary of all evaluated runs."""

from tdpo_pipeline.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
