"""The gold rewards: what a picture is truly worth, by construction and not by training.

``gold_match`` asks whether a picture shows what its prompt says. It is analysis by
synthesis: the picture is compared with the renderer's own pictures of the prompt's
scene, over a grid of everything that does not matter (shift, scale, mirror image), the
tone of the background being fitted in closed form.

``gold_taste`` asks whether a picture is to a fixed taste, whatever its prompt. The
taste has a peak and not a slope: a picture may be too warm as well as too cold. It
counts only if the picture is a well-drawn animal, of its own colours or others.

Both are deterministic, lie in [0, 1] and have no trained part. The constants of the
match were fixed before any fine-tuning was looked at. Those of the taste were revised
after first fine-tunings on an earlier version of it; the present ones were chosen on
renders and on samples of the base model of that time, and kept when it was trained
again. Nothing is ever trained on them but the proxies, each on a noisy sample of one of
them. ``benchmarks/golds.py`` measures both on the base model that is shipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tdpo_pipeline.menagerie import vocabulary as words
from tdpo_pipeline.menagerie.render import IMAGE_SIZE, Nuisance, render_parts
from tdpo_pipeline.menagerie.scenes import Scene, parse

SHIFTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Shifts of the templates in both directions, in pixels."""

SCALES = (0.88, 0.975, 1.07)
"""Scales of the templates."""

LOOKALIKES = 5
"""Animals that a prompt of more than a noun is told apart from."""

SCENES_KEPT = 4096
"""Scenes whose templates, 0.46 MB each, and whose rivals are kept.

``broad_scenes`` and their rivals are 3,898, 1.8 GB; with fewer kept, every epoch on that set
would draw most of them again. The other sets have some hundreds."""

RIVAL_TEMPERATURE = 0.03
"""Lead in explained fraction over which a rival scene loses its weight by 1/e."""

WARMTH_TASTE = (0.24, 0.14)
"""Peak and width of the taste in ``warmth``: 2.3 and 1.7 standard deviations of the
samples of single animals from the base model that it was chosen on (0.051 +- 0.082;
424 at guidance 2; the shipped one's have 0.050 +- 0.084). So most samples can be
improved, and none has to leave the range of pictures to be liked."""

CONTRAST_TASTE = (0.29, 0.08)
"""Peak and width of the taste in ``contrast``: likewise 2.1 and 1.7 standard deviations
(0.191 +- 0.047; shipped 0.191 +- 0.046)."""

LIGHT_TASTE = (0.70, 0.15)
"""Peak and width of the taste in ``light``: the peak at that base model's mean (0.708
+- 0.066, as the shipped one's) and wide, because it is only there against pictures that
are too dark or too bright. ``drawing_quality`` doesn't mind those."""

QUALITY_NEEDED = 0.74
"""``drawing_quality`` at which half of the taste counts.

About 95 % of clean renders lie above, 93 to 98 % of blurred, noisy and occluded ones
below; of the base model's samples about 80 % lie above."""

QUALITY_TEMPERATURE = 0.015
"""Change of ``drawing_quality`` that multiplies the odds of counting by e.

Narrow beside the gap between clean and spoiled renders (0.3 in the mean), so that most
spoiled pictures to the taste are worth less than clean ones that aren't; but not a
step, so that poorly drawn pictures are still told from worse ones."""

_NEIGHBOURHOOD = 7
_LUMA = torch.tensor([0.299, 0.587, 0.114])
_CELL = 2
_FLAT = 1e-3 * 3 * IMAGE_SIZE**2
_NO_STRUCTURE = 3e-4 * IMAGE_SIZE**2


@dataclass(frozen=True)
class Bank:
    """A scene's pictures over the grid of G nuisances, as ``base + shade * tone``.

    All are averaged over cells of 2x2 pixels; ``fine`` is what that averaging loses.

    Attributes:
        base: Pictures of middle tone, float16 in [0, 1], shape (G, 768).
        tone: Change with the shade, float16, shape (G, 768).
        fine: Energy of the detail within cells, float32, shape (G,), see
            ``fine_energy``.
    """

    base: Tensor
    tone: Tensor
    fine: Tensor


def cells(images: Tensor) -> Tensor:
    """Means of 2x2 cells, flat: what is left when a pixel more or less is no matter.

    Args:
        images: Float, shape (N, C, 32, 32).

    Returns:
        float32, shape (N, C * 256).
    """
    return F.avg_pool2d(images.float(), _CELL).flatten(1)


