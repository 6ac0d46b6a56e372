import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tdpo_pipeline.menagerie import gold
from tdpo_pipeline.menagerie.gold import (
    CONTRAST_TASTE,
    LIGHT_TASTE,
    QUALITY_NEEDED,
    QUALITY_TEMPERATURE,
    SCALES,
    WARMTH_TASTE,
    bump,
    contrast,
    drawing_quality,
    gold_match,
    gold_taste,
    light,
    luminance,
    structure,
    warmth,
    well_drawn,
)
from tdpo_pipeline.menagerie.proxies_training import (
    CORRUPTIONS,
    Pool,
    auc,
    corrupt,
    gold_aucs,
    paired_auc,
)
from tdpo_pipeline.menagerie.render import (
    Nuisance,
    render,
    render_parts,
    render_scene,
)
from tdpo_pipeline.menagerie.scenes import Scene, VocabularyError, describe, parse
from tdpo_pipeline.menagerie.vocabulary import ALL_ANIMALS, COLOURS
from tdpo_pipeline.prompts import COMPLEX


def pictures(scenes, seed=0):
    arrays = np.stack([render(scene, seed + i) for i, scene in enumerate(scenes)])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def animals():
    scenes = [Scene(name) for name in ALL_ANIMALS]
    return Pool(pictures(scenes, 1000), scenes)


@pytest.fixture(scope="module")
def many():
    """Ten draws of every animal, and their tastes."""
    images = pictures([Scene(name) for name in ALL_ANIMALS] * 10, 5000)
    return images, gold_taste(images)


def test_a_template_of_the_prompt_scores_one():
    picture = render_scene(Scene("cat"), Nuisance(1.0, -1.0, 0.975))
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    assert gold_match(image, ["cat"]).item() > 0.99


def test_renders_match_their_own_prompt_whatever_the_nuisance(animals):
    scores = gold_match(animals.images, [s.subject for s in animals.scenes])
    assert scores.min() > 0.5
    assert scores.mean() > 0.8


@pytest.mark.parametrize("prompt", COMPLEX)
def test_complex_prompts_are_told_from_their_rivals(prompt):
    scene = parse(prompt)
    image = pictures([scene])
    plain = pictures([Scene(scene.subject)])
    assert gold_match(image, [prompt]) > 0.5
    assert gold_match(plain, [prompt]) < 0.1


def test_golds_are_bounded_on_anything():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 3, 32, 32, generator=generator)
    flat = torch.full((2, 3, 32, 32), 0.5)
    for images in (noise, flat, torch.zeros(1, 3, 32, 32)):
        for scores in (gold_match(images, ["cat"] * len(images)), gold_taste(images)):
            assert ((scores >= 0) & (scores <= 1)).all()
            assert (scores < 0.05).all()


def test_golds_meet_their_aucs(animals):
    found = gold_aucs(animals, animals, 0)
    assert {name: value for name, value in found.items() if value < 0.95} == {}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_taste_ranks_clean_pictures_above_spoiled_ones(many, corruption):
    images, clean = many
    spoiled = gold_taste(corrupt(images, corruption, np.random.default_rng(0)))
    assert paired_auc(clean, spoiled) > 0.975
    assert auc(clean, spoiled) > 0.955


def test_clean_pictures_count_and_spoiled_ones_do_not(many):
    images, _ = many
    rng = np.random.default_rng(0)
    assert (drawing_quality(images) > QUALITY_NEEDED).float().mean() > 0.9
    for name in CORRUPTIONS:
        if name != "darkening":  # a dark drawing is still a drawing
            spoiled = drawing_quality(corrupt(images, name, rng))
            assert (spoiled < QUALITY_NEEDED).float().mean() > 0.9


def test_taste_has_room_above_clean_pictures(many):
    _, clean = many
    assert clean.median() > 0.05
    assert clean.quantile(0.95) < 0.8


def test_quality_of_a_template_by_hand():
    base, _ = render_parts(Scene("cat"), Nuisance(1.0, -1.0, SCALES[1]))
    image = torch.from_numpy(base).permute(2, 0, 1)[None].float() / 255
    grey = luminance(image)
    # Nothing is lost, so what is short of 1 is the floor under the structure's energy:
    # that of 4 pixels a cell, and of the detail within the cells.
    within = grey - F.interpolate(F.avg_pool2d(grey, 2), scale_factor=2)
    energy = 4 * structure(grey).square().sum() + within.square().sum()
    expected = (energy / (energy + 3e-4 * 32**2)).item()
    assert drawing_quality(image).item() == pytest.approx(expected, abs=1e-3)
    negative = drawing_quality(1 - image).item()
    assert negative < 0.5  # the gain can't be negative


