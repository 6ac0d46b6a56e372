"""Everything that is not an animal: objects, places and the props of activities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tdpo_pipeline.menagerie.canvas import BLACK, WHITE, Colour, Pen, shaded

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in units."""

# Points read better in rows than one below the other.
# fmt: off


def toaster(pen: Pen) -> None:
    """Chrome box with two slices of bread."""
    steel = (176, 182, 192)
    for x in (9, 18.4):
        pen.box(x - 3.4, 5, x + 4.4, 16, (216, 152, 78))
        pen.oval(x + 0.5, 5.6, 4.6, 3.2, (216, 152, 78))
        pen.oval(x + 0.5, 7.4, 3, 2.6, (246, 206, 140))
    pen.blob([(2, 28), (1, 18), (5, 12.6), (23, 12.6), (27, 18), (26, 28)], steel)
    pen.box(1.8, 26, 26.2, 28.6, (70, 70, 78))
    pen.line([(28.4, 15), (28.4, 22)], 1.2, BLACK)
    pen.box(26.6, 17, 31, 19.6, BLACK)
    pen.disc(14, 21.4, 2.4, (210, 50, 50))


def chair(pen: Pen) -> None:
    """Wooden chair seen from the side front."""
    wood = (168, 108, 58)
    dark = shaded(wood, 0.7)
    pen.line([(13, 20), (12.6, 30)], 2.0, dark)
    pen.line([(26, 19), (26.4, 30)], 2.0, dark)
    pen.line([(9, 1.6), (8.4, 31)], 2.4, wood)
    pen.line([(22.6, 21), (22.6, 31)], 2.4, wood)
    pen.line([(20.4, 1), (20.6, 17)], 2.4, wood)
    for y in (3.4, 8, 12.4):
        pen.line([(9, y), (20.4, y - 0.4)], 2.2, dark)
    pen.polygon(
        [(7, 20.6), (11, 16.6), (27.4, 16.6), (24.4, 20.6), (24.4, 22.4), (7, 22.4)],
        (206, 146, 84),
    )


def car(pen: Pen) -> None:
    """Red saloon from the side."""
    red = (214, 48, 48)
    pen.polygon([(7.6, 14), (12, 7), (22.6, 7), (27, 14)], red)
    pen.polygon([(9.8, 13.6), (13, 8.8), (16.4, 8.8), (16.4, 13.6)], (190, 224, 244))
    pen.polygon([(18, 13.6), (18, 8.8), (21.8, 8.8), (24.6, 13.6)], (190, 224, 244))
    pen.blob(
        [(0, 21), (1, 15.6), (8, 13.6), (26, 13.6), (32.4, 15.4), (33, 21), (16, 22)],
        red,
    )
    pen.disc(1.6, 17, 1.3, (252, 220, 90))
    for x in (7.4, 25.4):
        pen.disc(x, 21.4, 4, BLACK)
        pen.disc(x, 21.4, 1.8, (200, 204, 210))


def coffee_cup(pen: Pen) -> None:
    """White cup with a handle, saucer and steam."""
    for x in (10, 15.4):
        pen.curve([(x, 8), (x - 2, 5), (x + 1.6, 2), (x, -1.4)], 1.4, (150, 150, 160))
    pen.oval(13.6, 28.4, 13, 2.8, (196, 200, 210))
    pen.ring(23.8, 17, 4.2, 2.2, WHITE)
    pen.blob([(4.4, 11), (23, 11), (22.4, 20), (18, 27), (9.4, 27), (5, 20)], WHITE)
    pen.oval(13.7, 11.4, 9.4, 2.8, (226, 228, 234))
    pen.oval(13.7, 11.6, 7.8, 2.0, (104, 62, 34))


def umbrella(pen: Pen) -> None:
    """Open umbrella with coloured panels and a hooked handle."""
    violet, light = (126, 74, 190), (180, 140, 224)
    pen.line([(16, -2), (16, 28)], 1.3, (70, 66, 76))
    pen.curve([(16, 27), (16.6, 31), (20, 31), (20.6, 28)], 1.5, (70, 66, 76))
    pen.blob(
        [
            (1, 15.6), (2.4, 8), (8.6, 1.6), (16, 0), (23.4, 1.6), (29.6, 8),
            (31, 15.6), (16, 14.6),
        ],
        violet,
    )
    pen.blob([(11, 14.6), (12, 6), (16, 0), (20, 6), (21, 14.6)], light)


