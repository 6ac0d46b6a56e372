"""Evaluation: every kept checkpoint, sampled with fixed noise, scored by all rewards."""

from tdpo_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
