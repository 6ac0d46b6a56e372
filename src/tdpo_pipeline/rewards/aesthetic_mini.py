"""aesthetic-mini: the image alone, learned from ratings by ``gold_taste``.

Its form is that of the LAION aesthetic predictor. A small
network of Menagerie (:mod:`tdpo_pipeline.menagerie.proxies`), not the model whose name
it recalls.
"""

from __future__ import annotations

from pathlib import Path

from tdpo_pipeline.menagerie.proxies import load_proxy
from tdpo_pipeline.rewards.base import Reward

NAME = "aesthetic-mini"


def load(weights: Path) -> Reward:
    """The proxy, from ``<weights>/aesthetic-mini.safetensors``."""
    return load_proxy(NAME, weights)
