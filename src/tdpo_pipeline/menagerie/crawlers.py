"""Insects, spider, reptiles, frog and snail."""

from tdpo_pipeline.menagerie.canvas import BLACK, WHITE, Pen, shaded

# Points read better in rows than one below the other.
# fmt: off


def spider(pen: Pen) -> None:
    """From above: eight bent legs around two round parts."""
    body = (60, 46, 52)
    sides = pen.mirrored()
    for hip, knee, foot in (
        ((14, 12), (7, 6), (6.4, -1)),
        ((13.6, 13.6), (4, 9.6), (-1.4, 13)),
        ((13.6, 15), (4, 17), (-1.4, 23)),
        ((14, 16.4), (7, 22), (5, 31)),
    ):
        sides.line([hip, knee, foot], 1.7, body, 1.0)
    pen.oval(16, 20, 6.4, 7, body)
    pen.disc(16, 11.6, 4.4, body)
    pen.polygon([(14, 17), (18, 17), (14, 23), (18, 23)], (222, 50, 50))
    sides.oval(14.4, 9.6, 1.2, 1.2, WHITE)
    sides.line([(14.6, 8), (14.4, 5.6)], 1.2, body)


def beetle(pen: Pen) -> None:
    """From above: hard oval wing cases with a seam, strong jaws, six legs."""
    shell, dark = (34, 128, 96), (30, 44, 44)
    sides = pen.mirrored()
    for hip, knee, foot in (
        ((11, 12), (5, 10), (2.6, 5)),
        ((9, 18), (3, 18), (0.4, 22)),
        ((10, 24), (5, 26), (3, 31)),
    ):
        sides.line([hip, knee, foot], 1.8, dark, 1.2)
    sides.curve([(14, 5), (9.6, 2), (10.6, -3.4), (14, -4)], 1.8, dark, 1.0)
    pen.oval(16, 5.4, 4, 3, dark)
    pen.oval(16, 9.8, 7, 3.6, shaded(shell, 0.7))
    pen.oval(16, 20, 9, 10.4, shell)
    pen.line([(16, 11), (16, 30)], 0.9, dark)
    sides.curve([(12.4, 13), (10, 19), (11.6, 26)], 1.1, shaded(shell, 1.45), 0.8)


def ant(pen: Pen) -> None:
    """From the side: three parts on a thin waist, bent feelers, six legs."""
    body = (140, 48, 30)
    for hip, knee, foot in (
        ((13, 18), (9, 13), (5, 28)),
        ((15, 18), (14, 12), (13, 28.6)),
        ((17, 18), (21, 12), (24, 28)),
    ):
        pen.line([hip, knee, foot], 1.2, shaded(body, 0.7), 0.9)
        pen.line(
            [hip, (knee[0] + 2, knee[1] + 2), (foot[0] + 3.4, foot[1] + 1)],
            1.2,
            body,
            0.9,
        )
    pen.line([(4, 13), (3, 7), (-2, 5)], 0.9, body)
    pen.line([(6, 12), (7, 6), (2, 2)], 0.9, body)
    pen.line([(8, 17), (24, 18)], 1.6, body)
    pen.oval(25.6, 17, 7.2, 5, body, angle=-12)
    pen.oval(15, 17.6, 3.6, 2.7, body)
    pen.oval(5.4, 15.6, 4.4, 3.9, body, angle=20)
    pen.line([(2.4, 18.4), (0, 19.4)], 1.2, shaded(body, 0.6))
    pen.eye(4.6, 14.8, 1.0)


