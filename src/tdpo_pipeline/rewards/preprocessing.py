"""From an image to what CLIP-like scorers see: one way for all of them, with a gradient.

    8 bits (unless a gradient is asked for)
    bicubic resize with antialiasing, shortest side to the model's size, and a centre
    crop; for HPSv2 the longest side, and black borders
    CLIP's mean and standard deviation

The scorers' own code does this with PIL, which has no gradient. Torch's bicubic kernel
with antialiasing is the same up to PIL's rounding to 8 bits; without antialiasing it
would be off by tens of levels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def wants_gradient(images: Tensor) -> bool:
    """Whether a gradient is to reach these images."""
    return torch.is_grad_enabled() and images.requires_grad


def levels(images: Tensor) -> Tensor:
    """The 8-bit levels of images in [0, 1]: uint8, same shape, on the same device."""
    return (images.detach().float() * 255).round().clamp(0, 255).to(torch.uint8)


def eight_bit(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 8 bits, as if saved and read; there is no gradient."""
    return levels(images) / 255


def resize_and_crop(images: Tensor, size: int) -> Tensor:
    """The central square of images whose shortest side is resized to ``size``.

    Bicubic with antialiasing; the longer side is rounded down and the crop's corner to
    the nearest, as in torchvision and OpenCLIP.

    Args:
        images: Float, shape (N, 3, H, W).
        size: Side of the result.

    Returns:
        Shape (N, 3, size, size); values may overshoot a little at hard edges.
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    if short != size:
        target = [int(size * side / short) for side in (height, width)]
        images = F.interpolate(
            images, target, mode="bicubic", antialias=True, align_corners=False
        )
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def resize_and_pad(images: Tensor, size: int) -> Tensor:
    """Images whose longest side is resized to ``size``, in the middle of a black square.

    Of square images the same as :func:`resize_and_crop`. Sides are rounded to the
    nearest, and of an odd border the smaller half comes first, as in HPSv2's code.

    Args:
        images: Float, shape (N, 3, H, W).
        size: Side of the result.

    Returns:
        Shape (N, 3, size, size); values may overshoot a little at hard edges.
    """
    long = max(images.shape[-2:])
    if long != size:
        target = [max(1, round(side * size / long)) for side in images.shape[-2:]]
        images = F.interpolate(
            images, target, mode="bicubic", antialias=True, align_corners=False
        )
    down, across = (size - side for side in images.shape[-2:])
    borders = (across // 2, across - across // 2, down // 2, down - down // 2)
    return F.pad(images, borders)


Fit = Literal["crop", "pad"]
"""How an image that isn't square becomes one."""


def clip_pixels(images: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """Pixel values of images for a scorer that sees ``size`` x ``size`` pixels.

    Images are rounded to 8 bits first, as every scorer's own pipeline does, except
    where a gradient is asked for, which rounding would cut.

    Args:
        images: Float in [0, 1], shape (N, 3, H, W).
        size: Side of what the scorer sees.
        fit: By :func:`resize_and_crop` or :func:`resize_and_pad`.

    Returns:
        Normalised, float32, shape (N, 3, size, size).
    """
    images = images.float()
    if not wants_gradient(images):
        images = eight_bit(images)
    resize = resize_and_pad if fit == "pad" else resize_and_crop
    pixels = resize(images, size)
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std
