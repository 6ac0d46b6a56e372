"""The pipeline that writes the prompts of all tasks, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.prompts.nodes import task_prompts


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """A node for each reward that ``runs`` train on."""
    return Pipeline(
        [
            Node(
                task_prompts,
                [
                    f"params:rewards.{reward}",
                    "params:evaluation",
                    "params:own_evaluation",
                    "params:prompts",
                ],
                [f"train_prompts_{reward}", f"evaluation_prompts_{reward}"],
                name=f"prompts_{reward}",
            )
            for reward in sorted({run.reward for run in runs})
        ],
        tags=["prompts"],
    )
