"""Seconds-size stand-ins of the true classes: a random pipeline, a reward, a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from tdpo_pipeline.config import (
    AlgorithmSettings,
    LoraSettings,
    RewardSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.base import ImageEncoder, Reward, Scores
from tdpo_pipeline.trainer.loop import Trainer, TrainingResult, train_run
from tdpo_pipeline.trainer.state import RunState

PROMPTS = ["cat", "dog"]
LORA = LoraSettings(rank=2, target_modules=("to_q", "to_v", "conv1"))


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's DDIM schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A random Stable Diffusion of 8x8 images and 4x4x4 latents."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=_vae(),
        unet=unet,
        text_encoder=CLIPTextModel(_text_config(8)),
        tokenizer=_tokenizer(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def xl_pipeline(
    seed: int = 0, *, force_zeros_for_empty_prompt: bool = True
) -> StableDiffusionXLPipeline:
    """A random Stable Diffusion XL of 8x8 images and 4x4x4 latents."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8 + 12,
        attention_head_dim=4,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 10,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(),
        unet=unet,
        text_encoder=CLIPTextModel(_text_config(8, layers=2)),
        text_encoder_2=CLIPTextModelWithProjection(
            _text_config(12, layers=2, projection_dim=10)
        ),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        scheduler=scheduler(),
        force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
        add_watermarker=False,
    )


PIPELINES = {"sd": pipeline, "sdxl": xl_pipeline}


def _tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", "cat</w>", "dog</w>", "ca", "do"]
    letters = [*"acdgot", *(f"{letter}</w>" for letter in "acdgot")]
    vocab = {token: i for i, token in enumerate([*words, *letters])}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=4)


def _text_config(
    width: int, *, layers: int = 1, projection_dim: int = 8
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=40,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=projection_dim,
        max_position_embeddings=4,
        bos_token_id=0,
        eos_token_id=1,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=8,
    )


def tiny_decoder(seed: int = 0, **changes: Any) -> AutoencoderTiny:
    """A random stand-in of the decoder above, which is itself one of the true one."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    decoder = AutoencoderTiny(**shape | changes)
    return decoder.requires_grad_(False).eval()


class TinyEncoder(ImageEncoder):
    """A fixed random projection of the pixels."""

    embedding_dim = 6

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("matrix", torch.randn(3 * 8 * 8, 6, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (N, 3, 8, 8)."""
        return nn.functional.normalize(images.flatten(1) @ self.matrix, dim=-1)


class Redness(Reward):
    """Mean of the red channel minus that of the blue one."""

    name = "redness"
    value_range = (-1.0, 1.0)
    differentiable = True

    def __init__(self) -> None:
        self.encoder = TinyEncoder()

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores in [-1, 1]."""
        return Scores((images[:, 0] - images[:, 2]).mean((1, 2)))


class Brightness(Redness):
    """Mean of all channels."""

    name = "brightness"
    value_range = (0.0, 1.0)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores in [0, 1]."""
        return Scores(images.mean((1, 2, 3)))


class NanReward(Redness):
    """Returns NaN for its third image, if there is one."""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """NaN at index 2."""
        values = super().score(images, prompts).values
        values[2:3] = float("nan")
        return Scores(values)


OPTIMIZER = {"learning_rate": 1e-2}
DDPO = {
    "algorithm": "ddpo",
    "loop": "timestep_major",
    "updates_per_timestep": 2,
    "optimizer": OPTIMIZER,
}
TDPO = DDPO | {
    "algorithm": "tdpo",
    "critic": {"hidden": (8, 4), "dropout": (0.2,), "optimizer": OPTIMIZER},
    "neurons": {"reset": "active", "reset_fraction": 0.5, "stats_samples": 4},
}
DPOK = DDPO | {
    "algorithm": "dpok",
    "value": {"hidden": (8, 4), "batch_size": 16, "optimizer": OPTIMIZER},
}


def training(**changes: Any) -> TrainingSettings:
    """Four epochs of eight samples of four steps."""
    values = {
        "epochs": 4,
        "samples_per_epoch": 8,
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "chunk_size": 4,
        "micro_batch_size": 4,
        "lora": LORA,
        "checkpoint_every": 2,
        "kl_samples": 4,
    }
    return TrainingSettings.model_validate(values | changes)


def run_config(
    algorithm: Mapping[str, Any] = DDPO,
    *,
    scorer: str = "tests.tiny:Redness",
    reward: str = "redness",
    critic_encoder: str | None = None,
    **changes: Any,
) -> RunConfig:
    """A run of seconds."""
    return RunConfig(
        method=str(algorithm["algorithm"]),
        reward=reward,
        seed=0,
        training=training(**changes),
        algorithm=AlgorithmSettings.model_validate(algorithm),
        task=RewardSettings(
            scorer=scorer, train_prompts="simple_animals", critic_encoder=critic_encoder
        ),
    )


def train_configured(
    parameters: Mapping[str, Any],
    method: str,
    models: Path,
    state_dir: Path,
    **training: Any,
) -> tuple[RunConfig, TrainingResult]:
    """Train a configured method on aesthetic-mini.

    Args:
        parameters: Those of an environment.
        method: Name of the method.
        models: Folder with ``base_model`` and ``proxy_rewards``.
        state_dir: The run's folder.
        training: Changes to the environment's settings of the training.
    """
    task = RewardSettings.model_validate(parameters["rewards"]["aesthetic-mini"])
    config = RunConfig(
        method=method,
        reward="aesthetic-mini",
        seed=0,
        training=TrainingSettings.model_validate(parameters["training"] | training),
        algorithm=AlgorithmSettings.model_validate(parameters["methods"][method]),
        task=task,
    )
    result = train_run(
        config,
        prompts=prompt_set(task.train_prompts),
        base_model=models / "base_model",
        weights=models / "proxy_rewards",
        state_dir=state_dir,
    )
    return config, result


class _KilledError(Exception):
    """Ends a run as a crash would."""


@contextlib.contextmanager
def killed_after(epoch: int) -> Iterator[None]:
    """A training run in here, which must get that far, dies after an epoch."""
    original = Trainer.run_epoch

    def run_epoch(self: Trainer, state: RunState) -> None:
        original(self, state)
        if self.epoch == epoch:
            raise _KilledError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_KilledError):
        patch.setattr(Trainer, "run_epoch", run_epoch)
        yield


def saved_weights(result: TrainingResult) -> dict[str, bytes]:
    """The weights in every checkpoint of a run, by the checkpoint's name."""
    return {
        path.parent.name: path.read_bytes()
        for path in sorted(result.checkpoints.rglob("*.safetensors"))
    }
