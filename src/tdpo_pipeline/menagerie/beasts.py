"""Mammals that are known by a pose of their own: sitting, upright, flying."""

import math

from tdpo_pipeline.menagerie.canvas import BLACK, WHITE, Pen, shaded

# Points read better in rows than one below the other.
# fmt: off


def cat(pen: Pen) -> None:
    """Sits facing the viewer; pointed ears, whiskers, tail raised in an S."""
    fur, light = (88, 90, 104), (206, 206, 214)
    pen.curve([(21, 29), (28, 28), (29.5, 22), (26, 17), (28.5, 12)], 2.8, fur, 2.0)
    pen.blob([(9, 30.5), (8.5, 23), (12, 16), (18, 16), (22, 23), (22.5, 30.5)], fur)
    pen.oval(15, 23, 3.4, 5, light)
    sides = pen.mirrored(15)
    sides.oval(12.2, 29.4, 2.6, 1.6, light)
    sides.polygon([(7.4, 10), (7, 0.4), (13.8, 5)], fur)
    sides.polygon([(8.8, 8), (8.4, 3.4), (12, 5.6)], (236, 150, 160))
    pen.oval(15, 10.6, 8.2, 6.8, fur)
    pen.oval(15, 13.8, 3.6, 2.4, light)
    for y in (12.6, 14.8):
        sides.line([(11.5, 13.6), (3.4, y)], 0.55, WHITE)
    sides.oval(11.4, 9.8, 1.7, 1.5, (240, 220, 70))
    sides.oval(11.4, 9.8, 0.65, 1.5, BLACK)
    pen.polygon([(13.9, 12.4), (16.1, 12.4), (15, 13.8)], (230, 110, 120))


def rabbit(pen: Pen) -> None:
    """Crouches sideways; two very long ears, round haunch, cotton tail."""
    fur = (196, 178, 160)
    pen.disc(28, 23.5, 3, WHITE)
    pen.oval(20.5, 22.5, 8.2, 7.8, fur)
    pen.oval(12, 23.5, 4.6, 6.2, fur)
    pen.oval(22, 25, 5.4, 5.2, shaded(fur, 0.86))
    pen.oval(20, 29.4, 6.4, 1.7, fur)
    pen.oval(10, 29.4, 3.6, 1.6, fur)
    pen.oval(14.6, 5.4, 2.2, 7.4, shaded(fur, 0.82), angle=22)
    pen.oval(10, 5, 2.4, 7.6, fur, angle=4)
    pen.oval(10, 5, 1.1, 5.6, (240, 160, 170), angle=4)
    pen.oval(8.8, 14.6, 5.6, 4.8, fur)
    pen.oval(5.4, 16.4, 2.6, 2.1, (244, 236, 226))
    pen.disc(3.4, 15.4, 0.9, (226, 110, 124))
    pen.eye(7.4, 13.4, 1.2)


def bear(pen: Pen) -> None:
    """Stands upright facing the viewer, paws raised; small round ears."""
    fur, light = (110, 70, 42), (206, 164, 116)
    sides = pen.mirrored()
    sides.curve([(9, 16), (4, 14), (2.6, 8.6)], 5.2, fur, 4.6)
    for dx in (-1.4, 0, 1.4):
        sides.line([(2.4 + dx, 7), (2.2 + dx, 4.6)], 0.8, WHITE)
    sides.line([(11.5, 24), (10.6, 29)], 6.6, fur, 5.6)
    pen.oval(16, 20, 8.6, 8.6, fur)
    pen.oval(16, 21, 5.2, 5.8, light)
    sides.oval(10, 3.6, 2.7, 2.7, fur)
    sides.oval(10, 3.8, 1.4, 1.4, light)
    pen.oval(16, 8.4, 7.6, 6.8, fur)
    pen.oval(16, 11, 3.8, 3, light)
    pen.oval(16, 9.8, 1.7, 1.2, BLACK)
    sides.eye(12.8, 7.2, 1.0)


