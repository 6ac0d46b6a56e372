"""The pipeline that makes a checkpoint ready to upload."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.export.nodes import export


def create_pipeline() -> Pipeline:
    """One node: ``kedro run --pipelines export --params export.run=...``."""
    return Pipeline(
        [
            Node(
                export,
                ["params:export", "base_model", "reward_weights", "params:state"],
                "exported",
                name="export",
            )
        ],
        tags=["export"],
    )
