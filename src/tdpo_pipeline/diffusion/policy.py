"""The policy: a Stable Diffusion pipeline whose UNet is being fine-tuned.

Works with any pipeline of Stable Diffusion 1.x or XL, Menagerie's as well as the real
ones. The VAE and the text encoders are frozen; what is trained is LoRA adapters on the
UNet (peft, through diffusers' own adapter interface) or the whole UNet.

In half precision the frozen weights are in that format and the trained ones in float32;
the UNet computes under autocast, in sampling and in training alike, and everything that
leaves the networks is float32.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionXLPipeline
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tdpo_pipeline.config import ComputeSettings, LoraSettings
from tdpo_pipeline.diffusion.devices import (
    DTYPES,
    resolve_device,
    set_float32_arithmetic,
)
from tdpo_pipeline.diffusion.loading import BasePipeline
from tdpo_pipeline.diffusion.prompt_embeds import PromptEmbeds
from tdpo_pipeline.diffusion.randomness import torch_seed
from tdpo_pipeline.rewards.reading import TruncatedPromptWarning

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FILE = "unet.safetensors"
_ADAPTER = "default"
_GRAPHS = 64
"""Most graphs of a compiled UNet: one for each batch shape and each of its strengths."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, or of another configuration."""


class LoraError(ValueError):
    """Adapters that the base model's UNet has no place for."""


