"""Four-legged animals seen from the side, facing left.

One body plan draws them all: a record says how long, thick and coloured each part
is, and a short function adds what is the animal's own (ears, horns, coat, face).
"""

from collections.abc import Callable
from dataclasses import dataclass

from tdpo_pipeline.menagerie.canvas import BLACK, WHITE, Colour, Pen, Point, shaded

Oval = tuple[float, float, float, float, float]

# Points read better in rows than one below the other.
# fmt: off


@dataclass(frozen=True)
class Quadruped:
    """The body plan of one animal, in units (the picture is 32 wide and high).

    Attributes:
        colour: Of the coat.
        body: Centre, radii and angle of the trunk.
        legs: x of the four feet, from the front; the first and third are near.
        leg_top: y where the legs begin.
        leg_width: Width at the top and at the foot.
        neck: From the trunk to the head.
        neck_width: Width at the trunk and at the head.
        head: Centre, radii and angle.
        snout: The same for the snout.
        eye: Centre and radius.
        tail: Points of the tail.
        tail_width: Width at its root and at its tip.
        snout_colour: None for the colour of the coat.
        leg_colour: None for the colour of the coat.
        foot_colour: None for the colour of the legs.
        tail_colour: None for the colour of the coat.
        stride: How far each foot stands off its hip, to the right.
        ground: y of the feet.
        coat: Paints a pattern on trunk, neck and legs.
        own: Paints ears, horns, face and whatever else the animal alone has.
    """

    colour: Colour
    body: Oval
    legs: tuple[float, float, float, float]
    leg_top: float
    leg_width: tuple[float, float]
    neck: tuple[Point, ...]
    neck_width: tuple[float, float]
    head: Oval
    snout: Oval
    eye: tuple[float, float, float]
    tail: tuple[Point, ...]
    tail_width: tuple[float, float]
    own: Callable[[Pen], None]
    coat: Callable[[Pen], None] | None = None
    snout_colour: Colour | None = None
    leg_colour: Colour | None = None
    foot_colour: Colour | None = None
    tail_colour: Colour | None = None
    stride: tuple[float, float, float, float] = (0, 0, 0, 0)
    ground: float = 30.5


def _oval(pen: Pen, oval: Oval, colour: Colour) -> None:
    x, y, rx, ry, angle = oval
    pen.oval(x, y, rx, ry, colour, angle=angle)


def _leg(pen: Pen, plan: Quadruped, index: int) -> None:
    """One leg; the odd ones are far and darker."""
    near, x = index % 2 == 0, plan.legs[index]
    hip = (x - plan.stride[index], plan.leg_top)
    colour = plan.leg_colour or plan.colour
    colour = colour if near else shaded(colour, 0.72)
    top, foot = plan.leg_width
    pen.line([hip, (x, plan.ground - foot / 2)], top, colour, foot)
    if plan.foot_colour is not None:
        pen.box(
            x - foot / 2, plan.ground - 1.6, x + foot / 2, plan.ground, plan.foot_colour
        )


def draw_quadruped(pen: Pen, plan: Quadruped) -> None:
    """Paint an animal by its plan, from the far side to the near one."""
    for index in (1, 3):
        _leg(pen, plan, index)
    pen.curve(
        plan.tail,
        plan.tail_width[0],
        plan.tail_colour or plan.colour,
        plan.tail_width[1],
    )
    _oval(pen, plan.body, plan.colour)
    for index in (0, 2):
        _leg(pen, plan, index)
    pen.curve(plan.neck, plan.neck_width[0], plan.colour, plan.neck_width[1])
    if plan.coat is not None:
        with pen.inside():
            plan.coat(pen)
    _oval(pen, plan.head, plan.colour)
    _oval(pen, plan.snout, plan.snout_colour or plan.colour)
    plan.own(pen)
    pen.eye(*plan.eye)