def clock(pen: Pen) -> None:
    """Alarm clock with two bells."""
    metal = (44, 156, 150)
    sides = pen.mirrored()
    sides.oval(7.4, 4.6, 4.6, 3.6, (226, 186, 70), angle=-38)
    sides.line([(9, 27), (6.4, 31)], 2.2, metal)
    pen.disc(16, 17, 12.4, metal)
    pen.disc(16, 17, 9.8, WHITE)
    for k in range(4):
        turn = k * np.pi / 2
        pen.disc(16 + 8 * np.cos(turn), 17 + 8 * np.sin(turn), 0.9, BLACK)
    pen.line([(16, 17), (16, 10.4)], 1.4, BLACK)
    pen.line([(16, 17), (20.4, 19.6)], 1.6, BLACK)


def lamp(pen: Pen) -> None:
    """Table lamp with a lit shade."""
    pen.line([(16, 14), (16, 28)], 2.4, (130, 94, 60))
    pen.oval(16, 29, 7, 2.2, (130, 94, 60))
    pen.polygon([(11, 0), (21, 0), (27, 15), (5, 15)], (255, 226, 110))
    pen.polygon([(5.6, 13), (26.4, 13), (27, 15), (5, 15)], (232, 160, 60))
    pen.line([(21, 15), (21, 20)], 0.7, BLACK)


def book(pen: Pen) -> None:
    """Open book with lines of text."""
    sides = pen.mirrored()
    sides.polygon([(16, 10), (0, 6.4), (0, 25), (16, 28.6)], (60, 92, 168))
    sides.polygon(
        [(16, 9), (8, 5.6), (1.6, 5.4), (1.6, 23.4), (9, 23.8), (16, 27)], WHITE
    )
    for k in range(4):
        y = 10 + 3.6 * k
        sides.line([(4, y), (13, y + 2)], 1.0, (120, 120, 130))
    pen.line([(16, 9), (16, 28)], 1.0, (90, 90, 100))


OBJECT_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "toaster": toaster,
    "chair": chair,
    "car": car,
    "coffee cup": coffee_cup,
    "umbrella": umbrella,
    "clock": clock,
    "lamp": lamp,
    "book": book,
}


def _nothing(pen: Pen) -> None:
    """No prop on this side of the animal."""


@dataclass(frozen=True)
class Stage:
    """The props of an activity and the box that they leave to the animal."""

    box: Box
    behind: Callable[[Pen], None]
    before: Callable[[Pen], None]


def _bike(pen: Pen) -> None:
    frame: Colour = (220, 40, 60)
    for x in (7.4, 24.6):
        pen.ring(x, 24.6, 5.6, 1.4, BLACK)
        for turn in (0.3, 1.35, 2.4):
            dx, dy = 5 * np.cos(turn), 5 * np.sin(turn)
            pen.line([(x - dx, 24.6 - dy), (x + dx, 24.6 + dy)], 0.4, (120, 120, 126))
    for points in (
        [(7.4, 24.6), (9.6, 16.4)],
        [(9.4, 18), (20, 18), (15.6, 25), (9.4, 18)],
        [(20, 18), (24.6, 24.6), (15.6, 25)],
    ):
        pen.line(points, 1.3, frame)
    pen.line([(9.8, 16.6), (6.4, 15.2)], 1.3, BLACK)
    pen.disc(15.6, 25, 1.7, BLACK)
    pen.line([(17.6, 17.2), (22.6, 17.2)], 1.8, BLACK)


def _sink(pen: Pen) -> None:
    pen.curve([(4, 22), (4, 14.6), (8.4, 14), (9, 17.4)], 1.6, (120, 128, 140))
    pen.box(0, 21.4, 32, 31.6, (150, 172, 196))
    pen.box(1.6, 23.6, 20.4, 30.4, (206, 220, 232))
    for x, y, r in (
        (4, 22, 2.2), (8, 21, 2.6), (12, 22, 2.4), (16, 21.2, 2.4), (10, 18.4, 1.3),
        (18.6, 22.4, 1.8), (14.6, 18.6, 1.0),
    ):
        pen.disc(x, y, r + 0.35, (150, 190, 226))
        pen.disc(x, y, r, WHITE)
    for k in range(4):
        pen.oval(26.4, 21.4 - 2.1 * k, 4.8, 1.5, (104, 124, 160))
        pen.oval(26.4, 20.9 - 2.1 * k, 4.8, 1.3, WHITE)


