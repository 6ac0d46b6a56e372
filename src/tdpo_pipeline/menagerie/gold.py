"""The gold rewards: what a picture is truly worth, by construction and not by training.

``gold_match`` asks whether a picture shows what its prompt says. It is analysis by
synthesis: the picture is compared with the renderer's own pictures of the prompt's
scene, over a grid of everything that does not matter (shift, scale, mirror image), the
tone of the background being fitted in closed form.

``gold_taste`` asks whether a picture is to a fixed taste, whatever its prompt. The
taste has a peak and not a slope: a picture may be too warm as well as too cold. It
counts only as far as the picture is a well-drawn animal of whatever colours.

Both are deterministic, lie in [0, 1] and have no trained part. Their constants were
fixed before any fine-tuning was looked at. Nothing is ever trained on them but the
proxies, each on a noisy sample of one of them.
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

RIVAL_TEMPERATURE = 0.03
"""Lead in explained fraction over which a rival scene loses its weight by 1/e."""

WARMTH_TASTE = (0.20, 0.10)
"""Peak and width of the taste in ``warmth``."""

CONTRAST_TASTE = (0.27, 0.07)
"""Peak and width of the taste in ``contrast``."""

QUALITY_RANGE = (0.7, 0.95)
"""``drawing_quality`` at which a picture starts to count, and counts in full."""

_LUMA = torch.tensor([0.299, 0.587, 0.114])
_CELL = 2
_FLAT = 1e-3 * 3 * IMAGE_SIZE**2


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


@lru_cache(maxsize=1024)
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


@lru_cache(maxsize=1024)
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

    The product of two bumps exp(-((x - peak) / width)^2 / 2), one over ``warmth`` and
    one over ``contrast``, times how well the picture is drawn: 0 where
    ``drawing_quality`` is at most ``QUALITY_RANGE[0]``, 1 from ``QUALITY_RANGE[1]``
    on, linear between.

    Args:
        images: Float in [0, 1], shape (N, 3, 32, 32), any device.

    Returns:
        float32 in [0, 1], shape (N,), without gradient, on the images' device.

    Raises:
        ValueError: If the images are of another shape.
    """
    pictures = _checked(images)
    bad, good = QUALITY_RANGE
    drawn = ((drawing_quality(pictures) - bad) / (good - bad)).clamp(0, 1)
    liked = bump(warmth(pictures), *WARMTH_TASTE)
    liked = liked * bump(contrast(pictures), *CONTRAST_TASTE)
    return (drawn * liked).to(images.device)


def bump(x: Tensor, peak: float, width: float) -> Tensor:
    """exp(-((x - peak) / width)^2 / 2): 1 at the peak, less on both sides of it."""
    return torch.exp(-(((x - peak) / width) ** 2) / 2)


def warmth(images: Tensor) -> Tensor:
    """Mean of red minus mean of blue, in [-1, 1], shape (N,)."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))


def contrast(images: Tensor) -> Tensor:
    """Standard deviation of the luminance over the pixels, in [0, 0.5], shape (N,)."""
    return luminance(images).flatten(1).std(1, correction=0)


def luminance(images: Tensor) -> Tensor:
    """Rec. 601 luma of pictures (N, 3, H, W), shape (N, 1, H, W)."""
    return (images * _LUMA.view(1, 3, 1, 1)).sum(1, keepdim=True)


def drawing_quality(images: Tensor) -> Tensor:
    """Fraction of a picture's luminance that the best-matching animal explains.

    The best of all 53 plain animals over the grid of nuisances and over dark, middle
    and light backgrounds, with a gain (not negative) and an offset fitted. So an animal
    of any colour counts as well drawn, and texture, noise or a fragment doesn't; nor
    does a scene with a place, props or several animals.

    Args:
        images: float32, shape (N, 3, 32, 32).

    Returns:
        float32, shape (N,), at most 1.
    """
    grey = luminance(images)
    seen = see(grey)
    centred = seen.cells - seen.cells.mean(1, keepdim=True)
    templates = _grey_templates()
    along, nearest = (centred @ templates.pattern.T).max(1)
    gain = along.clamp(min=0) / templates.size[nearest]
    residual = centred.square().sum(1) - along.clamp(min=0).square()
    fine = (seen.fine - gain.square() * templates.fine[nearest]).abs()
    return 1 - (_CELL**2 * residual + fine) / (seen.variation + _FLAT / 3)


@dataclass(frozen=True)
class GreyTemplates:
    """The luminance of all plain animals over nuisances and shades, M in all.

    Attributes:
        pattern: Between cells, centred and of norm 1, float32, shape (M, 256).
        size: Norm of the pattern before, shape (M,).
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
    pattern = cells(pictures)
    pattern = pattern - pattern.mean(1, keepdim=True)
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
