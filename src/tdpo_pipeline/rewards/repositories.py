"""Which published repositories rewards are loaded from.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tdpo_pipeline.rewards.model_files import Repository
from tdpo_pipeline.rewards.registry import REWARDS, reward_path


def repositories_of(names: Iterable[str]) -> list[Repository]:
    """The repositories that rewards are loaded from, each once.

    Raises:
        UnknownRewardError: If there is no such reward.
    """
    found: dict[Repository, None] = {}
    for name in names:
        reward_path(name)
        if name in REWARDS:
            found |= dict.fromkeys(REWARDS[name].repositories)
    return list(found)


def files_of_others(names: Iterable[str], weights: Path) -> set[Path]:
    """Files under a folder of weights that only other rewards than these read."""

    def files(repositories: Iterable[Repository]) -> set[Path]:
        return {
            repository.folder(weights) / file.name
            for repository in repositories
            for file in repository.files
        }

    return files(repositories_of(REWARDS)) - files(repositories_of(names))
