"""What an environment needs from the network: base model, reward weights, prompts.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import Field

from tdpo_pipeline.config import (
    EvaluationSettings,
    RewardSettings,
    Settings,
    TrainingSettings,
)
from tdpo_pipeline.fetching.download import RemoteFile
from tdpo_pipeline.prompts import PUBLISHED, PromptError
from tdpo_pipeline.rewards.model_files import ModelFile, Repository


class BaseModelSettings(Settings):
    """A published base model.

    Attributes:
        id: ``organisation/name`` on the hub.
        revision: Commit.
        files: The files that are needed of it.
    """

    id: str
    revision: str
    files: tuple[str, ...] = Field(min_length=1)

    @property
    def repository(self) -> Repository:
        """The same as a repository."""
        return Repository(self.id, self.revision, tuple(map(ModelFile, self.files)))


def remote_files(repository: Repository) -> list[RemoteFile]:
    """What is to be fetched of a repository."""
    return [
        RemoteFile(
            name=file.name,
            url=repository.url(file),
            # A size is exact only where the checksum is known.
            size=file.size if file.sha256 else None,
            sha256=file.sha256,
        )
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
        near = difflib.get_close_matches(name, PUBLISHED, n=2)
        raise PromptError(
            f"'{name}' is no prompt set that is read from a "
            f"file{': did you mean ' + ' or '.join(near) + '?' if near else '.'} "
            f"There are {', '.join(PUBLISHED)}."
        )


def rewards_in_use(
    tasks: Iterable[RewardSettings],
    training: TrainingSettings,
    evaluation: EvaluationSettings,
) -> list[str]:
    """Every reward that is trained on, lends its encoder, is monitored or evaluated."""
    names: dict[str, None] = {}
    for task in tasks:
        names |= dict.fromkeys(task.ensemble or [task.scorer])
        names |= dict.fromkeys(filter(None, [task.critic_encoder]))
    names |= dict.fromkeys((*training.monitor, *evaluation.rewards))
    return list(names)
