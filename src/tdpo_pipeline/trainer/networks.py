"""What a base model's networks compute and keep, counted without weights or data.

They are built from their configuration files on tensors without data, and run once: what
they compute and what a backward pass keeps of them is counted, not guessed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.devices import DTYPES
from tdpo_pipeline.diffusion.loading import tiny_decoder_config


@dataclass(frozen=True)
class Network:
    """One network, and what one image takes.

    Attributes:
        parameters: Number of weights.
        flops: Of the forward pass.
        kept: Bytes that a backward pass needs of the forward pass.
        kept_checkpointed: The same with gradient checkpointing, at its peak.
        largest: Bytes of the largest output of a layer.
        float32: Whether it computes in float32.
    """

    parameters: int
    flops: float
    kept: int
    kept_checkpointed: int
    largest: int
    float32: bool = False


@dataclass(frozen=True)
class Architecture:
    """A base model, as far as memory and time depend on it.

    Attributes:
        unet: The denoiser, one latent without guidance.
        decoder: The VAE's decoder, one image.
        critic_decoder: The decoder of what a critic sees: the same, or a tiny one.
        text_parameters: Weights of all text encoders.
        latent_dims: Number D of latent dimensions.
        pixels: Numbers in an image.
    """

    unet: Network
    decoder: Network
    critic_decoder: Network
    text_parameters: int
    latent_dims: int
    pixels: int


def architecture(base_model: Path, config: RunConfig) -> tuple[Architecture, int]:
    """A base model's architecture, and how many weights the run trains."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModel

    scale = config.training
    unet_config, vae_config = (
        _read(base_model / part / "config.json") for part in ("unet", "vae")
    )
    text = 0
    for folder in sorted(base_model.glob("text_encoder*")):
        with init_empty_weights():
            encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        text += sum(p.numel() for p in encoder.parameters())
    lora = scale.adapters
    unet, trained = _measured_unet(
        json.dumps(unet_config),
        scale.precision,
        None if lora is None else (lora.rank, lora.target_modules),
    )
    size = unet_config["sample_size"]
    xl = unet_config.get("addition_embed_type") == "text_time"
    upcast = xl and vae_config.get("force_upcast", True) and scale.precision == "fp16"
    decoder = _measured_decoder(
        json.dumps(vae_config), size, "fp32" if upcast else scale.precision
    )
    critic_decoder = decoder
    if config.algorithm.needs_tiny_decoder:
        tiny_config = tiny_decoder_config(base_model)
        critic_decoder = _measured_decoder(
            json.dumps(tiny_config), size, scale.precision
        )
    upscaling = 2 ** (len(vae_config["block_out_channels"]) - 1)
    return Architecture(
        unet=unet,
        decoder=decoder,
        critic_decoder=critic_decoder,
        text_parameters=text,
        latent_dims=unet_config["in_channels"] * size**2,
        pixels=3 * (size * upscaling) ** 2,
    ), trained


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@cache
def _measured_unet(
    settings: str, precision: str, lora: tuple[int, tuple[str, ...]] | None
) -> tuple[Network, int]:
    """A UNet by its configuration, and its number of trained weights."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    config = json.loads(settings)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        # Not by diffusers' own method, which warns of it.
        nn.Module.to(unet, DTYPES[precision])
        unet.requires_grad_(lora is None)
        parameters = sum(p.numel() for p in unet.parameters())
        if lora is not None:
            rank, targets = lora
            adapters = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
            unet.add_adapter(adapters)
    trained = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    size = config["sample_size"]
    with _without_data(DTYPES[precision]):
        _move(unet)
        inputs = (
            torch.empty(1, config["in_channels"], size, size),
            torch.ones(1, dtype=torch.long),
            torch.empty(1, 77, config["cross_attention_dim"]),
        )
        extra = {}
        if config.get("addition_embed_type") == "text_time":
            ids, width = 6, config["addition_time_embed_dim"]
            pooled = config["projection_class_embeddings_input_dim"] - ids * width
            extra["added_cond_kwargs"] = {
                "text_embeds": torch.empty(1, pooled),
                "time_ids": torch.empty(1, ids),
            }
        network = _measured(
            unet, *inputs, parameters=parameters, checkpointed=UNET_UNITS, **extra
        )
    return replace(network, float32=precision == "fp32"), trained


@cache
def _measured_decoder(settings: str, size: int, precision: str) -> Network:
    """The decoder of a VAE, or of a tiny one, by its configuration."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    config = json.loads(settings)
    dtype = DTYPES[precision]
    tiny = config.get("_class_name") == "AutoencoderTiny"
    vae_class: Any = AutoencoderTiny if tiny else AutoencoderKL
    with torch.device("meta"):
        vae = vae_class.from_config(config).requires_grad_(False)
        nn.Module.to(vae, dtype)
    parameters = sum(p.numel() for p in vae.parameters())
    with _without_data(torch.float32):  # a VAE computes in the format of its weights
        _move(vae.decoder)
        latents = torch.empty(1, config["latent_channels"], size, size, dtype=dtype)
        network = _measured(
            vae.decoder,
            latents.requires_grad_(),
            parameters=parameters,
            checkpointed=DECODER_UNITS,
        )
    return replace(network, float32=precision == "fp32")


