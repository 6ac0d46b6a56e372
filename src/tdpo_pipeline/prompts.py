"""The registry of prompt sets: every set has a name, and counts are checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from tdpo_pipeline.menagerie import vocabulary

COMPLEX = (
    "A green colored rabbit",
    "Four wolves in the park",
    "A cat and a dog",
    "A dog on the moon",
)
"""The TDPO paper's complex prompts: colour, count, composition, location."""

QUICK_ANIMALS = ("cat", "horse", "zebra", "bird", "lion", "fish", "frog", "camel")
"""Eight of the 45 training animals, unlike each other, for runs of a few minutes."""


class PromptError(ValueError):
    """A prompt set that is unknown, or a prompt file that can't be used."""


def _with_activities(
    animals: tuple[str, ...], activities: tuple[str, ...]
) -> tuple[str, ...]:
    from tdpo_pipeline.menagerie.scenes import Scene, describe

    return tuple(
        describe(Scene(animal, activity=activity))
        for animal in animals
        for activity in activities
    )


PROMPT_SETS: dict[str, tuple[int, Callable[[], tuple[str, ...]]]] = {
    "simple_animals": (45, lambda: vocabulary.ANIMALS),
    "quick_animals": (8, lambda: QUICK_ANIMALS),
    "unseen_animals": (8, lambda: vocabulary.UNSEEN_ANIMALS),
    "complex": (4, lambda: COMPLEX),
    "everyday_objects": (len(vocabulary.OBJECTS), lambda: vocabulary.OBJECTS),
    "activities": (
        135,
        lambda: _with_activities(vocabulary.ANIMALS, vocabulary.ACTIVITIES),
    ),
    "unseen_activities": (
        135,
        lambda: _with_activities(vocabulary.ANIMALS, vocabulary.UNSEEN_ACTIVITIES),
    ),
    "unseen_animals_unseen_activities": (
        24,
        lambda: _with_activities(
            vocabulary.UNSEEN_ANIMALS, vocabulary.UNSEEN_ACTIVITIES
        ),
    ),
    "rarely_drawn": (
        len(vocabulary.RARELY_DRAWN),
        lambda: vocabulary.RARELY_DRAWN,
    ),
    "rare_compositions": (
        len(vocabulary.RARE_COMPOSITIONS),
        lambda: vocabulary.RARE_COMPOSITIONS,
    ),
}
"""Name -> (number of prompts, the prompts)."""


def prompt_set(name: str) -> list[str]:
    """The prompts of the set ``name``, or of the text file of that path.

    Raises:
        PromptError: If there is no such set or file, or the file is empty or binary.
    """
    if name in PROMPT_SETS:
        count, prompts = PROMPT_SETS[name]
        found = list(prompts())
        if len(found) != count or len(set(found)) != count:
            raise PromptError(f"Prompt set '{name}' should have {count} prompts.")
        return found
    if name.endswith(".txt"):
        return read_prompt_file(Path(name))
    near = difflib.get_close_matches(name, PROMPT_SETS, n=3)
    raise PromptError(
        f"Unknown prompt set '{name}'. "
        f"{'Did you mean ' + ' or '.join(near) + '? ' if near else ''}"
        f"There are: {', '.join(sorted(PROMPT_SETS))}; or give the path of a .txt "
        "file with a prompt on each line."
    )


def read_prompt_file(path: Path) -> list[str]:
    """Prompts of a UTF-8 text file, one a line; blank lines are left out.

    Raises:
        PromptError: If the file is missing, is not text, or holds no prompt.
    """
    if not path.is_file():
        raise PromptError(f"There is no prompt file {path}.")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not a UTF-8 text file (byte {error.start})."
        ) from error
    if "\0" in text:
        raise PromptError(f"{path} is a binary file, not a list of prompts.")
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise PromptError(f"{path} is empty: write one prompt on each line.")
    return prompts