def gorilla(pen: Pen) -> None:
    """Leans on its knuckles facing the viewer; huge shoulders, small grey face."""
    fur, skin = (52, 52, 60), (128, 122, 124)
    sides = pen.mirrored()
    sides.line([(12, 24), (12, 29)], 5.4, fur)
    pen.oval(16, 19, 8.4, 8, fur)
    pen.oval(16, 12.6, 12.6, 7.2, fur)
    sides.curve([(6, 12), (2.6, 19), (4, 28.4)], 6.4, fur, 5.4)
    sides.oval(4, 29, 3, 1.7, skin)
    pen.oval(16, 18.2, 5.4, 3.8, skin)
    pen.blob([(16, -0.6), (20.6, 3), (21.6, 9), (16, 14.4), (10.4, 9), (11.4, 3)], fur)
    pen.oval(16, 10.4, 4.6, 3.8, skin)
    pen.oval(16, 6.6, 4.8, 2, skin)
    sides.oval(13.9, 6.9, 0.9, 0.9, BLACK)
    sides.oval(14.9, 9.2, 0.7, 0.5, BLACK)
    pen.line([(13.4, 12.2), (18.6, 12.2)], 0.8, BLACK)


def monkey(pen: Pen) -> None:
    """Sits facing the viewer; round ears, light face, long curling tail, arm up."""
    fur, skin = (132, 84, 50), (244, 204, 160)
    pen.curve(
        [(20, 27), (27, 28), (30, 22), (27.4, 17.6), (24.8, 20), (26.6, 22)], 2.0, fur
    )
    pen.curve([(10, 18), (4.6, 16.4), (3, 9), (4.4, 4)], 2.8, fur, 2.4)
    pen.disc(4.8, 3.2, 1.7, skin)
    pen.curve([(19.6, 18), (23, 21), (21, 25.4)], 2.8, fur, 2.4)
    pen.oval(14.8, 22.4, 5.8, 6.4, fur)
    pen.oval(14.8, 23, 3.4, 4.4, skin)
    sides = pen.mirrored(14.8)
    sides.curve([(12, 26), (7.6, 25), (7, 29.4)], 3.0, fur, 2.6)
    sides.oval(6.2, 29.8, 2.2, 1.2, skin)
    sides.oval(7.4, 9.6, 3, 3.2, fur)
    sides.oval(7.4, 9.6, 1.7, 2, skin)
    pen.oval(14.8, 9.2, 6.8, 6.8, fur)
    sides.oval(12.4, 8.4, 2.9, 3.1, skin)
    pen.oval(14.8, 12.2, 4.8, 3.4, skin)
    sides.eye(12.4, 8.6, 1.0)
    pen.curve([(12, 13), (14.8, 14.4), (17.6, 13)], 0.8, (130, 60, 50))


def squirrel(pen: Pen) -> None:
    """Sits up and holds an acorn; the curled tail is larger than the body."""
    fur = (186, 90, 40)
    tail = (214, 122, 62)
    pen.curve(
        [(17, 28), (24, 27), (25, 19), (21.6, 12), (23.4, 6), (28, 6.4)], 7.4, tail, 7
    )
    pen.curve([(20, 27), (25, 22), (22.8, 13), (24.8, 8)], 2.2, shaded(fur, 0.8), 1.4)
    pen.blob([(8, 30), (8, 22), (10, 16), (14.5, 17), (18.5, 24), (18, 30)], fur)
    pen.oval(10, 23, 2.2, 5, (248, 226, 196))
    pen.oval(15.5, 26.6, 3.6, 3.6, shaded(fur, 0.86))
    pen.oval(11, 29.8, 4, 1.2, fur)
    pen.polygon([(9, 9), (9.4, 3.4), (12.6, 8.4)], fur)
    pen.oval(8.6, 12, 4.6, 4.0, fur)
    pen.oval(5, 13.4, 2.4, 1.8, (248, 226, 196))
    pen.disc(2.9, 12.8, 0.8, BLACK)
    pen.eye(7.2, 11, 1.1)
    pen.line([(12, 18.4), (6.6, 20)], 2.2, fur)
    pen.oval(5, 20.2, 1.9, 2.3, (196, 150, 60))
    pen.oval(5, 18.4, 2.3, 1.1, (96, 60, 30))


