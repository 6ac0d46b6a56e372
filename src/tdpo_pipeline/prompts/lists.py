"""Prompts that are listed or put together here, as the papers' code has them.

Where a paper prints another spelling than its code has, both are sets of their own.
"""

from __future__ import annotations

from typing import Any

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

FIRST_UNSEEN_ANIMALS = vocabulary.UNSEEN_ANIMALS[:6]
"""The unseen animals of AlignProp and DiffExp; TDPO has two more."""

ONE_PROMPT = ("a dolphin riding a bike",)
"""DiffExp's figure 1b trains on this prompt alone, which base models hardly ever draw."""

PRINTED_ACTIVITIES = ("washing dishes", "riding a bike", "playing chess")
"""The activities as the DDPO paper prints them; its code washes "the dishes"."""

IMAGENET_ANIMALS = 398
"""ImageNet-1k's classes 0 to 397 are animals, from the tench to the puffer."""


def dpok_complex() -> tuple[str, ...]:
    """The complex prompts as DPOK has them, each with a period."""
    return tuple(f"{prompt}." for prompt in COMPLEX)


def with_activities(
    animals: tuple[str, ...], activities: tuple[str, ...]
) -> tuple[str, ...]:
    """Every animal with every activity, such as ``"an ant riding a bike"``."""
    return tuple(
        f"{vocabulary.article(animal)} {animal} {activity}"
        for animal in animals
        for activity in activities
    )


def imagenet_animals() -> tuple[str, ...]:
    """The names of ImageNet's animals, with all their synonyms.

    As in DDPO a prompt is the whole entry of the class index, such as
    ``"tench, Tinca tinca"``. The index is timm's.
    """
    from timm.data import ImageNetInfo

    index = ImageNetInfo("imagenet-1k")
    return tuple(
        index.index_to_description(i, detailed=False) for i in range(IMAGENET_ANIMALS)
    )


def broad_scenes() -> tuple[str, ...]:
    """Each of the 45 animals in nine scenes, for rewards that are about the prompt.

    Plain, coloured, counted, in a place, busy, with a companion, and in three pairs of
    these; which colour, number and so on goes round with the animal. The complex prompts
    and the rare compositions are left out, so that fine-tuning never sees these.
    """
    from tdpo_pipeline.menagerie.scenes import Scene, describe, parse

    animals, numbers = vocabulary.ANIMALS, tuple(vocabulary.NUMBERS.values())
    unseen = {parse(prompt) for prompt in COMPLEX + vocabulary.RARE_COMPOSITIONS}
    scenes = []
    for i, animal in enumerate(animals):
        colour, other = (_nth(vocabulary.COLOURS, i + shift) for shift in (0, 3))
        place, elsewhere = (_nth(vocabulary.PLACES, i + shift) for shift in (1, 4))
        number, companion = _nth(numbers, i), _nth(animals, i + 7)
        scenes += [
            Scene(animal),
            Scene(animal, colour=colour),
            Scene(animal, count=number),
            Scene(animal, place=place),
            Scene(animal, activity=_nth(vocabulary.ACTIVITIES, i)),
            Scene(animal, companion=companion),
            Scene(animal, colour=other, place=elsewhere),
            Scene(animal, count=_nth(numbers, i + 1), place=elsewhere),
            Scene(animal, count=_nth(numbers, i + 2), colour=other),
        ]
    return tuple(describe(scene) for scene in scenes if scene not in unseen)


def _nth(values: tuple[Any, ...], index: int) -> Any:
    """The value at an index that goes round."""
    return values[index % len(values)]
