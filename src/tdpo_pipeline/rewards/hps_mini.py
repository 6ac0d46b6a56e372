"""hps-mini: image and prompt, learned from preferences by ``gold_match``.

Its form is HPSv2's: the scaled cosine of two embeddings. A small
network of Menagerie (:mod:`tdpo_pipeline.menagerie.proxies`), not the model whose name
it recalls.
"""

from __future__ import annotations

from pathlib import Path

from tdpo_pipeline.menagerie.proxies import load_proxy
from tdpo_pipeline.rewards.base import Reward

NAME = "hps-mini"


def load(weights: Path) -> Reward:
    """The proxy, from ``<weights>/hps-mini.safetensors``."""
    return load_proxy(NAME, weights)
