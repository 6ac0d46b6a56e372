"""The model card of a checkpoint: what it is, how far to trust it, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.export.strengths import recommended_strength
from tdpo_pipeline.fetching.manifest import read_manifest
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization.report import markdown_table

CARD_FILE = "README.md"
ROWS = 8
"""Most epochs that a card's table of the training shows."""

HUB_LICENSES = {
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
}
"""Licences of base models, as their pages on the hub name them; an adapter's is theirs."""


class BaseModel(NamedTuple):
    """Which base model a checkpoint belongs to.

    Attributes:
        name: Its id on the hub, or its folder in the project.
        revision: Commit, if it is a published one.
        pipeline: Name of its diffusers class.
    """

    name: str
    revision: str | None
    pipeline: str


class StrengthReport(NamedTuple):
    """What is known of a LoRA's strengths.

    Attributes:
        table: The frontier, see :func:`tdpo_pipeline.export.strengths.frontier`.
        held_out: Name of the held-out reward.
        prompts: Number of prompts.
        images_per_prompt: Images of each.
    """

    table: pd.DataFrame
    held_out: str
    prompts: int
    images_per_prompt: int


def base_model_of(folder: Path) -> BaseModel:
    """What the base model in a folder is called.

    Raises:
        FileNotFoundError: If there is no diffusers pipeline.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    entry = read_manifest(folder).get("model_index.json")
    if entry is None or "/resolve/" not in entry.url:
        inside = folder.absolute().is_relative_to(ROOT)
        where = folder.absolute().relative_to(ROOT) if inside else Path(folder.name)
        return BaseModel(where.as_posix(), None, index["_class_name"])
    repository, _, rest = entry.url.partition("/resolve/")
    name = "/".join(repository.split("/")[-2:])
    return BaseModel(name, rest.split("/")[0], index["_class_name"])


def write_cards(
    checkpoints: Path, config: RunConfig, history: pd.DataFrame, base_model: Path
) -> None:
    """Write a card into every checkpoint folder of a run."""
    base = base_model_of(base_model)
    for folder in sorted(checkpoints.glob("epoch_*")):
        facts = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        text = model_card(config, facts, history, base)
        (folder / CARD_FILE).write_text(text, encoding="utf-8")


def model_card(
    config: RunConfig,
    facts: Mapping[str, Any],
    history: pd.DataFrame,
    base: BaseModel,
    strengths: StrengthReport | None = None,
    *,
    curves: str | None = None,
    kohya: str | None = None,
) -> str:
    """The card, in Markdown with the front matter that the hub reads.

    Args:
        config: The run.
        facts: Content of the checkpoint's ``checkpoint.json``.
        history: The run's history; later epochs than the checkpoint's are left out.
        base: The base model.
        strengths: What was measured of the LoRA's strengths, if anything.
        curves: Name of the picture of the training's curves beside the card, if any.
        kohya: Name of the LoRA under Kohya's names beside it, if any. It is told of
            where others may have the base model.
    """
    sections = [
        _front_matter(config, base),
        _what_it_is(config, facts, base),
        _training(config, up_to(history, facts), curves),
        _loading(config, base, strengths, kohya),
        _strength(config, strengths),
        _limits(config),
        _lineage(facts, base),
    ]
    return "\n\n".join(sections) + "\n"


def up_to(history: pd.DataFrame, facts: Mapping[str, Any]) -> pd.DataFrame:
    """A run's history until a checkpoint."""
    return history[history["epoch"] <= facts["epoch"]]


def scored_rewards(config: RunConfig, history: pd.DataFrame) -> list[str]:
    """The rewards that a history has means of, the trained one first."""
    names = [
        name.removesuffix("_mean") for name in history.columns if name.endswith("_mean")
    ]
    return sorted(names, key=lambda name: name != config.reward)


def _front_matter(config: RunConfig, base: BaseModel) -> str:
    is_lora = config.training.finetune == "lora"
    values: dict[str, Any] = {}
    if base.revision is not None:
        values["base_model"] = base.name
        values["base_model_relation"] = "adapter" if is_lora else "finetune"
    if base.name in HUB_LICENSES:
        values["license"] = HUB_LICENSES[base.name]
    values["library_name"] = "diffusers"
    values["pipeline_tag"] = "text-to-image"
    values["tags"] = [
        *("text-to-image", "diffusers", "reward-fine-tuning"),
        *(["lora"] if is_lora else []),
        config.algorithm.algorithm,
    ]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _what_it_is(config: RunConfig, facts: Mapping[str, Any], base: BaseModel) -> str:
    training = config.training
    trained = f"LoRA of rank {training.lora.rank}" if training.lora else "LoRA"
    if training.finetune != "lora":
        trained = "the whole UNet"
    where = f"{base.name} at {base.revision}"
    if base.revision is None:
        where = f"`{base.name}` of the project, not recorded as a published one"
    rows = {
        "base model": where,
        "trained": trained,
        "method": f"{config.method} ({config.algorithm.algorithm})",
        "reward": config.reward,
        "training prompts": config.task.train_prompts,
        "seed": config.seed,
        "epoch": f"{facts['epoch']} of {training.epochs}",
        "reward queries": facts["reward_queries"],
        "sampler in training": f"DDIM, {config.sampler_summary()}",
    }
    return "\n".join(
        [
            f"# {config.key}, epoch {facts['epoch']}",
            "",
            f"A text-to-image model fine-tuned to raise the reward `{config.reward}`.",
            "",
            markdown_table(
                ["", ""], [[name, str(value)] for name, value in rows.items()]
            ),
        ]
    )