class Policy:
    """A UNet to fine-tune, with everything that sampling from it needs.

    Args:
        pipeline: The base model in float32. It is changed in place.
        num_inference_steps: Denoising steps T.
        lora: Adapters to add, or None to train the whole UNet.
        trained: False for a UNet without adapters that is only sampled from: it is
            frozen and in the precision, as the other parts are, and no copy of it is
            kept.
        seed: Seed of the adapters' initial weights.
        compute: Device, precision and what trades memory for time; by default the CPU
            and float32.
        tiny_decoder: What :meth:`decode_roughly` decodes by, or None.

    Raises:
        DeviceError: If the device is not there.
        LoraError: If the UNet has no such modules.
        ValueError: If adapters are to be added and nothing is trained.
    """

    def __init__(
        self,
        pipeline: BasePipeline,
        *,
        num_inference_steps: int,
        lora: LoraSettings | None,
        trained: bool = True,
        seed: int = 0,
        compute: ComputeSettings | None = None,
        tiny_decoder: AutoencoderTiny | None = None,
    ) -> None:
        if lora is not None and not trained:
            raise ValueError("adapters are there to be trained; take lora=None.")
        compute = ComputeSettings() if compute is None else compute
        device = resolve_device(compute)
        set_float32_arithmetic(device, tf32=compute.tf32)
        self.pipeline = pipeline
        self.tiny_decoder = tiny_decoder
        self.compute = compute
        self.dtype = DTYPES[compute.precision]
        self.unet: Any = pipeline.unet
        self.scheduler: DDIMScheduler = pipeline.scheduler
        for part in _networks(pipeline):
            part.requires_grad_(False).eval()
        self.lora = lora
        if lora is not None:
            self._add_adapters(lora, seed)
        elif trained:
            self.unet.requires_grad_(True)
        self._place(device)
        self._base: dict[str, Tensor] | None = None
        if lora is None and trained:
            self._base = {k: v.clone() for k, v in self.unet.state_dict().items()}
        self.scheduler.set_timesteps(num_inference_steps, device)
        self._time_ids = self._image_sizes()
        # What computes: the UNet, or its compiled form, which shares its weights.
        self._forward: Any = self.unet
        if compute.compile:
            self._forward = _compiled(self.unet)
        self._text: dict[str, PromptEmbeds] = {}

    def _add_adapters(self, lora: LoraSettings, seed: int) -> None:
        targets = list(lora.target_modules)
        names = [name for name, _ in self.unet.named_modules()]
        # As peft finds them: whole names, or the last of their parts.
        missing = [
            t for t in targets if not any(f".{n}".endswith(f".{t}") for n in names)
        ]
        if missing:
            raise LoraError(
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
        for module in self.unet.modules():
            if isinstance(module, BaseTunerLayer):
                # Autocast casts what an adapter reads; peft would cast it there and back.
                module.cast_input_dtype_enabled = self.dtype == torch.float32

    def _place(self, device: torch.device) -> None:
        """Bring all parts to the device, and the frozen ones to the precision."""
        compute, pipeline = self.compute, self.pipeline
        frozen: dict[nn.Module, torch.dtype] = {
            part: _frozen_dtype(pipeline, part, self.dtype)
            for part in _networks(pipeline)
        }
        if self.tiny_decoder is not None:
            frozen[self.tiny_decoder] = self.dtype
        for part, dtype in frozen.items():
            for weight in part.parameters():
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)
            part.to(device)
            if compute.channels_last:
                part.to(memory_format=torch.channels_last)
        if compute.gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
            pipeline.vae.enable_gradient_checkpointing()
        if compute.attention_slicing:
            pipeline.enable_attention_slicing()
        if compute.vae_slicing:
            pipeline.vae.enable_slicing()
        if compute.vae_tiling:
            pipeline.vae.enable_tiling()
        scheduler = self.scheduler
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(device)
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.to(device)

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
        return self.scheduler.timesteps.long()

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.unet.parameters() if p.requires_grad]

    def encode(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Embeddings of N prompts, as the pipeline makes them; each is encoded once."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._text:
                self._text[prompt] = self._encode(prompt)
        return PromptEmbeds.cat([self._text[prompt] for prompt in prompts])

    def tell_truncated(self, prompts: Sequence[str]) -> None:
        """Warn of prompts of which the base model reads only the beginning."""
        tokenizer = self.pipeline.tokenizer
        length = tokenizer.model_max_length
        counts = {
            prompt: len(tokenizer(prompt, verbose=False).input_ids)
            for prompt in dict.fromkeys(prompts)
        }
        longer = {prompt: n for prompt, n in counts.items() if n > length}
        if longer:
            first = next(iter(longer))
            warnings.warn(
                f"The base model reads the first {length} tokens of a prompt, and "
                f"{len(longer)} of {len(counts)} prompts are longer, first that of "
                f"{longer[first]} tokens {first!r:.120}.",
                TruncatedPromptWarning,
                stacklevel=2,
            )

    @torch.no_grad()
    def _encode(self, prompt: str) -> PromptEmbeds:
        with quiet("diffusers", "transformers"):  # of what tell_truncated says
            tokens, *others = self.pipeline.encode_prompt(
                prompt,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        # XL gives the pooled embedding too: tokens, None, pooled, None.
        pooled = others[1].float() if len(others) > 1 else None
        return PromptEmbeds(tokens.float(), pooled)

    @property
    def embedding_dim(self) -> int:
        """Size d of a token's embedding."""
        return self.encode([""]).tokens.shape[-1]

    def unconditional(self, count: int) -> PromptEmbeds:
        """What guidance leads away from: the empty prompt, or zeros where XL has them."""
        null = self.encode([""])
        if self.pipeline.config.get("force_zeros_for_empty_prompt", False):
            assert null.pooled is not None
            null = PromptEmbeds(
                torch.zeros_like(null.tokens), torch.zeros_like(null.pooled)
            )
        return null.expand(count)

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeds: PromptEmbeds,
        guidance_scale: float | Tensor,
    ) -> Tensor:
        """Predicted noise with classifier-free guidance, in sampling and training.

        Unconditional and conditional halves go through the UNet in one batch; with the
        number 1 as guidance scale the unconditional half is left out.

        Args:
            latents: x_t, float32, shape (B, C, H, W).
            timesteps: int64, shape (B,).
            embeds: Text embeddings of B prompts.
            guidance_scale: Weight w of eps_u + w (eps_c - eps_u): a number, or one for
                each sample, shape (B,).

        Returns:
            float32, shape (B, C, H, W).
        """
        if isinstance(guidance_scale, Tensor):
            guidance_scale = guidance_scale.view(-1, 1, 1, 1)
        elif guidance_scale == 1.0:
            return self._unet(latents, timesteps, embeds)
        both = self._unet(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            PromptEmbeds.cat([self.unconditional(len(embeds)), embeds]),
        )
        unconditional, conditional = both.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _unet(self, latents: Tensor, timesteps: Tensor, embeds: PromptEmbeds) -> Tensor:
        """The UNet's output, float32. All of sampling and training goes through here.

        A compiled UNet has one graph with gradient and another without, which round
        differently; so it always gets the one with.
        """
        gradient, one_graph = torch.is_grad_enabled(), self._forward is not self.unet
        with self._autocast(), torch.set_grad_enabled(gradient or one_graph):
            output = self._forward(
                latents,
                timesteps,
                embeds.tokens.to(self.dtype),
                added_cond_kwargs=self._added_conditions(embeds),
                return_dict=False,
            )[0].float()
        return output if gradient else output.detach()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _added_conditions(self, embeds: PromptEmbeds) -> dict[str, Tensor] | None:
        """What XL's UNet reads besides: pooled text and sizes."""
        if embeds.pooled is None:
            return None
        time_ids = self._time_ids.expand(len(embeds), -1)
        return {"text_embeds": embeds.pooled, "time_ids": time_ids}

    def _image_sizes(self) -> Tensor:
        """Original size, corner of the crop and target size, for XL, shape (1, 6)."""
        _, *latent = self.latent_shape
        size = [side * self.pipeline.vae_scale_factor for side in latent]
        return torch.tensor([[*size, 0.0, 0.0, *size]], device=self.device)

    @contextlib.contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Within this context the UNet runs as it is, so that its hooks see their data."""
        forward, self._forward = self._forward, self.unet
        try:
            yield
        finally:
            self._forward = forward

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, float32 in [0, 1], shape (N, 3, 8H, 8W) for SD."""
        return _decoded(self.pipeline.vae, latents)

    def decode_roughly(self, latents: Tensor) -> Tensor:
        """What :meth:`decode` gives, about and cheaply, by the tiny decoder."""
        assert self.tiny_decoder is not None
        return _decoded(self.tiny_decoder, latents)

    @contextlib.contextmanager
    def slicing(self, on: bool) -> Iterator[None]:
        """Within this context images are decoded one at a time, or all together."""
        vae = self.pipeline.vae
        before, vae.use_slicing = vae.use_slicing, on
        try:
            yield
        finally:
            vae.use_slicing = before

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

        Raises:
            ValueError: If nothing is trained, and so no base model kept.
        """
        if self.lora is None and self._base is None:
            raise ValueError("A policy that isn't trained keeps no base model.")
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
        check_weights(self.state_dict(), weights)
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
            layers = {_diffusers_name(name): value for name, value in weights.items()}
            self.pipeline.save_lora_weights(directory, unet_lora_layers=layers)

    def load(self, directory: Path) -> None:
        """Load what :meth:`save` wrote.

        Raises:
            CheckpointError: If the file is missing or truncated, or belongs to another
                configuration.
        """
        path = directory / (UNET_FILE if self.lora is None else LORA_FILE)
        weights = read_safetensors(path)
        try:
            if self.lora is not None:
                check_adapter(self.unet, weights)
                weights = {_peft_name(name): value for name, value in weights.items()}
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


@contextlib.contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Without the warnings that libraries log."""
    loggers = [logging.getLogger(library) for library in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _networks(pipeline: BasePipeline) -> list[nn.Module]:
    """VAE, text encoders and UNet."""
    names = ("vae", "text_encoder", "text_encoder_2", "unet")
    parts = [getattr(pipeline, name, None) for name in names]
    return [part for part in parts if part is not None]


def _decoded(vae: Any, latents: Tensor) -> Tensor:
    """Images in [0, 1] by a decoder, which has a scale of latents of its own.

    That of an ``AutoencoderTiny`` is 1: it takes latents as the UNet has them.
    """
    scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    images = vae.decode(scaled, return_dict=False)[0]
    return (images.float() / 2 + 0.5).clamp(0, 1)


def _frozen_dtype(
    pipeline: BasePipeline, part: nn.Module, dtype: torch.dtype
) -> torch.dtype:
    """Format of a part's frozen weights: XL's VAE, unless mended, overflows in fp16."""
    upcast = isinstance(pipeline, StableDiffusionXLPipeline) and (
        pipeline.vae.config.force_upcast
    )
    if part is pipeline.vae and dtype == torch.float16 and upcast:
        return torch.float32
    return dtype


def _compiled(unet: nn.Module) -> Any:
    """The UNet, compiled for each batch shape and strength that it meets.

    torch keeps few graphs, of all UNets of a process together, and computes what is
    beyond them uncompiled, with no more than a warning. Here those of UNets before this
    one are forgotten (who still uses one compiles it again), and too many are an error.
    """
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = _GRAPHS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(unet, dynamic=False)


_DOWN, _UP = (".lora.down.", ".lora_A."), (".lora.up.", ".lora_B.")
"""What diffusers, and what peft, calls the two projections of an adapter."""


def _peft_name(name: str) -> str:
    name = name.removeprefix("unet.")
    return name.replace(*_DOWN).replace(*_UP)


def kohya_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A saved LoRA under Kohya's names, which ComfyUI and AUTOMATIC1111 read.

    Args:
        weights: What :meth:`Policy.save` wrote.
    """
    from diffusers.utils import convert_state_dict_to_kohya

    peft = {f"unet.{_peft_name(name)}": value for name, value in weights.items()}
    return convert_state_dict_to_kohya(peft)


def _diffusers_name(name: str) -> str:
    """One naming for all layers; diffusers' own conversion renames only attention's."""
    return name.replace(*_DOWN[::-1]).replace(*_UP[::-1])


def check_weights(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> None:
    """Raise CheckpointError unless names and shapes are the expected ones."""
    lists = {
        "missing": [name for name in expected if name not in weights],
        "surplus": [name for name in weights if name not in expected],
        "of another shape": [
            name
            for name, weight in weights.items()
            if name in expected and weight.shape != expected[name].shape
        ],
    }
    wrong = [
        f"{len(names)} tensors are {what}, such as '{min(names)}'"
        for what, names in lists.items()
        if names
    ]
    if wrong:
        raise CheckpointError(
            f"The weights belong to another configuration: {'; '.join(wrong)}."
        )


def check_adapter(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Hold a LoRA, named as in its file, against the UNet that it is to be put on.

    Raises:
        CheckpointError: If it is of another base model: names of modules that the UNet
            hasn't, or widths that are not theirs.
    """
    modules = dict(unet.named_modules())
    for name, weight in weights.items():
        module_name, _, projection = _peft_name(name).rpartition(".lora_")
        module = modules.get(module_name)
        if module is None or not module_name:
            raise CheckpointError(
                f"The LoRA is of another base model: its tensor '{name}' belongs to no "
                "layer of this UNet."
            )
        layer: Any = getattr(module, "base_layer", module)
        # Down reads what the layer reads, up gives what it gives.
        side, what = (1, "inputs") if projection.startswith("A") else (0, "outputs")
        own, expected = weight.shape[side], layer.weight.shape[side]
        if own != expected:
            raise CheckpointError(
                f"The LoRA is of another base model: its tensor '{name}' is for a layer "
                f"of {own} {what}, and this UNet's has "
                f"{expected}."
            )
