"""A checkpoint made ready to upload: its weights, its facts, and a card of both."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import (
    LORA_FILE,
    UNET_FILE,
    CheckpointError,
    Policy,
    kohya_names,
    read_safetensors,
)
from tdpo_pipeline.export.card import (
    CARD_FILE,
    StrengthReport,
    base_model_of,
    model_card,
    up_to,
)
from tdpo_pipeline.export.curves import CURVES_FILE, run_curves
from tdpo_pipeline.export.strengths import frontier, measure_strengths
from tdpo_pipeline.figures.style import save_png
from tdpo_pipeline.overoptimization.tables import MAIN_ETA
from tdpo_pipeline.rewards.registry import load_rewards
from tdpo_pipeline.trainer.state import epoch_of, read_checkpoint_facts

FILES = (LORA_FILE, UNET_FILE, "checkpoint.json")
KOHYA_FILE = "lora_kohya.safetensors"


def choose_checkpoint(
    checkpoints: Path, which: str, scores: pd.DataFrame | None, held_out: str | None
) -> Path:
    """The checkpoint folder that a word or a number means.

    Args:
        checkpoints: Folder of a run's checkpoint folders.
        which: ``last``; an epoch; or ``best``, the checkpoint with the highest mean of
            the held-out reward on the prompts trained on, at eta 1.
        scores: The run's score table; needed for ``best``.
        held_out: A reward of the table that wasn't trained on; needed for ``best``.

    Raises:
        CheckpointError: If there is no such checkpoint, or ``best`` can't be told.
    """
    found = {epoch_of(path): path for path in checkpoints.glob("epoch_*")}
    if not found:
        raise CheckpointError(f"There are no checkpoints in {checkpoints}.")
    if which == "last":
        return found[max(found)]
    if which == "best":
        epoch = _best_epoch(found, scores, held_out)
    elif which.isdecimal():
        epoch = int(which)
    else:
        raise CheckpointError(
            f"export.checkpoint is '{which}'; write best, last or an epoch."
        )
    if epoch not in found:
        raise CheckpointError(
            f"{checkpoints} has no checkpoint of epoch {epoch}; there are those of "
            f"{', '.join(map(str, sorted(found)))}."
        )
    return found[epoch]


def _best_epoch(
    epochs: dict[int, Path], scores: pd.DataFrame | None, held_out: str | None
) -> int:
    """The epoch with the highest held-out reward."""
    if scores is None or held_out is None or held_out not in scores:
        missing = "its evaluation" if scores is None else "a held-out reward in it"
        raise CheckpointError(
            f"Which checkpoint is best is told by a held-out reward, and {missing} is "
            "missing: evaluate the run, name one of the evaluated rewards as "
            "export.held_out, or set export.checkpoint to last or an epoch."
        )
    table = scores[(scores["eta"] == MAIN_ETA) & scores["seen"]]
    table = table[table["epoch"].isin(list(epochs))]
    means = table.groupby("epoch")[held_out].mean()
    if means.empty:
        raise CheckpointError(
            f"The evaluation has no images of the prompts trained on at eta "
            f"{MAIN_ETA:g}, by which the best checkpoint is told. Evaluate there, "
            "or set export.checkpoint to last or an epoch."
        )
    return int(means.index[int(means.argmax())])


def measured_strengths(
    config: RunConfig,
    checkpoint: Path,
    base_model: Path,
    weights: Path,
    prompts: Sequence[str],
    held_out: str,
    *,
    strengths: Sequence[float],
    images_per_prompt: int,
    seed: int,
) -> StrengthReport:
    """Sample a LoRA at several strengths, and score by two rewards.

    Args:
        config: The run.
        checkpoint: Its checkpoint folder, with a LoRA.
        base_model: Folder of the base model.
        weights: Folder of reward weights.
        prompts: Training prompts.
        held_out: A reward that wasn't trained on.
        strengths: Strengths, 0 among them.
        images_per_prompt: Images of each prompt and strength.
        seed: Seed of the noise.

    Raises:
        CheckpointError: If the checkpoint is truncated or of another configuration.
    """
    training = config.training
    if training.threads:
        torch.set_num_threads(training.threads)
    policy = Policy(
        load_pipeline(base_model),
        num_inference_steps=training.num_inference_steps,
        lora=training.lora,
        seed=config.seed,
        compute=training,
    )
    policy.load(checkpoint)
    names = (config.task.scorer, held_out)
    rewards = load_rewards(names, weights, config.task)
    for reward in rewards.values():
        reward.to(policy.device)
    scores = measure_strengths(
        policy,
        rewards,
        prompts,
        training,
        strengths=strengths,
        images_per_prompt=images_per_prompt,
        seed=seed,
    )
    table = frontier(scores, *names)
    return StrengthReport(table, held_out, len(prompts), images_per_prompt)


def write_export(
    folder: Path,
    checkpoint: Path,
    config: RunConfig,
    history: pd.DataFrame,
    base_model: Path,
    strengths: StrengthReport | None,
) -> None:
    """Write the folder to upload: weights, ``checkpoint.json``, curves and the card.

    A LoRA is there twice, once under the names of Kohya.

    Raises:
        CheckpointError: If the checkpoint's record is missing or truncated, or it has
            no weights.
    """
    facts = read_checkpoint_facts(checkpoint)
    there = [checkpoint / name for name in FILES if (checkpoint / name).is_file()]
    if len(there) < 2:
        raise CheckpointError(f"There are no weights in {checkpoint}.")
    lora = checkpoint / LORA_FILE
    kohya = kohya_names(read_safetensors(lora)) if lora in there else None
    curves = run_curves(config, up_to(history, facts))
    base = base_model_of(base_model)
    card = model_card(
        config,
        facts,
        history,
        base,
        strengths,
        curves=CURVES_FILE,
        kohya=None if kohya is None else KOHYA_FILE,
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in there:
        shutil.copyfile(path, folder / path.name)
    if kohya is not None:
        save_file(kohya, folder / KOHYA_FILE)
    save_png(curves, folder / CURVES_FILE)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
