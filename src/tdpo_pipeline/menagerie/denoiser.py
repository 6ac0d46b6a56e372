"""Training of Menagerie's UNet and text encoder: predict the noise in a latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tdpo_pipeline.menagerie.base_model_settings import (
    DenoiserSettings,
    TextEncoderSettings,
)
from tdpo_pipeline.menagerie.optimization import (
    AveragedWeights,
    TrainingLog,
    adamw,
    batches,
)


def build_text_encoder(
    settings: TextEncoderSettings, tokenizer: CLIPTokenizer
) -> CLIPTextModel:
    """A ``CLIPTextModel`` with random weights, in evaluation mode."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        projection_dim=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=settings.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def build_denoiser(
    settings: DenoiserSettings,
    latent_channels: int,
    latent_size: int,
    text_width: int,
) -> UNet2DConditionModel:
    """A ``UNet2DConditionModel`` with random weights, in evaluation mode."""
    kinds = ["CrossAttn" if attends else "" for attends in settings.cross_attention]
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        cross_attention_dim=text_width,
        attention_head_dim=settings.heads,  # diffusers' name for the number of heads
        norm_num_groups=settings.norm_groups,
    ).eval()


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids of prompts, int64, shape (N, L), padded as the pipeline pads them."""
    return tokenizer(
        list(prompts), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids


def loss_weights(alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Weight min(SNR, gamma) / SNR of each timestep's squared error (Min-SNR).

    Args:
        alphas_cumprod: Float, shape (T,).
        gamma: Cap of the signal-to-noise ratio; 0 gives weights of 1.

    Returns:
        Float in (0, 1], shape (T,).
    """
    if gamma == 0:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr


def add_noise(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, shape of ``latents``."""
    abar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return abar.sqrt() * latents + (1 - abar).sqrt() * noise


def encode_captions(text_encoder: CLIPTextModel, tokens: Tensor) -> Tensor:
    """Text embeddings, float32, shape (N, L, d); equal captions are encoded once.

    Args:
        text_encoder: The text encoder.
        tokens: int64, shape (N, L).
    """
    unique, which = torch.unique(tokens, dim=0, return_inverse=True)
    # Not [which]: its gradient is summed in no fixed order on several threads.
    return text_encoder(unique).last_hidden_state.index_select(0, which)


def train_denoiser(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    moments: Tensor,
    captions: Sequence[str],
    settings: DenoiserSettings,
    seed: int,
) -> list[dict[str, float | str]]:
    """Train UNet and text encoder in place; they end with their averaged weights.

    Args:
        unet: Predicts the noise.
        text_encoder: Trained with the UNet from random weights.
        tokenizer: Of the captions.
        scheduler: Defines how much noise a timestep has.
        moments: Means and standard deviations of latents, shape (N, 2 C, h, w).
        captions: N captions.
        settings: The denoiser's settings.
        seed: Seed of order, timesteps, noise and caption dropout.

    Returns:
        Rows of the training log.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = (unet, text_encoder)
    parameters = [p for module in modules for p in module.parameters()]
    optimizer, schedule = adamw(parameters, settings.learning_rate, settings.steps)
    average = AveragedWeights(modules, settings.ema_decay)
    log = TrainingLog("denoiser", settings.steps)
    tokens, empty = tokenize(tokenizer, captions), tokenize(tokenizer, [""])
    abar = scheduler.alphas_cumprod
    weights = loss_weights(abar, settings.snr_gamma)

    def loss_of(chosen: Tensor) -> Tensor:
        count = len(chosen)
        mean, std = moments[chosen].chunk(2, dim=1)
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        timesteps = torch.randint(len(abar), (count,), generator=generator)
        dropped = torch.rand(count, 1, generator=generator) < settings.caption_dropout
        embeds = encode_captions(
            text_encoder, torch.where(dropped, empty, tokens[chosen])
        )
        noisy = add_noise(latents, noise, timesteps, abar)
        predicted = unet(noisy, timesteps, embeds, return_dict=False)[0]
        errors = (predicted - noise).square().flatten(1).mean(1)
        return (weights[timesteps] * errors).mean()

    for module in modules:
        module.train()
    order = batches(len(moments), settings.batch_size, settings.steps, generator)
    for step, chosen in enumerate(order, start=1):
        loss = loss_of(chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.update()
        log.add(step, {"loss": loss})
    average.copy_to_modules()
    for module in modules:
        module.eval()
    return log.rows