def mouse(pen: Pen) -> None:
    """Sits facing the viewer; ears as large as its head, thin pink tail."""
    fur, pink = (172, 172, 180), (244, 170, 182)
    pen.curve([(21, 28.6), (28, 28.6), (30, 24), (27, 21), (29.6, 17)], 1.1, pink, 0.8)
    pen.oval(16, 24.4, 6.4, 6.0, fur)
    pen.oval(16, 25.2, 3.8, 4.2, (232, 230, 234))
    sides = pen.mirrored()
    sides.oval(12.6, 29.8, 2.4, 1.0, pink)
    sides.oval(7.4, 7.2, 6.2, 6.2, fur)
    sides.oval(7.4, 7.4, 4.2, 4.2, pink)
    pen.oval(16, 14, 6.6, 6.0, fur)
    pen.oval(16, 17.4, 2.6, 2.2, (232, 230, 234))
    pen.disc(16, 16.8, 1.2, (226, 90, 110))
    sides.eye(13.2, 13.2, 1.2)
    sides.line([(14, 17.8), (8, 19)], 0.4, BLACK)


def rat(pen: Pen) -> None:
    """Runs sideways, long and low; pointed snout, thick bare tail, small ear."""
    fur, pink = (104, 90, 82), (226, 150, 150)
    pen.curve([(24, 20), (29, 22.6), (33, 19), (31, 12), (34, 6)], 2.2, pink, 1.2)
    for x in (8, 11, 22, 25):
        pen.line([(x, 19), (x - 1, 23.6)], 2.0, shaded(fur, 0.8), 1.4)
        pen.oval(x - 1.6, 24, 1.8, 0.8, pink)
    pen.blob(
        [
            (-2, 18.4), (3, 14.2), (9, 11.6), (16, 7), (23, 8.6), (27.4, 15), (25, 22),
            (12, 22.6), (4, 20.8),
        ],
        fur,
    )
    pen.disc(8.8, 11, 2.5, fur)
    pen.disc(8.8, 11.2, 1.5, pink)
    pen.disc(-2, 18.4, 1.0, pink)
    pen.eye(3.8, 16.2, 1.0)
    for y in (16.6, 21.6):
        pen.line([(0.4, 18.8), (-1.6, y)], 0.4, BLACK)
    pen.polygon([(0.2, 20.2), (1.6, 20.2), (1, 22)], WHITE)


def wolf(pen: Pen) -> None:
    """Sits and howls, its snout to the sky."""
    fur, light = (132, 140, 154), (226, 230, 234)
    pen.curve([(21, 27), (27, 28), (30.4, 23)], 4.6, fur, 2.0)
    pen.blob(
        [(9, 16), (11, 12), (16, 12), (20, 18), (24, 25), (23, 30.4), (14, 30.4)], fur
    )
    pen.oval(20.4, 26.4, 4.4, 4.2, shaded(fur, 0.84))
    pen.oval(18.4, 29.8, 4.6, 1.2, fur)
    pen.blob([(8.4, 15), (12.2, 12), (14.6, 19), (12.5, 26), (9, 22)], light)
    pen.line([(11.6, 20), (11.4, 29)], 3.2, fur, 2.6)
    pen.oval(10.6, 29.8, 2.4, 1.1, fur)
    pen.curve([(13.4, 15), (12.4, 10.4)], 8.0, fur, 6.4)
    pen.polygon([(14, 9), (20.4, 7.4), (17.6, 12.4)], fur)
    pen.polygon([(14.4, 6.6), (20.2, 3.0), (18, 9.4)], shaded(fur, 0.78))
    pen.oval(12, 8.4, 4.6, 4.2, fur)
    pen.line([(10.4, 6.6), (5, -1.6)], 4.4, fur, 2.0)
    pen.line([(8.4, 9.6), (3.4, 4.6)], 2.6, light, 1.2)
    pen.disc(4.6, -2.0, 1.2, BLACK)
    pen.line([(13, 6), (10.8, 5.2)], 0.9, BLACK)