def _chess(pen: Pen) -> None:
    pen.polygon([(4, 22), (28, 22), (33, 31), (-1, 31)], (112, 70, 40))
    for row in range(3):
        y0, y1 = 22.6 + 2.5 * row, 22.6 + 2.5 * (row + 1)
        for column in range(6):
            edges = [
                (
                    4 - 0.52 * (y - 22) + column * (24 + 1.04 * (y - 22)) / 6,
                    4 - 0.52 * (y - 22) + (column + 1) * (24 + 1.04 * (y - 22)) / 6,
                )
                for y in (y0, y1)
            ]
            colour = (244, 228, 190) if (row + column) % 2 else (70, 44, 30)
            pen.polygon(
                [
                    (edges[0][0], y0), (edges[0][1], y0), (edges[1][1], y1),
                    (edges[1][0], y1),
                ],
                colour,
            )
    for x, colour in ((4.6, (250, 240, 206)), (27.4, (64, 58, 64))):
        _king(pen, x, BLACK, edge=0.7)
        _king(pen, x, colour, edge=0.0)


def _king(pen: Pen, x: float, colour: Colour, edge: float) -> None:
    """A chess piece, wider than it is by ``edge`` on all sides."""
    pen.polygon(
        [
            (x - 1.5 - edge, 17), (x + 1.5 + edge, 17), (x + 2.5 + edge, 25),
            (x - 2.5 - edge, 25),
        ],
        colour,
    )
    pen.oval(x, 25.6, 3.4 + edge, 1.4 + edge, colour)
    pen.disc(x, 16.2, 2.3 + edge, colour)
    pen.line([(x, 15), (x, 10.6)], 1.1 + 2 * edge, colour)
    pen.line([(x - 1.6, 12.4), (x + 1.6, 12.4)], 1.1 + 2 * edge, colour)


def _laundry(pen: Pen) -> None:
    pen.line([(-1, 2), (33, 2)], 0.6, (90, 80, 80))
    pen.polygon(
        [
            (2, 2), (8.6, 2), (11, 5), (9, 6.4), (8.4, 5.6), (8.4, 11), (2.4, 11),
            (2.4, 5.6), (1.6, 6.4), (-0.2, 5),
        ],
        (226, 60, 70),
    )
    pen.polygon(
        [(13, 2), (18.6, 2), (18.6, 10), (16.4, 10), (15.8, 5), (15.2, 10), (13, 10)],
        (60, 110, 210),
    )
    pen.box(17.6, 12.4, 31.4, 31, (238, 240, 244))
    pen.box(17.6, 12.4, 31.4, 15.8, (170, 178, 190))
    pen.disc(29, 14.2, 1.0, (220, 60, 60))
    pen.disc(24.5, 23.4, 5.6, (130, 138, 150))
    pen.disc(24.5, 23.4, 4.3, (84, 160, 220))
    pen.curve([(21, 24), (23.4, 22.4), (25.6, 24.6), (28, 23)], 1.4, WHITE)


def _car_body(pen: Pen) -> None:
    blue = (40, 104, 220)
    pen.line([(8.6, 18.4), (11.2, 10.4)], 1.2, (90, 140, 180))
    pen.blob(
        [(-0.6, 26), (0, 20.6), (8, 18), (24, 18), (32.4, 18.6), (33, 26), (16, 27.4)],
        blue,
    )
    pen.line([(12, 20), (12, 25.4), (22, 25.4), (22, 20)], 0.7, shaded(blue, 0.65))
    pen.disc(1.2, 21.6, 1.4, (252, 226, 110))
    for x in (7, 25.4):
        pen.disc(x, 26.6, 4.2, BLACK)
        pen.disc(x, 26.6, 1.9, (206, 210, 216))


def _goal(pen: Pen) -> None:
    pen.box(-8, 25, 40, 40, (84, 168, 72))
    for k in range(5):
        pen.line([(1 + 3.2 * k, 7), (1 + 3.2 * k, 25)], 0.4, (236, 238, 240))
        pen.line([(0, 9.4 + 3.6 * k), (15, 9.4 + 3.6 * k)], 0.4, (236, 238, 240))
    pen.line([(0, 25), (0, 6), (15, 6), (15, 25)], 1.4, WHITE)


