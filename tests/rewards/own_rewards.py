"""Rewards of one's own, most of them wrong in a way that a message should name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tdpo_pipeline.rewards.base import Reward, Scores
from tests import tiny


class Brightness(Reward):
    """A sound reward: the mean of all pixels."""

    name = "brightness"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores in [0, 1]."""
        return Scores(images.mean((1, 2, 3)))


class SeeingBrightness(Brightness):
    """Brightness with an image encoder."""

    name = "seeing_brightness"

    def __init__(self) -> None:
        self.encoder = tiny.TinyEncoder()


class SecondBrightness(Brightness):
    """Has the name of another reward of one's own."""


class Masquerade(Brightness):
    """Has the name of a registered reward."""

    name = "gold_match"


class WithArguments(Brightness):
    """Can't be made without an argument."""

    def __init__(self, path: str) -> None:
        self.path = path


class WithoutScore(Reward):
    """Scores nothing."""

    name = "without_score"


class WithoutName(WithoutScore):
    """Has no name."""

    name = ""
    score = Brightness.score


class NotAReward:
    """Something else."""


class Broken(Brightness):
    """Fails on every picture."""

    name = "broken"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Raises KeyError."""
        raise KeyError("sharpness")
