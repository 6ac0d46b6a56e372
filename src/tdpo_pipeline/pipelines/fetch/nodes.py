"""Nodes that download what an environment needs, and give the folders it is in.

Each fetches into the folder that its dataset names, where the next one finds what is
there already; where an environment has nothing to fetch, the folder is left as it is.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from tdpo_pipeline.config import (
    TINY_DECODER,
    AlgorithmSettings,
    EvaluationSettings,
    RewardSettings,
    Settings,
    TrainingSettings,
    words,
)
from tdpo_pipeline.fetching.folder import fetch_folder
from tdpo_pipeline.fetching.manifest import write_manifest
from tdpo_pipeline.fetching.plan import (
    ModelSettings,
    check_read_from_file,
    prompt_files,
    remote_files,
    rewards_in_use,
)
from tdpo_pipeline.grid import ROOT, runs
from tdpo_pipeline.pipelines.evaluation.nodes import DiversitySettings
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings
from tdpo_pipeline.rewards.registry import reward_path
from tdpo_pipeline.rewards.repositories import repositories_of

log = logging.getLogger(__name__)


class FetchSettings(Settings):
    """What to fetch, and where to.

    Attributes:
        base_model: Folder of the base model, relative to the project.
        reward_weights: Folder of reward weights, relative to the project.
        grid: The environment's grid, whose rewards are fetched; None: it has none.
        rewards: Rewards to fetch the weights of, in place of all that the grid uses; a
            list, or a text with spaces between them.
        prompts: Address or path of a prompt set's file, where another than the
            published one is wanted, by the name of the set.
    """

    base_model: str
    reward_weights: str
    grid: Literal["sd14", "sd15", "sdxl"] | None
    rewards: Annotated[tuple[str, ...] | None, BeforeValidator(words)]
    prompts: dict[str, str]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for reward in self.rewards or ():
            reward_path(reward)
        for prompt_set in self.prompts:
            check_read_from_file(prompt_set)
        return self


def fetch_base_model(settings: FetchSettings, models: ModelSettings) -> Path:
    """Fetch the base model, and the tiny decoder of its latents.

    Returns:
        Its folder.

    Raises:
        FetchError: If it can't be had.
    """
    folder = ROOT / settings.base_model
    if models.base_model is None:
        log.info("base model: this environment has its own, in %s", folder)
        return folder
    repository = models.base_model.repository
    fetch_folder(folder, remote_files(repository), repository.id)
    if models.tiny_decoder is not None:
        tiny = models.tiny_decoder.repository
        fetch_folder(folder / TINY_DECODER, remote_files(tiny), tiny.id)
    return folder


def fetch_reward_weights(
    settings: FetchSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    diversity: DiversitySettings,
    tasks: dict[str, Any],
    methods: dict[str, Any],
) -> Path:
    """Fetch the weights of the rewards that the environment uses.

    Args:
        settings: Which grid, or which rewards.
        training: Names the rewards that are monitored.
        evaluation: Names the rewards that are evaluated.
        diversity: Names the rewards whose encoders see diversity.
        tasks: The configured tasks, by name.
        methods: The configured methods, by name.

    Returns:
        Folder of a folder for each repository.

    Raises:
        FetchError: If a file can't be had.
    """
    folder = ROOT / settings.reward_weights
    names = _rewards(settings, training, evaluation, diversity, tasks, methods)
    repositories = list(repositories_of(names))
    for repository in repositories:
        fetch_folder(repository.folder(folder), remote_files(repository), repository.id)
    filled = folder.is_dir() and any(folder.iterdir())
    if not filled:  # runs need the folder, also where their rewards load nothing
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, {})
    return folder


def fetch_prompts(settings: FetchSettings, prompts: PromptSettings) -> Path:
    """Fetch the prompt files that others publish.

    Returns:
        Their folder.

    Raises:
        FetchError: If one can't be had.
    """
    folder = ROOT / prompts.files
    fetch_folder(folder, prompt_files(settings.prompts), "prompts")
    return folder


def _rewards(
    settings: FetchSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    diversity: DiversitySettings,
    tasks: dict[str, Any],
    methods: dict[str, Any],
) -> list[str]:
    """Names of the rewards to fetch."""
    if settings.rewards is not None:
        return list(settings.rewards)
    if settings.grid is None:
        return []
    grid = runs(settings.grid)
    return rewards_in_use(
        [RewardSettings.model_validate(tasks[run.reward]) for run in grid],
        [AlgorithmSettings.model_validate(methods[run.method]) for run in grid],
        training,
        evaluation,
        diversity.encoders,
    )
