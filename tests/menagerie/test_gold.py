import numpy as np
import pytest
import torch

from tdpo_pipeline.menagerie import gold
from tdpo_pipeline.menagerie.gold import (
    CONTRAST_TASTE,
    WARMTH_TASTE,
    bump,
    contrast,
    drawing_quality,
    gold_match,
    gold_taste,
    warmth,
)
from tdpo_pipeline.menagerie.proxies_training import (
    CORRUPTIONS,
    Pool,
    auc,
    corrupt,
    gold_aucs,
)
from tdpo_pipeline.menagerie.render import Nuisance, render, render_scene
from tdpo_pipeline.menagerie.scenes import Scene, VocabularyError, describe, parse
from tdpo_pipeline.menagerie.vocabulary import ALL_ANIMALS
from tdpo_pipeline.prompts import COMPLEX


def pictures(scenes, seed=0):
    arrays = np.stack([render(scene, seed + i) for i, scene in enumerate(scenes)])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def animals():
    scenes = [Scene(name) for name in ALL_ANIMALS]
    return Pool(pictures(scenes, 1000), scenes)


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
    # The taste loses least to occlusion: 0.96 of 800 pairs in proxy_report.json, so
    # that 53 pairs can't be held to 0.95.
    found = gold_aucs(animals, animals, 0)
    limits = {name: 0.9 if "taste" in name else 0.95 for name in found}
    assert {name: value for name, value in found.items() if value < limits[name]} == {}


def test_taste_needs_a_well_drawn_animal(animals):
    rng = np.random.default_rng(0)
    clean = drawing_quality(animals.images)
    assert clean.min() > 0.7
    for name in CORRUPTIONS:
        spoiled = drawing_quality(corrupt(animals.images, name, rng))
        if name != "darkening":  # a dark drawing is still a drawing
            assert auc(clean, spoiled) > 0.9


def test_quality_does_not_mind_other_colours():
    scenes = [Scene("cat"), Scene("cat", colour="green"), Scene("cat", colour="pink")]
    assert drawing_quality(pictures(scenes)).min() > 0.7


def test_taste_has_a_peak_and_not_a_slope():
    peak, width = WARMTH_TASTE
    x = torch.tensor([peak - width, peak, peak + width])
    assert bump(x, peak, width).tolist() == pytest.approx(
        [np.exp(-0.5), 1, np.exp(-0.5)]
    )
    assert 0 < CONTRAST_TASTE[0] < 0.5


def test_warmth_and_contrast_by_hand():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0, :, 0] = 0.5  # red on half of the pixels
    assert warmth(image).item() == pytest.approx(0.25)
    # Luma 0.299 * 0.5 on one half and 0 on the other: deviation half of it.
    assert contrast(image).item() == pytest.approx(0.299 * 0.5 / 2)


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
