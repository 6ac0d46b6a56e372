"""What an environment needs from the network: base model, reward weights, prompts.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field, PositiveFloat

from tdpo_pipeline.config import (
    AlgorithmSettings,
    EvaluationSettings,
    RewardSettings,
    Settings,
    TrainingSettings,
)
from tdpo_pipeline.fetching.download import RemoteFile
from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.prompts import PUBLISHED, PromptError
from tdpo_pipeline.rewards.model_files import ModelFile, Repository


class BaseModelSettings(Settings):
    """A published base model.

    Attributes:
        id: ``organisation/name`` on the hub.
        revision: Commit.
        files: The files that are needed of it.
        sizes_gb: Sizes of the large ones in GB, rounded.
    """

    id: str
    revision: str
    files: tuple[str, ...] = Field(min_length=1)
    sizes_gb: dict[str, PositiveFloat] = Field(default_factory=dict)

    @property
    def repository(self) -> Repository:
        """The same as a repository."""
        sizes = {name: round(1e9 * size) for name, size in self.sizes_gb.items()}
        files = tuple(ModelFile(name, sizes.get(name)) for name in self.files)
        return Repository(self.id, self.revision, files)


class ModelSettings(Settings):
    """The models of an environment.

    Attributes:
        base_model: The published base model, or None: the environment makes its own.
        tiny_decoder: A published ``AutoencoderTiny`` of the same latents, or None.
    """

    base_model: BaseModelSettings | None
    tiny_decoder: BaseModelSettings | None = None


def remote_files(repository: Repository) -> list[RemoteFile]:
    """What is to be fetched of a repository."""
    return [
        RemoteFile(name=file.name, url=repository.url(file), sha256=file.sha256)
        for file in repository.files
    ]


def prompt_files(sources: Mapping[str, str]) -> list[RemoteFile]:
    """The published prompt files, from ``sources`` where these name another place.

    Args:
        sources: Address or path of the file of a prompt set, by the set's name.
    """
    return [
        RemoteFile(file.name, sources.get(name, file.url))
        for name, file in PUBLISHED.items()
    ]


def check_read_from_file(name: str) -> None:
    """Raise PromptError unless a prompt set of this name is read from a file."""
    if name not in PUBLISHED:
        raise PromptError(
            f"'{name}' is no prompt set that is read from a file"
            f"{did_you_mean(name, PUBLISHED)}. There are {', '.join(PUBLISHED)}."
        )


def rewards_in_use(
    tasks: Iterable[RewardSettings],
    methods: Iterable[AlgorithmSettings],
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    diversity_encoders: Iterable[str],
) -> list[str]:
    """Every reward that runs of these tasks and methods, and their evaluation, load."""
    names: dict[str, None] = {}
    for task in tasks:
        names |= dict.fromkeys(task.scored_by)
        names |= dict.fromkeys(filter(None, [task.critic_encoder]))
    for method in methods:
        names |= dict.fromkeys(filter(None, [method.critic_encoder]))
        names |= dict.fromkeys(method.auxiliary_rewards)
    watched = (*training.monitor, *evaluation.rewards, *diversity_encoders)
    return list(names | dict.fromkeys(watched))
