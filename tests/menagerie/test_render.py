from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tdpo_pipeline.menagerie import vocabulary as words
from tdpo_pipeline.menagerie.animals import DRAWINGS
from tdpo_pipeline.menagerie.canvas import Pen, shaded, spline
from tdpo_pipeline.menagerie.contact_sheet import sheet, world
from tdpo_pipeline.menagerie.props import OBJECT_DRAWINGS, PLACE_DRAWINGS, STAGES
from tdpo_pipeline.menagerie.render import (
    CANONICAL,
    MAX_SHIFT,
    SCALE_RANGE,
    Nuisance,
    main,
    render,
    render_parts,
    render_scene,
    sample_nuisance,
)
from tdpo_pipeline.menagerie.scenes import Scene, sample_scene

GREY = np.array([0.299, 0.587, 0.114])


def grey(scene: Scene) -> np.ndarray:
    """The canonical picture in shades of grey, 0 to 1."""
    return render_scene(scene, CANONICAL) @ GREY / 255


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Root of the mean squared difference."""
    difference = first.astype(float) - second.astype(float)
    return float(np.sqrt(np.mean(difference**2)))


def foreground(scene: Scene, nuisance: Nuisance = CANONICAL) -> np.ndarray:
    """Where a plain scene shows something: bool, (32, 32)."""
    _, tone = render_parts(scene, nuisance)
    return tone[..., 0] < 0.5 * tone[..., 0].max()


class TestCoverage:
    def test_everything_in_the_vocabulary_has_a_drawing(self):
        assert set(DRAWINGS) == set(words.ALL_ANIMALS)
        assert set(OBJECT_DRAWINGS) == set(words.OBJECTS)
        assert set(PLACE_DRAWINGS) == set(words.PLACES)
        assert set(STAGES) == set(words.ALL_ACTIVITIES)


class TestPictures:
    def test_shape_and_type_over_the_pre_training_distribution(self):
        rng = np.random.default_rng(0)
        for seed in range(300):
            picture = render(sample_scene(rng), seed)
            assert picture.shape == (32, 32, 3)
            assert picture.dtype == np.uint8

    @pytest.mark.parametrize(
        "scene",
        [
            Scene("cat"),
            Scene("wolf", 4, place="in the park"),
            Scene("dolphin", activity="riding a bike", colour="green"),
        ],
    )
    def test_is_deterministic(self, scene):
        assert np.array_equal(render(scene, 5), render(scene, 5))
        assert not np.array_equal(render(scene, 5), render(scene, 6))

    def test_a_lone_animal_fills_most_of_the_frame(self):
        for name in words.ALL_ANIMALS:
            rows, columns = np.nonzero(foreground(Scene(name)))
            longest = max(np.ptp(rows), np.ptp(columns)) + 1
            assert 25 <= longest <= 29, name
            assert foreground(Scene(name)).mean() > 0.15, name

    def test_all_animals_differ_clearly_without_colour(self):
        pictures = [grey(Scene(name)) for name in words.ALL_ANIMALS]
        for i, first in enumerate(pictures):
            for j in range(i):
                pair = words.ALL_ANIMALS[i], words.ALL_ANIMALS[j]
                assert distance(first, pictures[j]) > 0.1, pair

    def test_silhouettes_differ_too(self):
        shapes = [foreground(Scene(name)) for name in words.ALL_ANIMALS]
        for i, first in enumerate(shapes):
            for j in range(i):
                pair = words.ALL_ANIMALS[i], words.ALL_ANIMALS[j]
                assert np.mean(first != shapes[j]) > 0.05, pair

    def test_every_part_of_a_scene_shows(self):
        plain = render_scene(Scene("fox"), CANONICAL)
        variants = [
            *(Scene("fox", colour=colour) for colour in words.COLOURS),
            *(Scene("fox", count) for count in words.NUMBERS.values()),
            *(Scene("fox", place=place) for place in words.PLACES),
            *(Scene("fox", activity=doing) for doing in words.ALL_ACTIVITIES),
            Scene("fox", companion="cow"),
        ]
        pictures = [plain, *(render_scene(scene, CANONICAL) for scene in variants)]
        for i, first in enumerate(pictures):
            for second in pictures[:i]:
                assert distance(first, second) > 12

    def test_a_colour_keeps_the_silhouette_and_has_the_hue(self):
        scene = Scene("rabbit", colour="green")
        assert np.array_equal(foreground(scene), foreground(Scene("rabbit")))
        red, green, blue = render_scene(scene, CANONICAL)[foreground(scene)].mean(0)
        assert green > 1.4 * max(red, blue)

    def test_a_colour_keeps_the_pattern(self):
        stripes = render_scene(Scene("zebra", colour="blue"), CANONICAL) @ GREY
        assert stripes[foreground(Scene("zebra"))].std() > 15

    def test_companions_look_at_each_other_and_swap_sides(self):
        pair = render_scene(Scene("cow", companion="pig"), CANONICAL)
        swapped = render_scene(
            Scene("pig", companion="cow"), replace(CANONICAL, flip=True)
        )
        assert distance(pair, swapped) < 12


class TestNuisance:
    def test_sampled_within_its_ranges(self):
        rng = np.random.default_rng(0)
        drawn = [sample_nuisance(rng) for _ in range(2000)]
        shifts = [value for one in drawn for value in (one.dx, one.dy)]
        scales = [one.scale for one in drawn]
        shades = [one.shade for one in drawn]
        assert -MAX_SHIFT <= min(shifts) < -1.9 < 1.9 < max(shifts) <= MAX_SHIFT
        assert SCALE_RANGE[0] <= min(scales) < 0.86
        assert 1.09 < max(scales) <= SCALE_RANGE[1]
        assert -1 <= min(shades) < -0.9 < 0.9 < max(shades) <= 1
        assert 0.45 < np.mean([one.flip for one in drawn]) < 0.55

    @pytest.mark.parametrize(
        "part", [{"dx": 4.5}, {"dy": -4.5}, {"scale": 0.5}, {"shade": 1.2}]
    )
    def test_refuses_what_does_not_fit(self, part):
        with pytest.raises(ValueError, match="is outside"):
            Nuisance(**part)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match=r"Nuisance\.dx=nan"):
            Nuisance(dx=float("nan"))

    @pytest.mark.parametrize(
        "part",
        [
            {"dx": 1.5},
            {"dy": 1.5},
            {"scale": 0.9},
            {"flip": True},
            {"shade": 0.8},
        ],
    )
    @pytest.mark.parametrize("scene", [Scene("dog"), Scene("dog", place="in the snow")])
    def test_every_part_changes_the_picture(self, scene, part):
        changed = render_scene(scene, replace(CANONICAL, **part))
        assert distance(changed, render_scene(scene, CANONICAL)) > 3

    def test_is_bounded_the_animal_stays_in_the_frame(self):
        rng = np.random.default_rng(4)
        for name in words.ALL_ANIMALS:
            still = foreground(Scene(name)).sum()
            for _ in range(4):
                nuisance = sample_nuisance(rng)
                seen = foreground(Scene(name), nuisance).sum()
                expected = still * nuisance.scale**2
                assert 0.88 * expected < seen < 1.12 * expected, (name, nuisance)

    def test_a_whole_pixel_shift_moves_the_picture(self):
        still = render_scene(Scene("frog"), CANONICAL).astype(int)
        moved = render_scene(Scene("frog"), replace(CANONICAL, dx=2, dy=1)).astype(int)
        assert np.abs(moved[1:, 2:] - still[:-1, :-2]).max() <= 1

    def test_flip_mirrors_and_then_shifts(self):
        still = render_scene(Scene("fox"), CANONICAL).astype(int)
        flipped = render_scene(Scene("fox"), replace(CANONICAL, flip=True)).astype(int)
        assert np.array_equal(flipped, still[:, ::-1])
        shifted = render_scene(Scene("fox"), Nuisance(dx=2, flip=True)).astype(int)
        assert np.abs(shifted[:, 2:] - flipped[:, :-2]).max() <= 1

    @pytest.mark.parametrize(
        "scene", [Scene("duck"), Scene("cat", place="on the moon")]
    )
    def test_the_picture_is_linear_in_shade(self, scene):
        nuisance = Nuisance(dx=0.7, dy=-1.1, scale=1.05, flip=True, shade=-0.6)
        base, tone = render_parts(scene, nuisance)
        expected = base - 0.6 * tone
        picture = render_scene(scene, nuisance)
        assert np.abs(picture - expected).max() <= 0.5 + 1e-3
        assert (base - np.abs(tone)).min() >= 0
        assert (base + np.abs(tone)).max() <= 255
        # ... so that shade is found again by least squares.
        fitted = ((picture - base) * tone).sum() / (tone**2).sum()
        assert fitted == pytest.approx(-0.6, abs=0.01)

    def test_shade_of_a_plain_scene_is_in_the_background_only(self):
        scene = Scene("gorilla")
        dark = render_scene(scene, replace(CANONICAL, shade=-1)).astype(int)
        light = render_scene(scene, replace(CANONICAL, shade=1)).astype(int)
        assert np.array_equal(light[0, 0] - dark[0, 0], [66, 48, 22])
        assert np.array_equal(light[16, 16], dark[16, 16])


class TestCanvas:
    def test_shades(self):
        assert shaded((100, 200, 50), 0.5) == (50, 100, 25)
        assert shaded((155, 255, 55), 1.5) == (205, 255, 155)

    def test_spline_goes_through_its_points(self):
        points = [(0.0, 0.0), (4.0, 1.0), (5.0, 6.0)]
        curve = spline(points, closed=False, steps=4)
        assert curve.shape == (9, 2)
        assert np.allclose(curve[[0, 4, 8]], points)
        assert spline(points, closed=True, steps=4).shape == (12, 2)

    def test_inside_paints_nothing_new(self):
        pen = Pen()
        pen.disc(16, 16, 4, (255, 0, 0))
        before = pen.image.getbbox()
        with pen.inside():
            pen.box(0, 0, 32, 16, (0, 0, 255))
        assert pen.image.getbbox() == before
        assert pen.image.getpixel(((16 + 8) * 8, (14 + 8) * 8)) == (0, 0, 255, 255)
        assert pen.image.getpixel(((16 + 8) * 8, (18 + 8) * 8)) == (255, 0, 0, 255)

    def test_mirrored_paints_both_sides(self):
        pen = Pen()
        pen.mirrored(10).disc(4, 16, 2, (255, 0, 0))
        pixels = np.asarray(pen.image)[..., 3]
        _, columns = np.nonzero(pixels)
        middle = (columns.min() + columns.max()) / 2 / 8 - 8
        assert middle == pytest.approx(10, abs=0.1)
        assert np.ptp(columns) / 8 == pytest.approx(16, abs=0.3)


class TestContactSheet:
    def test_writes_the_world(self, tmp_path):
        main([str(tmp_path / "world.png")])
        with Image.open(tmp_path / "world.png") as page:
            assert page.width > 1000

    @pytest.mark.parametrize("zoom", [1, 2, 4])
    def test_labels_keep_to_their_columns(self, zoom):
        scenes = [Scene("hippopotamus"), Scene("mouse"), *world()[-3:]] * 2
        page = np.asarray(sheet(scenes, columns=5, zoom=zoom))
        pitch = (page.shape[1] - 4) // 5
        for column in range(1, 5):
            assert (page[:, column * pitch : column * pitch + 4] == 255).all()

    def test_unlabelled_differs_by_seed(self, tmp_path):
        main([str(tmp_path / "a.png"), "--unlabelled", "--seed", "1"])
        main([str(tmp_path / "b.png"), "--unlabelled", "--seed", "2"])
        a, b = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
        assert a.shape == b.shape
        assert not np.array_equal(a, b)
