"""pick-mini: image and prompt, learned from preferences by ``gold_match``.

Its form is PickScore's: the scaled cosine of two embeddings. A small
network of Menagerie (:mod:`tdpo_pipeline.menagerie.proxies`), not the model whose name
it recalls.
"""

from __future__ import annotations

from pathlib import Path

from tdpo_pipeline.menagerie.proxies import load_proxy
from tdpo_pipeline.rewards.base import Reward

NAME = "pick-mini"


def load(weights: Path) -> Reward:
    """The proxy, from ``<weights>/pick-mini.safetensors``."""
    return load_proxy(NAME, weights)
