from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tdpo_pipeline.diffusion.policy import CheckpointError, Policy
from tdpo_pipeline.figures.strips import labelled
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings
from tdpo_pipeline.pipelines.sample.nodes import SampleSettings, sample
from tdpo_pipeline.prompts import PromptError
from tests import tiny

MENAGERIE = PromptSettings(vocabulary="menagerie", files="none")
COMPUTE = tiny.training()


def settings(**changes: object) -> SampleSettings:
    values = {
        "checkpoint": None,
        "prompts": "cat",
        "images_per_prompt": 2,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "eta": 1.0,
        "seed": 0,
        "folder": "data/08_reporting",
    }
    return SampleSettings.model_validate(values | changes)


def test_a_row_a_prompt(
    base_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("tdpo_pipeline.report"), "propagate", True)
    caplog.set_level(logging.INFO, logger="tdpo_pipeline.report")
    path = tmp_path / "mine.txt"
    path.write_text("cat\ndog\n")
    pictures, index = sample(
        settings(prompts=str(path)), MENAGERIE, COMPUTE, base_model
    )
    # 16 pixels hold 2 letters a line: "ca", "t" and "do", "g", of 12 pixels each, and 2
    # more of air.
    assert pictures.shape == (2 * (8 + 26), 2 * 8, 3)
    assert pictures.dtype == np.uint8
    assert index["prompts"] == ["cat", "dog"]
    assert "folder" not in index
    assert "in data/08_reporting/samples.png" in caplog.text
    assert "replaces" in caplog.text


def test_a_picture_depends_on_its_seed_and_prompt_alone(base_model: Path) -> None:
    both, _ = sample(settings(), MENAGERIE, COMPUTE, base_model)
    second, _ = sample(
        settings(images_per_prompt=1, seed=1), MENAGERIE, COMPUTE, base_model
    )
    # The pictures are below their label, which is as high as it must be for its width.
    both, second = both[-8:], second[-8:]
    np.testing.assert_allclose(both[:, 8:].astype(int), second.astype(int), atol=1)
    assert (both[:, :8] != both[:, 8:]).any()


def test_every_row_has_its_prompt_above_it() -> None:
    tiles = np.full((2 * 8, 64, 3), 128, np.uint8)
    picture = labelled(tiles, ["cat", "dog"])
    assert picture.shape == (2 * (14 + 8), 64, 3)
    rows = picture.reshape(2, 22, 64, 3)
    assert (rows[:, 14:] == 128).all()
    labels = rows[:, :14]
    assert labels.min() < 64 and labels.max() == 255
    assert (labels[0] != labels[1]).any()


@pytest.mark.parametrize("lora", [tiny.LORA, None])
def test_a_checkpoint_changes_the_pictures(
    base_model: Path, tmp_path: Path, lora: object
) -> None:
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=lora)  # type: ignore[arg-type]
    weights = {name: value + 0.2 for name, value in policy.state_dict().items()}
    policy.load_state_dict(weights)
    policy.save(tmp_path / "epoch_0001")
    trained, index = sample(
        settings(checkpoint=str(tmp_path / "epoch_0001")),
        MENAGERIE,
        COMPUTE,
        base_model,
    )
    base, _ = sample(settings(), MENAGERIE, COMPUTE, base_model)
    assert (trained != base).any()
    assert index["checkpoint"] == str(tmp_path / "epoch_0001")


def test_a_folder_without_a_checkpoint(base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        sample(settings(checkpoint=str(tmp_path)), MENAGERIE, COMPUTE, base_model)


def test_a_prompt_outside_the_vocabulary(base_model: Path) -> None:
    with pytest.raises(PromptError, match="zebbra"):
        sample(settings(prompts="a zebbra"), MENAGERIE, COMPUTE, base_model)


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt(tmp_path: Path, prompt: str) -> None:
    anything = PromptSettings(vocabulary="open", files="none")
    with pytest.raises(PromptError, match=r"sample\.prompts is empty: give a prompt"):
        sample(settings(prompts=prompt), anything, COMPUTE, tmp_path / "no_base_model")


@pytest.mark.parametrize("name", ["simple_animls", "imagenet_animls/32"])
def test_a_misspelt_set_is_no_prompt(base_model: Path, name: str) -> None:
    anything = PromptSettings(vocabulary="open", files="none")
    with pytest.raises(PromptError, match="did you mean (simple|imagenet)_animals"):
        sample(settings(prompts=name), anything, COMPUTE, base_model)


def test_a_whole_unet_of_another_base_model(tmp_path: Path) -> None:
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=None)
    policy.save(tmp_path / "epoch_0001")
    tiny.xl_pipeline().save_pretrained(tmp_path / "xl")
    checkpoint = settings(checkpoint=str(tmp_path / "epoch_0001"))
    with pytest.raises(CheckpointError, match="to another configuration"):
        sample(checkpoint, MENAGERIE, COMPUTE, tmp_path / "xl")


def test_an_adapter_of_another_base_model(tmp_path: Path) -> None:
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=tiny.LORA)
    policy.save(tmp_path / "epoch_0001")
    tiny.xl_pipeline().save_pretrained(tmp_path / "xl")
    with pytest.raises(CheckpointError, match="of another base model.*8 inputs.*20"):
        sample(
            settings(checkpoint=str(tmp_path / "epoch_0001")),
            MENAGERIE,
            COMPUTE,
            tmp_path / "xl",
        )
