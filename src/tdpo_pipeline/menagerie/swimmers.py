"""Animals of the sea."""

from tdpo_pipeline.menagerie.canvas import BLACK, WHITE, Pen, shaded

# Points read better in rows than one below the other.
# fmt: off


def fish(pen: Pen) -> None:
    """Orange with white bands; round body, fan tail."""
    orange = (250, 128, 24)
    pen.blob([(22, 16), (28, 8), (33, 7), (31, 16), (33, 25), (28, 24)], orange)
    pen.blob([(8, 9), (12, 2.4), (20, 3.6), (22, 9)], shaded(orange, 0.8))
    pen.blob([(12, 22), (17, 28.6), (20, 22)], shaded(orange, 0.8))
    pen.oval(13.4, 16, 12.4, 8.2, orange)
    with pen.inside():
        pen.curve([(11, 4), (12.6, 16), (11, 28)], 3.0, WHITE)
        pen.curve([(21, 4), (21.6, 16), (21, 28)], 2.4, WHITE)
    pen.oval(16.6, 18, 2.8, 1.9, shaded(orange, 0.75), angle=25)
    pen.wide_eye(6.4, 14, 1.9)
    pen.line([(1.6, 18), (4.6, 18.6)], 0.8, BLACK)


def shark(pen: Pen) -> None:
    """Grey; tall back fin, forked tail, mouth full of teeth."""
    grey, light = (106, 124, 142), (230, 236, 240)
    pen.polygon([(27, 15), (36, 3), (34.4, 14), (37, 23), (28, 18)], grey)
    pen.polygon([(12.6, 11), (19.6, -1), (21, 11)], shaded(grey, 0.84))
    pen.polygon([(12, 19), (17, 28), (19, 19)], shaded(grey, 0.8))
    pen.blob(
        [
            (-4, 13.6), (4, 9.4), (14, 8.6), (24, 12), (31, 15.6), (22, 20), (10, 22),
            (1, 20),
        ],
        grey,
    )
    with pen.inside():
        pen.blob([(-4, 17), (8, 18), (20, 17.6), (31, 16), (22, 23), (4, 25)], light)
    pen.polygon([(-1.4, 17), (7.4, 16), (5, 20.4), (0.8, 20)], (150, 30, 40))
    for k in range(4):
        x = -0.4 + 2 * k
        pen.polygon(
            [(x, 16.8 - 0.2 * k), (x + 1.8, 16.6 - 0.2 * k), (x + 0.9, 18.8 - 0.2 * k)],
            WHITE,
        )
    for x in (10, 11.8, 13.6):
        pen.line([(x, 13.6), (x, 17)], 0.7, shaded(grey, 0.6))
    pen.eye(3.2, 12.8, 1.1)


def whale(pen: Pen) -> None:
    """Blue; a huge blunt head, small raised fluke, spout."""
    blue, light = (52, 98, 168), (206, 222, 236)
    pen.curve([(10, 9), (10, 3), (6, 0.4)], 1.2, (120, 196, 240))
    pen.curve([(10, 9), (10.2, 3), (14.4, 0.4)], 1.2, (120, 196, 240))
    pen.blob(
        [(26, 11), (22.6, 4.4), (27.4, 4.6), (29, 8), (32, 3.8), (36, 4.4), (32, 11)],
        blue,
    )
    pen.curve([(22, 22), (28.4, 18), (29, 9.6)], 8, blue, 2.6)
    pen.blob(
        [
            (-0.6, 19), (1, 12), (7, 8.6), (14, 9.4), (22, 14), (27, 20), (22, 26),
            (12, 28.4), (3, 27),
        ],
        blue,
    )
    with pen.inside():
        pen.blob([(-2, 22), (8, 22.6), (18, 23), (24, 24), (14, 31), (0, 30)], light)
        for x in (2, 5, 8, 11, 14):
            pen.line([(x, 23.4), (x + 2, 29)], 0.6, (140, 170, 200))
    pen.oval(15.6, 22.6, 4.2, 1.8, shaded(blue, 0.75), angle=30)
    pen.eye(6, 18, 1.2)