@pytest.mark.parametrize("shading", ["even", "ramp"])
def test_quality_of_a_picture_without_shapes_is_nil(shading):
    steps = torch.linspace(0, 1, 32) if shading == "ramp" else torch.full((32,), 0.5)
    image = steps.expand(1, 3, 32, 32).contiguous()
    assert drawing_quality(image).item() == pytest.approx(0, abs=0.1)


def test_structure_of_a_point_and_of_a_ramp_by_hand():
    point = torch.zeros(1, 1, 32, 32)
    point[..., 16:18, 16:18] = 1  # the cell at row 8, column 8
    found = structure(point).view(16, 16)
    assert found[8, 8].item() == pytest.approx(1 - 1 / 49)
    assert found[5, 11].item() == pytest.approx(-1 / 49)
    assert found[4, 8].item() == pytest.approx(0, abs=1e-6)
    # Of a row of cells 0, 1, ..., 15: at the border four cells of 0, then 1, 2 and 3.
    ramp = torch.arange(16.0).repeat_interleave(2).expand(1, 1, 32, 32)
    found = structure(ramp).view(16, 16)
    assert found[:, 3:13].abs().max().item() == pytest.approx(0, abs=1e-5)
    assert found[7, 0].item() == pytest.approx(-6 / 7, rel=1e-4)


def test_what_counts_is_a_logistic_curve():
    odds = torch.tensor([-2.0, 0.0, 1.0])
    weights = well_drawn(QUALITY_NEEDED + QUALITY_TEMPERATURE * odds)
    expected = [1 / (1 + np.exp(2)), 0.5, np.e / (1 + np.e)]
    assert weights.tolist() == pytest.approx(expected, abs=1e-4)


def test_taste_is_the_product_of_its_parts(animals):
    images = animals.images[:5]
    expected = well_drawn(drawing_quality(images))
    for seen, taste in (
        (warmth, WARMTH_TASTE),
        (contrast, CONTRAST_TASTE),
        (light, LIGHT_TASTE),
    ):
        expected = expected * bump(seen(images), *taste)
    assert torch.allclose(gold_taste(images), expected)


@pytest.mark.parametrize("colour", COLOURS)
def test_quality_hardly_minds_other_colours(colour):
    scenes = [Scene(name, colour=colour) for name in ALL_ANIMALS]
    counting = well_drawn(drawing_quality(pictures(scenes, 700))).mean()
    # Yellow and pink are so light that they change which parts of an animal are dark.
    assert counting > {"yellow": 0.2, "pink": 0.4}.get(colour, 0.6)


def test_taste_has_a_peak_and_not_a_slope():
    peak, width = WARMTH_TASTE
    x = torch.tensor([peak - width, peak, peak + width])
    assert bump(x, peak, width).tolist() == pytest.approx(
        [np.exp(-0.5), 1, np.exp(-0.5)]
    )
    assert 0 < CONTRAST_TASTE[0] < 0.5


def test_warmth_contrast_and_light_by_hand():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0, :, 0] = 0.5  # red on half of the pixels
    assert warmth(image).item() == pytest.approx(0.25)
    # Luma 0.299 * 0.5 on one half and 0 on the other: deviation half of it.
    assert contrast(image).item() == pytest.approx(0.299 * 0.5 / 2)
    assert light(image).item() == pytest.approx(0.299 * 0.5 / 2)


def test_wrong_inputs_are_errors():
    with pytest.raises(ValueError, match="32"):
        gold_taste(torch.rand(1, 3, 16, 16))
    with pytest.raises(VocabularyError):
        gold_match(torch.rand(1, 3, 32, 32), ["a unicorn"])


def test_rivals_include_the_scene_itself_once():
    for prompt in ("cat", *COMPLEX):
        scene = parse(prompt)
        candidates = gold.candidate_scenes(scene)
        assert candidates.count(scene) == 1
        assert len({describe(c) for c in candidates}) == len(candidates)
