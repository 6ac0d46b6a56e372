"""Birds, each known by its outline: comb, bill, neck, fan."""

import math

from tdpo_pipeline.menagerie.canvas import Pen, shaded

# Points read better in rows than one below the other.
# fmt: off


def bird(pen: Pen) -> None:
    """A songbird in flight, one wing raised; blue with a red breast."""
    blue = (56, 122, 206)
    pen.polygon(
        [(22, 15), (32.5, 13), (33, 17.6), (30.4, 17.6), (30.6, 20.6), (21, 19)],
        shaded(blue, 0.75),
    )
    pen.blob(
        [(15, 13), (17, 4), (25, -2.5), (27, 2), (25.6, 8), (22.4, 14)],
        shaded(blue, 0.7),
    )
    pen.oval(14.6, 16.4, 9.6, 5.4, blue, angle=-6)
    pen.oval(10.6, 18.6, 6, 3.2, (232, 110, 60), angle=-4)
    pen.disc(6.2, 13, 4.8, blue)
    pen.polygon([(2.4, 11.4), (-3, 13.6), (2.2, 15)], (250, 186, 40))
    pen.blob(
        [(12, 15), (12.4, 6), (16.6, -1.5), (21, 0), (21.6, 8), (20, 15)],
        shaded(blue, 1.3),
    )
    pen.eye(5.2, 12, 1.2)
    for x in (16, 18.4):
        pen.line([(x, 21), (x + 3, 24)], 0.9, (240, 150, 40))


def chicken(pen: Pen) -> None:
    """White hen; red comb and wattle, tail up, yellow legs."""
    white, red, yellow = (250, 246, 236), (222, 40, 40), (250, 178, 30)
    for x in (14.6, 19):
        pen.line([(x, 24), (x, 29.6)], 1.3, yellow)
        pen.line([(x - 2.6, 30), (x + 1.6, 30)], 1.1, yellow)
    pen.blob(
        [
            (6.8, 9), (11, 8), (14, 14), (20, 14), (25, 8), (30.6, 5), (29.5, 13),
            (27, 21), (20, 26), (12, 25), (7.6, 20),
        ],
        white,
    )
    pen.blob([(14.5, 17), (20, 16), (25, 16), (22, 21), (17, 22)], (214, 206, 190))
    for x, y in ((5.6, 3.2), (8.4, 1.9), (11, 3.4)):
        pen.disc(x, y, 1.9, red)
    pen.disc(8.4, 7.6, 4.5, white)
    pen.polygon([(4.6, 6.4), (0, 8.6), (4.6, 9.8)], yellow)
    pen.oval(4.8, 12, 1.4, 2.4, red)
    pen.eye(7.2, 6.6, 1.1)


def duck(pen: Pen) -> None:
    """Yellow, afloat; flat orange bill, tail turned up."""
    yellow, orange = (252, 212, 50), (244, 124, 24)
    pen.blob(
        [
            (4, 22), (7, 17.6), (15, 17.6), (23, 17), (30.6, 12.4), (30, 20),
            (26, 26.6), (17, 28.6), (8, 27),
        ],
        yellow,
    )
    pen.blob(
        [(13, 21), (20, 19), (25.6, 19.6), (22, 24.4), (16, 25)], shaded(yellow, 0.84)
    )
    pen.curve([(10, 21), (9.6, 15)], 6.4, yellow, 6)
    pen.disc(9.4, 9.8, 6.0, yellow)
    pen.blob(
        [(4.8, 9.6), (1, 10.8), (-2.6, 10.4), (-2, 13.4), (2, 14), (5.4, 13.4)], orange
    )
    pen.eye(7.6, 8, 1.3)


def goose(pen: Pen) -> None:
    """White; a long neck held high, orange bill and legs."""
    white, orange = (248, 248, 248), (246, 140, 30)
    for x in (17, 21):
        pen.line([(x, 25), (x, 29.4)], 1.4, orange)
        pen.polygon([(x + 1, 29), (x + 1, 30.6), (x - 3.4, 30.6)], orange)
    pen.blob(
        [
            (9.6, 20), (13, 16.6), (20, 15.4), (27, 17), (33, 15.6), (29, 22),
            (22, 26.4), (14, 25.6),
        ],
        white,
    )
    pen.blob(
        [(15.6, 19), (22, 17.8), (28.6, 19), (23, 23.4), (17.4, 23)], (192, 196, 204)
    )
    pen.curve([(13, 21), (9.4, 16), (10.6, 9), (9.4, 3.4)], 5.6, white, 3.2)
    pen.oval(8.2, 2.6, 3.4, 2.6, white)
    pen.polygon([(5.6, 1.2), (0.2, 4), (5.6, 5)], orange)
    pen.eye(7.6, 1.9, 0.9)


def turkey(pen: Pen) -> None:
    """Faces the viewer before its fan of tail feathers; red wattle."""
    brown = (112, 66, 40)
    for k in range(9):
        turn = math.pi * k / 8
        x, y = 16 - 12 * math.cos(turn), 17 - 13 * math.sin(turn)
        colour = (178, 92, 40) if k % 2 else (150, 66, 34)
        pen.line([(16, 18), (x, y)], 3.0, colour, 6.4)
        pen.disc(x, y, 2.0, (246, 224, 180))
    for x in (13.4, 18.6):
        pen.line([(x, 26), (x, 30)], 1.2, (246, 170, 40))
        pen.line([(x - 1.6, 30.2), (x + 1.6, 30.2)], 1.0, (246, 170, 40))
    pen.oval(16, 21, 7.4, 6.6, brown)
    pen.mirrored().oval(10, 21.6, 2, 4.4, shaded(brown, 0.7), angle=12)
    pen.line([(16, 18), (16, 12)], 4.2, (110, 150, 200), 3.6)
    pen.disc(16, 10.4, 3.3, (110, 150, 200))
    pen.polygon([(14.4, 11), (17.6, 11), (16, 14)], (250, 190, 50))
    pen.oval(17.4, 15.4, 1.3, 3, (220, 30, 40))
    pen.mirrored().eye(14.5, 9.6, 0.9)


BIRDS = {
    "bird": bird,
    "chicken": chicken,
    "duck": duck,
    "goose": goose,
    "turkey": turkey,
}
