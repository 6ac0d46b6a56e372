"""Parameters of the proxy rewards, typed; without torch, so that Kedro is fast."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tdpo_pipeline.config import Settings


class ProxySettings(Settings):
    """One proxy: what it looks like, what it learns from, and how.

    Attributes:
        kind: ``aesthetic`` scores the image alone, ``dual`` is the scaled cosine of an
            image and a text embedding, ``fused`` an MLP on both embeddings.
        gold: The one gold its labels come from.
        width: Channels of the image encoder's first layer.
        embedding_dim: Size of the embeddings.
        labels: Labelled images (``aesthetic``) or labelled pairs of images.
        noise: Standard deviation of the normal noise on each image's gold before the
            label is given (rated or preferred).
        steps: Updates.
        batch_size: Labels an update.
        learning_rate: Peak of the learning rate (warm-up, then a cosine to zero).
        seed: Seed of the labels, the weights and the training.
    """

    kind: Literal["aesthetic", "dual", "fused"]
    gold: Literal["gold_taste", "gold_match"]
    width: PositiveInt
    embedding_dim: PositiveInt
    labels: PositiveInt
    noise: NonNegativeFloat
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _gold_fits(self) -> Self:
        if (self.kind == "aesthetic") != (self.gold == "gold_taste"):
            raise ValueError(
                "an aesthetic proxy learns gold_taste, the others gold_match."
            )
        return self


class PoolSettings(Settings):
    """The pictures that labels are given to.

    Attributes:
        images: Pictures in the pool from which every proxy draws its own.
        held_out: Pictures for measuring, never trained on.
        guidance_scales: Classifier-free guidance weights, used in equal shares.
        num_inference_steps: Denoising steps.
        coloured: Share of prompts that name a colour.
        corrupted: Share of pictures that are corrupted.
        rendered: Share of pictures that are renders and not samples.
        seed: Seed of prompts, noise and corruptions.
    """

    images: PositiveInt
    held_out: PositiveInt
    guidance_scales: tuple[NonNegativeFloat, ...] = Field(min_length=1)
    num_inference_steps: PositiveInt
    coloured: float = Field(ge=0, le=1)
    corrupted: float = Field(ge=0, le=1)
    rendered: float = Field(ge=0, le=1)
    seed: NonNegativeInt


class ProxyRewardsSettings(Settings):
    """Everything the pipeline ``proxy_rewards`` is configured with.

    Attributes:
        threads: Threads of the process (0: torch's default).
        pool: The pictures.
        proxies: The proxies by name.
    """

    threads: NonNegativeInt = 0
    pool: PoolSettings
    proxies: dict[str, ProxySettings] = Field(min_length=1)
