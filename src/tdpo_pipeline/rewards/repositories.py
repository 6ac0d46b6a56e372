"""Which published repositories rewards are loaded from, and what that takes.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tdpo_pipeline.rewards.model_files import Repository
from tdpo_pipeline.rewards.registry import REWARDS, reward_path


def repositories_of(names: Iterable[str]) -> list[Repository]:
    """The repositories that rewards and their encoders are loaded from, each once.

    Raises:
        UnknownRewardError: If there is no such reward.
    """
    found: dict[Repository, None] = {}
    for name in names:
        reward_path(name)
        if name in REWARDS:
            entry = REWARDS[name]
            found |= dict.fromkeys((*entry.repositories, *entry.lends))
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


def loaded_bytes(names: Iterable[str], encoder_of: str | None = None) -> float:
    """Bytes in memory of rewards, and of the encoder that a critic reads.

    What several are loaded from counts once; those of one's own and Menagerie's, which
    are small, don't count.

    Args:
        names: Rewards that score.
        encoder_of: The reward that lends its encoder, or None.
    """
    found: set[Repository] = set()
    for name in {*names, *([] if encoder_of is None else [encoder_of])}:
        if name in REWARDS:
            found |= {*REWARDS[name].repositories}
    if encoder_of in REWARDS:
        found |= {*REWARDS[encoder_of].lends}
    return sum(repository.loaded for repository in found)
