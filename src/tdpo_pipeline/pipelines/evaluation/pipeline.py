"""The pipeline that evaluates runs of the grid."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.evaluation.nodes import evaluate, summarise


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """The evaluation of every run in ``runs``, each in the namespace of its training."""
    return Pipeline([_run_pipeline(run) for run in runs])


def _run_pipeline(run: Run) -> Pipeline:
    """The evaluation of one run."""
    return Pipeline(
        [
            Node(
                evaluate,
                [
                    "config",
                    "checkpoints",
                    "train_prompts",
                    "evaluation_prompts",
                    "base_model",
                    "reward_weights",
                    "params:evaluation",
                    "params:diversity",
                    "params:state",
                ],
                ["scores", "image_statistics", "diversity", "strip", "strip_index"],
                name="evaluate",
            ),
            Node(summarise, "scores", "metrics", name="summarise"),
        ],
        namespace=run.namespace,
        inputs={
            "train_prompts": f"train_prompts_{run.reward}",
            "evaluation_prompts": f"evaluation_prompts_{run.reward}",
            "base_model": "base_model",
            "reward_weights": "reward_weights",
        },
        parameters={
            "params:evaluation": "params:evaluation",
            "params:diversity": "params:diversity",
            "params:state": "params:state",
        },
        tags=["evaluation", run.method, run.reward],
    )