def _dog_own(pen: Pen) -> None:
    pen.oval(1.9, 10.6, 1.3, 1.1, BLACK)
    pen.line([(3.5, 14), (3.2, 17)], 1.9, (225, 90, 100))
    pen.oval(11.6, 12, 2.2, 5, (92, 52, 28), angle=-12)
    pen.line([(7.5, 16.4), (13, 15.4)], 1.7, (205, 40, 45))


def _dog_coat(pen: Pen) -> None:
    pen.oval(20, 15, 6, 4.5, (92, 52, 28))
    pen.oval(9, 21, 2.8, 3.5, WHITE)


def _horse_own(pen: Pen) -> None:
    mane = (58, 34, 22)
    pen.curve([(7.5, 2), (10.5, 5), (13, 9), (15, 13)], 3.2, mane, 1.5)
    pen.polygon([(6.6, 3.5), (7.4, -0.5), (9, 3)], (140, 82, 44))
    pen.oval(2.2, 9.2, 0.6, 0.5, BLACK)


def _zebra_coat(pen: Pen) -> None:
    for x in (13, 16, 19, 22, 25):
        pen.curve([(x + 1, 10), (x, 16), (x + 0.6, 22)], 1.5, BLACK, 0.9)
    for k in range(4):
        y = 6 + 2.6 * k
        pen.line([(6 + k, y + 1.5), (13 + k, y - 1)], 1.3, BLACK)
    for y in (23, 25.6, 28.2):
        pen.line([(6, y), (30, y)], 1.1, BLACK)


def _zebra_own(pen: Pen) -> None:
    for k in range(6):
        x, y = 8 + 1.35 * k, 2.2 + 2.0 * k
        pen.line([(x, y + 1), (x + 2.4, y - 1.4)], 1.9, BLACK if k % 2 else WHITE)
    pen.polygon([(6, 4), (6.2, -0.6), (8.6, 3)], WHITE)
    pen.oval(2.4, 9.8, 1.9, 1.7, BLACK, angle=30)
    pen.line([(4.4, 5.2), (6.4, 8.2)], 0.9, BLACK)
    pen.line([(29.3, 21.5), (29.6, 25)], 2.2, BLACK)


def _sheep_own(pen: Pen) -> None:
    wool = (246, 243, 232)
    for x, y in (
        *((10, 11), (14, 8.5), (18.5, 8), (23, 9.5), (26.5, 13), (27.5, 17.5)),
        *((25.5, 21.5), (21, 23.5), (16, 23.8), (11.5, 22), (9, 17)),
    ):
        pen.disc(x, y, 3.6, wool)
    pen.oval(18, 16, 9, 7, wool)
    for x, y in ((14, 13), (19, 12.5), (23, 16), (17, 18)):
        pen.curve([(x - 1.6, y), (x, y + 1.4), (x + 1.6, y)], 0.8, (200, 196, 184))
    pen.oval(6.4, 14.5, 3.4, 4.8, (62, 56, 60), angle=20)
    pen.oval(10.6, 12.4, 2.8, 1.3, (62, 56, 60), angle=25)
    pen.disc(7.8, 9.6, 2.6, wool)
    pen.wide_eye(5.6, 13.2, 1.2)


def _deer_coat(pen: Pen) -> None:
    for x, y in ((15, 16), (18, 18), (20, 15.5), (23, 17.5), (25, 15.8), (17, 20)):
        pen.disc(x, y, 0.8, (250, 236, 214))
    pen.oval(19, 23, 7, 1.6, (240, 222, 196))


def _deer_own(pen: Pen) -> None:
    horn = (110, 76, 48)
    for x, out in ((7.6, -1), (10.4, 1)):
        pen.curve([(x, 6), (x + 3 * out, 2.4), (x + 2.4 * out, -4.4)], 1.5, horn, 1.0)
        pen.line([(x + 2.8 * out, 2.4), (x + 6.8 * out, -1)], 1.2, horn, 0.8)
        pen.line([(x + 3 * out, 0), (x + 5.8 * out, -4.6)], 1.1, horn, 0.8)
        pen.line([(x + 2 * out, 3.4), (x + 0.2 * out, -1.4)], 1.1, horn, 0.8)
    pen.oval(11.2, 7.4, 2.4, 1.1, (168, 108, 62), angle=-15)
    pen.oval(2.8, 10.2, 1.0, 0.9, BLACK)


