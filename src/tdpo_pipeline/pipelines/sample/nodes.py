"""The node that draws pictures for prompts of one's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from tdpo_pipeline.config import TRAINING_TIMESTEPS, Settings, TrainingSettings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.pipelines.prompts.nodes import (
    PromptSettings,
    check_vocabulary,
    checked_prompts,
)
from tdpo_pipeline.prompts import PROMPT_SETS, PromptError, is_prompt_source

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")


class SampleSettings(Settings):
    """What to draw, and from what.

    Attributes:
        checkpoint: Folder of a checkpoint, relative to the project; None for the
            untouched base model.
        prompts: A prompt, the name of a prompt set, or the path of a text file.
        images_per_prompt: Pictures of each prompt.
        num_inference_steps: Denoising steps.
        guidance_scale: Classifier-free guidance weight.
        eta: DDIM's eta, 0 to 1.
        seed: Picture i of every prompt is drawn from ``seed + i``.
        folder: Where the pictures go.
    """

    checkpoint: str | None
    prompts: str
    images_per_prompt: PositiveInt
    num_inference_steps: Annotated[int, Field(gt=0, lt=TRAINING_TIMESTEPS)]
    guidance_scale: NonNegativeFloat
    eta: Annotated[float, Field(ge=0, le=1)]
    seed: NonNegativeInt
    folder: str


def sample(
    settings: SampleSettings,
    allowed: PromptSettings,
    compute: TrainingSettings,
    base_model: Path,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw pictures, and say where they are.

    Args:
        settings: What to draw, and from what.
        allowed: Which prompts are allowed.
        compute: Device and precision are those of training.
        base_model: Folder of the base model.

    Returns:
        Pictures, a row a prompt below its text, uint8 (H, W, 3); and what they are.

    Raises:
        PromptError: If the prompts can't be used.
    """
    from tdpo_pipeline.figures.strips import labelled
    from tdpo_pipeline.sampling import load_checkpoint, sample_grid

    prompts = _prompts(settings.prompts, allowed)
    checkpoint = None if settings.checkpoint is None else ROOT / settings.checkpoint
    options = settings.model_dump(exclude={"checkpoint", "prompts", "folder"})
    pipeline = load_checkpoint(base_model, checkpoint, compute)
    pictures = sample_grid(pipeline, prompts, **options)
    logger.info(
        "The pictures are in %s/samples.png, what they are of in samples.json beside it. "
        "The next run of this pipeline replaces both.",
        settings.folder,
    )
    index = settings.model_dump(exclude={"folder"}) | {"prompts": prompts}
    return labelled(pictures, prompts), index


def _prompts(source: str, allowed: PromptSettings) -> list[str]:
    """The prompts of a set or a file, or the one prompt that ``source`` is.

    Raises:
        PromptError: If they can't be used.
    """
    if not source.strip():
        raise PromptError(
            "sample.prompts is empty: give a prompt, the name of a prompt set, or the "
            "path of a text file."
        )
    if is_prompt_source(source) or _is_misspelt_set(source):
        return checked_prompts(source, allowed)
    if allowed.vocabulary == "menagerie":
        check_vocabulary([source], source)
    return [source]


def _is_misspelt_set(source: str) -> bool:
    """Whether a text is nearly the name of a set, and hardly a prompt."""
    name = source.partition("/")[0]
    return "_" in name and bool(did_you_mean(name, PROMPT_SETS))