def butterfly(pen: Pen) -> None:
    """From above: four large bright wings with dark edges."""
    wing, low = (246, 140, 30), (250, 196, 60)
    sides = pen.mirrored()
    sides.blob([(15, 15), (9, 3), (1, 0.6), (-0.4, 8), (4, 16), (11, 18)], BLACK)
    sides.blob([(15, 17), (8, 17), (3, 22), (5.4, 30), (11.5, 28)], BLACK)
    sides.blob([(14.4, 14.4), (9, 5.6), (3, 3), (2, 8), (5.6, 14), (11, 16)], wing)
    sides.blob([(14, 18.4), (9, 19), (5.6, 22.4), (7, 27), (11, 26)], low)
    sides.oval(1.6, 4.4, 0.9, 0.9, WHITE)
    sides.oval(7.6, 10, 2, 1.6, (160, 70, 170), angle=40)
    pen.oval(16, 17, 1.6, 8, BLACK)
    pen.disc(16, 8.6, 1.9, BLACK)
    sides.curve([(15.6, 8), (13.6, 3.4), (11, 2)], 0.7, BLACK)


def bee(pen: Pen) -> None:
    """From the side: fat striped body, two raised wings, sting."""
    yellow = (252, 204, 40)
    wing = (206, 226, 240)
    pen.polygon([(28, 16.6), (34, 20), (28, 22)], BLACK)
    pen.oval(22.4, 6.4, 3.8, 7.4, shaded(wing, 0.86), angle=30)
    pen.oval(15, 5.6, 4, 8, wing, angle=-6)
    pen.oval(18.6, 19, 11.4, 7.8, yellow)
    with pen.inside():
        for x in (15.4, 20.6, 25.8):
            pen.curve([(x, 10), (x + 1.2, 19), (x, 28)], 2.6, BLACK)
    pen.disc(7, 17.4, 5, (70, 52, 30))
    pen.curve([(5.6, 13), (4, 9), (0.6, 8)], 0.9, BLACK)
    pen.curve([(8, 13), (7.6, 9), (5, 6.4)], 0.9, BLACK)
    pen.wide_eye(5.2, 16.6, 1.7)
    for x in (14, 18, 22):
        pen.line([(x, 26), (x - 1, 29)], 0.9, BLACK)


def fly(pen: Pen) -> None:
    """From above: two huge red eyes, clear wings spread back, hairy legs."""
    body, wing = (70, 78, 88), (204, 216, 226)
    sides = pen.mirrored()
    for hip, knee, foot in (
        ((13, 12), (6, 8), (4, 3)),
        ((12.6, 15), (3, 14), (-1, 18)),
        ((13, 18), (6, 26), (7, 31)),
    ):
        sides.line([hip, knee, foot], 1.0, BLACK)
    pen.oval(16, 22, 5, 6.6, body)
    pen.line([(12, 22), (20, 22)], 1.0, BLACK)
    pen.line([(12.4, 25), (19.6, 25)], 1.0, BLACK)
    pen.oval(16, 13.4, 5.2, 4.8, body)
    sides.oval(7.4, 21.4, 4.2, 9.6, wing, angle=38)
    sides.line([(13, 15), (4.4, 25.6)], 0.6, (120, 134, 150))
    sides.line([(12, 16), (8, 27)], 0.5, (120, 134, 150))
    pen.disc(16, 7.4, 3.6, body)
    sides.oval(11.8, 6, 3.9, 4.2, (196, 30, 36), angle=20)
    sides.oval(11, 4.8, 1.1, 1.1, (240, 130, 130))


def snake(pen: Pen) -> None:
    """Winding, with bands and a forked tongue."""
    skin, band = (96, 168, 60), (44, 92, 40)
    path = [
        (8, 5.6), (16, 3.4), (24, 6), (24.6, 12), (15, 14), (6, 16.4), (5, 23),
        (13, 26), (22, 24), (30, 27.4),
    ]
    pen.curve(path, 5.2, skin, 1.6)
    with pen.inside():
        for x, y in (
            (14, 3.6), (19, 4), (24, 7), (23.6, 12), (17, 13.6), (11, 14.6), (6, 17),
            (5, 22.4), (10, 25.4), (16, 25.6), (22, 24.4),
        ):
            pen.disc(x, y, 1.3, band)
    pen.oval(6, 6.6, 5.2, 3.6, skin, angle=-14)
    pen.line([(1.4, 8), (-2, 9)], 0.8, (220, 40, 50))
    pen.line([(-2, 9), (-4.4, 8)], 0.7, (220, 40, 50))
    pen.line([(-2, 9), (-3.8, 10.8)], 0.7, (220, 40, 50))
    pen.wide_eye(4.8, 5.4, 1.4)


