"""Menagerie's base model: a small, real ``StableDiffusionPipeline`` and its training.

The directory that :func:`save_base_model` writes is loaded by plain diffusers:
``StableDiffusionPipeline.from_pretrained(directory)``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from tdpo_pipeline.menagerie.autoencoder import (
    build_autoencoder,
    latent_moments,
    train_autoencoder,
)
from tdpo_pipeline.menagerie.base_model_settings import BaseModelSettings
from tdpo_pipeline.menagerie.denoiser import (
    build_denoiser,
    build_text_encoder,
    train_denoiser,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, describe, sample_scene
from tdpo_pipeline.menagerie.tokenizer import build_tokenizer
from tdpo_pipeline.menagerie.vocabulary import WORDS, article

logger = logging.getLogger(__name__)

ARTICLE_SHARE = 0.1
"""Share of the bare nouns that are captioned with their article ("a cat")."""


@dataclass(frozen=True)
class TrainingData:
    """Rendered scenes.

    Attributes:
        images: uint8, shape (N, 3, 32, 32).
        captions: N prompts.
    """

    images: Tensor
    captions: list[str]


def ddim_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with DDIM steps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="epsilon",
    )


def build_pipeline(settings: BaseModelSettings, seed: int) -> StableDiffusionPipeline:
    """A pipeline with random weights, which depend on nothing but ``seed``."""
    size = settings.autoencoder.latent_size
    tokenizer = build_tokenizer(WORDS, settings.text_encoder.max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=build_autoencoder(settings.autoencoder),
            text_encoder=build_text_encoder(settings.text_encoder, tokenizer),
            tokenizer=tokenizer,
            unet=build_denoiser(
                settings.denoiser,
                settings.autoencoder.latent_channels,
                size,
                settings.text_encoder.width,
            ),
            scheduler=ddim_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Pictures of shape (32, 32, 3), uint8, as one tensor (N, 3, 32, 32), uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """The scene's prompt; now and then a bare noun gets its article."""
    prompt = describe(scene)
    if prompt == scene.subject and rng.random() < ARTICLE_SHARE:
        return f"{article(prompt)} {prompt}"
    return prompt


def training_data(count: int, seed: int) -> TrainingData:
    """Draw and render ``count`` scenes of the pre-training distribution."""
    rng = np.random.default_rng([seed, count])
    scenes = [sample_scene(rng) for _ in range(count)]
    pictures = [render(scene, int(rng.integers(2**31))) for scene in scenes]
    return TrainingData(to_tensor(pictures), [caption(scene, rng) for scene in scenes])


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within this context torch computes with ``count`` threads (0: unchanged)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_base_model(
    settings: BaseModelSettings,
) -> tuple[StableDiffusionPipeline, pd.DataFrame]:
    """Train autoencoder, text encoder and UNet from nothing, on rendered scenes.

    On one machine, with one number of threads, equal settings give equal weights.

    Returns:
        The pipeline, float32, and the training log: columns ``stage`` (autoencoder
        or denoiser), ``step``, and the mean losses since the row before.
    """
    logger.info("Rendering %d scenes.", settings.scenes)
    data = training_data(settings.scenes, settings.seed)
    pipeline = build_pipeline(settings, settings.seed)
    with torch_threads(settings.threads):
        rows = train_autoencoder(
            pipeline.vae, data.images, settings.autoencoder, settings.seed + 1
        )
        rows += train_denoiser(
            pipeline.unet,
            pipeline.text_encoder,
            pipeline.tokenizer,
            pipeline.scheduler,
            latent_moments(pipeline.vae, data.images),
            data.captions,
            settings.denoiser,
            settings.seed + 2,
        )
    return pipeline, pd.DataFrame(rows)


def save_base_model(pipeline: StableDiffusionPipeline, directory: Path) -> Path:
    """Write a pipeline as a directory that plain diffusers loads; gives it back.

    The UNet is stored in half the space, as float16, and diffusers loads it in float32
    unless told otherwise. Text encoder and VAE are small, and stay float32.
    """
    unet = copy.deepcopy(pipeline.unet).half()
    pipeline.save_pretrained(directory, safe_serialization=True)
    unet.save_pretrained(directory / "unet", safe_serialization=True)
    return directory


def sample_images(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    seed: int,
    batch_size: int = 64,
) -> Tensor:
    """Sample a picture for each prompt with the plain diffusers pipeline.

    Args:
        pipeline: The base model.
        prompts: N prompts.
        num_inference_steps: Denoising steps T.
        guidance_scale: Classifier-free guidance weight.
        eta: DDIM's eta.
        seed: Seed of all noise.
        batch_size: Pictures sampled together.

    Returns:
        Float in [0, 1], shape (N, 3, 32, 32).
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [
        pipeline(
            list(prompts[start : start + batch_size]),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            eta=eta,
            generator=generator,
            output_type="pt",
        ).images
        for start in range(0, len(prompts), batch_size)
    ]
    return torch.cat(parts)