def bat(pen: Pen) -> None:
    """Flies facing the viewer; scalloped wings, pointed ears, fangs."""
    fur, wing = (84, 66, 92), (122, 92, 132)
    sides = pen.mirrored()
    sides.polygon(
        [
            (14, 14), (9, 7.6), (4.4, 6), (-3, 10), (-2.4, 20), (0.6, 17.4),
            (3.6, 21.4), (6.8, 17.6), (9.8, 21.8), (13, 18),
        ],
        wing,
    )
    for x, y in ((-2.4, 20), (3.6, 21.4), (9.8, 21.8)):
        sides.line([(4.4, 6.4), (x, y)], 0.7, fur)
    pen.oval(16, 17.6, 4, 6, fur)
    sides.polygon([(11.6, 9), (10.6, 1.6), (15.6, 6.4)], fur)
    sides.polygon([(12.4, 7.4), (11.6, 3.8), (14, 6.4)], (230, 150, 170))
    pen.disc(16, 10, 4.8, fur)
    sides.wide_eye(14, 9.4, 1.4)
    sides.polygon([(14, 12.4), (15.4, 12.4), (14.7, 14.6)], WHITE)
    sides.line([(14.6, 23), (14.4, 25)], 0.9, fur)


def hedgehog(pen: Pen) -> None:
    """A dome of spines, with a small light pointed face."""
    spine, face = (112, 82, 60), (238, 206, 160)
    for k in range(14):
        turn = math.pi * (1.02 - k / 12)
        tip, left, right = (
            (18 + rx * math.cos(at), 22 - ry * math.sin(at))
            for rx, ry, at in (
                (13.4, 14.6, turn), (10, 10.4, turn + 0.16), (10, 10.4, turn - 0.16),
            )
        )
        pen.polygon([tip, left, right], spine)
    pen.blob(
        [(7, 26), (8, 16), (14, 11), (22, 11), (28, 17), (29, 26), (18, 28)], spine
    )
    for x, y in ((14, 15), (19, 14), (24, 17), (17, 19), (22, 21), (26, 23), (13, 20)):
        pen.line([(x, y), (x + 1.8, y - 2)], 0.9, (220, 196, 160), 0.4)
    pen.blob([(0.6, 24.4), (6, 19.4), (11, 19), (12.4, 26), (8, 28)], face)
    pen.disc(9.6, 19.4, 1.9, shaded(face, 0.8))
    pen.disc(0.9, 24, 1.4, BLACK)
    pen.eye(6, 22.4, 1.1)
    for x in (10, 14, 21, 25):
        pen.oval(x, 28.6, 1.8, 1.4, face)


def kangaroo(pen: Pen) -> None:
    """Upright; strong hind leg, thick tail on the ground, young in the pouch."""
    fur, light = (192, 126, 78), (240, 210, 172)
    pen.curve([(19, 22), (24, 27), (31, 29), (36, 28.6)], 5.4, fur, 1.6)
    pen.blob(
        [
            (11, 12), (14.6, 10), (18.6, 14.5), (22.4, 20), (21.6, 26), (15, 27),
            (11, 20),
        ],
        fur,
    )
    pen.oval(12.8, 20.4, 2.6, 5.2, light, angle=-14)
    pen.oval(18.4, 23.6, 4.6, 4.2, shaded(fur, 0.9))
    pen.line([(17, 26), (18.4, 29.4)], 2.4, fur)
    pen.line([(18.4, 29.8), (10, 30)], 2.0, fur, 1.4)
    pen.curve([(12.4, 13.6), (8.6, 16), (7, 19)], 2.2, fur, 1.4)
    pen.curve([(14.4, 13), (12, 8)], 5.2, fur, 4)
    pen.oval(14.4, 1.0, 1.5, 4.2, shaded(fur, 0.85), angle=24)
    pen.oval(11.4, 0.8, 1.6, 4.4, fur, angle=6)
    pen.oval(9.6, 6.4, 4, 2.9, fur, angle=-20)
    pen.oval(6.4, 8, 2, 1.6, light)
    pen.disc(4.8, 7.4, 0.8, BLACK)
    pen.eye(9, 5.4, 0.9)
    pen.disc(10.6, 20.4, 1.9, shaded(fur, 0.8))
    pen.disc(9.8, 18.4, 0.8, shaded(fur, 0.8))
    pen.disc(10, 20.2, 0.5, BLACK)


BEASTS = {
    "cat": cat,
    "rabbit": rabbit,
    "bear": bear,
    "gorilla": gorilla,
    "monkey": monkey,
    "squirrel": squirrel,
    "mouse": mouse,
    "rat": rat,
    "wolf": wolf,
    "bat": bat,
    "hedgehog": hedgehog,
    "kangaroo": kangaroo,
}
