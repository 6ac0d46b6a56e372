"""The pipeline that makes Menagerie's base model."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.base_model.nodes import measure, train


def create_pipeline() -> Pipeline:
    """Train the base model, then measure it."""
    return Pipeline(
        [
            Node(
                train,
                ["params:base_model", "params:state"],
                ["base_model", "base_model_log"],
                name="train_base_model",
            ),
            Node(
                measure,
                ["base_model", "params:base_model"],
                "base_model_report",
                name="measure_base_model",
            ),
        ],
        tags=["base_model"],
    )
