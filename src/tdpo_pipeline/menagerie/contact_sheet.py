"""Contact sheets: everything that the renderer can draw, enlarged, in one picture."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tdpo_pipeline.menagerie import vocabulary
from tdpo_pipeline.menagerie.render import CANONICAL, IMAGE_SIZE, render, render_scene
from tdpo_pipeline.menagerie.scenes import Scene, describe

_LINE_HEIGHT = 12
_LETTER_WIDTH = 6
_GAP = 4


def sheet(
    scenes: Sequence[Scene],
    columns: int = 9,
    zoom: int = 4,
    labels: Sequence[str] | None = None,
    seed: int | None = None,
) -> Image.Image:
    """A grid of pictures, enlarged without smoothing.

    Columns are as wide as the longest word of a label, rows as high as theirs need.

    Args:
        scenes: What to draw, row by row.
        columns: Pictures per row.
        zoom: How many times each picture is enlarged.
        labels: Texts under the pictures; their prompts if None.
        seed: Draws a nuisance for each picture; the canonical pose if None.
    """
    side = IMAGE_SIZE * zoom
    texts = [describe(scene) for scene in scenes] if labels is None else list(labels)
    longest_word = max(len(word) for text in texts for word in text.split())
    letters = max(side // _LETTER_WIDTH, longest_word)
    width = max(side, letters * _LETTER_WIDTH) + _GAP
    texts = [textwrap.fill(text, letters) for text in texts]
    rows = range(0, len(scenes), columns)
    lines = [max(x.count("\n") + 1 for x in texts[at : at + columns]) for at in rows]
    tops = np.cumsum([_GAP, *(side + _GAP + n * _LINE_HEIGHT for n in lines)]).tolist()
    page = Image.new("RGB", (columns * width + _GAP, tops[-1]), "white")
    draw = ImageDraw.Draw(page)
    for index, scene in enumerate(scenes):
        pixels = (
            render_scene(scene, CANONICAL)
            if seed is None
            else render(scene, seed + index)
        )
        tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        x = _GAP + index % columns * width
        y = tops[index // columns]
        page.paste(tile, (x, y))
        draw.text((x + 1, y + side), texts[index], fill="black", spacing=1)
    return page


def world() -> list[Scene]:
    """All animals and objects, and examples of every other kind of scene."""
    animals = [Scene(name) for name in (*vocabulary.ALL_ANIMALS, *vocabulary.OBJECTS)]
    guests = ("dog", "cat", "octopus", "lion", "duck", "ant", "rabbit", "horse")
    activities = [
        Scene(guest, activity=activity)
        for activity in vocabulary.ALL_ACTIVITIES
        for guest in guests[:3]
    ]
    places = [
        Scene(guest, place=place)
        for place, guest in zip(vocabulary.PLACES, guests, strict=True)
    ]
    coloured = [
        Scene(guest, colour=colour)
        for colour, guest in zip(vocabulary.COLOURS, guests, strict=True)
    ]
    counts = [
        Scene("wolf", 4, place="in the park"),
        *(Scene(guest, n) for n, guest in zip((2, 3, 4, 5), guests, strict=False)),
        Scene("cat", companion="dog"),
        Scene("whale", companion="llama"),
        Scene("rabbit", companion="spider", place="in the snow"),
    ]
    return [*animals, *activities, *places, *coloured, *counts]


def shuffled_animals(seed: int) -> tuple[list[Scene], list[str]]:
    """All 53 animals in random order, with numbers for labels: a reading test."""
    order = np.random.default_rng(seed).permutation(len(vocabulary.ALL_ANIMALS))
    scenes = [Scene(vocabulary.ALL_ANIMALS[index]) for index in order]
    return scenes, [str(number + 1) for number in range(len(scenes))]