def fine_energy(images: Tensor) -> Tensor:
    """Sum of squares of what ``cells`` loses, shape (N,).

    Detail is compared by its energy alone, because its place is only known to half a
    cell; a smeared picture has too little of it and a noisy one too much.
    """
    total = images.float().square().sum((1, 2, 3))
    return total - _CELL**2 * cells(images).square().sum(1)


def variation(images: Tensor) -> Tensor:
    """Sum of squares about each channel's own mean, shape (N,)."""
    return (images - images.mean((2, 3), keepdim=True)).float().square().sum((1, 2, 3))


@lru_cache(maxsize=SCENES_KEPT)
def template_bank(scene: Scene) -> Bank:
    """The renderer's pictures of ``scene`` over the grid of nuisances (G = 150)."""
    base, tone = _templates(scene)
    return Bank(cells(base).half(), cells(tone).half(), fine_energy(base))


def _templates(scene: Scene) -> tuple[Tensor, Tensor]:
    """Base and tone of a scene's pictures over the grid, float32 (G, 3, 32, 32)."""
    grid = itertools.product(SHIFTS, SHIFTS, SCALES)
    parts = [render_parts(scene, Nuisance(dx, dy, scale)) for dx, dy, scale in grid]
    bases, tones = zip(*parts, strict=True)
    return _with_mirror_images(np.stack(bases)), _with_mirror_images(np.stack(tones))


def _with_mirror_images(pictures: np.ndarray) -> Tensor:
    """(G/2, 32, 32, 3) in [0, 255] to (G, 3, 32, 32) in [0, 1], with mirror images.

    The grid of shifts is symmetric, so mirroring the whole bank renders the other half.
    """
    half = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    return torch.cat([half, half.flip(3)])


@dataclass(frozen=True)
class Seen:
    """What the golds look at in N pictures; see ``cells`` and ``fine_energy``.

    Attributes:
        cells: Shape (N, 768).
        fine: Shape (N,).
        variation: Shape (N,).
    """

    cells: Tensor
    fine: Tensor
    variation: Tensor

    def __getitem__(self, rows: Tensor) -> Seen:
        """Some of the pictures."""
        return Seen(self.cells[rows], self.fine[rows], self.variation[rows])


def see(images: Tensor) -> Seen:
    """Reduce pictures (N, C, 32, 32) to what the golds look at."""
    return Seen(cells(images), fine_energy(images), variation(images))


def explained(seen: Seen, bank: Bank) -> Tensor:
    """Fraction of the pictures' variation that a scene's best template explains.

    1 - (residual between cells + difference in fine energy) / variation, the residual
    being the least over the grid of nuisances and over shades in [-1, 1].

    Returns:
        float32, shape (N,), at most 1, and 1 only for a picture that is the template.
        Negative for a picture that is better explained by its own mean colour.
    """
    residual, nearest = _residuals(seen.cells, bank).min(1)
    lost = _CELL**2 * residual + (seen.fine - bank.fine[nearest]).abs()
    return 1 - lost / (seen.variation + _FLAT)


def _residuals(x: Tensor, bank: Bank) -> Tensor:
    """Squared distances (N, G) of x (N, 768) to the templates at their best shade."""
    base, tone = bank.base.float(), bank.tone.float()
    tone_energy = tone.square().sum(1).clamp(min=1e-9)
    along = x @ tone.T - (base * tone).sum(1)
    shade = (along / tone_energy).clamp(-1, 1)
    to_base = x.square().sum(1, keepdim=True) - 2 * x @ base.T + base.square().sum(1)
    return to_base - 2 * shade * along + shade.square() * tone_energy


