from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from tdpo_pipeline.diffusion.policy import CheckpointError, Policy
from tdpo_pipeline.pipelines.export.nodes import (
    ExportSettings,
    export,
    exported_rewards,
)
from tests import tiny

RUN = "ddpo.redness.s0"
HELD_OUT = "tests.tiny:Brightness"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a run with checkpoints of two epochs, and its base model."""
    data = tmp_path_factory.mktemp("data")
    tiny.pipeline().save_pretrained(data / "base_model")
    config = tiny.run_config(num_inference_steps=2, epochs=4)
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=tiny.LORA)
    for epoch in (2, 4):
        folder = data / f"06_models/checkpoints/ddpo/redness/s0/epoch_{epoch:04d}"
        policy.load_state_dict({k: v + 0.1 for k, v in policy.state_dict().items()})
        policy.save(folder)
        facts = {"run": config.key, "epoch": epoch, "reward_queries": 8 * epoch}
        facts["identity"] = "abc"
        (folder / "checkpoint.json").write_text(json.dumps(facts))
    write(data / "06_models/config/ddpo/redness/s0.yml", yaml.safe_dump(plain(config)))
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "reward_queries": [8, 16, 24, 32]})
    history = history.assign(redness_mean=0.5, redness_std=0.1, kl_to_base=1.0)
    write(
        data / "07_model_output/history/ddpo/redness/s0.csv",
        history.to_csv(index=False),
    )
    write(data / "05_model_input/train_prompts/redness.txt", "cat\ndog\n")
    return data


def plain(config: Any) -> dict[str, Any]:
    return config.model_dump(mode="json")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def settings(data: Path, **changes: object) -> ExportSettings:
    values = {
        "run": RUN,
        "checkpoint": "last",
        "data": str(data),
        "held_out": HELD_OUT,
        "strengths": (0.0, 0.5, 1.0),
        "images_per_prompt": 2,
        "seed": 0,
    }
    return ExportSettings.model_validate(values | changes)


def exported(data: Path, tmp_path: Path, **changes: object) -> Path:
    return export(
        settings(data, **changes), data / "base_model", data, str(tmp_path / "state")
    )


def test_a_folder_ready_to_upload(data: Path, tmp_path: Path) -> None:
    folder = exported(data, tmp_path)
    kohya = "lora_kohya.safetensors"
    names = ["README.md", "checkpoint.json", "pytorch_lora_weights.safetensors"]
    found = sorted(path.name for path in folder.iterdir())
    assert found == sorted([*names, kohya, "training_curves.png"])
    assert all(name.startswith("lora_unet_") for name in load_file(folder / kohya))
    assert json.loads((folder / "checkpoint.json").read_text())["epoch"] == 4
    weights = data / "06_models/checkpoints/ddpo/redness/s0/epoch_0004" / names[2]
    assert load_file(folder / names[2]).keys() == load_file(weights).keys()
    card = (folder / "README.md").read_text()
    assert "| strength | redness | tests.tiny:Brightness |" in card
    assert card.count("\n| 0.5 |") == 1
    assert "](training_curves.png)" in card
    assert kohya not in card  # nobody else has this base model
    assert Image.open(folder / "training_curves.png").format == "PNG"


def test_strengths_can_be_left_unmeasured(data: Path, tmp_path: Path) -> None:
    folder = exported(data, tmp_path, strengths=(), checkpoint=2)
    assert "Not measured." in (folder / "README.md").read_text()
    assert "epoch 2" in (folder / "README.md").read_text()


def test_the_best_checkpoint_is_told_by_the_held_out_reward(
    data: Path, tmp_path: Path
) -> None:
    path = data / "07_model_output/scores/ddpo/redness/s0.parquet"
    with pytest.raises(CheckpointError, match="its evaluation is missing"):
        exported(data, tmp_path, checkpoint="best")
    # Epoch 2 is best on the prompts trained on with eta 1; elsewhere others are.
    rows = [
        (epoch, eta, seen, value)
        for eta, seen, values in (
            (1.0, True, (9.0, 3.0, 2.0)),
            (0.0, True, (0.0, 0.0, 9.0)),
            (1.0, False, (0.0, 0.0, 9.0)),
        )
        for epoch, value in zip((0, 2, 4), values, strict=True)
    ]
    columns = ["epoch", "eta", "seen", "brightness"]
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    best = exported(
        data, tmp_path, checkpoint="best", held_out="brightness", strengths=()
    )
    assert json.loads((best / "checkpoint.json").read_text())["epoch"] == 2
    unseen = pd.DataFrame(rows, columns=columns).query("not seen")
    unseen.to_parquet(path)
    with pytest.raises(CheckpointError, match="no images of the prompts trained on"):
        exported(data, tmp_path, checkpoint="best", held_out="brightness", strengths=())
    with pytest.raises(CheckpointError, match="a held-out reward in it is missing"):
        exported(data, tmp_path, checkpoint="best", held_out="other", strengths=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "3"}, "no checkpoint of epoch 3; there are those of 2, 4"),
        ({"checkpoint": "newest"}, "write best, last or an epoch"),
        ({"run": "tdpo.redness.s0"}, "there is no finished run tdpo.redness.s0"),
    ],
)
def test_what_there_is_not(
    data: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        exported(data, tmp_path, **changes)


def test_a_run_must_be_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Say which run to export"):
        exported(data, tmp_path, run=None)


def test_the_trained_reward_is_not_held_out(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Name another reward as export.held_out"):
        exported(data, tmp_path, held_out="tests.tiny:Redness")


def test_the_best_is_not_told_by_the_trained_reward(data: Path, tmp_path: Path) -> None:
    """It would be the checkpoint that is overoptimized most."""
    trained = {"held_out": "tests.tiny:Redness", "strengths": ()}
    with pytest.raises(ValueError, match="Name another reward as export.held_out"):
        exported(data, tmp_path, checkpoint="best", **trained)
    exported(data, tmp_path, checkpoint="last", **trained)  # nothing is told by it


def test_rewards_are_loaded_to_measure_strengths_alone(data: Path) -> None:
    held_out = {"held_out": HELD_OUT}
    assert exported_rewards(settings(data, **held_out))[-1] == HELD_OUT
    assert exported_rewards(settings(data, strengths=(), **held_out)) == []
    path = data / "06_models/config/ddpo/redness/s0.yml"
    config = yaml.safe_load(path.read_text())
    config["training"] |= {"finetune": "full", "lora": None}
    whole = path.with_name("s7.yml")
    whole.write_text(yaml.safe_dump(config))
    run = settings(data, run="ddpo.redness.s7", **held_out)
    try:
        assert exported_rewards(run) == []  # a whole UNet has no strength
    finally:
        whole.unlink()


def test_the_prompts_of_a_run_must_be_there(data: Path, tmp_path: Path) -> None:
    path = data / "05_model_input/train_prompts/redness.txt"
    away = path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(
            CheckpointError, match="redness.txt is missing: the prompts"
        ):
            exported(data, tmp_path)
    finally:
        away.rename(path)


@pytest.mark.parametrize(
    "changes",
    [{"strengths": (0.5, 1.0)}, {"strengths": (0.0, 3.0)}, {"run": "tdpo/redness/0"}],
)
def test_settings_that_cannot_be_meant(data: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(data, **changes)
