"""Training of Menagerie's autoencoder, and the scale of its latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from tdpo_pipeline.menagerie.base_model_settings import IMAGE_SIZE, AutoencoderSettings
from tdpo_pipeline.menagerie.optimization import TrainingLog, adamw, batches

_BATCH = 500


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderKL:
    """An ``AutoencoderKL`` with random weights, in evaluation mode."""
    levels = len(settings.channels)
    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers_per_block,
        norm_num_groups=settings.norm_groups,
        latent_channels=settings.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        scaling_factor=1.0,
    ).eval()


def to_model_range(images: Tensor) -> Tensor:
    """Pictures, uint8 of shape (N, 3, H, W), as floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def gradient_difference(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients, a scalar.

    Args:
        images: Float, shape (N, C, H, W).
        targets: Same shape.
    """
    difference = images - targets
    vertical = difference[..., 1:, :] - difference[..., :-1, :]
    horizontal = difference[..., :, 1:] - difference[..., :, :-1]
    return vertical.abs().mean() + horizontal.abs().mean()


def autoencoder_losses(
    vae: AutoencoderKL,
    images: Tensor,
    settings: AutoencoderSettings,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Reconstruction and regularisation of one batch.

    Args:
        vae: The autoencoder.
        images: Float in [-1, 1], shape (N, 3, H, W).
        settings: Weights of the parts.
        generator: Source of the posterior's noise.

    Returns:
        Scalars: ``loss``, and its parts ``l1`` and ``kl`` (nats a latent dimension).
    """
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    latents = posterior.mean + posterior.std * noise
    decoded = vae.decode(latents).sample
    l1 = functional.l1_loss(decoded, images)
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    edges = gradient_difference(decoded, images)
    loss = l1 + settings.gradient_weight * edges + settings.kl_weight * kl
    return {"loss": loss, "l1": l1, "kl": kl}


def train_autoencoder(
    vae: AutoencoderKL, images: Tensor, settings: AutoencoderSettings, seed: int
) -> list[dict[str, float | str]]:
    """Train ``vae`` in place, and standardise its latents.

    Args:
        vae: The autoencoder.
        images: Training pictures, uint8, shape (N, 3, 32, 32).
        settings: Its settings.
        seed: Seed of the order of the pictures and of the noise.

    Returns:
        Rows of the training log.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer, schedule = adamw(
        vae.parameters(), settings.learning_rate, settings.steps
    )
    log = TrainingLog("autoencoder", settings.steps)
    order = batches(len(images), settings.batch_size, settings.steps, generator)
    vae.train()
    for step, chosen in enumerate(order, start=1):
        batch = to_model_range(images[chosen])
        losses = autoencoder_losses(vae, batch, settings, generator)
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        log.add(step, losses)
    vae.eval()
    standardise_latents(vae, latent_moments(vae, images))
    return log.rows


@torch.no_grad()
def latent_moments(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Posteriors of pictures.

    Args:
        vae: The autoencoder.
        images: uint8, shape (N, 3, 32, 32).

    Returns:
        Mean, then standard deviation, float32, shape (N, 2 C, h, w).
    """
    parts = []
    for batch in images.split(_BATCH):
        posterior = vae.encode(to_model_range(batch)).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, moments: Tensor) -> None:
    """Give each latent channel mean 0 and variance 1, without changing any picture.

    The shift and scale are folded into the 1x1 convolutions between encoder, latent
    and decoder. That is exact, and finer than a single ``scaling_factor``, which
    stays 1 (a diffusion model wants latents of unit variance).

    Args:
        vae: The autoencoder, changed in place.
        moments: From :func:`latent_moments`.
    """
    mean, std = moments.chunk(2, dim=1)
    shift = mean.mean((0, 2, 3))
    scale = (mean.var((0, 2, 3)) + std.square().mean((0, 2, 3))).sqrt()
    channels = len(shift)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] /= scale[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - shift) / scale
    before.bias[channels:] -= 2 * scale.log()
    after.bias += after.weight[:, :, 0, 0] @ shift
    after.weight *= scale[None, :, None, None]


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Pictures through the autoencoder, by the posteriors' means.

    Args:
        vae: The autoencoder.
        images: uint8, shape (N, 3, 32, 32).

    Returns:
        Float in [0, 1], same shape.
    """
    parts = []
    for batch in images.split(_BATCH):
        latents = vae.encode(to_model_range(batch)).latent_dist.mean
        parts.append((vae.decode(latents).sample / 2 + 0.5).clamp(0, 1))
    return torch.cat(parts)