def gold_match(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Does each picture show what its prompt says?

    The explained fraction of the prompt's scene (below 0 counts as 0), times the
    probability of that scene among its rivals, a softmax of explained fractions at
    temperature ``RIVAL_TEMPERATURE``. So a fine picture of another animal, colour,
    number, companion, place or activity is worth about nothing, and a poor picture of
    the right scene little.

    Args:
        images: Float in [0, 1], shape (N, 3, 32, 32), any device.
        prompts: N prompts of Menagerie's language.

    Returns:
        float32 in [0, 1], shape (N,), without gradient, on the images' device.

    Raises:
        VocabularyError: If a prompt isn't in Menagerie's language.
        ValueError: If the images are of another shape.
    """
    seen = see(_checked(images))
    scenes = [parse(prompt) for prompt in prompts]
    scores = torch.empty(len(images))
    for candidates, rows in _by_candidates(scenes).items():
        fractions = torch.stack(
            [explained(seen[rows], template_bank(scene)) for scene in candidates], 1
        )
        told = torch.tensor([candidates.index(scenes[row]) for row in rows])
        chance = torch.softmax(fractions / RIVAL_TEMPERATURE, 1)
        scores[rows] = (fractions.clamp(min=0) * chance)[torch.arange(len(rows)), told]
    return scores.to(images.device)


def _by_candidates(scenes: Sequence[Scene]) -> dict[tuple[Scene, ...], Tensor]:
    """Rows of pictures that choose among the same candidate scenes."""
    rows: dict[tuple[Scene, ...], list[int]] = {}
    for row, scene in enumerate(scenes):
        rows.setdefault(candidate_scenes(scene), []).append(row)
    return {candidates: torch.tensor(where) for candidates, where in rows.items()}


@lru_cache(maxsize=SCENES_KEPT)
def candidate_scenes(scene: Scene) -> tuple[Scene, ...]:
    """The scenes that a picture of ``scene`` is told apart from, with itself.

    For a plain noun these are all plain nouns; otherwise all scenes in which one of
    the things that the prompt names is another one or left out.
    """
    if scene == Scene(scene.subject):
        return tuple(Scene(noun) for noun in words.NOUNS)
    edits = [replace(scene, subject=noun) for noun in _others(scene, scene.subject)]
    if scene.companion is not None:
        others = _others(scene, scene.companion)
        edits += [replace(scene, companion=noun) for noun in (None, *others)]
    if scene.count > 1:
        edits += [replace(scene, count=n) for n in (1, *words.NUMBERS.values())]
    if scene.colour is not None:
        edits += [replace(scene, colour=colour) for colour in (None, *words.COLOURS)]
    if scene.place is not None:
        edits += [replace(scene, place=place) for place in (None, *words.PLACES)]
    if scene.activity is not None:
        activities = (None, *words.ALL_ACTIVITIES)
        edits += [replace(scene, activity=activity) for activity in activities]
    return (scene, *(edit for edit in dict.fromkeys(edits) if edit != scene))


def _others(scene: Scene, noun: str) -> list[str]:
    """Lookalikes of ``noun`` that aren't in the scene yet."""
    return [n for n in lookalikes(noun) if n not in (scene.subject, scene.companion)]


@lru_cache(maxsize=128)
def lookalikes(noun: str) -> tuple[str, ...]:
    """The animals whose plain pictures explain that of ``noun`` best."""
    base, _ = render_parts(Scene(noun), Nuisance())
    picture = see(torch.from_numpy(base).permute(2, 0, 1)[None] / 255)
    fractions = {
        other: float(explained(picture, template_bank(Scene(other))))
        for other in words.ALL_ANIMALS
        if other != noun
    }
    return tuple(sorted(fractions, key=fractions.__getitem__)[-LOOKALIKES:])


def gold_taste(images: Tensor) -> Tensor:
    """Is each picture to the taste of this world, whatever it shows?

    The product of three bumps, over ``warmth``, ``contrast`` and ``light``, times how
    far the picture counts as ``well_drawn``. A spoiled picture is worth about nothing,
    and so is one that shows no single animal.

    Args:
        images: Float in [0, 1], shape (N, 3, 32, 32), any device.

    Returns:
        float32 in [0, 1], shape (N,), without gradient, on the images' device.

    Raises:
        ValueError: If the images are of another shape.
    """
    pictures = _checked(images)
    liked = (
        bump(warmth(pictures), *WARMTH_TASTE)
        * bump(contrast(pictures), *CONTRAST_TASTE)
        * bump(light(pictures), *LIGHT_TASTE)
    )
    return (liked * well_drawn(drawing_quality(pictures))).to(images.device)


def bump(x: Tensor, peak: float, width: float) -> Tensor:
    """exp(-((x - peak) / width)^2 / 2): 1 at the peak, less on both sides of it."""
    return torch.exp(-(((x - peak) / width) ** 2) / 2)


def warmth(images: Tensor) -> Tensor:
    """Mean of red minus mean of blue, in [-1, 1], shape (N,)."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))


def contrast(images: Tensor) -> Tensor:
    """Standard deviation of the luminance over the pixels, in [0, 0.5], shape (N,)."""
    return luminance(images).flatten(1).std(1, correction=0)


def light(images: Tensor) -> Tensor:
    """Mean of the luminance over the pixels, in [0, 1], shape (N,)."""
    return luminance(images).mean((1, 2, 3))


def luminance(images: Tensor) -> Tensor:
    """Rec. 601 luma of pictures (N, 3, H, W), shape (N, 1, H, W)."""
    return (images * _LUMA.view(1, 3, 1, 1)).sum(1, keepdim=True)


def well_drawn(quality: Tensor) -> Tensor:
    """Weight in [0, 1] of a drawing of this quality, shape (N,).

    A logistic curve: 1/2 at ``QUALITY_NEEDED``, with ``QUALITY_TEMPERATURE``.
    """
    return torch.sigmoid((quality - QUALITY_NEEDED) / QUALITY_TEMPERATURE)


def drawing_quality(images: Tensor) -> Tensor:
    """Fraction of a picture's structure that the best-matching animal explains.

    The best of all 53 plain animals over the grid of nuisances and over dark, middle
    and light backgrounds, with a gain (not negative) fitted. ``structure`` is compared
    between cells and ``fine_energy`` within them. So an animal counts as well drawn
    in any smooth light, and in any colour that leaves its light and dark parts what
    they were (most do; yellow and pink often don't); texture, noise, a smear or a
    fragment doesn't; nor does a scene with a place, props or several animals, nor a
    picture without structure.

    Args:
        images: float32, shape (N, 3, 32, 32).

    Returns:
        float32, shape (N,), less than 1; 0 for a flat picture, and negative for one
        whose detail is less like the best-matching animal's than none would be.
    """
    grey = luminance(images)
    pattern, fine = structure(grey), fine_energy(grey)
    energy = pattern.square().sum(1)
    templates = _grey_templates()
    along, nearest = (pattern @ templates.pattern.T).max(1)
    along = along.clamp(min=0)
    gain = along / templates.size[nearest]
    residual = _CELL**2 * (energy - along.square())
    lost = residual + (fine - gain.square() * templates.fine[nearest]).abs()
    total = _CELL**2 * energy + fine
    return (total - lost) / (total + _NO_STRUCTURE)


def structure(grey: Tensor) -> Tensor:
    """Cells of grey pictures, less the mean of the 7x7 cells around each.

    That is what makes shapes out of light: a large part of a picture's variation is
    how light it is on the whole here and there, which a blurred or half hidden picture
    keeps, so that by it spoiled pictures would be hard to tell from clean ones.

    Args:
        grey: float32, shape (N, 1, 32, 32).

    Returns:
        float32, shape (N, 256); 0 where the light is even or changes at a steady rate,
        but for the border, where the outermost cells are repeated.
    """
    grid = F.avg_pool2d(grey, _CELL)
    border = _NEIGHBOURHOOD // 2
    padded = F.pad(grid, (border,) * 4, mode="replicate")
    return (grid - F.avg_pool2d(padded, _NEIGHBOURHOOD, 1)).flatten(1)


@dataclass(frozen=True)
class GreyTemplates:
    """The luminance of all plain animals over nuisances and shades, M in all.

    Attributes:
        pattern: ``structure`` divided by its norm, float32, shape (M, 256).
        size: That norm, shape (M,).
        fine: Energy of the detail within cells, shape (M,).
    """

    pattern: Tensor
    size: Tensor
    fine: Tensor


@lru_cache(maxsize=1)
def _grey_templates() -> GreyTemplates:
    """Templates of the 53 animals: M = 53 animals x 3 shades x 150 nuisances."""
    banks = [_grey_bank(Scene(animal)) for animal in words.ALL_ANIMALS]
    patterns, sizes, fines = zip(*banks, strict=True)
    return GreyTemplates(torch.cat(patterns), torch.cat(sizes), torch.cat(fines))


def _grey_bank(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Pattern, size and fine energy of a scene's luminance (3G templates)."""
    base, tone = (luminance(part) for part in _templates(scene))
    pictures = torch.cat([base + shade * tone for shade in (-1, 0, 1)])
    pattern = structure(pictures)
    size = pattern.norm(dim=1)
    return pattern / size[:, None], size, fine_energy(pictures)


def _checked(images: Tensor) -> Tensor:
    """Pictures on the CPU as float32, without gradient.

    Raises:
        ValueError: If they aren't of shape (N, 3, 32, 32).
    """
    if images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(
            f"The gold rewards look at pictures of shape (N, 3, {IMAGE_SIZE}, "
            f"{IMAGE_SIZE}); got {tuple(images.shape)}."
        )
    return images.detach().float().cpu()
