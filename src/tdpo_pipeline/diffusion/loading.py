"""Base models: Stable Diffusion 1.x and XL, from directories of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tdpo_pipeline.config import TINY_DECODER
from tdpo_pipeline.rewards.loading import (
    WeightsError,
    load_pretrained,
    load_strict,
    quiet_libraries,
    read_tensors,
)
from tdpo_pipeline.rewards.model_files import MissingWeightsError

BasePipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline

# The parts that play no role here aren't loaded, even where they lie in the directory.
PIPELINES: dict[str, tuple[type[BasePipeline], dict[str, Any]]] = {
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        {
            "safety_checker": None,
            "requires_safety_checker": False,
            "feature_extractor": None,
            "image_encoder": None,
        },
    ),
    "StableDiffusionXLPipeline": (
        StableDiffusionXLPipeline,
        {
            "add_watermarker": False,
            "feature_extractor": None,
            "image_encoder": None,
        },
    ),
}
NETWORKS: dict[str, type[torch.nn.Module]] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


class BaseModelError(ValueError):
    """A base model that is missing, incomplete, or not one that can be trained."""


def load_pipeline(base_model: Path) -> BasePipeline:
    """Load a pipeline directory in float32, its scheduler made DDIM's.

    The networks are loaded strictly: from safetensors that hold all of their weights and
    no others.

    Raises:
        BaseModelError: If there is no pipeline at that path, a part of it is missing,
            damaged, doesn't fit or is of another class, or its scheduler is not one that
            the log-prob is made for.
    """
    path = base_model / "model_index.json"
    if not path.is_file():
        raise BaseModelError(
            f"There is no diffusers pipeline in {base_model} (model_index.json is "
            "missing). Menagerie's is made by: kedro run --pipelines base_model; any "
            "other is downloaded by: kedro run --env <its environment> --pipelines fetch"
        )
    index = json.loads(path.read_text())
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise BaseModelError(
            f"{path} is of a {name}; a base model is one of {', '.join(PIPELINES)}."
        )
    cls, unused = PIPELINES[name]
    try:
        networks = {
            part: _network(base_model, part) for part in NETWORKS if part in index
        }
        with quiet_libraries():
            pipeline = cls.from_pretrained(
                base_model, local_files_only=True, **networks, **unused
            )
    except (OSError, WeightsError) as error:
        raise BaseModelError(
            f"The base model in {base_model} can't be loaded: {error}"
        ) from error
    pipeline.scheduler = ddim_scheduler(pipeline.scheduler.config, base_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _network(base_model: Path, part: str) -> Any:
    """One of a pipeline's networks, in float32 and frozen."""
    return load_pretrained(
        NETWORKS[part],
        base_model / part,
        use_safetensors=True,
        variant=_variant(base_model),
    )


class TinyDecoderError(ValueError):
    """What is there as tiny decoder doesn't decode the base model's latents."""


def tiny_decoder_config(base_model: Path) -> dict[str, Any]:
    """The configuration of the tiny decoder of a base model.

    Raises:
        MissingWeightsError: If the base model has none, or its weights are missing.
        TinyDecoderError: If it is of another class.
    """
    folder = base_model / TINY_DECODER
    needed = folder / "config.json", _tiny_weights(base_model)
    missing = [path.name for path in needed if not path.is_file()]
    if missing:
        raise MissingWeightsError(
            f"critic.decoder: tiny needs {' and '.join(missing)} in {folder}. Name an "
            "AutoencoderTiny of the same latents as models.tiny_decoder, and get it "
            "with: kedro run --pipelines fetch --env <env>"
        )
    config = json.loads(needed[0].read_text())
    if config.get("_class_name") != "AutoencoderTiny":
        raise TinyDecoderError(
            f"{needed[0]} is of a {config.get('_class_name')}; a tiny decoder is an "
            "AutoencoderTiny."
        )
    return config


def load_tiny_decoder(base_model: Path, vae: AutoencoderKL) -> AutoencoderTiny:
    """Load the decoder that approximates a base model's own, in float32 and frozen.

    Args:
        base_model: Diffusers pipeline directory, with a folder ``tiny_decoder``.
        vae: Its own autoencoder.

    Raises:
        MissingWeightsError: If it isn't there.
        WeightsError: If its weights are damaged, missing or surplus.
        TinyDecoderError: If it is of another class, or of other latents.
    """
    tiny = AutoencoderTiny.from_config(tiny_decoder_config(base_model))
    path = _tiny_weights(base_model)
    load_strict(tiny, read_tensors(path), path)
    own = (
        tiny.config.latent_channels,
        tiny.config.upsampling_scaling_factor
        ** (len(tiny.config.num_decoder_blocks) - 1),
    )
    expected = vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)
    if own != expected:
        raise TinyDecoderError(
            f"The tiny decoder in {path.parent} makes images {own[1]} times as wide of "
            f"latents of {own[0]} channels, and the base model's makes them "
            f"{expected[1]} times as wide of {expected[0]}: it is of another base model."
        )
    return tiny


def _tiny_weights(base_model: Path) -> Path:
    return base_model / TINY_DECODER / "diffusion_pytorch_model.safetensors"


def _variant(base_model: Path) -> str | None:
    """Which of diffusers' variants the weights in a folder are; None: the plain one."""
    plain = base_model / "unet" / "diffusion_pytorch_model.safetensors"
    half = plain.with_name("diffusion_pytorch_model.fp16.safetensors")
    return "fp16" if half.is_file() and not plain.is_file() else None


def ddim_scheduler(config: dict[str, Any], base_model: Path) -> DDIMScheduler:
    """DDIM with the noise schedule and the timesteps of any scheduler of diffusers.

    Stable Diffusion comes with PNDM, XL with Euler. What such a scheduler doesn't know,
    and so leaves open, is set as Stable Diffusion has it.

    Args:
        config: Configuration of the base model's scheduler.
        base_model: For error messages.

    Raises:
        BaseModelError: If the transitions would not be those of ``ddim.py``.
    """
    expected = {
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "clip_sample": False,
        "thresholding": False,
        "set_alpha_to_one": False,
        "rescale_betas_zero_snr": False,
        "steps_offset": 1,
    }
    unknown = {key: value for key, value in expected.items() if key not in config}
    scheduler = DDIMScheduler.from_config(config, **unknown)
    wrong = {
        key: scheduler.config[key]
        for key, value in expected.items()
        if scheduler.config[key] != value
    }
    if wrong:
        raise BaseModelError(
            f"The scheduler of {base_model} has {wrong}; the log-prob of a step is made "
            f"for { ({key: expected[key] for key in wrong}) }, as Stable Diffusion has it."
        )
    return scheduler