def lizard(pen: Pen) -> None:
    """From above: slim S-shaped body, four splayed legs, long curling tail."""
    skin, mark = (130, 196, 60), (70, 120, 40)
    for points in (
        [(9, 11), (3.4, 11), (3, 6)],
        [(12, 8), (14.6, 3), (19, 3)],
        [(16, 19), (10, 22), (10, 27)],
        [(19, 16), (25, 14), (28, 17)],
    ):
        pen.line(points, 2.2, skin, 1.5)
        foot, ground = points[-1]
        away = -1 if ground < 10 else 1
        for dx, dy in ((-1.4, 0.9), (0, 1.6), (1.4, 0.9)):
            pen.line([points[-1], (foot + dx, ground + away * dy)], 0.7, skin)
    pen.curve(
        [(16.5, 17), (21, 22), (21, 28), (26, 30.5), (30.5, 27), (28.5, 23.5)],
        5,
        skin,
        0.8,
    )
    pen.curve([(8, 7), (12, 11.5), (17.6, 18)], 5.6, skin, 6.0)
    pen.oval(5.4, 4.6, 4.8, 3.4, skin, angle=42)
    for x, y in ((9.6, 9), (12, 12), (14.6, 14.6), (17.2, 17.6), (19.6, 20.6)):
        pen.disc(x, y, 1.1, mark)
    pen.eye(3, 5.6, 0.9)
    pen.eye(6.6, 2.6, 0.9)


def crocodile(pen: Pen) -> None:
    """From the side: long open jaws full of teeth, ridged back, strong tail."""
    skin, dark = (74, 122, 62), (44, 82, 44)
    for hip, colour in ((16, skin), (19, dark), (27, skin), (30, dark)):
        pen.line([(hip, 19), (hip - 1.4, 24.4)], 2.8, colour)
        pen.line([(hip - 1.4, 24.8), (hip - 3.4, 24.8)], 1.4, skin)
    for k in range(9):
        x = 14 + 2.4 * k
        y = 13.2 - 0.25 * min(k, 5) + 0.6 * max(k - 5, 0)
        pen.polygon([(x - 1.5, y + 1.6), (x, y - 1.6), (x + 1.5, y + 1.6)], dark)
    pen.curve([(27, 17.4), (33, 19), (38, 15)], 7, skin, 1.2)
    pen.oval(22, 17.2, 10.6, 4.6, skin)
    pen.oval(21, 20.2, 8, 1.6, (206, 206, 140))
    pen.blob(
        [(15, 14), (9, 11), (2, 6.4), (-4.6, 4.6), (-5, 7.4), (4, 11.6), (12, 17)], skin
    )
    pen.blob(
        [(14, 20), (8, 20), (0, 18.6), (-5, 16.6), (-4.6, 14.8), (4, 15.6), (13, 15)],
        skin,
    )
    pen.polygon([(12, 15.4), (4, 11.6), (4, 15.6)], (206, 96, 96))
    for k in range(5):
        x = -3.4 + 2.7 * k
        pen.polygon(
            [(x, 7.2 + 1.1 * k), (x + 1.6, 7.8 + 1.1 * k), (x + 0.7, 10.2 + 0.8 * k)],
            WHITE,
        )
        pen.polygon([(x, 15.4), (x + 1.6, 15.5), (x + 0.8, 12.9 + 0.3 * k)], WHITE)
    pen.disc(10.4, 9.8, 2.0, skin)
    pen.wide_eye(10.2, 9.4, 1.3)


