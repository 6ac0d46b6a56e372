"""Strips become small pictures, and the onset is marked."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tdpo_pipeline.figures.strips import Strip
from tdpo_pipeline.html_report import pictures


def strip(epochs: int, prompts: int = 2, size: int = 4) -> Strip:
    shades = np.linspace(0, 255, prompts).astype(np.uint8)
    tiles = np.broadcast_to(shades[:, None, None, None], (prompts, size, size, 3))
    names = tuple(f"prompt {i}" for i in range(prompts))
    return Strip({e: tiles.copy() for e in range(epochs)}, names)


def test_a_column_has_the_prompts_from_top_to_bottom() -> None:
    (point,) = pictures.checkpoints(strip(1, prompts=3, size=16))
    raw = base64.b64decode(point["picture"].removeprefix("data:image/webp;base64,"))
    picture = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)
    assert picture.shape == (48, 16, 3)
    # Three shades: 0, 127 and 255, up to compression.
    assert picture[[8, 24, 40], 8, 0] == pytest.approx([0, 127, 255], abs=6)


def test_large_tiles_are_scaled_down() -> None:
    tiles = strip(1, prompts=2, size=512).images[0]
    assert pictures.column(tiles).shape == (2 * 96, 96, 3)
    assert pictures.column(tiles[:, :, :256]).shape == (2 * 96, 48, 3)


def test_the_onset_is_the_first_checkpoint_that_is_not_before_it() -> None:
    shown = pictures.checkpoints(strip(5), onset=2.5)
    assert [p["epoch"] for p in shown if p["onset"]] == [3]
    assert not [p for p in pictures.checkpoints(strip(5)) if p["onset"]]
    assert not [p for p in pictures.checkpoints(strip(5), onset=9.0) if p["onset"]]


def test_many_checkpoints_are_thinned_out_but_for_the_onset() -> None:
    shown = [p["epoch"] for p in pictures.checkpoints(strip(101), onset=50)]
    assert len(shown) in (12, 13)
    assert {0, 50, 100} <= set(shown)
    # Evenly: 100 epochs in 11 steps of about 9.
    assert max(np.diff(shown)) <= 10
    assert pictures.shown_epochs([0, 4, 8]) == [0, 4, 8]


def test_many_prompts_are_thinned_out() -> None:
    names = pictures.shown_prompts(strip(1, prompts=14))
    assert len(names) == 8
    assert names[0] == "prompt 0"
    assert names[-1] == "prompt 13"
