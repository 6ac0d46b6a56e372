"""The pipeline that writes the prompt sets of all tasks and of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.prompts.nodes import evaluation_prompts, training_prompts


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """A node for each reward that ``runs`` train on, and one for the evaluation."""
    rewards = sorted({run.reward for run in runs})
    return Pipeline(
        [
            *(
                Node(
                    training_prompts,
                    [f"params:rewards.{reward}", "params:evaluation", "params:prompts"],
                    f"train_prompts_{reward}",
                    name=f"train_prompts_{reward}",
                )
                for reward in rewards
            ),
            Node(
                evaluation_prompts,
                ["params:evaluation", "params:prompts"],
                "evaluation_prompts",
                name="evaluation_prompts",
            ),
        ],
        tags=["prompts"],
    )
