"""Pictures from any checkpoint, by plain diffusers: what somebody who deploys it does.

A LoRA is loaded with the pipeline's ``load_lora_weights``, a whole UNet into
the pipeline's own, so that what this draws is what other tools draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tdpo_pipeline.config import ComputeSettings
from tdpo_pipeline.diffusion.devices import DTYPES, resolve_device
from tdpo_pipeline.diffusion.loading import BasePipeline, load_pipeline
from tdpo_pipeline.diffusion.policy import (
    LORA_FILE,
    UNET_FILE,
    CheckpointError,
    check_adapter,
    check_weights,
    quiet,
    read_safetensors,
)


def load_checkpoint(
    base_model: Path, checkpoint: Path | None, compute: ComputeSettings
) -> BasePipeline:
    """The base model with a checkpoint's weights, or as it is without one.

    Args:
        base_model: Diffusers pipeline directory.
        checkpoint: Folder of a checkpoint, or None.
        compute: Device and precision.

    Raises:
        BaseModelError: If there is no base model.
        CheckpointError: If the folder holds no checkpoint, or one that is truncated or
            of another base model.
        DeviceError: If the device is not there.
    """
    device = resolve_device(compute)
    pipeline = load_pipeline(base_model)
    if checkpoint is not None:
        _load_weights(pipeline, checkpoint)
    # It warns of parts that are to stay in float32, of which there are none here.
    with quiet("diffusers.models.modeling_utils"):
        return pipeline.to(device, DTYPES[compute.precision])


def _load_weights(pipeline: BasePipeline, checkpoint: Path) -> None:
    if (checkpoint / LORA_FILE).is_file():
        weights = read_safetensors(checkpoint / LORA_FILE)
        check_adapter(pipeline.unet, weights)
        with quiet("diffusers.loaders"):  # of text encoders, which have no adapter here
            pipeline.load_lora_weights(weights)
    elif (checkpoint / UNET_FILE).is_file():
        weights = read_safetensors(checkpoint / UNET_FILE)
        check_weights(pipeline.unet.state_dict(), weights)
        pipeline.unet.load_state_dict(weights)
    else:
        inside = sorted(path.name for path in checkpoint.glob("epoch_*"))
        raise CheckpointError(
            f"There is no checkpoint in {checkpoint} ({LORA_FILE} or {UNET_FILE})"
            + (f"; in it are those of {', '.join(inside)}. " if inside else ". ")
            + "The folders are 06_models/checkpoints/<method>/<reward>/s<seed>/"
            "epoch_<number> in the data of the environment."
        )


def sample_grid(
    pipeline: BasePipeline,
    prompts: Sequence[str],
    *,
    images_per_prompt: int,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    seed: int,
) -> np.ndarray:
    """Pictures, a row a prompt.

    Args:
        pipeline: The model.
        prompts: P prompts.
        images_per_prompt: Pictures n of each. Column i has the same noise in all rows.
        num_inference_steps: Denoising steps.
        guidance_scale: Classifier-free guidance weight.
        eta: DDIM's eta.
        seed: Column i is drawn from the seed ``seed + i``.

    Returns:
        uint8, shape (P x H, n x W, 3).
    """
    rows = []
    for prompt in prompts:
        images = pipeline(
            [prompt] * images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            eta=eta,
            generator=[
                torch.Generator().manual_seed(seed + i)
                for i in range(images_per_prompt)
            ],
            output_type="np",
        ).images
        pixels = (images * 255).round().astype(np.uint8)
        rows.append(np.concatenate(list(pixels), axis=1))
    return np.concatenate(rows, axis=0)
