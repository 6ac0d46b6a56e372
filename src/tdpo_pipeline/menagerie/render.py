"""Pictures of scenes: 32x32 RGB, the same for the same scene and nuisance.

A scene is drawn once, three times larger than needed and with a wide margin, and
kept; every picture of it is one resampling of that drawing. What the eye should not
care about (position, scale, mirror image, tone of the background) is the nuisance.

A picture is linear in ``Nuisance.shade``: ``base + shade * tone`` with the two
arrays of :func:`render_parts`, so that shade can be fitted in closed form.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tdpo_pipeline.menagerie.animals import DRAWINGS
from tdpo_pipeline.menagerie.canvas import Pen
from tdpo_pipeline.menagerie.props import (
    OBJECT_DRAWINGS,
    PLACE_DRAWINGS,
    STAGES,
    Box,
)
from tdpo_pipeline.menagerie.scenes import Scene

IMAGE_SIZE = 32
"""Width and height of a picture, in pixels."""

MAX_SHIFT = 2.0
"""Largest shift in either direction that ``sample_nuisance`` draws, in pixels."""

SCALE_RANGE = (0.85, 1.1)
"""Smallest and largest scale that ``sample_nuisance`` draws."""

_MARGIN = 8
_RESOLUTION = 3
_SIDE = (IMAGE_SIZE + 2 * _MARGIN) * _RESOLUTION
_OUTLINE = (38, 34, 42)
_OUTLINE_BLUR = 0.36 * _RESOLUTION
_BACKGROUND = np.array([209.0, 214.0, 215.0], dtype=np.float32)
_BACKGROUND_TONE = np.array([33.0, 24.0, 11.0], dtype=np.float32)
_LIGHT = 0.1

_COLOUR_VALUES: dict[str, tuple[int, int, int]] = {
    "red": (222, 42, 42),
    "orange": (250, 136, 20),
    "yellow": (250, 218, 40),
    "green": (52, 176, 62),
    "blue": (44, 92, 224),
    "purple": (140, 60, 196),
    "pink": (252, 130, 190),
    "turquoise": (40, 206, 200),
}

_ALONE: Box = (2.5, 2.5, 29.5, 29.5)
_IN_PLACE: Box = (4, 5, 28, 29.5)
_PAIR: tuple[Box, Box] = ((0, 5, 16.6, 28), (15.4, 5, 32, 28))
_PAIR_IN_PLACE: tuple[Box, Box] = ((0, 8, 16.6, 29.5), (15.4, 8, 32, 29.5))
_LAYOUTS: dict[int, tuple[Box, ...]] = {
    2: ((0.4, 1, 17.2, 17), (14.8, 15, 31.6, 31)),
    3: ((9, 1.4, 23, 15.4), (1, 16.6, 15, 30.6), (17, 16.6, 31, 30.6)),
    4: (
        (1, 1.4, 15.2, 15.4),
        (16.8, 1.4, 31, 15.4),
        (1, 16.6, 15.2, 30.6),
        (16.8, 16.6, 31, 30.6),
    ),
    5: (
        (0.6, 0.8, 11.8, 11.8),
        (20.2, 0.8, 31.4, 11.8),
        (10.4, 10.6, 21.6, 21.4),
        (0.6, 20.2, 11.8, 31.2),
        (20.2, 20.2, 31.4, 31.2),
    ),
}


@dataclass(frozen=True)
class Nuisance:
    """What a picture may vary in without showing anything else.

    Attributes:
        dx: Shift to the right, in pixels, -4 to 4.
        dy: Shift downwards, in pixels, -4 to 4.
        scale: Of everything about the centre, 0.85 to 1.25.
        flip: Whether the scene is mirrored, before it is shifted.
        shade: Tone, -1 (dark) to 1 (light): of the background of a plain scene, of
            the whole picture of a place.

    Raises:
        ValueError: If a number is out of its range.
    """

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    flip: bool = False
    shade: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges: outside of them the drawing would not fill the frame."""
        for name, low, high in (
            ("dx", -4, 4),
            ("dy", -4, 4),
            ("scale", 0.85, 1.25),
            ("shade", -1, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"Nuisance.{name}={getattr(self, name)!r} is outside "
                    f"[{low}, {high}]."
                )


CANONICAL = Nuisance()
"""No shift, scale 1, not mirrored, middle tone."""


def sample_nuisance(rng: np.random.Generator) -> Nuisance:
    """Draw a nuisance, all five parts independent and uniform."""
    u = rng.random(5).tolist()
    low, high = SCALE_RANGE
    return Nuisance(
        dx=MAX_SHIFT * (2 * u[0] - 1),
        dy=MAX_SHIFT * (2 * u[1] - 1),
        scale=low + (high - low) * u[2],
        flip=u[3] < 0.5,
        shade=2 * u[4] - 1,
    )


def render(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """A picture of a scene with a nuisance drawn from ``seed``.

    Returns:
        uint8 array (32, 32, 3).
    """
    return render_scene(scene, sample_nuisance(np.random.default_rng(seed)))


def render_scene(scene: Scene, nuisance: Nuisance) -> NDArray[np.uint8]:
    """A picture of a scene: a pure function of its two arguments.

    Returns:
        uint8 array (32, 32, 3).
    """
    base, tone = render_parts(scene, nuisance)
    return np.rint(base + np.float32(nuisance.shade) * tone).astype(np.uint8)


def render_parts(
    scene: Scene, nuisance: Nuisance
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two arrays whose combination ``base + shade * tone`` is the picture.

    ``nuisance.shade`` is ignored.

    Returns:
        Two float32 arrays (32, 32, 3); their sum and their difference stay within
        0 to 255.
    """
    pixels = _resample(_drawing(scene), nuisance)
    if scene.place is not None:
        base = pixels[..., :3] * np.float32(1 - _LIGHT)
        return base, pixels[..., :3] * np.float32(_LIGHT)
    empty = 1 - pixels[..., 3:] / np.float32(255)
    return pixels[..., :3] + empty * _BACKGROUND, empty * _BACKGROUND_TONE


def _resample(drawing: Image.Image, nuisance: Nuisance) -> NDArray[np.float32]:
    """Shift, scale and mirror a drawing into the frame: float32 (32, 32, 4)."""
    # Mirroring about the centre and then shifting equals shifting the other way and
    # then mirroring, which spares a mirrored copy of every drawing.
    dx = -nuisance.dx if nuisance.flip else nuisance.dx
    half = IMAGE_SIZE / 2
    centre_x = half + _MARGIN - dx / nuisance.scale
    centre_y = half + _MARGIN - nuisance.dy / nuisance.scale
    reach = half / nuisance.scale
    window = (
        (centre_x - reach) * _RESOLUTION,
        (centre_y - reach) * _RESOLUTION,
        (centre_x + reach) * _RESOLUTION,
        (centre_y + reach) * _RESOLUTION,
    )
    small = drawing.resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.HAMMING, box=window
    )
    pixels = np.asarray(small, dtype=np.float32)
    return pixels[:, ::-1] if nuisance.flip else pixels


@lru_cache(maxsize=1024)
def _drawing(scene: Scene) -> Image.Image:
    """A scene at high resolution with its margin, colours premultiplied by alpha."""
    if scene.place is None:
        picture = Image.new("RGBA", (_SIDE, _SIDE))
    else:
        picture = _place(scene.place).copy()
    if scene.activity is not None:
        _compose_activity(picture, scene, scene.activity)
    else:
        for role in _cast(scene):
            _put(picture, role, scene.colour)
    return picture.convert("RGBa")


class _Role(NamedTuple):
    """A subject, the box that it fills, and how it does so."""

    subject: str
    box: Box
    stands: bool
    flip: bool = False


def _cast(scene: Scene) -> list[_Role]:
    """Who stands where in a scene without activity."""
    grounded = scene.place is not None
    if scene.companion is not None:
        left, right = _PAIR_IN_PLACE if grounded else _PAIR
        # The first is mirrored: the two look at each other.
        return [
            _Role(scene.subject, left, stands=True, flip=True),
            _Role(scene.companion, right, stands=True),
        ]
    if scene.count > 1:
        boxes = _LAYOUTS[scene.count]
        return [_Role(scene.subject, box, stands=grounded) for box in boxes]
    return [_Role(scene.subject, _IN_PLACE if grounded else _ALONE, stands=grounded)]


def _compose_activity(picture: Image.Image, scene: Scene, activity: str) -> None:
    """Props behind, the animal, props before it."""
    behind, before = _props(activity)
    picture.alpha_composite(behind)
    _put(picture, _Role(scene.subject, STAGES[activity].box, stands=True), scene.colour)
    picture.alpha_composite(before)


def _put(picture: Image.Image, role: _Role, colour: str | None) -> None:
    """Place a subject in its box: in the middle across, standing or floating."""
    left, top, right, bottom = role.box
    stamp = _stamp(role.subject, colour, right - left, bottom - top, role.flip)
    free = (bottom - top) * _RESOLUTION - stamp.height
    x = ((left + right) / 2 + _MARGIN) * _RESOLUTION - stamp.width / 2
    y = (top + _MARGIN) * _RESOLUTION + (free if role.stands else free / 2)
    picture.alpha_composite(stamp, (round(x), round(y)))


@lru_cache(maxsize=2048)
def _stamp(
    subject: str, colour: str | None, width: float, height: float, flip: bool
) -> Image.Image:
    """A subject, as large as fits in a box of units, with a dark outline."""
    sprite = _sprite(subject)
    factor = _RESOLUTION * min(width / sprite.width, height / sprite.height)
    size = (round(sprite.width * factor), round(sprite.height * factor))
    small = sprite.resize(size, Image.Resampling.BOX)
    if flip:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if colour is not None:
        small = _recoloured(small, _main_brightness(subject), _COLOUR_VALUES[colour])
    return _outlined(small)


def _outlined(sprite: Image.Image) -> Image.Image:
    """A sprite with a thin dark line around it, so that it parts from any ground."""
    border = 3
    size = (sprite.width + 2 * border, sprite.height + 2 * border)
    padded = Image.new("RGBA", size)
    padded.paste(sprite, (border, border))
    # Blurred and then amplified, the silhouette grows by about half a unit.
    spread = padded.getchannel("A").filter(ImageFilter.GaussianBlur(_OUTLINE_BLUR))
    outline = Image.new("RGBA", size, _OUTLINE)
    outline.putalpha(spread.point([min(255, 6 * value) for value in range(256)]))
    return Image.alpha_composite(outline, padded)


@lru_cache(maxsize=64)
def _sprite(subject: str) -> Image.Image:
    """A subject as its drawing gives it, cropped to what is painted."""
    pen = Pen()
    (DRAWINGS.get(subject) or OBJECT_DRAWINGS[subject])(pen)
    return pen.cropped()


def _brightness(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Perceived brightness, 0 to 255, of RGBA pixels (..., 4): shape (...)."""
    return pixels[..., :3] @ np.array([0.3, 0.59, 0.11], dtype=np.float32)


@lru_cache(maxsize=64)
def _main_brightness(subject: str) -> float:
    """The most frequent brightness of a subject, but never quite black."""
    pixels = np.asarray(_sprite(subject), dtype=np.float32)
    painted = _brightness(pixels)[pixels[..., 3] > 0]
    return max(float(np.bincount(painted.astype(int), minlength=256).argmax()), 50.0)


def _recoloured(
    sprite: Image.Image, main: float, colour: tuple[int, int, int]
) -> Image.Image:
    """A sprite in shades of one colour; its light and dark pattern stays.

    What has the brightness ``main`` becomes the colour itself; darker parts become
    darker shades of it, lighter parts lighter tints.
    """
    pixels = np.asarray(sprite, dtype=np.float32)
    brightness = _brightness(pixels)[..., None]
    dark = np.clip(brightness / main, 0, 1)
    light = np.clip((brightness - main) / (256 - main), 0, 1)
    target = np.array(colour, dtype=np.float32)
    shades = target * (0.2 + 0.8 * dark)
    tints = shades + (255 - shades) * 0.75 * light
    result = np.concatenate([tints, pixels[..., 3:]], axis=-1)
    return Image.fromarray(np.rint(result).astype(np.uint8), "RGBA")


@lru_cache(maxsize=16)
def _props(activity: str) -> tuple[Image.Image, Image.Image]:
    """What stands behind and before the animal in an activity."""
    layers = []
    for paint in (STAGES[activity].behind, STAGES[activity].before):
        pen = Pen(pixels_per_unit=2 * _RESOLUTION, margin=_MARGIN)
        paint(pen)
        layers.append(pen.image.reduce(2))
    return layers[0], layers[1]


@lru_cache(maxsize=16)
def _place(place: str) -> Image.Image:
    """The opaque background of a place, with its margin."""
    pen = Pen(pixels_per_unit=2 * _RESOLUTION, margin=_MARGIN)
    PLACE_DRAWINGS[place](pen)
    return pen.image.reduce(2)


def main(arguments: list[str] | None = None) -> None:
    """Draw a contact sheet of the world, or an unlabelled one of its animals."""
    # The sheet draws with this module, so it can only be imported once that is whole.
    from tdpo_pipeline.menagerie.contact_sheet import sheet, shuffled_animals, world

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path, help="the picture to write, a PNG")
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="only the animals, shuffled and numbered: can you name them?",
    )
    parser.add_argument("--seed", type=int, help="nuisance and order; none by default")
    parser.add_argument("--zoom", type=int, default=4, help="enlargement (default 4)")
    options = parser.parse_args(arguments)
    scenes, labels, columns = world(), None, 14
    if options.unlabelled:
        scenes, labels = shuffled_animals(options.seed or 0)
        columns = 9
    page = sheet(scenes, columns, options.zoom, labels, options.seed)
    page.save(options.output)


if __name__ == "__main__":
    main()
