"""Perturbations of pictures small enough to work out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tdpo_pipeline.auditing import perturbations as p
from tdpo_pipeline.auditing.perturbations import (
    PERTURBATIONS,
    AuditError,
    Batch,
    check_perturbations,
    wrong_prompts,
)

STRENGTHS = {name: 0.5 for name in PERTURBATIONS} | {"tile": 2.0}


def batch(count: int = 3, size: int = 16) -> Batch:
    images = torch.rand(count, 3, size, size, generator=torch.manual_seed(0))
    prompts = ["cat", "dog", "cow"]
    wrong = wrong_prompts(prompts)
    return Batch(images, prompts[:count], wrong[:count], range(count), seed=5)


def flat(*colour: float) -> Tensor:
    """One picture of 4 x 4 pixels of one colour."""
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 4, 4)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_pictures_stay_pictures(name: str) -> None:
    given = batch()
    before = given.images.clone()
    changed = PERTURBATIONS[name].apply(given, STRENGTHS[name])
    assert changed.images.shape == given.images.shape
    assert changed.images.dtype == torch.float32
    assert 0 <= changed.images.min() and changed.images.max() <= 1
    assert torch.equal(given.images, before)
    is_swap = name == "swap_prompt"
    assert torch.equal(changed.images, before) == is_swap
    assert (list(changed.prompts) != list(given.prompts)) == is_swap


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_picture_changes_alike_in_any_batch(name: str) -> None:
    given = batch()
    alone = replace(
        given,
        images=given.images[1:2],
        prompts=given.prompts[1:2],
        wrong_prompts=given.wrong_prompts[1:2],
        numbers=given.numbers[1:2],
    )
    both = [PERTURBATIONS[name].apply(b, STRENGTHS[name]) for b in (given, alone)]
    torch.testing.assert_close(both[0].images[1:2], both[1].images)


LIGHT_AND_COLOUR = {"noise", "text", "grid", "darken", "brighten", "warm", "cool"}


@pytest.mark.parametrize("name", sorted(set(PERTURBATIONS) - LIGHT_AND_COLOUR))
def test_a_flat_grey_picture_has_nothing_to_change(name: str) -> None:
    grey = replace(batch(1), images=torch.full((1, 3, 16, 16), 0.5))
    changed = PERTURBATIONS[name].apply(grey, STRENGTHS[name]).images
    torch.testing.assert_close(changed, grey.images, atol=1 / 255, rtol=0)


def test_blur_by_hand() -> None:
    # A bright column in the middle of 9; sigma is 1/9 of the side, a pixel: weights
    # exp(-k^2 / 2) = 1, 0.6065, 0.1353, 0.0111 over their sum 2.5059.
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4] = 1
    row = p.gaussian_blur(image, 1 / 9)[0, 0, 4]
    expected = (
        torch.tensor([0.0111, 0.1353, 0.6065, 1, 0.6065, 0.1353, 0.0111]) / 2.5059
    )
    torch.testing.assert_close(row[1:8], expected, atol=1e-4, rtol=0)


def test_blur_means_the_same_at_another_size() -> None:
    small = torch.rand(1, 3, 8, 8, generator=torch.manual_seed(1))
    large = small.repeat_interleave(8, 2).repeat_interleave(8, 3)
    means = torch.nn.functional.avg_pool2d(p.gaussian_blur(large, 0.15), 8)
    torch.testing.assert_close(means, p.gaussian_blur(small, 0.15), atol=0.05, rtol=0)


def test_noise_has_its_deviation_and_its_address() -> None:
    grey = replace(batch(3, 64), images=torch.full((3, 3, 64, 64), 0.5))
    noisy = PERTURBATIONS["noise"].apply(grey, 0.1).images
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.03)
    assert not torch.equal(noisy[0], noisy[1])
    again = PERTURBATIONS["noise"].apply(replace(grey, seed=6), 0.1).images
    assert not torch.equal(noisy, again)


def test_jpeg_of_a_lower_quality_is_further_off() -> None:
    ramp = torch.linspace(0, 1, 16).expand(2, 3, 16, 16)
    off = [(p.jpeg(ramp, s) - ramp).abs().mean() for s in (0.05, 0.5, 0.95)]
    assert off[0] < off[1] < off[2]
    assert off[0] < 0.01


def test_colours_by_hand() -> None:
    # The luma of (1, 0.5, 0) is 0.299 + 0.587 x 0.5 = 0.5925.
    orange = flat(1, 0.5, 0)
    grey = flat(0.5925, 0.5925, 0.5925)
    torch.testing.assert_close(p.desaturate(orange, 1.0), grey)
    half = flat((1 + 0.5925) / 2, (0.5 + 0.5925) / 2, 0.5925 / 2)
    torch.testing.assert_close(p.desaturate(orange, 0.5), half)
    # 0.5925 + 2 (0.5 - 0.5925) = 0.4075; red and blue are at their ends.
    torch.testing.assert_close(p.saturate(orange, 1.0), flat(1, 0.4075, 0))
    torch.testing.assert_close(p.warm(flat(0.5, 0.5, 0.5), 0.2), flat(0.7, 0.5, 0.3))
    torch.testing.assert_close(p.warm(flat(0.5, 0.5, 0.1), -0.2), flat(0.3, 0.5, 0.3))


def test_light_by_hand() -> None:
    torch.testing.assert_close(p.darken(flat(0.5, 1, 0), 0.4), flat(0.3, 0.6, 0))
    torch.testing.assert_close(p.brighten(flat(0.5, 1, 0), 0.4), flat(0.7, 1, 0.4))
    # Half black, half grey 0.6: the mean is 0.3.
    image = torch.cat([torch.zeros(1, 3, 2, 4), torch.full((1, 3, 2, 4), 0.6)], 2)
    column = p.lower_contrast(image, 0.5)[0, 0, :, 0]
    torch.testing.assert_close(column, torch.tensor([0.15, 0.15, 0.45, 0.45]))
    column = p.raise_contrast(image, 0.5)[0, 0, :, 0]
    torch.testing.assert_close(column, torch.tensor([0.0, 0.0, 0.75, 0.75]))


def test_tile_shows_the_whole_picture_again() -> None:
    images = batch().images
    tiled = p.tile(images, 2.0)
    torch.testing.assert_close(tiled[..., :8, :8], tiled[..., 8:, 8:])
    torch.testing.assert_close(
        tiled[..., :8, :8].mean((2, 3)), images.mean((2, 3)), atol=0.03, rtol=0
    )
    # A side that can't be divided is filled all the same.
    assert p.tile(images, 3.0).shape == images.shape


def test_crop_enlarges_the_middle() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[..., 2:6, 2:6] = 1
    torch.testing.assert_close(p.crop(image, 0.5), torch.ones(1, 3, 8, 8))


def test_grid_by_hand() -> None:
    lined = p.grid(torch.ones(1, 3, 16, 16), 0.75)[0, 0]
    # A line every second pixel: what is on one is 1 - 0.75.
    assert lined[0].unique().tolist() == [0.25]
    assert lined[1].tolist() == [0.25, 1.0] * 8


def test_text_is_at_the_foot_as_high_as_asked() -> None:
    grey = replace(batch(3, 64), images=torch.full((3, 3, 64, 64), 0.5))
    changed = PERTURBATIONS["text"].apply(grey, 0.25).images
    touched = (changed != 0.5).any(1)
    rows = touched[0].any(1).nonzero().flatten()
    assert rows.max() == 63
    assert 64 - rows.min() == pytest.approx(16, abs=1)
    assert changed[0].max() > 0.9 and changed[0].min() < 0.1  # white and black
    assert not torch.equal(changed[0], changed[1])  # "cat", "dog"
    long = replace(grey, prompts=["four wolves in the park"] * 3)
    assert (PERTURBATIONS["text"].apply(long, 0.9).images != 0.5).any()


def test_flips() -> None:
    image = torch.arange(4.0).view(1, 1, 2, 2).expand(1, 3, 2, 2) / 3
    given = replace(batch(1), images=image)
    flipped = {
        name: (3 * PERTURBATIONS[name].apply(given, 1.0).images[0, 0])
        .flatten()
        .tolist()
        for name in ("mirror", "upside_down")
    }
    assert flipped == {"mirror": [1, 0, 3, 2], "upside_down": [2, 3, 0, 1]}


def test_wrong_prompts_by_hand() -> None:
    given = ["cat", "cat", "cat", "dog", "cow"]
    assert wrong_prompts(given) == ["dog", "cow", "dog", "cow", "cat"]
    with pytest.raises(ValueError, match="on two or more"):
        wrong_prompts(["cat", "cat"])


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"blurr": [0.1]}, "did you mean blur"),
        ({"darken": [1.5]}, r"'darken' takes strengths above 0 and at most 1"),
        ({"blur": [0.0]}, "'blur' takes strengths above 0 and at most inf"),
        ({"noise": []}, "got \\[\\]"),
        ({"noise": [0.1, 0.1]}, "each once"),
        ({"noise": [math.nan]}, "nan"),
        ({"tile": [1.5]}, "whole"),
    ],
)
def test_unknown_perturbations_are_errors(
    strengths: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(AuditError, match=message):
        check_perturbations(strengths)