def _cow_coat(pen: Pen) -> None:
    pen.blob([(13, 8), (18, 9), (18, 15), (14, 17), (11, 13)], BLACK)
    pen.blob([(22, 9), (29, 9), (29, 17), (25, 16), (23, 13)], BLACK)
    pen.oval(19, 21, 2.4, 2, BLACK)


def _cow_own(pen: Pen) -> None:
    pen.oval(22.5, 23.2, 2.8, 1.9, (240, 160, 165))
    pen.curve([(4, 6), (1.8, 4.6), (2.4, 1.6)], 1.5, (222, 205, 160), 0.8)
    pen.curve([(8.8, 6), (11.4, 4.6), (10.8, 1.6)], 1.5, (222, 205, 160), 0.8)
    pen.oval(11.4, 8.4, 2.6, 1.4, BLACK, angle=-10)
    pen.oval(7.6, 9, 2.0, 3.0, BLACK, angle=10)
    pen.disc(2.8, 14.2, 0.6, BLACK)
    pen.disc(5.4, 14.8, 0.6, BLACK)
    pen.oval(29.4, 22, 1.2, 2.2, BLACK)
    pen.disc(6.8, 9.4, 1.4, WHITE)


def _goat_own(pen: Pen) -> None:
    horn = (120, 104, 84)
    pen.curve([(7, 6), (8.5, 1), (13, -1), (16.5, 2.5)], 2.3, horn, 0.8)
    pen.curve([(6, 6), (6.5, 1.4), (10, -1.8), (13.5, -1)], 2.0, shaded(horn, 0.8), 0.8)
    pen.line([(4.6, 14), (4.8, 20.5)], 2.6, (236, 230, 216), 0.6)
    pen.oval(10.6, 9.4, 3.2, 1.2, (186, 176, 158), angle=25)
    pen.oval(1.9, 12.2, 0.8, 0.7, BLACK)


def _lion_own(pen: Pen) -> None:
    mane, face = (150, 78, 24), (232, 178, 88)
    for x, y in (
        *((3, 6), (6, 2.8), (10, 1.8), (14, 3.2), (16.4, 7), (17, 11.5)),
        *((15.4, 16), (12, 19), (8, 19.4), (4.2, 17.4), (2.2, 14), (1.8, 10)),
    ):
        pen.disc(x, y, 3.2, mane)
    pen.disc(9.4, 10.8, 7.6, mane)
    pen.oval(9, 11, 5.2, 5.4, face)
    pen.disc(5, 6, 1.5, face)
    pen.disc(13, 6, 1.5, face)
    pen.oval(8.8, 13.8, 2.8, 2, (248, 226, 182))
    pen.polygon([(7.4, 12), (10.2, 12), (8.8, 13.8)], BLACK)
    pen.eye(6.6, 9.8, 1.0)
    pen.eye(11.2, 9.8, 1.0)
    pen.oval(30, 12.4, 1.8, 2.4, mane)


def _tiger_coat(pen: Pen) -> None:
    for x in (13, 16.5, 20, 23.5, 27):
        pen.line([(x + 1, 10), (x, 17.5)], 1.7, BLACK, 0.3)
        pen.line([(x + 2, 24), (x + 1.5, 19)], 1.2, BLACK, 0.3)
    for y in (24.4, 27):
        pen.line([(8, y), (30, y)], 0.9, BLACK)


