"""The pipeline that draws pictures for prompts of one's own."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.sample.nodes import sample


def create_pipeline() -> Pipeline:
    """One node: ``kedro run --pipelines sample --params sample.prompts=zebra``."""
    return Pipeline(
        [
            Node(
                sample,
                ["params:sample", "params:prompts", "params:training", "base_model"],
                ["samples", "samples_index"],
                name="sample",
            )
        ],
        tags=["sample"],
    )
