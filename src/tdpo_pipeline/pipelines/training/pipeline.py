"""The pipeline that trains runs of the grid."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.training.nodes import build_config, train


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """The training of every run in ``runs``, each in a namespace of its own."""
    return Pipeline([_run_pipeline(run) for run in runs])


def _run_pipeline(run: Run) -> Pipeline:
    """The training of one run."""
    return Pipeline(
        [
            Node(
                build_config,
                ["params:run", "params:training", "params:method", "params:reward"],
                "config",
                name="build_config",
            ),
            Node(
                train,
                [
                    "config",
                    "train_prompts",
                    "base_model",
                    "reward_weights",
                    "params:state",
                ],
                ["checkpoints", "history", "timings"],
                name="train",
            ),
        ],
        namespace=run.namespace,
        inputs={
            "train_prompts": f"train_prompts_{run.reward}",
            "base_model": "base_model",
            "reward_weights": "reward_weights",
        },
        parameters={
            "params:run": f"params:{run.parameter}",
            "params:training": "params:training",
            "params:method": f"params:methods.{run.method}",
            "params:reward": f"params:rewards.{run.reward}",
            "params:state": "params:state",
        },
        tags=["training", run.method, run.reward],
    )