def _ball(pen: Pen) -> None:
    pen.disc(6.4, 26, 5.2, BLACK)
    pen.disc(6.4, 26, 4.8, WHITE)
    with pen.inside():
        turn = np.arange(5) * 2 * np.pi / 5 - np.pi / 2
        pen.polygon(
            np.stack([6.4 + 1.9 * np.cos(turn), 26 + 1.9 * np.sin(turn)], 1), BLACK
        )
        for angle in turn:
            x, y = 6.4 + 4.7 * np.cos(angle), 26 + 4.7 * np.sin(angle)
            pen.disc(x, y, 1.25, BLACK)


STAGES: dict[str, Stage] = {
    "washing the dishes": Stage((7, 1, 24, 22.6), _nothing, _sink),
    "riding a bike": Stage((6, 0.6, 26, 18.6), _bike, _nothing),
    "playing chess": Stage((7.6, 1, 24.4, 23), _nothing, _chess),
    "doing laundry": Stage((0.6, 12, 17, 31), _laundry, _nothing),
    "driving a car": Stage((8, 1, 25, 20), _nothing, _car_body),
    "playing soccer": Stage((10, 7, 31.6, 30), _goal, _ball),
}


def _fill(pen: Pen, colour: Colour, top: float = -8, bottom: float = 40) -> None:
    """A band over the whole width."""
    pen.box(-8, top, 40, bottom, colour)


def _park(pen: Pen) -> None:
    _fill(pen, (150, 206, 244), bottom=18)
    _fill(pen, (96, 176, 76), top=18)
    for x, y in ((1.6, 15), (30.4, 15)):
        pen.box(x - 1.2, y - 4, x + 1.2, y + 5, (132, 88, 52))
        for dx, dy in ((-2.6, -5), (2.6, -5), (0, -8.6), (0, -4)):
            pen.disc(x + dx, y + dy, 3.6, (54, 146, 62))
    for k, (x, y) in enumerate(((2, 26), (8, 30), (16, 31), (25, 30), (30, 26))):
        pen.disc(x, y, 0.9, ((250, 230, 80), (244, 110, 150))[k % 2])


def _moon(pen: Pen) -> None:
    _fill(pen, (22, 22, 52), bottom=19)
    for x, y in (
        (-4, 2), (2, 8), (5, 2.6), (11, 5), (15, 1.6), (19, 8), (31, 12), (35, 4),
        (8, 13),
    ):
        pen.disc(x, y, 0.6, WHITE)
    pen.disc(26.4, 5.4, 4.2, (66, 130, 220))
    pen.blob([(24, 4), (26, 2.6), (27.6, 5), (26, 7.6)], (90, 180, 90))
    pen.blob(
        [(-9, 20), (4, 17.6), (16, 17), (28, 17.6), (41, 20), (41, 41), (-9, 41)],
        (176, 176, 180),
    )
    craters = ((3, 23, 2.6), (27.6, 22.4, 3), (12, 30, 3.4), (25, 30, 2.4))
    for across, down, radius in craters:
        pen.oval(across, down, radius, 0.45 * radius, (118, 118, 126))


def _beach(pen: Pen) -> None:
    _fill(pen, (168, 220, 248), bottom=11)
    _fill(pen, (40, 140, 206), top=11, bottom=19)
    _fill(pen, (244, 214, 142), top=19)
    pen.curve(
        [(-9, 19.4), (0, 18.6), (8, 19.8), (16, 18.8), (24, 19.8), (41, 19)], 1.4, WHITE
    )
    pen.disc(26.4, 4.6, 3.4, (255, 220, 70))
    pen.curve([(2.4, 24), (3.4, 14), (5.4, 6)], 1.7, (134, 92, 54), 1.2)
    for tip in ((-3, 5), (-1, 10), (12, 4.6), (11, 10), (5.6, 0.4)):
        pen.curve(
            [(5.4, 6), ((5.4 + tip[0]) / 2, tip[1] - 2), tip], 2.0, (46, 138, 60), 0.6
        )


