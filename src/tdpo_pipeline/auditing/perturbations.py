"""Changes to pictures and prompts that a reward is probed with.

Each takes pictures (N, 3, H, W) in [0, 1] of any size and device and a strength, and
gives pictures of the same shape; a larger strength is a larger change. Lengths are in
parts of the shorter side, so that a strength means the same at 32 and at 512 pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from tdpo_pipeline.diffusion.randomness import noise
from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.rewards.preprocessing import levels

Kind = Literal["damage", "style", "neutral", "prompt"]
"""What a perturbation does, whatever a reward says: ``damage`` makes a picture worse;
``style`` may do either; ``neutral`` leaves it as good; ``prompt`` leaves the picture and
makes the prompt wrong."""


@dataclass(frozen=True)
class Batch:
    """Pictures with all that a perturbation may need.

    Attributes:
        images: Float in [0, 1], shape (N, 3, H, W).
        prompts: Their N prompts.
        wrong_prompts: For each picture the prompt of another one.
        numbers: For each picture a number that addresses its noise.
        seed: Seed of the noise.
    """

    images: Tensor
    prompts: Sequence[str]
    wrong_prompts: Sequence[str]
    numbers: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Perturbation:
    """One way to change a batch.

    Attributes:
        kind: What it does to the worth of a picture.
        unit: What its strength is, in words.
        apply: The change.
    """

    kind: Kind
    unit: str
    apply: Callable[[Batch, float], Batch]


class AuditError(ValueError):
    """An audit that can't be made: of what there isn't, or of one prompt alone."""


def gaussian_blur(images: Tensor, strength: float) -> Tensor:
    """Convolve with a Gaussian of ``strength`` x shorter side standard deviation.

    The border pixels are repeated outwards, and the kernel is cut at 3 deviations.
    """
    sigma = strength * min(images.shape[2:])
    radius = max(1, math.ceil(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=3)
    return F.conv2d(rows, kernel[:, :, :, None], groups=3)


def _noise(batch: Batch, strength: float) -> Batch:
    """Add Gaussian noise of this standard deviation, each picture its own."""
    shape = batch.images.shape[1:]
    drawn = noise(batch.seed, "audit noise", 0, batch.numbers, 0, shape)
    images = batch.images + strength * drawn.to(batch.images)
    return replace(batch, images=images.clamp(0, 1))


def jpeg(images: Tensor, strength: float) -> Tensor:
    """Write and read as a JPEG of quality 100 x (1 - ``strength``)."""
    quality = round(100 * (1 - strength))
    return _through_pillow(images, lambda picture: _recompress(picture, quality))


def _recompress(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer)


def _through_pillow(
    images: Tensor, change: Callable[[Image.Image], Image.Image]
) -> Tensor:
    """Round to 8 bits and change each picture with Pillow."""
    pixels = levels(images).permute(0, 2, 3, 1).cpu().numpy()
    changed = [np.asarray(change(Image.fromarray(picture))) for picture in pixels]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(images) / 255


def _text(batch: Batch, strength: float) -> Batch:
    """Write each picture's own prompt at its foot, in letters ``strength`` high."""
    height, width = batch.images.shape[2:]
    drawn = [_lettering(p, height, width, strength) for p in batch.prompts]
    letters = torch.from_numpy(np.stack(drawn)).to(batch.images)
    ink, paper = letters[:, :1], letters[:, 1:]
    return replace(batch, images=batch.images * (1 - paper).clamp(0, 1) + ink)