def _training(config: RunConfig, history: pd.DataFrame, curves: str | None) -> str:
    """The table of rewards and KL over the epochs, and a picture of all of them."""
    last = len(history) - 1
    shown = sorted({round(i * last / (ROWS - 1)) for i in range(ROWS)})
    means = [f"{name}_mean" for name in scored_rewards(config, history)]
    kl = [name for name in ("kl_to_base",) if name in history.columns]
    columns = ["epoch", "reward_queries", *means, *kl]
    head = [name.removesuffix("_mean").replace("_", " ") for name in columns]
    rows = [
        [_number(row[name]) for name in columns]
        for _, row in history.iloc[shown].iterrows()
    ]
    return "\n".join(
        [
            "## Training",
            "",
            "Means over the epoch's samples, before its update; the KL to the base "
            "model is in nats a trajectory.",
            "",
            markdown_table(head, rows),
            *(
                ["", f"![Rewards and KL over reward queries]({curves})"]
                if curves is not None
                else []
            ),
        ]
    )


def _loading(
    config: RunConfig,
    base: BaseModel,
    strengths: StrengthReport | None,
    kohya: str | None,
) -> str:
    revision = "" if base.revision is None else f', revision="{base.revision}"'
    training = config.training
    if training.finetune == "lora":
        load = [
            'pipeline.load_lora_weights("path/to/this/folder", adapter_name="reward")',
            *_set_strength(strengths),
        ]
    else:
        load = [
            "from safetensors.torch import load_file",
            'pipeline.unet.load_state_dict(load_file("path/to/this/folder/'
            'unet.safetensors"))',
        ]
    return "\n".join(
        [
            "## Use",
            "",
            "```python",
            f"from diffusers import DDIMScheduler, {base.pipeline}",
            "",
            f'pipeline = {base.pipeline}.from_pretrained("{base.name}"{revision})',
            "pipeline.scheduler = DDIMScheduler.from_config(",
            "    pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False",
            ")",
            *load,
            "image = pipeline(",
            '    "cat",',
            f"    num_inference_steps={training.num_inference_steps},",
            f"    guidance_scale={training.guidance_scale:g},",
            f"    eta={training.eta:g},  # as it was evaluated",
            ").images[0]",
            "```",
            *(["", _OTHER_TOOLS.format(kohya)] if kohya and base.revision else []),
        ]
    )


_OTHER_TOOLS = (
    "`{}` is the same LoRA under Kohya's names, which ComfyUI, AUTOMATIC1111 and others "
    "read."
)


def _set_strength(strengths: StrengthReport | None) -> list[str]:
    """Lines of code that set the recommended strength, or say why there is none."""
    best = None if strengths is None else recommended_strength(strengths.table)
    if best is not None:
        return [
            f'pipeline.set_adapters("reward", {best:g})  # the recommended strength'
        ]
    reason = (
        "none was measured"
        if strengths is None
        else f"all cost {strengths.held_out}, see below"
    )
    return [
        f"# No strength is recommended: {reason}.",
        "# Loaded like this, the LoRA is at strength 1, as it was trained.",
    ]


def _strength(config: RunConfig, strengths: StrengthReport | None) -> str:
    lines = ["## Recommended strength", ""]
    if config.training.finetune != "lora":
        return "\n".join([*lines, "None: a fine-tuned UNet has no strength."])
    if strengths is None:
        return "\n".join(
            [
                *lines,
                "Not measured. `kedro run --pipelines export` samples at several "
                "strengths and recommends one.",
            ]
        )
    best = recommended_strength(strengths.table)
    verdict = (
        f"**{best:g}.**"
        if best is not None
        else "**None**: at every strength measured the held-out reward is below the "
        "base model's."
    )
    rule = (
        f"{verdict} The rule: of the strengths at which the held-out reward "
        f"`{strengths.held_out}`, which was not trained on, is on average not below the "
        f"base model's, the one with the highest `{config.reward}`. Measured on "
        f"{strengths.prompts} training prompts, {strengths.images_per_prompt} images of "
        "each, with the same noise at every strength; 95 % intervals over prompts."
    )
    rows = [
        [
            f"{row['strength']:g}",
            _number(row["trained"]),
            _number(row["held_out"]),
            f"{row['change']:+.4g} ({row['low']:+.4g} to {row['high']:+.4g})",
        ]
        for row in strengths.table.to_dict("records")
    ]
    head = ["strength", config.reward, strengths.held_out, "its change from strength 0"]
    return "\n".join([*lines, rule, "", markdown_table(head, rows)])


def _limits(config: RunConfig) -> str:
    return (
        "## Limits and misuse\n\n"
        f"This model was trained to score high on `{config.reward}`, and a score is not "
        "what it stands for: past some point of training the score rises while the "
        "pictures get worse. Compare with the base model before relying on it.\n\n"
        "A learned reward has the taste, the blind spots and the prejudices of the people "
        "and pictures that it was learned from. Optimising it makes them stronger than "
        "they are in the base model: expect narrower looks of people, places and styles, "
        "less variety between samples, and weaker agreement with prompts unlike the "
        "training prompts. Nobody has examined this checkpoint for harmful content. What "
        "the base model's licence forbids is forbidden here; don't use it to deceive, "
        "to harass, or to decide anything about people."
    )


def _lineage(facts: Mapping[str, Any], base: BaseModel) -> str:
    revision = f" (revision `{base.revision}`)" if base.revision else ""
    return (
        "## Lineage\n\n"
        f"Run `{facts['run']}` of tdpo-pipeline on `{base.name}`{revision}. SHA-256 over "
        "configuration, base model, reward weights and prompts: "
        f"`{facts['identity']}`, as in `checkpoint.json`."
    )


def _number(value: float) -> str:
    """A number for a table: whole ones whole, others with four digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"
