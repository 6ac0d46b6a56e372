import numpy as np
import pytest
import torch
from PIL import Image

from tdpo_pipeline.rewards.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    clip_pixels,
    eight_bit,
    resize_and_crop,
    resize_and_pad,
)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def unnormalised(pixels):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return pixels * std + mean


def test_eight_bit_by_hand():
    # 0.5 is 127.5 levels, which rounds to the even 128; 1.001 is 255.255, past the end.
    values = torch.tensor([0.0, 0.5, 1.0, 1.001, -0.001, 0.3])
    expected = torch.tensor([0, 128, 255, 255, 0, 76]) / 255
    assert torch.equal(eight_bit(values), expected)


def test_at_its_own_size_an_image_is_only_normalised():
    image = torch.full((1, 3, 8, 8), 51 / 255)
    # Red: (0.2 - 0.48145466) / 0.26862954 = -1.04774.
    assert clip_pixels(image, 8)[0, 0, 0, 0].item() == pytest.approx(-1.04774, abs=1e-5)


@pytest.mark.parametrize("shape", [(96, 96), (72, 130), (131, 70)])
def test_it_is_pillows_bicubic_up_to_rounding(shape):
    # Smooth, as pictures are, with some noise.
    y, x = torch.meshgrid(
        *(torch.linspace(0, 6, side) for side in shape), indexing="ij"
    )
    picture = torch.stack([torch.sin(x + c) * torch.cos(y - c) for c in range(3)])
    image = eight_bit((0.5 + 0.4 * picture + 0.1 * noise(3, *shape)).clamp(0, 1))
    short = min(shape)
    height, width = (int(32 * side / short) for side in shape)
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    small = Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)
    top, left = round((height - 32) / 2), round((width - 32) / 2)
    small = small.crop((left, top, left + 32, top + 32))
    expected = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
    found = unnormalised(clip_pixels(image[None], 32))[0]
    error = (found - expected).abs() * 255
    # Pillow rounds to whole levels, after each of its two passes.
    assert error.max() < 2
    assert error.mean() < 0.4


def test_without_antialiasing_it_would_be_far_off():
    image = eight_bit(noise(1, 3, 96, 96))
    aliased = torch.nn.functional.interpolate(image, (32, 32), mode="bicubic")
    assert (resize_and_crop(image, 32) - aliased).abs().max() * 255 > 20


def test_a_gradient_is_not_cut_by_rounding():
    image = noise(1, 3, 40, 40).requires_grad_()
    pixels = clip_pixels(image, 32)
    pixels.square().sum().backward()
    assert (image.grad.abs() > 0).float().mean() > 0.99
    with torch.no_grad():
        rounded = clip_pixels(image, 32)
    assert torch.equal(rounded, clip_pixels(eight_bit(image.detach()), 32))
    # Half a level of 255, over the smallest deviation, and the kernel's negative lobes.
    assert 0 < (pixels - rounded).abs().max() < 2 * 0.5 / 255 / 0.26


def test_half_precision_images_are_scored_in_float32():
    assert clip_pixels(noise(1, 3, 8, 8).half(), 8).dtype == torch.float32


@pytest.mark.parametrize("side", [8, 20])
def test_padding_and_cropping_a_square_are_the_same(side):
    image = noise(2, 3, side, side)
    assert torch.equal(resize_and_pad(image, 8), resize_and_crop(image, 8))


def test_a_wide_image_is_seen_whole_between_black_borders():
    image = torch.ones(1, 3, 6, 16)
    # 6 x 16 becomes 3 x 8; of 5 black rows two are above.
    found = resize_and_pad(image, 8)
    expected = torch.zeros(1, 3, 8, 8)
    expected[:, :, 2:5] = 1
    torch.testing.assert_close(found, expected)
    tall = resize_and_pad(image.mT, 8)
    torch.testing.assert_close(tall, expected.mT)
    # Black is black before it is normalised.
    mean, std = (torch.tensor(v) for v in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(clip_pixels(image, 8, "pad")[0, :, 0, 0], -mean / std)


def test_a_sliver_keeps_a_pixel():
    assert resize_and_pad(torch.ones(1, 3, 1, 100), 8).sum() == pytest.approx(24)