def _tiger_own(pen: Pen) -> None:
    orange = (240, 132, 30)
    for x in (3.4, 11.4):
        pen.disc(x, 6.4, 2.2, orange)
        pen.disc(x, 6.4, 1.0, BLACK)
    pen.disc(7.4, 11.5, 5.9, orange)
    pen.oval(4.2, 14.2, 2.6, 2.2, WHITE)
    pen.oval(10.6, 14.2, 2.6, 2.2, WHITE)
    pen.oval(7.4, 14.6, 2.4, 2, WHITE)
    for dx in (-1.6, 0, 1.6):
        pen.line([(7.4 + dx, 5.8), (7.4 + dx, 8.4)], 0.9, BLACK, 0.4)
    for y in (10.8, 13):
        pen.line([(1.4, y), (3.6, y + 0.3)], 0.9, BLACK, 0.4)
        pen.line([(13.4, y), (11.2, y + 0.3)], 0.9, BLACK, 0.4)
    pen.polygon([(6.2, 12.6), (8.6, 12.6), (7.4, 14.2)], (200, 80, 80))
    pen.eye(5, 10.6, 1.0)
    pen.eye(9.8, 10.6, 1.0)
    for x, y in ((27.6, 12.2), (29.3, 8.6), (28.6, 5)):
        pen.line([(x - 1, y), (x + 1.4, y + 0.4)], 1.2, BLACK)


def _raccoon_own(pen: Pen) -> None:
    grey, light = (136, 138, 146), (222, 222, 226)
    for k, (x, y) in enumerate(
        ((24, 20), (26.4, 17.4), (28, 14.2), (28.6, 10.8), (28, 7.4), (26.4, 4.6))
    ):
        pen.disc(x, y, 3.3 - 0.22 * k, BLACK if k % 2 else light)
    for x in (3.2, 13.6):
        pen.disc(x, 9, 2.3, BLACK)
        pen.disc(x, 9.4, 1.3, light)
    pen.oval(8.4, 14.6, 7.2, 5.8, grey)
    pen.oval(8.4, 17.2, 5, 3.2, light)
    pen.oval(8.4, 11.4, 5, 1.5, light)
    pen.oval(5, 14.2, 2.8, 1.9, BLACK, angle=-20)
    pen.oval(11.8, 14.2, 2.8, 1.9, BLACK, angle=20)
    pen.disc(5.4, 14, 0.9, WHITE)
    pen.disc(11.4, 14, 0.9, WHITE)
    pen.oval(8.4, 17.6, 1.5, 1.1, BLACK)


def _fox_own(pen: Pen) -> None:
    orange = (232, 104, 32)
    pen.blob([(22, 17), (25, 12), (30, 9), (32.5, 11), (31.5, 17), (27, 21)], orange)
    pen.blob([(29, 9.6), (32.6, 5.5), (33.2, 11), (30.8, 12.6)], WHITE)
    pen.polygon([(5.4, 10), (4.6, 2.6), (9, 7.6)], orange)
    pen.polygon([(8.6, 8.6), (11.8, 2), (13, 10)], orange)
    pen.polygon([(9.8, 8), (11.5, 4.4), (12, 9)], BLACK)
    pen.polygon([(-0.2, 15.4), (6.6, 13.6), (10, 16), (6, 17.6)], WHITE)
    pen.disc(0.3, 15, 1.0, BLACK)


def _llama_own(pen: Pen) -> None:
    wool = (244, 226, 190)
    for x, y in ((13, 17), (16, 15.6), (20, 15.2), (24, 16), (27, 18.4), (26, 22)):
        pen.disc(x, y, 3.0, wool)
    pen.polygon([(15.4, 13), (23, 12.6), (23.6, 20), (15, 20)], (205, 50, 70))
    pen.line([(15.2, 17), (23.4, 17)], 1.4, (250, 200, 60))
    pen.curve([(8.4, 1.6), (7.4, -1.2), (8.6, -3.8)], 1.5, wool, 0.8)
    pen.curve([(10.6, 1.8), (11.6, -1.2), (10.6, -3.8)], 1.5, wool, 0.8)
    pen.disc(9.6, 1.6, 2.2, shaded(wool, 0.92))
    pen.oval(3.6, 5.2, 0.8, 0.7, BLACK)


