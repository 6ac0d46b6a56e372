"""gold_match: whether a picture shows what its prompt says.

The true reward, a program (:mod:`tdpo_pipeline.menagerie.gold`); nothing but the
proxies is ever trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tdpo_pipeline.menagerie.gold import gold_match
from tdpo_pipeline.rewards.base import Reward, Scores


class GoldMatch(Reward):
    """The gold reward ``gold_match``."""

    name = "gold_match"
    value_range = (0.0, 1.0)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores (N,) in [0, 1], without gradient."""
        return Scores(gold_match(images, prompts))


def load(_: Path) -> Reward:
    """The gold; it has no weights."""
    return GoldMatch()
