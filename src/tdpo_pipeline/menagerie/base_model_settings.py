"""Parameters of Menagerie's base model, typed; without torch, so that Kedro is fast."""

from __future__ import annotations

from typing import Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tdpo_pipeline.config import Settings

IMAGE_SIZE = 32
"""Height and width of Menagerie's pictures, in pixels."""


class AutoencoderSettings(Settings):
    """The ``AutoencoderKL``: its shape and its training.

    Attributes:
        channels: Channels of each level; every level after the first halves the
            picture, so three levels make 8x8 latents of a 32x32 picture.
        layers_per_block: Residual blocks a level.
        norm_groups: Groups of the group normalisations; must divide all channels.
        latent_channels: Channels of a latent.
        steps: Updates.
        batch_size: Pictures an update.
        learning_rate: Peak of the learning rate (warm-up, then a cosine to zero).
        gradient_weight: Weight of the L1 loss between picture gradients, which
            keeps edges sharp.
        kl_weight: Weight of the KL of the posterior to a standard normal, in nats
            per latent dimension.
    """

    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    layers_per_block: PositiveInt
    norm_groups: PositiveInt
    latent_channels: PositiveInt
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    gradient_weight: NonNegativeFloat
    kl_weight: NonNegativeFloat

    @property
    def latent_size(self) -> int:
        """Height and width of a latent."""
        return IMAGE_SIZE >> (len(self.channels) - 1)

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        _check_groups("autoencoder", self.channels, self.norm_groups)
        if self.latent_size < 1:
            raise ValueError("base_model.autoencoder.channels has too many levels.")
        return self


class TextEncoderSettings(Settings):
    """The ``CLIPTextModel`` and its tokenizer.

    Attributes:
        width: Size of an embedding; also the UNet's cross-attention size.
        layers: Transformer layers.
        heads: Attention heads; must divide ``width``.
        max_length: Tokens of a prompt, start and end included.
    """

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    max_length: int = Field(ge=3)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"base_model.text_encoder: heads {self.heads} must divide width "
                f"{self.width}."
            )
        return self


class DenoiserSettings(Settings):
    """The ``UNet2DConditionModel``, and its training together with the text encoder.

    Attributes:
        channels: Channels of each level.
        cross_attention: Whether a level attends to the text; the middle always does.
        layers_per_block: Residual blocks a level.
        heads: Attention heads; must divide the channels of every attending level.
        norm_groups: Groups of the group normalisations; must divide all channels.
        steps: Updates.
        batch_size: Latents an update.
        learning_rate: Peak of the learning rate (warm-up, then a cosine to zero).
        ema_decay: Decay an update of the averaged weights, which are what is kept.
        caption_dropout: Share of captions left empty, for classifier-free guidance.
        snr_gamma: Cap of the signal-to-noise ratio in the loss weight
            min(SNR, gamma) / SNR; 0 weights all timesteps alike.
    """

    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    cross_attention: tuple[bool, ...]
    layers_per_block: PositiveInt
    heads: PositiveInt
    norm_groups: PositiveInt
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    ema_decay: float = Field(ge=0.0, lt=1.0)
    caption_dropout: float = Field(ge=0.0, lt=1.0)
    snr_gamma: NonNegativeFloat

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_groups("denoiser", self.channels, self.norm_groups)
        if len(self.cross_attention) != len(self.channels):
            raise ValueError(
                "base_model.denoiser.cross_attention needs one entry for each of "
                f"the {len(self.channels)} levels, not {len(self.cross_attention)}."
            )
        return self


class ReportSettings(Settings):
    """How the base model is measured.

    Attributes:
        num_inference_steps: Denoising steps T.
        guidance_scale: Classifier-free guidance weight.
        eta: DDIM's eta.
        images_per_prompt: Samples a prompt of the plain and the rare prompts.
        images_per_complex_prompt: Samples of each complex prompt.
        renders_per_animal: Pictures of each animal the classifiers are trained on.
        scenes: Scenes the reader of whole scenes is trained on.
        held_out: Pictures of each animal that measure a classifier itself.
        passes: Passes over the training pictures of a classifier.
        width: Channels of a classifier's first layer.
        batch_size: Pictures an update of a classifier.
        learning_rate: Peak of a classifier's learning rate.
        seed: Seed of classifiers and samples.
    """

    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
    eta: float = Field(ge=0.0, le=1.0)
    images_per_prompt: PositiveInt
    images_per_complex_prompt: PositiveInt
    renders_per_animal: PositiveInt
    scenes: PositiveInt
    held_out: PositiveInt
    passes: PositiveInt
    width: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    seed: NonNegativeInt


class BaseModelSettings(Settings):
    """Everything the pipeline ``base_model`` is configured with.

    Attributes:
        seed: Seed of data, weights and training.
        scenes: Scenes rendered as training data.
        threads: Threads of the training process (0: torch's default).
        autoencoder: The VAE.
        text_encoder: Text encoder and tokenizer.
        denoiser: The UNet.
        report: The measurement of the finished model.
    """

    seed: NonNegativeInt
    scenes: PositiveInt
    threads: NonNegativeInt = 0
    autoencoder: AutoencoderSettings
    text_encoder: TextEncoderSettings
    denoiser: DenoiserSettings
    report: ReportSettings


def _check_groups(part: str, channels: tuple[int, ...], groups: int) -> None:
    if any(c % groups for c in channels):
        raise ValueError(
            f"base_model.{part}: norm_groups {groups} must divide all channels "
            f"{list(channels)}."
        )