def _camel_own(pen: Pen) -> None:
    tan = (206, 150, 84)
    pen.blob([(11.5, 16), (13, 8), (15, 5.5), (17.5, 9), (18.5, 16)], tan)
    pen.blob([(19, 16), (20.4, 8.5), (23, 5.8), (25.5, 9), (27, 16)], tan)
    pen.disc(15, 7, 1.7, shaded(tan, 0.65))
    pen.disc(22.9, 7.2, 1.7, shaded(tan, 0.65))
    pen.oval(5.8, 5.2, 1.0, 1.4, shaded(tan, 0.7))
    pen.disc(0.9, 8.6, 0.5, BLACK)


def _pig_own(pen: Pen) -> None:
    pink = (246, 168, 176)
    for ear in ([(3, 11), (1, 3.4), (8.4, 7)], [(9, 7.4), (15, 3), (14.4, 11)]):
        pen.polygon(ear, shaded(pink, 0.66))
    pen.oval(7, 15.8, 4.4, 3.7, shaded(pink, 0.66))
    pen.oval(7, 15.6, 4.0, 3.2, (240, 130, 148))
    pen.oval(5.4, 15.6, 0.9, 1.5, (110, 36, 54))
    pen.oval(8.6, 15.6, 0.9, 1.5, (110, 36, 54))
    pen.eye(11.4, 10.6, 1.0)


def _cheetah_coat(pen: Pen) -> None:
    spots = (
        *((10, 13), (12.6, 15), (14, 12.4), (16, 15.2), (18, 12.6), (20, 15.4)),
        *((22, 13), (24, 15.6), (25.6, 13.2), (12, 18), (17, 18), (22, 18.2)),
        *((27, 17.5), (5.4, 20.5), (9, 20.6), (27.5, 21)),
    )
    for x, y in spots:
        pen.disc(x, y, 0.85, BLACK)


def _cheetah_own(pen: Pen) -> None:
    pen.disc(7.6, 6, 1.5, (204, 140, 40))
    pen.oval(2.4, 12, 1.8, 1.3, (252, 236, 200))
    pen.disc(0.8, 11, 0.8, BLACK)
    pen.line([(4.2, 9.6), (3.6, 12.6)], 0.9, BLACK)
    for x, y in ((7, 9.8), (8.2, 12), (28.4, 7.4), (30.6, 4.4)):
        pen.disc(x, y, 0.7, BLACK)


def _elephant_own(pen: Pen) -> None:
    grey = (142, 148, 160)
    pen.curve(
        [(5.4, 11), (3.4, 18), (1.4, 23.4), (-2, 23.6), (-4.2, 19)], 4.8, grey, 2.4
    )
    pen.line([(6.4, 15.6), (4.4, 19.6), (1.4, 18.4)], 1.7, WHITE, 0.8)
    pen.blob(
        [(9.4, 6), (13.5, 2), (18.6, 4.6), (19.4, 12), (16, 18.4), (12, 17), (9.6, 11)],
        shaded(grey, 0.74),
    )
    pen.blob(
        [(11, 7.4), (14.4, 5), (17, 8.4), (16.4, 13.4), (13.4, 14.6)], (190, 160, 168)
    )


def _hippopotamus_own(pen: Pen) -> None:
    skin = (140, 116, 138)
    pen.blob(
        [
            (0.2, 6), (3, 3.6), (6, 6.4), (11, 5.6), (14, 9), (13, 14), (7, 13.4),
            (1, 10),
        ],
        skin,
    )
    pen.polygon([(1.4, 10.4), (10, 12.6), (10, 18.6), (2.6, 20.4)], (176, 52, 74))
    pen.blob([(2, 20), (7, 17.4), (12.4, 14), (14.5, 18), (11, 22.4), (4, 23.4)], skin)
    pen.box(2.4, 9.6, 4.0, 12.8, WHITE)
    pen.box(6.4, 11.2, 7.8, 13.8, WHITE)
    pen.box(3.6, 17.4, 5.2, 20.6, WHITE)
    pen.disc(2.2, 5.6, 0.8, (76, 56, 76))
    pen.disc(10.2, 4.4, 1.5, skin)
    pen.disc(13.2, 6, 1.5, skin)


