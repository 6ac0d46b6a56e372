"""Vector primitives: smooth shapes on a canvas, measured in units of the picture.

Shapes are painted without anti-aliasing on a canvas that is larger than needed;
whoever places the result in a picture reduces it, which smooths the edges.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = Sequence[Point] | NDArray[np.float64]

BLACK: Colour = (32, 30, 36)
WHITE: Colour = (250, 250, 248)


def shaded(colour: Colour, factor: float) -> Colour:
    """A colour made darker (factor below 1) or lighter (above 1, towards white)."""
    if factor <= 1:
        mixed = [channel * factor for channel in colour]
    else:
        mixed = [channel + (255 - channel) * (factor - 1) for channel in colour]
    red, green, blue = (round(min(255.0, value)) for value in mixed)
    return red, green, blue


def spline(
    points: Sequence[Point], closed: bool, steps: int = 8
) -> NDArray[np.float64]:
    """Points on the Catmull-Rom curve through ``points``.

    Args:
        points: At least two points, in units.
        closed: Whether the curve returns to its first point.
        steps: Points per piece.

    Returns:
        Float array (number of points, 2); an open curve includes its last point.
    """
    p = np.asarray(points, dtype=float)
    if closed:
        p = np.vstack([p[-1], p, p[0], p[1]])
    else:
        p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.vstack(pieces if closed else [*pieces, p[-2][None]])


class _Surface:
    """What pens paint on: an RGBA image and the tool that draws on it."""

    def __init__(self, image: Image.Image) -> None:
        """Take an image to paint on."""
        self.replace(image)

    def replace(self, image: Image.Image) -> None:
        """Go on with another image."""
        self.image = image
        self.draw = ImageDraw.Draw(image)


class Pen:
    """Paints flat shapes on a transparent canvas.

    Coordinates are in units, x to the right and y down; the canvas reaches from
    ``-margin`` to ``32 + margin`` in both directions.
    """

    def __init__(self, pixels_per_unit: int = 8, margin: int = 8) -> None:
        """Start with an empty canvas."""
        self._scale = pixels_per_unit
        self._margin = margin
        self._axis: float | None = None
        side = (32 + 2 * margin) * pixels_per_unit
        self._surface = _Surface(Image.new("RGBA", (side, side)))

    @property
    def image(self) -> Image.Image:
        """The whole canvas, RGBA."""
        return self._surface.image

    def cropped(self) -> Image.Image:
        """The painted part of the canvas, RGBA."""
        return self.image.crop(self.image.getbbox())

    def mirrored(self, axis: float = 16.0) -> Self:
        """A pen on the same canvas that paints everything twice, about ``x = axis``."""
        twin = copy.copy(self)
        twin._axis = axis
        return twin

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Paint only where something is painted already: patterns on a body."""
        silhouette = self.image.getchannel("A")
        below = self.image
        self._surface.replace(below.copy())
        yield
        painted = self.image
        painted.putalpha(ImageChops.multiply(painted.getchannel("A"), silhouette))
        self._surface.replace(painted)

    def _copies(self, points: Points) -> Iterator[NDArray[np.float64]]:
        """Points in pixels, and their mirror image if this pen mirrors."""
        array = np.asarray(points, dtype=float)
        yield (array + self._margin) * self._scale
        if self._axis is not None:
            flipped = array * [-1, 1] + [2 * self._axis, 0]
            yield (flipped + self._margin) * self._scale

    def polygon(self, points: Points, colour: Colour) -> None:
        """A filled polygon."""
        for pixels in self._copies(points):
            self._surface.draw.polygon(pixels.ravel().tolist(), fill=(*colour, 255))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        reach = radius * self._scale
        for pixels in self._copies([(x, y)]):
            ((u, v),) = pixels.tolist()
            self._surface.draw.ellipse(
                (u - reach, v - reach, u + reach, v + reach), fill=(*colour, 255)
            )

    def blob(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled shape with a smooth outline through ``points``."""
        self.polygon(spline(points, closed=True), colour)

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: Colour
    ) -> None:
        """A filled rectangle."""
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        self.polygon(corners, colour)

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour,
        *,
        angle: float = 0.0,
    ) -> None:
        """A filled ellipse around (x, y), turned clockwise by ``angle`` degrees."""
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        u, v = rx * np.cos(turn), ry * np.sin(turn)
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        self.polygon(np.stack([x + u * c - v * s, y + u * s + v * c], 1), colour)

    def line(
        self,
        points: Points,
        width: float,
        colour: Colour,
        end_width: float | None = None,
    ) -> None:
        """A line of straight pieces with round ends, its width changing evenly."""
        p = np.asarray(points, dtype=float)
        steps = np.hypot(*np.diff(p, axis=0).T)
        way = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
        last = width if end_width is None else end_width
        radii = (width + (last - width) * way) / 2
        for k in range(len(steps)):
            along = (p[k + 1] - p[k]) / max(steps[k], 1e-9)
            across = np.array([-along[1], along[0]])
            near, far = across * radii[k], across * radii[k + 1]
            self.polygon(
                np.stack([p[k] + near, p[k + 1] + far, p[k + 1] - far, p[k] - near]),
                colour,
            )
        for (x, y), radius in zip(p.tolist(), radii.tolist(), strict=True):
            self.disc(x, y, radius, colour)

    def curve(
        self,
        points: Sequence[Point],
        width: float,
        colour: Colour,
        end_width: float | None = None,
    ) -> None:
        """A smooth line through ``points``."""
        self.line(spline(points, closed=False, steps=6), width, colour, end_width)

    def ring(
        self, x: float, y: float, radius: float, width: float, colour: Colour
    ) -> None:
        """A circle line."""
        turn = np.linspace(0, 2 * np.pi, 41)
        points = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
        self.line(points, width, colour)

    def eye(self, x: float, y: float, radius: float = 1.0) -> None:
        """A dark eye with a light glint."""
        self.disc(x, y, radius, BLACK)
        self.disc(x - 0.3 * radius, y - 0.35 * radius, 0.38 * radius, WHITE)

    def wide_eye(self, x: float, y: float, radius: float = 1.6) -> None:
        """A white eye with a dark pupil."""
        self.disc(x, y, radius, WHITE)
        self.disc(x - 0.15 * radius, y + 0.1 * radius, 0.55 * radius, BLACK)