def dolphin(pen: Pen) -> None:
    """Leaps in an arc; slim beak, curved back fin."""
    skin, light = (112, 152, 190), (232, 240, 246)
    pen.polygon(
        [(27, 22), (24, 30.4), (28.6, 28.6), (34, 31), (31, 22)], shaded(skin, 0.84)
    )
    pen.polygon([(15.4, 8), (21.6, 0.4), (22, 9.4)], shaded(skin, 0.8))
    pen.blob(
        [
            (3.4, 17), (6, 11.4), (12, 7.2), (20, 7.4), (27, 12.6), (30.4, 23),
            (28, 24.4), (23.6, 18), (18, 15.4), (12, 17), (7, 21),
        ],
        skin,
    )
    with pen.inside():
        pen.blob([(3, 20), (8, 17), (14, 14.2), (20, 14), (22, 18), (10, 24)], light)
    pen.curve([(6, 17.6), (2, 20.4), (-1.4, 22.4)], 3.4, skin, 1.4)
    pen.polygon([(13, 15), (14.6, 22.4), (18, 15)], shaded(skin, 0.8))
    pen.eye(7.4, 14.6, 1.0)


def lobster(pen: Pen) -> None:
    """From above: red, two big claws, jointed tail with a fan, long feelers."""
    red = (214, 44, 34)
    dark = shaded(red, 0.68)
    sides = pen.mirrored()
    for y in (13, 15.6, 18.2):
        sides.line([(14, y), (8, y + 1), (6, y + 4)], 1.0, dark)
    sides.curve([(14.8, 8), (13.8, 2), (12, -4)], 0.7, dark)
    sides.curve([(13, 12), (8, 11.6), (6.4, 7.4)], 2.2, red)
    sides.blob([(7.4, 7.6), (2.4, 6), (1, -0.6), (4.2, -4), (5, 0), (6.6, 1)], red)
    sides.blob([(7.4, 7.6), (9.8, 3), (9, -2.4), (6.8, 1.6), (5.8, 5)], red)
    sides.blob([(15, 28), (9, 28.6), (8.6, 33), (13.6, 33.4)], red)
    pen.blob([(14, 27), (18, 27), (18.4, 33.6), (13.6, 33.6)], dark)
    for k in range(4):
        y = 20 + 2.4 * k
        pen.oval(16, y, 4.2 - 0.35 * k, 1.8, red if k % 2 else dark)
    pen.oval(16, 14, 4.6, 6.2, red)
    sides.eye(14, 8.8, 1.0)


def octopus(pen: Pen) -> None:
    """A large round head over eight curling arms."""
    skin = (172, 86, 170)
    sides = pen.mirrored()
    sides.curve([(13, 18), (5, 18), (0, 21), (-1.4, 16.6)], 3.2, shaded(skin, 0.8), 1.4)
    sides.curve([(13, 19), (6, 22), (1.6, 27.4), (-2.4, 25)], 3.4, skin, 1.4)
    sides.curve([(14, 20), (9, 25), (7.4, 30.6), (3, 31)], 3.4, shaded(skin, 0.8), 1.4)
    sides.curve([(15, 20), (13.6, 26), (14, 31), (10.6, 32.4)], 3.4, skin, 1.4)
    pen.blob(
        [
            (8, 16), (7, 8), (11, 1.4), (16, -0.4), (21, 1.4), (25, 8), (24, 16),
            (16, 22),
        ],
        skin,
    )
    sides.wide_eye(12.4, 13, 2.4)
    pen.curve([(14, 17.6), (16, 18.6), (18, 17.6)], 0.8, (90, 36, 90))
    for x, y in ((12, 5), (16.6, 3.4), (20, 6.4)):
        pen.disc(x, y, 1.1, shaded(skin, 1.4))


def jellyfish(pen: Pen) -> None:
    """A dome with a scalloped rim and long wavy threads."""
    skin = (240, 150, 206)
    for k in range(6):
        x = 7.6 + 3.4 * k
        colour = shaded(skin, 0.82) if k % 2 else (206, 130, 220)
        pen.curve(
            [
                (x, 13),
                (x + 1.3, 18),
                (x - 1.1, 23),
                (x + 1.1, 28),
                (x - 0.4, 34 - 1.2 * abs(k - 2.5)),
            ],
            1.6,
            colour,
            1.0,
        )
    pen.blob(
        [
            (4, 14), (5, 6), (10.4, 0.6), (16, -0.8), (21.6, 0.6), (27, 6), (28, 14),
            (16, 13),
        ],
        skin,
    )
    for k in range(5):
        pen.disc(6.4 + 4.8 * k, 13.6, 2.4, skin)
    pen.oval(11, 5.4, 2.2, 4, shaded(skin, 1.6), angle=30)
    with pen.inside():
        for k in range(4):
            pen.line(
                [(8.8 + 4.8 * k, 15), (10.8 + 3.5 * k, 8)], 0.7, shaded(skin, 0.78)
            )


SWIMMERS = {
    "fish": fish,
    "shark": shark,
    "whale": whale,
    "dolphin": dolphin,
    "lobster": lobster,
    "octopus": octopus,
    "jellyfish": jellyfish,
}