def _move(network: nn.Module) -> None:
    """Make weights a GPU's, without data; trained ones are float32 whatever the rest is."""
    for module in network.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            dtype = torch.float32 if p.requires_grad else p.dtype
            moved = nn.Parameter(
                torch.empty(p.shape, dtype=dtype), requires_grad=p.requires_grad
            )
            setattr(module, name, moved)


@contextlib.contextmanager
def _without_data(dtype: torch.dtype) -> Iterator[None]:
    """Tensors made in here are a GPU's, without data.

    Networks compute under autocast to ``dtype``, unless that is float32.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    attention = mock.patch.object(
        nn.functional, "scaled_dot_product_attention", _fused_attention
    )
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"), attention:
        # torch.autocast itself refuses where there is no GPU.
        torch.set_autocast_enabled("cuda", dtype != torch.float32)
        torch.set_autocast_dtype("cuda", dtype)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", autocast[0])
            torch.set_autocast_dtype("cuda", autocast[1])


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Attention as a GPU's kernel computes it, which keeps no attention matrix."""
    operator = torch.ops.aten._scaled_dot_product_flash_attention
    return operator(query, key, value)[0]


UNET_UNITS = ("ResnetBlock2D", "BasicTransformerBlock")
"""Classes of a UNet's modules that diffusers' gradient checkpointing computes again, one
at a time."""

DECODER_UNITS = ("UNetMidBlock2D", "UpDecoderBlock2D")
"""The same of a VAE's decoder."""


def _measured(
    module: nn.Module,
    *inputs: Tensor,
    parameters: int,
    checkpointed: tuple[str, ...],
    **named: Any,
) -> Network:
    """Count what one forward pass computes and keeps.

    Args:
        module: A network without data.
        inputs: What it takes.
        parameters: Its number of weights.
        checkpointed: ``UNET_UNITS`` or ``DECODER_UNITS``.
        named: What else it takes, by name.
    """
    from torch.utils.flop_counter import FlopCounterMode

    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Any] = {}
    units: list[int] = []
    boundaries: list[int] = []
    largest = 0

    def total() -> int:
        return sum(storage.nbytes() for storage in kept.values())

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept.setdefault(storage._cdata, storage)
        return tensor

    def before(unit: nn.Module, given: Any) -> None:
        boundaries.append(given[0].untyped_storage().nbytes())
        units.append(-total())

    def after(unit: nn.Module, given: Any, output: Any) -> None:
        units[-1] += total()

    def measure(layer: nn.Module, given: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.untyped_storage().nbytes())

    for layer in module.modules():
        layer.register_forward_hook(measure)
        if type(layer).__name__ in checkpointed:
            layer.register_forward_pre_hook(before)
            layer.register_forward_hook(after)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        module(*inputs, **named)
    outside = total() - sum(units)
    return Network(
        parameters=parameters,
        flops=counter.get_total_flops(),
        kept=total(),
        kept_checkpointed=outside + sum(boundaries) + max(units, default=0),
        largest=largest,
    )
