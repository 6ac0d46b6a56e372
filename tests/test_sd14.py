"""A run of `sd14` from weights as they are fetched to an exported LoRA, in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

from tests import tiny
from tests.conftest import Project
from tests.rewards import published
from tests.test_extension import changed

RUN = "ddpo_2.aesthetic.s0"
OUTPUT = "ddpo_2/aesthetic/s0"
DIM = 24
TRAINING = {
    "device": "cpu",
    "precision": "fp32",
    "preset": None,
    "chunk_size": 4,
    "micro_batch_size": 4,
    "epochs": 1,
    "samples_per_epoch": 8,
    "num_inference_steps": 2,
    "monitor": ["aesthetic", "pickscore"],
    "early_stop": {"held_out": ["pickscore"]},
    "kl_samples": 2,
    "min_reward_std": 0.0,  # random networks tell pictures apart by little
    "threads": 1,
}
EVALUATION = {
    "prompt_sets": ["quick_animals", "unseen_animals/2"],
    "strip_prompts": ["cat"],
    "images_per_prompt": 1,
    "rewards": ["aesthetic", "pickscore", "jpeg_compressibility"],
}
EXPORT = {"held_out": "pickscore", "images_per_prompt": 1, "strengths": [0.0, 1.0]}


def lay_out_base_model(folder: Path, names: list[str]) -> None:
    """A tiny Stable Diffusion as the files that are fetched of a published one."""
    tiny.pipeline().save_pretrained(folder)
    # Those of its age have the tokenizer as vocabulary, merges and special tokens.
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (tokenizer / "merges.txt").write_text("\n".join([*merges, ""]))
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    special = {name: value for name, value in config.items() if name.endswith("_token")}
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.relative_to(folder).as_posix() not in names:
            path.unlink()


def draw(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    """Latents of a picture, float32, shape (1, C, H, W)."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "cat",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images


@pytest.mark.slow
def test_a_run_from_fetched_weights_to_an_exported_lora(project: Project) -> None:
    conf = project.root / "conf" / "sd14"
    models = yaml.safe_load((conf / "parameters_models.yml").read_text())["models"]
    base_model = project.root / "data" / "06_models" / "sd14" / "base_model"
    lay_out_base_model(base_model, models["base_model"]["files"])
    rewards = project.root / "data" / "06_models" / "rewards"
    published.write_clip_l(rewards, published.clip(DIM, "quick_gelu"))
    published.write_head(rewards, DIM)
    published.write_pickscore(rewards, published.clip(DIM, seed=1))
    changed(conf / "parameters_training.yml", training=TRAINING)
    changed(conf / "parameters_evaluation.yml", evaluation=EVALUATION)
    changed(conf / "parameters_export.yml", export=EXPORT)

    def kedro(*arguments: str) -> None:
        project.run("kedro", "run", "--env", "sd14", *arguments, HF_HUB_OFFLINE="1")

    kedro("--pipelines", "sd14", "--to-outputs", f"{RUN}.metrics")
    data = project.root / "data" / "sd14"
    history = pd.read_csv(data / "07_model_output" / "history" / f"{OUTPUT}.csv")
    assert history["reward_queries"].tolist() == [8]
    assert history["policy_grad_norm"].item() > 0
    metrics: dict[str, Any] = json.loads(
        (data / "07_model_output" / "metrics" / f"{OUTPUT}.json").read_text()
    )
    assert metrics["epoch"] == 1
    # The base model and the checkpoint after one epoch, which is another.
    assert metrics["seen"]["pickscore"]["change"] != 0
    assert set(metrics["seen"]) == set(EVALUATION["rewards"])

    kedro("--pipelines", "export", "--params", f"export.run={RUN}")
    exported = data / "08_reporting" / "export"
    card = (exported / "README.md").read_text()
    assert "| strength | aesthetic | pickscore |" in card
    assert (exported / "training_curves.png").is_file()
    base = tiny.pipeline()
    plain = tiny.pipeline()
    plain.load_lora_weights(exported)
    assert not torch.equal(draw(plain), draw(base))