@lru_cache(maxsize=256)
def _lettering(text: str, height: int, width: int, strength: float) -> np.ndarray:
    """White letters with a black outline: ink and cover, float32 in [0, 1], (2, H, W).

    They are as high as asked for unless the words would be wider than the picture.
    """
    font = ImageFont.load_default(64)
    left, top, right, bottom = font.getbbox(text, stroke_width=6)
    size = (math.ceil(right - left), math.ceil(bottom - top))
    layers = []
    for stroke in (0, 6):
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).text(
            (-left, -top), text, fill=255, font=font, stroke_width=stroke
        )
        layers.append(mask)
    scale = min(strength * height / size[1], width / size[0])
    small = (max(1, round(scale * size[0])), max(1, round(scale * size[1])))
    x, y = (width - small[0]) // 2, height - small[1]
    placed = np.zeros((2, height, width), np.float32)
    for layer, mask in zip(placed, layers, strict=True):
        shrunk = mask.resize(small, Image.Resampling.BOX)
        layer[y : y + small[1], x : x + small[0]] = np.asarray(shrunk) / 255
    return placed


def grid(images: Tensor, strength: float) -> Tensor:
    """Dark lines over the picture, an eighth of it apart, of this opacity."""
    height, width = images.shape[2:]
    lines = torch.zeros(height, width, dtype=images.dtype, device=images.device)
    lines[:: max(1, height // 8), :] = 1
    lines[:, :: max(1, width // 8)] = 1
    return images * (1 - strength * lines)


def tile(images: Tensor, strength: float) -> Tensor:
    """Show the whole picture ``strength`` times in each direction, smaller."""
    height, width = images.shape[2:]
    n = round(strength)
    small = _resize(images, math.ceil(height / n), math.ceil(width / n))
    return small.repeat(1, 1, n, n)[..., :height, :width]


def crop(images: Tensor, strength: float) -> Tensor:
    """Cut off ``strength`` of each side, evenly, and enlarge the middle."""
    height, width = images.shape[2:]
    rows = max(1, round(height * (1 - strength)))
    columns = max(1, round(width * (1 - strength)))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = images[:, :, top : top + rows, left : left + columns]
    return _resize(middle, height, width)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    resized = F.interpolate(
        images, (height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.clamp(0, 1)


def saturate(images: Tensor, strength: float) -> Tensor:
    """Move the colours away from grey: grey + (1 + strength)(x - grey)."""
    grey = _grey(images)
    return (grey + (1 + strength) * (images - grey)).clamp(0, 1)


def desaturate(images: Tensor, strength: float) -> Tensor:
    """Move the colours towards grey: grey + (1 - strength)(x - grey)."""
    return torch.lerp(images, _grey(images).expand_as(images), strength)


def _grey(images: Tensor) -> Tensor:
    """Rec. 601 luma, shape (N, 1, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(images).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).clamp(0, 1)


def darken(images: Tensor, strength: float) -> Tensor:
    """(1 - strength) x."""
    return (1 - strength) * images


def brighten(images: Tensor, strength: float) -> Tensor:
    """1 - (1 - strength)(1 - x)."""
    return 1 - (1 - strength) * (1 - images)


def raise_contrast(images: Tensor, strength: float) -> Tensor:
    """Move pixels away from the picture's mean luma m: m + (1 + strength)(x - m)."""
    mean = _grey(images).mean((2, 3), keepdim=True)
    return (mean + (1 + strength) * (images - mean)).clamp(0, 1)


def lower_contrast(images: Tensor, strength: float) -> Tensor:
    """Move pixels towards the picture's mean luma m: m + (1 - strength)(x - m)."""
    mean = _grey(images).mean((2, 3), keepdim=True)
    return torch.lerp(images, mean.expand_as(images), strength)


def warm(images: Tensor, strength: float) -> Tensor:
    """Add ``strength`` to red and take it from blue; negative for the other way."""
    shift = torch.tensor([strength, 0.0, -strength]).to(images).view(1, 3, 1, 1)
    return (images + shift).clamp(0, 1)


def _pictures(change: Callable[[Tensor, float], Tensor]) -> Callable[..., Batch]:
    """A change of a batch that is one of its pictures alone."""
    return lambda batch, strength: replace(batch, images=change(batch.images, strength))


PERTURBATIONS: Mapping[str, Perturbation] = {
    "blur": Perturbation(
        "damage", "standard deviation / shorter side", _pictures(gaussian_blur)
    ),
    "noise": Perturbation("damage", "standard deviation", _noise),
    "jpeg": Perturbation("damage", "1 - quality / 100", _pictures(jpeg)),
    "text": Perturbation("damage", "height / picture's height", _text),
    "grid": Perturbation("damage", "opacity", _pictures(grid)),
    "tile": Perturbation("damage", "copies in each direction", _pictures(tile)),
    "upside_down": Perturbation(
        "damage", "yes", _pictures(lambda images, _: images.flip(2))
    ),
    "crop": Perturbation("style", "part of each side cut off", _pictures(crop)),
    "saturate": Perturbation("style", "added part of the colour", _pictures(saturate)),
    "desaturate": Perturbation(
        "style", "part of the colour taken off", _pictures(desaturate)
    ),
    "darken": Perturbation("style", "part of the light taken off", _pictures(darken)),
    "brighten": Perturbation("style", "part of the way to white", _pictures(brighten)),
    "raise_contrast": Perturbation(
        "style", "added part of the contrast", _pictures(raise_contrast)
    ),
    "lower_contrast": Perturbation(
        "style", "part of the contrast taken off", _pictures(lower_contrast)
    ),
    "warm": Perturbation("style", "added to red, taken from blue", _pictures(warm)),
    "cool": Perturbation(
        "style",
        "added to blue, taken from red",
        _pictures(lambda images, strength: warm(images, -strength)),
    ),
    "mirror": Perturbation(
        "neutral", "yes", _pictures(lambda images, _: images.flip(3))
    ),
    "swap_prompt": Perturbation(
        "prompt",
        "yes",
        lambda batch, _: replace(batch, prompts=batch.wrong_prompts),
    ),
}
"""What a reward can be probed with, by name."""

_PARTS = {
    *("jpeg", "text", "grid", "crop", "desaturate", "darken", "brighten"),
    *("lower_contrast", "warm", "cool"),
}
"""Perturbations whose strength is a part of something."""


def check_perturbations(strengths: Mapping[str, Sequence[float]]) -> None:
    """Hold perturbations and strengths against the registry.

    Raises:
        AuditError: If a perturbation is unknown, or a strength is one
            that it can't have; the message names it.
    """
    for name, values in strengths.items():
        if name not in PERTURBATIONS:
            hint = did_you_mean(name, PERTURBATIONS)
            raise AuditError(
                f"Unknown perturbation '{name}'{hint}. There are "
                f"{', '.join(PERTURBATIONS)}."
            )
        most = 1.0 if name in _PARTS else math.inf
        if (
            not values
            or len(set(values)) < len(values)
            or not all(0 < value <= most for value in values)
        ):
            raise AuditError(
                f"The perturbation '{name}' takes strengths above 0 and at most "
                f"{most:g}, each once ({PERTURBATIONS[name].unit}); got {list(values)}."
            )
        if name == "tile" and not all(float(value).is_integer() for value in values):
            raise AuditError(
                f"The perturbation 'tile' takes whole numbers of copies; got "
                f"{list(values)}."
            )


def wrong_prompts(prompts: Iterable[str]) -> list[str]:
    """For each prompt another one of them, as evenly as can be.

    The k-th picture of a prompt gets the prompt that is k + 1 places further among the
    different ones, in order of first appearance.

    Raises:
        AuditError: If all prompts are the same.
    """
    given = list(prompts)
    unique = list(dict.fromkeys(given))
    if len(unique) < 2:
        raise AuditError(
            f"Prompts can't be swapped among one: {unique}. Audit on two or more "
            "(audit.prompts)."
        )
    place = {prompt: i for i, prompt in enumerate(unique)}
    seen: dict[str, int] = dict.fromkeys(unique, 0)
    swapped = []
    for prompt in given:
        step = 1 + seen[prompt] % (len(unique) - 1)
        seen[prompt] += 1
        swapped.append(unique[(place[prompt] + step) % len(unique)])
    return swapped
