"""The policy: a Stable Diffusion pipeline whose UNet is being fine-tuned.

Works with any ``StableDiffusionPipeline``, Menagerie's as well as the real ones. The
VAE and the text encoder are frozen; what is trained is LoRA adapters on the UNet
(peft, through diffusers' own adapter interface) or the whole UNet.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from tdpo_pipeline.config import LoraSettings
from tdpo_pipeline.diffusion.randomness import torch_seed

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FILE = "unet.safetensors"
_ADAPTER = "default"


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, or of another configuration."""


def load_pipeline(base_model: Path) -> StableDiffusionPipeline:
    """Load a ``StableDiffusionPipeline`` directory in float32, its DDIM scheduler set.

    Raises:
        FileNotFoundError: If there is no pipeline at that path.
        ValueError: If its scheduler is not one that the log-prob is made for.
    """
    if not (base_model / "model_index.json").is_file():
        raise FileNotFoundError(
            f"There is no diffusers pipeline in {base_model} (model_index.json is "
            "missing). Menagerie's is made by: kedro run --pipelines base_model"
        )
    with _without_progress_bars():
        pipeline = StableDiffusionPipeline.from_pretrained(
            base_model, dtype=torch.float32, local_files_only=True
        )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    _check_scheduler(pipeline.scheduler, base_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _check_scheduler(scheduler: DDIMScheduler, base_model: Path) -> None:
    """Raise ValueError where the transition would not be the one of `ddim.py`."""
    expected = {
        "prediction_type": "epsilon",
        "clip_sample": False,
        "thresholding": False,
        "set_alpha_to_one": False,
    }
    wrong = {
        k: scheduler.config[k] for k, v in expected.items() if scheduler.config[k] != v
    }
    if wrong:
        raise ValueError(
            f"The scheduler of {base_model} has {wrong}; the log-prob of a step is made "
            f"for { ({k: expected[k] for k in wrong}) }, as Stable Diffusion 1 has it."
        )


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()


class Policy:
    """A UNet to fine-tune, with everything that sampling from it needs.

    Args:
        pipeline: The base model. Its UNet is changed in place.
        num_inference_steps: Denoising steps T.
        lora: Adapters to add, or None to train the whole UNet.
        seed: Seed of the adapters' initial weights.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        num_inference_steps: int,
        lora: LoraSettings | None,
        seed: int = 0,
    ) -> None:
        self.pipeline = pipeline
        self.unet: Any = pipeline.unet
        self.scheduler: DDIMScheduler = pipeline.scheduler
        self.scheduler.set_timesteps(num_inference_steps)
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
            part.requires_grad_(False).eval()
        self.lora = lora
        self._base: dict[str, Tensor] | None = None
        if lora is None:
            self._base = {k: v.clone() for k, v in self.unet.state_dict().items()}
            self.unet.requires_grad_(True)
        else:
            self._add_adapters(lora, seed)
        self._text: dict[str, Tensor] = {}

    def _add_adapters(self, lora: LoraSettings, seed: int) -> None:
        targets = list(lora.target_modules)
        names = [name for name, _ in self.unet.named_modules()]
        missing = [t for t in targets if not any(n.endswith(t) for n in names)]
        if missing:
            raise ValueError(
                f"lora.target_modules names {missing}, which this UNet doesn't have."
            )
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.rank,
            init_lora_weights="gaussian",
            target_modules=targets,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "lora"))
            self.unet.add_adapter(config, adapter_name=_ADAPTER)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return next(self.unet.parameters()).device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        config = self.pipeline.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def latent_dims(self) -> int:
        """Number D of latent dimensions."""
        channels, height, width = self.latent_shape
        return channels * height * width

    @property
    def timesteps(self) -> Tensor:
        """The T timesteps of a trajectory, from noise to image, int64."""
        return self.scheduler.timesteps.to(self.device, torch.long)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.unet.parameters() if p.requires_grad]

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings, float32, shape (N, L, d); each prompt is encoded once."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._text]
        for prompt in new:
            with torch.no_grad():
                embeds, _ = self.pipeline.encode_prompt(
                    prompt, self.device, 1, do_classifier_free_guidance=False
                )
            self._text[prompt] = embeds[0].float()
        return torch.stack([self._text[p] for p in prompts])

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeds: Tensor,
        guidance_scale: float | Tensor,
    ) -> Tensor:
        """Predicted noise with classifier-free guidance, in sampling and training.

        Unconditional and conditional halves go through the UNet in one batch; with the
        number 1 as guidance scale the unconditional half is left out.

        Args:
            latents: x_t, float32, shape (B, C, H, W).
            timesteps: int64, shape (B,).
            embeds: Text embeddings, shape (B, L, d).
            guidance_scale: Weight w of eps_u + w (eps_c - eps_u): a number, or one for
                each sample, shape (B,).

        Returns:
            float32, shape (B, C, H, W).
        """
        if isinstance(guidance_scale, Tensor):
            guidance_scale = guidance_scale.view(-1, 1, 1, 1)
        elif guidance_scale == 1.0:
            return self._unet(latents, timesteps, embeds).float()
        null = self.encode([""]).expand_as(embeds)
        both = self._unet(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            torch.cat([null, embeds]),
        )
        unconditional, conditional = both.float().chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _unet(self, latents: Tensor, timesteps: Tensor, embeds: Tensor) -> Tensor:
        return self.unet(latents, timesteps, embeds, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, float32 in [0, 1], shape (N, 3, 8H, 8W) for SD."""
        vae = self.pipeline.vae
        images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def set_strength(self, strength: float) -> None:
        """Scale the adapters: 0 is the base model, 1 the fine-tuned one.

        Raises:
            ValueError: If the whole UNet is trained, which has no strength.
        """
        if self.lora is None:
            raise ValueError("A fine-tuned UNet has no strength; LoRA adapters do.")
        self.unet.set_adapters([_ADAPTER], [strength])

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context the UNet is the untouched base model, without gradient.

        With LoRA the adapters are switched off; else the base weights are swapped in.
        """
        with torch.no_grad():
            if self._base is None:
                self.pipeline.unet.disable_adapters()
                try:
                    yield
                finally:
                    self.pipeline.unet.enable_adapters()
            else:
                trained = {k: v.clone() for k, v in self.unet.state_dict().items()}
                self.unet.load_state_dict(self._base)
                try:
                    yield
                finally:
                    self.unet.load_state_dict(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The trained weights (adapters, or the whole UNet), contiguous and detached."""
        if self.lora is None:
            weights = self.unet.state_dict()
        else:
            weights = get_peft_model_state_dict(self.unet, adapter_name=_ADAPTER)
        return {k: v.detach().clone().contiguous() for k, v in weights.items()}

    def load_state_dict(self, weights: dict[str, Tensor]) -> None:
        """Load what :meth:`state_dict` gave.

        Raises:
            CheckpointError: If the names or shapes are those of another configuration.
        """
        expected = self.state_dict()
        wrong = {k for k in expected if k not in weights} | {
            k
            for k, v in weights.items()
            if k not in expected or v.shape != expected[k].shape
        }
        if wrong:
            raise CheckpointError(
                f"The weights belong to another configuration: {len(wrong)} tensors "
                f"are missing, surplus or of another shape, such as '{min(wrong)}'."
            )
        if self.lora is None:
            self.unet.load_state_dict(weights)
        else:
            set_peft_model_state_dict(self.unet, weights, adapter_name=_ADAPTER)

    def save(self, directory: Path) -> None:
        """Write the trained weights: a LoRA as plain diffusers loads it, or the UNet."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict()
        if self.lora is None:
            save_file(weights, directory / UNET_FILE)
        else:
            StableDiffusionPipeline.save_lora_weights(
                directory, unet_lora_layers=convert_state_dict_to_diffusers(weights)
            )

    def load(self, directory: Path) -> None:
        """Load what :meth:`save` wrote.

        Raises:
            CheckpointError: If the file is missing or truncated, or belongs to another
                configuration.
        """
        path = directory / (UNET_FILE if self.lora is None else LORA_FILE)
        weights = read_safetensors(path)
        if self.lora is not None:
            prefix = "unet."
            weights = {
                _peft_name(k.removeprefix(prefix)): v for k, v in weights.items()
            }
        try:
            self.load_state_dict(weights)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file.

    Raises:
        CheckpointError: If the file is missing or can't be read to its end.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}.")
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}). Train the run "
            "again."
        ) from error


def _peft_name(name: str) -> str:
    return name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B.")


logging.getLogger("diffusers.loaders").setLevel(logging.ERROR)