def turtle(pen: Pen) -> None:
    """From the side: domed shell with plates, head and feet peeping out."""
    skin, shell, line = (120, 184, 90), (128, 92, 48), (84, 58, 32)
    pen.polygon([(28, 23), (33, 26), (27, 26)], skin)
    for x in (12.6, 24.6):
        pen.line([(x, 24), (x - 0.6, 28.6)], 4.0, skin, 3.6)
    pen.curve([(8, 23.6), (3.4, 19.4), (2.4, 16)], 3.6, skin, 3.6)
    pen.oval(1.6, 15, 3.9, 3.2, skin)
    pen.blob([(6.6, 23.6), (8, 15), (14, 9), (22, 9), (28, 15), (29.6, 23.6)], shell)
    with pen.inside():
        for points in (
            [(14, 24), (14, 17), (22, 17), (22, 24)],
            [(14, 17), (11, 11)],
            [(22, 17), (25, 11)],
            [(14, 17), (6, 19)],
            [(22, 17), (30, 19)],
            [(18, 17), (18, 8)],
        ):
            pen.line(points, 1.1, line)
    pen.line([(6.6, 24.2), (29.8, 24.2)], 2.2, (214, 184, 104))
    pen.eye(0.6, 14.2, 1.0)


def frog(pen: Pen) -> None:
    """Squats facing the viewer; eyes on top, wide mouth, bent legs."""
    skin, light = (92, 184, 60), (214, 236, 160)
    sides = pen.mirrored()
    sides.oval(6.4, 22, 4.4, 6.8, shaded(skin, 0.84), angle=24)
    sides.oval(4, 29, 4.6, 1.5, skin)
    pen.oval(16, 20.4, 9.4, 8.6, skin)
    pen.oval(16, 23.4, 6, 5.4, light)
    sides.line([(11, 21), (10.4, 28.8)], 2.8, skin, 2.4)
    sides.oval(9.8, 29.4, 3, 1.3, skin)
    sides.oval(9.4, 6.8, 3.8, 3.8, skin)
    pen.oval(16, 12, 10.6, 6.2, skin)
    pen.curve(
        [(7, 12.6), (11, 15.4), (16, 16), (21, 15.4), (25, 12.6)], 1.1, (40, 84, 36)
    )
    sides.wide_eye(9.4, 6.6, 2.6)


def snail(pen: Pen) -> None:
    """Large spiral shell on a long foot; eyes on stalks."""
    skin, shell, line = (222, 190, 130), (186, 104, 60), (110, 54, 36)
    pen.curve([(8, 14), (5.6, 9), (2.6, 5)], 1.3, skin)
    pen.curve([(10, 13), (10, 8), (9.4, 3.6)], 1.3, skin)
    pen.disc(2.6, 4.6, 1.5, BLACK)
    pen.disc(9.4, 3.2, 1.5, BLACK)
    pen.blob(
        [
            (4.6, 15.6), (8, 12), (12, 15), (14, 22), (24, 26), (33.6, 30.4),
            (18, 30.4), (8, 29.6), (6, 22),
        ],
        skin,
    )
    pen.disc(20.4, 16.6, 10.6, shell)
    spiral = [
        (29, 21), (21, 25), (13.4, 19.4), (15, 11.6), (21, 9.6), (26, 14), (24.6, 19.6),
        (19.6, 20), (18, 16), (21, 14.6),
    ]
    pen.curve(spiral, 1.6, line, 1.2)


CRAWLERS = {
    "spider": spider,
    "beetle": beetle,
    "ant": ant,
    "butterfly": butterfly,
    "bee": bee,
    "fly": fly,
    "snake": snake,
    "lizard": lizard,
    "crocodile": crocodile,
    "turtle": turtle,
    "frog": frog,
    "snail": snail,
}
