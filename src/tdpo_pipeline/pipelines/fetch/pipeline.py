"""The pipeline that downloads what the Stable Diffusion environments need."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.fetch.nodes import (
    fetch_base_model,
    fetch_prompts,
    fetch_reward_weights,
)


def create_pipeline() -> Pipeline:
    """A node for the base model, one for reward weights, and one for prompt files."""
    return Pipeline(
        [
            Node(
                fetch_base_model,
                ["params:fetch", "params:models"],
                "base_model",
                name="fetch_base_model",
            ),
            Node(
                fetch_reward_weights,
                {
                    "settings": "params:fetch",
                    "training": "params:training",
                    "evaluation": "params:evaluation",
                    "diversity": "params:diversity",
                    "tasks": "params:rewards",
                    "methods": "params:methods",
                },
                "reward_weights",
                name="fetch_reward_weights",
            ),
            Node(
                fetch_prompts,
                ["params:fetch", "params:prompts"],
                "prompt_files",
                name="fetch_prompts",
            ),
        ],
        tags=["fetch"],
    )
