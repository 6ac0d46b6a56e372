from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard

from tdpo_pipeline.config import LoraSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.export.card import (
    BaseModel,
    StrengthReport,
    base_model_of,
    model_card,
    write_cards,
)
from tdpo_pipeline.export.curves import run_curves
from tdpo_pipeline.export.strengths import frontier
from tdpo_pipeline.fetching.manifest import entry_of, write_manifest
from tests import tiny
from tests.conftest import ROOT

SD14 = BaseModel("CompVis/stable-diffusion-v1-4", "133a221b", "StableDiffusionPipeline")
FACTS = {"run": "ddpo-redness-s0", "epoch": 3, "reward_queries": 24, "identity": "abc"}


def history(epochs: int = 4) -> pd.DataFrame:
    rows = [
        {
            "epoch": epoch,
            "reward_queries": 8 * epoch,
            "brightness_mean": 0.1,
            "brightness_std": 0.1,
            "redness_mean": 0.5 + epoch,
            "redness_std": 0.2,
            "kl_to_base": 2.5 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows)


def report(change: float) -> StrengthReport:
    rows = [
        (strength, prompt, strength, strength * change)
        for strength in (0.0, 0.5)
        for prompt in ("cat", "dog")
    ]
    scores = pd.DataFrame(rows, columns=["strength", "prompt", "redness", "gold"])
    return StrengthReport(frontier(scores, "redness", "gold"), "gold", 2, 1)


def card(**changes: object) -> str:
    config = tiny.run_config()
    return model_card(config, FACTS, history(), SD14, **changes)  # type: ignore[arg-type]


def test_the_hub_reads_the_front_matter() -> None:
    data = ModelCard(card()).data
    assert data.base_model == "CompVis/stable-diffusion-v1-4"
    assert data.library_name == "diffusers"
    assert data.pipeline_tag == "text-to-image"
    assert data.license == "creativeml-openrail-m"
    assert {"lora", "ddpo"} <= set(data.tags)


def test_other_tools_find_their_file_if_they_have_the_base_model() -> None:
    assert "`x.safetensors` is the same LoRA" in card(kohya="x.safetensors")
    assert "is the same LoRA" not in card()


def test_what_it_says_of_the_run() -> None:
    text = card()
    assert "# ddpo-redness-s0, epoch 3" in text
    for row in (
        "| base model | CompVis/stable-diffusion-v1-4 at 133a221b |",
        "| trained | LoRA of rank 2 |",
        "| reward | redness |",
        "| seed | 0 |",
        "| epoch | 3 of 4 |",
        "| reward queries | 24 |",
        "| sampler in training | DDIM, 4 steps, guidance 2, eta 1 |",
    ):
        assert row in text
    assert "`abc`" in text


def test_the_training_sampler_is_the_methods_own() -> None:
    """Some methods have an eta, a guidance or an exploration of their own."""
    optimizer = {"learning_rate": 1e-2}
    own = {"eta": 0.0, "guidance_scale": 1.0}
    draft = {"algorithm": "draft", "optimizer": optimizer} | own
    exploring = tiny.DDPO | {"exploration": {"guidance": {"threshold": 600}}}
    for algorithm, sampler in (
        (draft, "DDIM, 4 steps, guidance 1, eta 0"),
        (exploring, "DDIM, 4 steps, guidance 2, eta 1, weak guidance at 1 of 4 steps"),
    ):
        text = model_card(tiny.run_config(algorithm), FACTS, history(), SD14)
        assert f"| sampler in training | {sampler}" in text


def test_the_table_ends_with_the_checkpoint_and_begins_with_its_reward() -> None:
    text = card()
    assert "| epoch | reward queries | redness | brightness | kl to base |" in text
    assert "| 3 | 24 | 3.5 | 0.1 | 7.5 |" in text
    assert "| 4 | 32 |" not in text, "what came later is not this checkpoint's"


def test_a_long_training_is_shown_in_few_rows() -> None:
    facts = FACTS | {"epoch": 100}
    text = model_card(tiny.run_config(), facts, history(100), SD14)
    rows = re.findall(r"^\| (\d+) \| \d+ \|", text, re.MULTILINE)
    assert (len(rows), rows[0], rows[-1]) == (8, "1", "100")


def test_the_curves_are_shown_where_there_is_a_picture_of_them() -> None:
    shown = card(curves="curves.png").splitlines()
    line = "![Rewards and KL over reward queries](curves.png)"
    place = shown.index(line)
    assert "| 3 | 24 |" in shown[place - 2]
    # Else the card is the same without it.
    assert shown[: place - 1] + shown[place + 1 :] == card().splitlines()


def test_the_curves_are_those_of_the_run() -> None:
    config = tiny.run_config()
    figure = run_curves(config, history())
    names = ["redness (trained)", "brightness (held out)", "KL to the base model"]
    assert [ax.get_title(loc="left") for ax in figure.axes] == names
    lines = [ax.get_lines()[0] for ax in figure.axes]
    for line, values in zip(
        lines, ([1.5, 2.5, 3.5, 4.5], [0.1] * 4, [2.5, 5.0, 7.5, 10.0]), strict=True
    ):
        assert list(line.get_xdata()) == [8, 16, 24, 32]
        assert list(line.get_ydata()) == pytest.approx(values)
    # 8 samples an epoch: 1.959964 x 0.2 / sqrt(8) above and below.
    band = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert band.ymin == pytest.approx(1.5 - 0.138590, abs=1e-5)
    assert band.ymax == pytest.approx(4.5 + 0.138590, abs=1e-5)


def test_it_warns_of_misuse_and_of_what_a_learned_reward_brings() -> None:
    limits = card().partition("## Limits and misuse")[2].partition("\n## ")[0]
    for sentence in (
        "trained to score high on `redness`, and a score is not what it stands for",
        "the score rises while the pictures get worse",
        "the prejudices of the people and pictures that it was learned from",
        "expect narrower looks of people, places and styles",
        "Nobody has examined this checkpoint for harmful content.",
        "What the base model's licence forbids is forbidden here",
        "don't use it to deceive, to harass, or to decide anything about people.",
    ):
        assert sentence in limits


def test_a_strength_is_recommended_only_when_it_was_measured() -> None:
    assert "Not measured." in card()
    assert "**0.5.**" in card(strengths=report(+1.0))
    assert 'set_adapters("reward", 0.5)' in card(strengths=report(+1.0))
    assert "**None**" in card(strengths=report(-1.0))


def test_the_example_says_why_no_strength_is_recommended() -> None:
    recommended, unmeasured = card(strengths=report(+1.0)), card()
    costly = card(strengths=report(-1.0))
    assert "No strength is recommended" not in recommended
    assert "# No strength is recommended: none was measured." in unmeasured
    assert "# No strength is recommended: all cost gold, see below." in costly
    assert "set_adapters" not in unmeasured + costly


def test_a_whole_unet_has_no_strength() -> None:
    config = tiny.run_config(finetune="full")
    text = model_card(config, FACTS, history(), SD14)
    assert "a fine-tuned UNet has no strength" in text
    assert "unet.load_state_dict" in text
    assert "load_lora_weights" not in text


def test_the_name_of_a_fetched_base_model(tmp_path: Path) -> None:
    index = tmp_path / "base_model" / "model_index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    own = base_model_of(index.parent)
    assert own == BaseModel("base_model", None, "StableDiffusionXLPipeline")
    menagerie = base_model_of(ROOT / "data" / "06_models" / "menagerie" / "base_model")
    assert menagerie.name == "data/06_models/menagerie/base_model"
    url = "https://huggingface.co/org/model/resolve/abc/model_index.json"
    write_manifest(index.parent, {index.name: entry_of(index, url, "0" * 64)})
    found = base_model_of(index.parent)
    assert found == BaseModel("org/model", "abc", "StableDiffusionXLPipeline")


def test_a_base_model_that_is_not_published_is_not_linked() -> None:
    base = BaseModel("base_model", None, "StableDiffusionPipeline")
    text = model_card(tiny.run_config(), FACTS, history(), base)
    assert (
        "| base model | `base_model` of the project, not recorded as a published one |"
        in text
    )
    front = yaml.safe_load(text.split("---")[1])
    assert "base_model" not in front
    assert "license" not in front


@pytest.mark.parametrize(
    ("model", "lora"), [("sd", tiny.LORA), ("sd", None), ("sdxl", tiny.LORA)]
)
def test_its_code_runs(tmp_path: Path, model: str, lora: LoraSettings | None) -> None:
    base, folder = tmp_path / "base", tmp_path / "checkpoints" / "epoch_0003"
    pipeline: Any = tiny.PIPELINES[model]()
    pipeline.save_pretrained(base)
    Policy(pipeline, num_inference_steps=2, lora=lora).save(folder)
    (folder / "checkpoint.json").write_text(json.dumps(FACTS))
    config = tiny.run_config(finetune="lora" if lora else "full")
    write_cards(tmp_path / "checkpoints", config, history(), base)
    text = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    assert type(pipeline).__name__ in code[1]
    assert [path.name for path in folder.glob("*.png")] == []
    script = code[1].replace('"base"', repr(str(base)))
    script = script.replace("path/to/this/folder", str(folder))
    found: dict[str, object] = {}
    exec(script, found)  # noqa: S102
    assert found["image"].size == (8, 8)  # type: ignore[attr-defined]
