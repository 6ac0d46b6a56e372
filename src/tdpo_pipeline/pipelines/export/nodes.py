"""The node that makes a checkpoint ready to upload."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated

import pandas as pd
import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
)

from tdpo_pipeline.config import RunConfig, Settings
from tdpo_pipeline.export import ExportError
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization.tables import gold_of

log = logging.getLogger(__name__)


class ExportSettings(Settings):
    """Which checkpoint to export, and how to find its strength.

    Attributes:
        run: Namespace of the run, such as ``tdpo_r.aesthetic-mini.s0``.
        checkpoint: ``best``, ``last`` or an epoch.
        data: Data folder of the environment, relative to the project.
        held_out: A reward that wasn't trained on, by which the best checkpoint and the
            strength are told; None: the gold of the trained reward, if it has one.
        strengths: Strengths to sample a LoRA at, 0 among them; none: measure nothing.
        images_per_prompt: Images of each training prompt and strength.
        seed: Seed of their noise.
    """

    run: str | None
    checkpoint: str
    data: str
    held_out: str | None
    strengths: tuple[Annotated[NonNegativeFloat, Field(le=2)], ...]
    images_per_prompt: PositiveInt
    seed: NonNegativeInt

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("run")
    @classmethod
    def _is_a_namespace(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w-]+\.[\w-]+\.s\d+", value):
            raise ValueError(
                f"'{value}' is no namespace of a run: <method>.<reward>.s<seed>, with dots."
            )
        return value

    @field_validator("strengths")
    @classmethod
    def _with_the_base_model(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and 0.0 not in value:
            raise ValueError("strength 0, the base model, must be among them.")
        return value

    def path(self, kind: str, suffix: str = "") -> Path:
        """Where the run has a file or folder, as the catalog lays them out.

        Raises:
            ExportError: If no run is named.
        """
        if self.run is None:
            raise ExportError(
                "Say which run to export, such as: kedro run --pipelines export "
                "--params export.run=tdpo_r.aesthetic-mini.s0"
            )
        return ROOT / self.data / kind / (self.run.replace(".", "/") + suffix)


def exported_rewards(settings: ExportSettings) -> list[str]:
    """The rewards that an export loads; none where there is no such run."""
    if settings.run is None:
        return []
    path = settings.path("06_models/config", ".yml")
    if not path.is_file():
        return []
    config = _config(path)
    held_out = _measured_by(settings, config)
    if held_out is None:
        return []
    return [*config.task.scored_by, held_out]


def _held_out(settings: ExportSettings, config: RunConfig) -> str | None:
    """The reward by which the best checkpoint and the strength of a run are told."""
    return settings.held_out or gold_of(config.task.scorer, config.task.ensemble or ())


def _measured_by(settings: ExportSettings, config: RunConfig) -> str | None:
    """The reward by which strengths are measured; None if none are, as of a whole UNet."""
    if settings.strengths and config.training.finetune == "lora":
        return _held_out(settings, config)
    return None


def _config(path: Path) -> RunConfig:
    """A run's configuration, as it was kept."""
    return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def export(
    settings: ExportSettings, base_model: Path, reward_weights: Path, state: str
) -> Path:
    """Put a checkpoint, its facts and its model card into a folder.

    Args:
        settings: Which checkpoint, and how to find its strength.
        base_model: Folder of the base model.
        reward_weights: Folder of reward weights.
        state: Folder for work in progress, relative to the project.

    Returns:
        The folder.

    Raises:
        CheckpointError: If there is no such run or checkpoint.
        ExportError: If something is to be told by a reward that the run was trained on.
    """
    from tdpo_pipeline.export.folder import (
        choose_checkpoint,
        measured_strengths,
        write_export,
    )

    config, history, prompts = _records(settings)
    held_out, measured = _held_out(settings, config), _measured_by(settings, config)
    told = settings.checkpoint == "best" or measured is not None
    if told and held_out in config.learned_from:
        raise ExportError(
            f"'{held_out}' is what {config.key} learned from, so it holds nothing "
            "against it. Name another reward as export.held_out."
        )
    scores = settings.path("07_model_output/scores", ".parquet")
    checkpoint = choose_checkpoint(
        settings.path("06_models/checkpoints"),
        settings.checkpoint,
        pd.read_parquet(scores) if scores.is_file() else None,
        held_out,
    )
    log.info("exporting %s", checkpoint)
    strengths = None
    if measured is not None:
        strengths = measured_strengths(
            config,
            checkpoint,
            base_model,
            reward_weights,
            prompts,
            measured,
            strengths=settings.strengths,
            images_per_prompt=settings.images_per_prompt,
            seed=settings.seed,
        )
    folder = ROOT / state / "export"
    write_export(folder, checkpoint, config, history, base_model, strengths)
    if measured is None and config.training.finetune == "lora":
        log.info(
            "No strength is recommended, since no reward tells one: %s has no gold, and "
            "export.held_out names none, or export.strengths is empty.",
            config.task.scorer,
        )
    log.info("The folder to upload is %s/08_reporting/export", settings.data)
    return folder


def _records(
    settings: ExportSettings,
) -> tuple[RunConfig, pd.DataFrame, list[str]]:
    """A run's configuration, history and training prompts.

    Raises:
        CheckpointError: If one is missing.
    """
    from tdpo_pipeline.diffusion.policy import CheckpointError

    config = settings.path("06_models/config", ".yml")
    history = settings.path("07_model_output/history", ".csv")
    for path in (config, history):
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing: there is no finished run {settings.run} in "
                f"{settings.data}. Train it first, by the pipeline of its environment "
                f"(training in base, sd14 in sd14): --namespaces {settings.run}"
            )
    run = _config(config)
    prompts = ROOT / settings.data / "05_model_input" / "train_prompts"
    path = prompts / f"{run.reward}.txt"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the prompts that {settings.run} was trained on. The "
            "pipeline 'prompts' of its environment makes it."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return run, pd.read_csv(history), lines
