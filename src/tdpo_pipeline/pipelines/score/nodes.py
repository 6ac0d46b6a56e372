"""The node that scores pictures that lie in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import BeforeValidator, PositiveInt

from tdpo_pipeline.config import ComputeSettings, EvaluationSettings, Settings, words
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization import own_tables
from tdpo_pipeline.own_images import OwnImagesError


class ScoreSettings(Settings):
    """Which pictures are scored, and by what.

    Attributes:
        images: Path of a table, CSV or Parquet, with the columns file and prompt, relative
            to the project; its files are relative to its folder.
        rewards: Names in the reward registry, or ``module:Class`` of one's own, as a list or
            in one text; none: those of the evaluation.
        chunk_size: Pictures that are scored together.
        device: Where.
    """

    images: str | None
    rewards: Annotated[tuple[str, ...], BeforeValidator(words)]
    chunk_size: PositiveInt
    device: Literal["cpu", "cuda", "auto"]


def scoring_rewards(
    settings: ScoreSettings, evaluation: EvaluationSettings
) -> list[str]:
    """The rewards that pictures are scored by."""
    return list(settings.rewards or evaluation.rewards)


def score(
    settings: ScoreSettings, evaluation: EvaluationSettings, reward_weights: Path
) -> pd.DataFrame:
    """Score the pictures of a table.

    Args:
        settings: Which, and by what.
        evaluation: Its rewards are taken where ``settings`` names none.
        reward_weights: Folder of reward weights.

    Returns:
        The table with a column for each reward, as the pipeline ``measure`` takes it if it
        has that pipeline's other columns.

    Raises:
        OwnImagesError: If no table is named, or it or a picture can't be used.
        ScoreTableError: If the table can't be read.
    """
    from tdpo_pipeline.diffusion.devices import resolve_device, set_float32_arithmetic
    from tdpo_pipeline.own_images import checked_sizes, score_images
    from tdpo_pipeline.rewards.registry import load_rewards

    if settings.images is None:
        raise OwnImagesError(
            "Name the table of pictures: kedro run --pipelines score --params "
            "score.images=my_images.csv (docs/own_tables.md)."
        )
    path = ROOT / settings.images
    table, names = own_tables.read_table(path), scoring_rewards(settings, evaluation)
    checked_sizes(table, path.parent, names)  # before anything is loaded
    device = resolve_device(ComputeSettings(device=settings.device))
    set_float32_arithmetic(device, tf32=False)  # as rewards are published
    loaded = load_rewards(names, reward_weights)
    rewards = {reward.name: reward.to(device) for reward in loaded.values()}
    return score_images(
        table, path.parent, rewards, chunk_size=settings.chunk_size, device=device
    )