def _snow(pen: Pen) -> None:
    _fill(pen, (142, 168, 204), bottom=18)
    pen.blob(
        [(-9, 19), (4, 17), (16, 18.6), (28, 16.8), (41, 19), (41, 41), (-9, 41)],
        (244, 248, 252),
    )
    for x in (3.4, 28.6):
        for k in range(3):
            y = 4.6 + 4.4 * k
            pen.polygon(
                [(x, y - 4), (x - 3 - k, y + 2.6), (x + 3 + k, y + 2.6)], (34, 92, 70)
            )
            pen.polygon([(x, y - 4), (x - 1.5, y - 0.8), (x + 1.5, y - 0.8)], WHITE)
    for x, y in (
        (-3, 6), (8, 3), (12, 9), (17, 4), (21, 10), (23, 2), (33, 8), (9, 14), (35, 1),
        (-5, 13),
    ):
        pen.disc(x, y, 0.75, WHITE)


def _city(pen: Pen) -> None:
    _fill(pen, (250, 196, 150), bottom=26)
    for k, (left, top) in enumerate(
        ((-8, 7), (-1.5, 2), (5, 9), (11.5, 4), (18, 8), (24.5, 0), (31, 6))
    ):
        wall = ((86, 92, 122), (112, 104, 130))[k % 2]
        pen.box(left, top, left + 6.5, 26, wall)
        for row in range(int(top) + 2, 24, 4):
            for x in (left + 1.4, left + 4):
                pen.box(x, row, x + 1.3, row + 2, (252, 226, 120))
    _fill(pen, (72, 74, 80), top=25)
    for x in (-6, 3, 12, 21, 30):
        pen.box(x, 29.4, x + 5, 30.6, (240, 240, 240))


def _water(pen: Pen) -> None:
    for k in range(8):
        _fill(
            pen,
            (30 + 2 * (7 - k), 112 + 9 * (7 - k), 190 + 4 * (7 - k)),
            top=-8 + 5 * k,
        )
    _fill(pen, (206, 186, 124), top=29)
    for x, height in ((1.6, 12), (4.6, 8), (28, 9), (31, 13)):
        pen.curve(
            [
                (x, 30), (x + 1.4, 30 - height / 3), (x - 1.2, 30 - height / 1.5),
                (x + 0.6, 30 - height),
            ],
            1.5,
            (36, 130, 70),
            0.8,
        )
    for x, y, r in (
        (3, 6, 1.5), (6, 2.4, 1), (28, 8, 1.4), (26, 3.4, 1), (16, 1.6, 0.9),
        (30, 14, 0.9), (2, 13, 1),
    ):
        pen.ring(x, y, r, 0.6, (206, 238, 252))


def _desert(pen: Pen) -> None:
    _fill(pen, (252, 226, 176), bottom=20)
    pen.disc(5.6, 5.4, 3.6, (250, 130, 50))
    pen.blob(
        [(-9, 20), (0, 15), (10, 18), (20, 14), (34, 18), (41, 16), (41, 41), (-9, 41)],
        (226, 160, 82),
    )
    pen.blob(
        [(-9, 26), (6, 22), (18, 25), (30, 21.6), (41, 25), (41, 41), (-9, 41)],
        (206, 134, 62),
    )
    cactus = (58, 138, 70)
    pen.line([(28.4, 24), (28.4, 8)], 2.8, cactus)
    pen.line([(28.4, 17), (24.4, 17), (24.4, 12)], 1.9, cactus)
    pen.line([(28.4, 15), (32, 15), (32, 10)], 1.9, cactus)


def _sky(pen: Pen) -> None:
    _fill(pen, (92, 172, 240))
    for x, y, r in (
        (4, 6, 2.6), (27, 4, 2.2), (3, 27, 2.4), (27, 27.6, 2.8), (15, 30, 1.8),
        (38, 15, 2.4), (-6, 16, 2.4),
    ):
        for dx, dy in ((-1.6, 0.3), (0, -0.5), (1.6, 0.3)):
            pen.oval(x + dx * r * 0.8, y + dy * r, r, r * 0.8, WHITE)


PLACE_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "in the park": _park,
    "on the moon": _moon,
    "on the beach": _beach,
    "in the snow": _snow,
    "in the city": _city,
    "under water": _water,
    "in the desert": _desert,
    "in the sky": _sky,
}
