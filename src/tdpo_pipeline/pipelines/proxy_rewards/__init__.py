"""The proxy rewards: trained on few, noisy labels of the golds, and measured."""

from tdpo_pipeline.pipelines.proxy_rewards.pipeline import create_pipeline

__all__ = ["create_pipeline"]
