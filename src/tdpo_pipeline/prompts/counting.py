"""DDPO's counting task: "n animals", and what a scorer has to know to check it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdpo_pipeline.menagerie.vocabulary import ANIMALS, PLURALS

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The numbers n of "n animals"."""

_COUNTED = {
    f"{number} {PLURALS[animal]}": (number, animal)
    for animal in ANIMALS
    for number in NUMBERS
}


def n_animals() -> tuple[str, ...]:
    """Every number of every training animal, such as ``"four wolves"``."""
    return tuple(_COUNTED)


def prompt_metadata(prompts: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of each prompt besides its words.

    Returns:
        Of a prompt of "n animals" its ``number`` (a word), ``animal`` and ``plural``,
        and what a picture of it is asked: ``questions`` and their ``answers``. Of any
        other prompt nothing.
    """
    return [_metadata(prompt) for prompt in prompts]


def _metadata(prompt: str) -> dict[str, Any]:
    if prompt not in _COUNTED:
        return {}
    number, animal = _COUNTED[prompt]
    plural = PLURALS[animal]
    return {
        "number": number,
        "animal": animal,
        "plural": plural,
        "questions": [
            f"How many {plural} are there in this image?",
            "What animal is in this image?",
        ],
        "answers": [number, animal],
    }
