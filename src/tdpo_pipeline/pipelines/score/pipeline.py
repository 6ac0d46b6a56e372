"""The pipeline that scores pictures that lie in files."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.score.nodes import score


def create_pipeline() -> Pipeline:
    """One node: ``kedro run --pipelines score --params score.images=my_images.csv``."""
    return Pipeline(
        [
            Node(
                score,
                ["params:score", "params:evaluation", "reward_weights"],
                "scored_images",
                name="score",
            )
        ],
        tags=["score"],
    )
