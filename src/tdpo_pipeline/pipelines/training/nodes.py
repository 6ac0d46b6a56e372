"""Nodes of a training run: put its configuration together, and train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tdpo_pipeline.config import (
    AlgorithmSettings,
    RewardSettings,
    RunConfig,
    Settings,
    TrainingSettings,
)
from tdpo_pipeline.grid import ROOT


class RunSettings(Settings):
    """An entry of the experiment grid."""

    method: str
    reward: str
    seed: int


def build_config(
    run: RunSettings,
    training: TrainingSettings,
    algorithm: AlgorithmSettings,
    task: RewardSettings,
) -> dict[str, Any]:
    """Put a run's configuration together, and check that its parts fit.

    Args:
        run: Method, reward and seed.
        training: What the scale owns.
        algorithm: The method's settings.
        task: The reward and its prompts.

    Returns:
        The run, whole, as plain YAML values.

    Raises:
        pydantic.ValidationError: If the parts don't fit together.
    """
    config = RunConfig(
        method=run.method,
        reward=run.reward,
        seed=run.seed,
        training=algorithm.scaled(training),
        algorithm=algorithm,
        task=task,
    )
    return config.model_dump(mode="json")


def trained_rewards(config: dict[str, Any]) -> tuple[str, ...]:
    """The rewards that the training of a run loads."""
    return RunConfig.model_validate(config).rewards_in_use


def train(
    config: dict[str, Any],
    prompts: str,
    base_model: Path,
    reward_weights: Path,
    state: str,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Train one run, in this process or in several of its own.

    Args:
        config: The run, as :func:`build_config` gives it.
        prompts: Training prompts, one a line.
        base_model: Folder of the ``StableDiffusionPipeline`` to fine-tune.
        reward_weights: Folder of reward weights.
        state: Folder of resume state, relative to the project.

    Returns:
        Folder of the kept checkpoints, each with a model card; the history (a row an
        epoch); and the seconds that each epoch took.
    """
    from tdpo_pipeline.export.card import write_cards
    from tdpo_pipeline.trainer.launch import launch_run

    run = RunConfig.model_validate(config)
    result = launch_run(
        run,
        prompts=prompts.splitlines(),
        base_model=base_model,
        weights=reward_weights,
        state_dir=ROOT / state / run.key,
    )
    write_cards(result.checkpoints, run, result.history, base_model)
    return result.checkpoints, result.history, result.timings