QUADRUPEDS: dict[str, Quadruped] = {
    "dog": Quadruped(
        colour=(196, 132, 70),
        body=(19, 19, 9, 5.2, 0),
        legs=(11, 13.6, 25.6, 23),
        leg_top=20,
        leg_width=(3.6, 3.0),
        neck=((12, 17), (9.5, 12)),
        neck_width=(7.5, 6.5),
        head=(8.6, 9.6, 4.8, 4.6, 0),
        snout=(4.6, 12, 3.6, 2.6, 5),
        eye=(6.6, 8.6, 1.0),
        tail=((26.5, 17), (29.5, 13), (30.5, 7.5)),
        tail_width=(2.8, 1.6),
        snout_colour=WHITE,
        foot_colour=WHITE,
        coat=_dog_coat,
        own=_dog_own,
    ),
    "horse": Quadruped(
        colour=(140, 82, 44),
        body=(19.5, 16, 8.6, 4.9, 0),
        legs=(13, 15.4, 26.4, 24),
        leg_top=17,
        leg_width=(3.4, 1.9),
        neck=((14.5, 15), (10.5, 9), (8, 4.6)),
        neck_width=(7.6, 4.2),
        head=(6, 5.8, 4.2, 2.4, -38),
        snout=(3.4, 8.4, 2.4, 1.9, -38),
        eye=(6.2, 4.6, 0.8),
        tail=((27, 13.5), (30.6, 17), (30, 26)),
        tail_width=(2.6, 3.4),
        foot_colour=BLACK,
        tail_colour=(58, 34, 22),
        own=_horse_own,
    ),
    "zebra": Quadruped(
        colour=(246, 246, 244),
        body=(20, 16.6, 8.2, 5.6, 0),
        legs=(14, 16.6, 26, 23.6),
        leg_top=18,
        leg_width=(3.4, 2.2),
        neck=((15, 15.5), (11, 10), (8.4, 6)),
        neck_width=(8, 4.8),
        head=(6, 6.6, 4.2, 2.7, -40),
        snout=(3.4, 9, 2.4, 2.0, -40),
        eye=(6.4, 5.6, 0.8),
        tail=((27.5, 14), (29, 18), (29.4, 23)),
        tail_width=(1.2, 1.0),
        foot_colour=BLACK,
        coat=_zebra_coat,
        own=_zebra_own,
    ),
    "sheep": Quadruped(
        colour=(246, 243, 232),
        body=(18, 16, 9, 7, 0),
        legs=(13, 16, 23.6, 21),
        leg_top=20,
        leg_width=(2.2, 2.2),
        neck=((12, 15), (9, 14)),
        neck_width=(5, 5),
        head=(6.4, 14, 3.4, 4, 0),
        snout=(6, 17, 2, 2, 0),
        eye=(5.4, 13.3, 0.7),
        tail=((27, 15), (30.4, 17)),
        tail_width=(3, 3),
        leg_colour=(62, 56, 60),
        own=_sheep_own,
    ),
    "deer": Quadruped(
        colour=(184, 120, 70),
        body=(19.6, 18.2, 7.6, 4.6, 0),
        legs=(14, 16, 25.4, 23.4),
        leg_top=19,
        leg_width=(2.6, 1.3),
        neck=((14.5, 17.5), (11, 12), (9, 8)),
        neck_width=(5, 3),
        head=(7.2, 8.4, 3.8, 2.5, -20),
        snout=(4.2, 9.8, 2, 1.5, -20),
        eye=(7, 7.6, 0.9),
        tail=((26.6, 16), (29, 14.4)),
        tail_width=(2.4, 2.2),
        foot_colour=BLACK,
        tail_colour=WHITE,
        coat=_deer_coat,
        own=_deer_own,
    ),
    "cow": Quadruped(
        colour=(246, 246, 242),
        body=(19.4, 16, 9.8, 6.8, 0),
        legs=(12.6, 15.6, 26.6, 23.6),
        leg_top=19,
        leg_width=(3.4, 2.8),
        neck=((13, 14), (8, 11)),
        neck_width=(8, 6),
        head=(6.4, 9.6, 3.8, 4.8, 10),
        snout=(4.4, 14, 3.4, 2.6, 5),
        eye=(6.8, 9.4, 0.9),
        tail=((28.6, 12.5), (30, 16), (29.6, 21)),
        tail_width=(1.2, 1.0),
        snout_colour=(244, 176, 176),
        foot_colour=BLACK,
        coat=_cow_coat,
        own=_cow_own,
    ),
    "goat": Quadruped(
        colour=(206, 196, 178),
        body=(19, 18.5, 7.6, 5.0, 0),
        legs=(13.4, 15.8, 25, 22.6),
        leg_top=20,
        leg_width=(2.8, 1.9),
        neck=((14, 17), (8.6, 10.5)),
        neck_width=(6, 4),
        head=(6.6, 9.6, 3.8, 2.9, -30),
        snout=(3.6, 12, 2.3, 1.8, -30),
        eye=(6, 8.8, 0.9),
        tail=((26, 16), (28.4, 12.6)),
        tail_width=(2.6, 1.4),
        foot_colour=BLACK,
        own=_goat_own,
    ),
    "lion": Quadruped(
        colour=(222, 164, 76),
        body=(19.6, 18.6, 8.4, 5, 0),
        legs=(13, 16, 26, 23.6),
        leg_top=20,
        leg_width=(3.8, 3.0),
        neck=((13, 17), (10, 12)),
        neck_width=(8, 8),
        head=(9, 11, 6, 6, 0),
        snout=(9, 14, 3, 2, 0),
        eye=(6.6, 9.8, 0.9),
        tail=((27, 17), (31, 19), (31.4, 15.5), (30, 12.6)),
        tail_width=(1.5, 1.2),
        own=_lion_own,
    ),
    "tiger": Quadruped(
        colour=(240, 132, 30),
        body=(19, 17, 9.6, 4.9, 0),
        legs=(11, 14.4, 27, 24),
        leg_top=19,
        leg_width=(4.0, 3.2),
        neck=((13, 16), (9, 13)),
        neck_width=(8, 7),
        head=(7.4, 11.5, 5.8, 5.6, 0),
        snout=(7.4, 14.4, 3, 2, 0),
        eye=(5, 10.6, 0.9),
        tail=((27, 15), (29.4, 9.5), (28.6, 4), (31, 1.6)),
        tail_width=(2.4, 1.8),
        coat=_tiger_coat,
        own=_tiger_own,
    ),
    "raccoon": Quadruped(
        colour=(136, 138, 146),
        body=(17, 21, 8, 6.6, 0),
        legs=(11, 14, 22, 19),
        leg_top=23,
        leg_width=(3.2, 3.0),
        neck=((13, 19), (10, 16)),
        neck_width=(8, 8),
        head=(8.4, 14.6, 7, 5.6, 0),
        snout=(8.4, 17, 3, 2, 0),
        eye=(5.4, 14, 0.7),
        tail=((23, 21), (26, 18), (28, 14)),
        tail_width=(5, 6),
        leg_colour=(60, 58, 64),
        own=_raccoon_own,
    ),
    "fox": Quadruped(
        colour=(232, 104, 32),
        body=(17, 20, 7.6, 4.1, 0),
        legs=(11.4, 14, 22.4, 20),
        leg_top=21,
        leg_width=(2.8, 2.0),
        neck=((13, 19), (9.5, 14)),
        neck_width=(6.5, 5.5),
        head=(8.6, 12.4, 4.8, 4.4, 0),
        snout=(4, 14.6, 4.2, 1.9, -8),
        eye=(7, 11.8, 0.9),
        tail=((23, 19), (27, 17)),
        tail_width=(3, 5),
        leg_colour=(52, 40, 40),
        own=_fox_own,
    ),
    "llama": Quadruped(
        colour=(244, 226, 190),
        body=(19.6, 19, 7.6, 4.8, 0),
        legs=(14.6, 16.8, 25.4, 23.2),
        leg_top=21,
        leg_width=(2.9, 1.9),
        neck=((14, 18), (11.4, 12), (9.8, 4)),
        neck_width=(6, 3.6),
        head=(8, 4, 3.6, 2.6, -5),
        snout=(4.8, 5.4, 2.2, 1.6, -5),
        eye=(7.2, 3.6, 0.8),
        tail=((26.6, 17), (29, 15.6)),
        tail_width=(2.8, 2.2),
        foot_colour=(90, 70, 60),
        own=_llama_own,
    ),
    "camel": Quadruped(
        colour=(206, 150, 84),
        body=(19, 16.6, 8.6, 4.4, 0),
        legs=(13, 15.4, 26, 23.6),
        leg_top=18,
        leg_width=(3.0, 2.0),
        neck=((12, 16.5), (8.4, 18), (6.6, 13), (6, 7)),
        neck_width=(5, 3),
        head=(4.6, 6.6, 3.4, 2.3, -15),
        snout=(2, 8.2, 2, 1.6, -10),
        eye=(4.4, 5.8, 0.7),
        tail=((27, 15), (29.4, 18), (29.2, 21)),
        tail_width=(1.2, 1.4),
        foot_colour=(110, 74, 40),
        own=_camel_own,
    ),
    "pig": Quadruped(
        colour=(246, 168, 176),
        body=(18, 17.5, 10.4, 7.6, 0),
        legs=(12, 15, 25, 22),
        leg_top=22,
        leg_width=(3.6, 3.0),
        neck=((13, 16), (9, 14)),
        neck_width=(10, 9),
        head=(8, 13, 7.2, 6.8, 0),
        snout=(7, 15.6, 4, 3.2, 0),
        eye=(4.8, 10.4, 1.0),
        tail=((27, 15), (31, 16), (33, 12.6), (30.6, 11), (29.8, 14), (34, 16.4)),
        tail_width=(1.3, 1.1),
        foot_colour=(150, 80, 90),
        own=_pig_own,
    ),
    "cheetah": Quadruped(
        colour=(240, 196, 84),
        body=(16, 14.6, 9.4, 4.4, -4),
        legs=(1, 5.6, 31, 27),
        stride=(-8, -5, 7, 4),
        leg_top=16,
        leg_width=(3.2, 1.6),
        neck=((10, 14), (6, 11)),
        neck_width=(5, 4),
        head=(5.4, 9.8, 4.4, 4, 0),
        snout=(2.6, 11.6, 2.2, 1.8, 0),
        eye=(4.4, 9, 0.9),
        tail=((24, 13), (28, 8), (31.5, 3)),
        tail_width=(1.8, 1.6),
        coat=_cheetah_coat,
        own=_cheetah_own,
        ground=24,
    ),
    "elephant": Quadruped(
        colour=(142, 148, 160),
        body=(20, 14.5, 10.4, 8.4, 0),
        legs=(13.4, 17.4, 27.6, 24),
        leg_top=18,
        leg_width=(4.8, 4.2),
        neck=((14, 12), (9, 10)),
        neck_width=(11, 10),
        head=(8.6, 9.4, 5.8, 6, 0),
        snout=(5.4, 12, 3, 3.4, 0),
        eye=(6.2, 8.6, 0.9),
        tail=((29.8, 12), (31.6, 16), (31, 20)),
        tail_width=(1.2, 0.9),
        foot_colour=(226, 222, 214),
        own=_elephant_own,
    ),
    "hippopotamus": Quadruped(
        colour=(140, 116, 138),
        body=(20, 17.4, 11, 8.4, 0),
        legs=(14, 17.4, 27.4, 24),
        leg_top=22,
        leg_width=(4.8, 4.4),
        neck=((16, 15), (12, 13)),
        neck_width=(12, 10),
        head=(11, 12, 4, 5, 0),
        snout=(10, 14, 3, 3, 0),
        eye=(11.2, 7.8, 0.9),
        tail=((30.4, 14), (32, 17)),
        tail_width=(1.4, 1.0),
        own=_hippopotamus_own,
    ),
}
