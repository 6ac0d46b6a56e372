"""The pipeline that makes Menagerie's proxy rewards."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.proxy_rewards.nodes import train


def create_pipeline() -> Pipeline:
    """Train the proxies on labelled samples of the base model, and measure them."""
    return Pipeline(
        [
            Node(
                train,
                ["base_model", "params:proxy_rewards", "params:state"],
                ["reward_weights", "proxy_report"],
                name="train_proxy_rewards",
            )
        ],
        tags=["proxy_rewards"],
    )
