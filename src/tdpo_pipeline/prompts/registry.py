"""The registry of prompt sets: every set has a name, and counts are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.menagerie import vocabulary
from tdpo_pipeline.prompts import counting, lists
from tdpo_pipeline.prompts.files import (
    PromptError,
    evenly_spaced,
    read_prompt_file,
)
from tdpo_pipeline.prompts.published import PARTI_COUNT, PUBLISHED, PublishedFile


class PromptSet(NamedTuple):
    """A named set of prompts.

    Attributes:
        size: How many there are.
        source: The prompts, or the published file that they are read from.
    """

    size: int
    source: Callable[[], tuple[str, ...]] | PublishedFile


_SEEN, _UNSEEN = vocabulary.ANIMALS, vocabulary.UNSEEN_ANIMALS
_ACTIVITIES, _NEW_ACTIVITIES = vocabulary.ACTIVITIES, vocabulary.UNSEEN_ACTIVITIES

PROMPT_SETS: dict[str, PromptSet] = {
    # DDPO's animals, which everybody trains on, and TDPO's evaluation.
    "simple_animals": PromptSet(45, lambda: _SEEN),
    "quick_animals": PromptSet(8, lambda: lists.QUICK_ANIMALS),
    "unseen_animals": PromptSet(8, lambda: _UNSEEN),
    "unseen_animals_6": PromptSet(6, lambda: lists.FIRST_UNSEEN_ANIMALS),
    "complex": PromptSet(4, lambda: lists.COMPLEX),
    "complex_dpok": PromptSet(4, lists.dpok_complex),
    # Activities: DDPO trains on the first three, DiffExp evaluates on three more.
    "activities": PromptSet(135, lambda: lists.with_activities(_SEEN, _ACTIVITIES)),
    "activities_printed": PromptSet(
        135, lambda: lists.with_activities(_SEEN, lists.PRINTED_ACTIVITIES)
    ),
    "unseen_activities": PromptSet(
        135, lambda: lists.with_activities(_SEEN, _NEW_ACTIVITIES)
    ),
    "unseen_animals_unseen_activities": PromptSet(
        24, lambda: lists.with_activities(_UNSEEN, _NEW_ACTIVITIES)
    ),
    "unseen_animals_6_unseen_activities": PromptSet(
        18, lambda: lists.with_activities(lists.FIRST_UNSEEN_ANIMALS, _NEW_ACTIVITIES)
    ),
    "one_prompt": PromptSet(1, lambda: lists.ONE_PROMPT),
    # DDPO's other tasks.
    "n_animals": PromptSet(360, counting.n_animals),
    "imagenet_animals": PromptSet(lists.IMAGENET_ANIMALS, lists.imagenet_animals),
    "everyday_objects": PromptSet(8, lambda: vocabulary.OBJECTS),
    "ddpo_objects": PromptSet(50, PUBLISHED["ddpo_objects"]),
    # Human-written prompts: TDPO trains on HPSv2's photos, DiffExp on DrawBench.
    "hpdv2_photo": PromptSet(800, PUBLISHED["hpdv2_photo"]),
    "drawbench": PromptSet(58, PUBLISHED["drawbench"]),
    "parti": PromptSet(PARTI_COUNT, PUBLISHED["parti"]),
    # Menagerie's own: scenes of every kind in place of human-written prompts, and what
    # its base model never saw together.
    "broad_scenes": PromptSet(402, lists.broad_scenes),
    "rarely_drawn": PromptSet(7, lambda: vocabulary.RARELY_DRAWN),
    "rare_compositions": PromptSet(10, lambda: vocabulary.RARE_COMPOSITIONS),
}


def is_prompt_source(text: str) -> bool:
    """Whether ``text`` names a set or a text file, and isn't itself a prompt."""
    return text.partition("/")[0] in PROMPT_SETS or text.endswith(".txt")


def check_prompt_source(name: str) -> None:
    """Raise a PromptError with near names unless this is a set, a part or a text file."""
    if not is_prompt_source(name):
        raise _unknown(name.partition("/")[0])


def prompt_set(name: str, files: Path | None = None) -> list[str]:
    """The prompts of a named set, of a part of it, or of a text file.

    Args:
        name: Name of a set; name and number, such as ``imagenet_animals/32``, for so
            many of its prompts, evenly spaced; or path of a file that ends in ``.txt``.
        files: Folder of the published files that have been fetched.

    Raises:
        PromptError: If there is no such set or file, the file is empty or binary, or
            the set hasn't its number of prompts.
    """
    if name.endswith(".txt"):
        return read_prompt_file(Path(name))
    whole, slash, part = name.partition("/")
    check_prompt_source(name)
    prompts = _whole_set(whole, files)
    if not slash:
        return prompts
    if not (part.isdecimal() and 1 <= int(part) <= len(prompts)):
        raise PromptError(
            f"'{name}': after the slash goes how many of the {len(prompts)} prompts of "
            f"'{whole}' to take."
        )
    return evenly_spaced(prompts, int(part))


def _whole_set(name: str, files: Path | None) -> list[str]:
    """All prompts of a set, their number checked."""
    count, source = PROMPT_SETS[name]
    if not isinstance(source, PublishedFile):
        return _counted(name, list(source()), count, "tdpo_pipeline.prompts")
    if files is None:
        raise PromptError(
            f"Prompt set '{name}' is read from the file {source.name}; say in which "
            "folder that is."
        )
    return _counted(name, source.prompts(files), count, str(files / source.name))


def _counted(name: str, prompts: list[str], count: int, where: str) -> list[str]:
    """``prompts`` if there are ``count`` different ones."""
    different = len(set(prompts))
    if len(prompts) != count or different != count:
        raise PromptError(
            f"Prompt set '{name}' should have {count} prompts; from {where} there are "
            f"{len(prompts)}, {different} of them different. To use a file of your own, "
            "name its path in place of the set."
        )
    return prompts


def _unknown(name: str) -> PromptError:
    return PromptError(
        f"Unknown prompt set '{name}'{did_you_mean(name, PROMPT_SETS)}. There are: "
        f"{', '.join(sorted(PROMPT_SETS))}; or give the path of a .txt file with a prompt "
        "on each line."
    )
