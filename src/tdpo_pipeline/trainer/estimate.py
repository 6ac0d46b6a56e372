"""What a run will take, before it starts: GPU memory and time. Estimates, no promises.

What its networks compute and keep is counted (``networks.py``). Time follows from an
assumed rate, which is said. Left out are what the memory allocator wastes, and everything
that takes less than a few percent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.devices import DeviceError
from tdpo_pipeline.rewards.registry import REWARDS
from tdpo_pipeline.rewards.repositories import loaded_bytes
from tdpo_pipeline.trainer.networks import Architecture, architecture

FLOAT32 = 4

BACKWARD = {"lora": 1.15, "full": 2.0}
"""FLOPs of a backward pass over those of its forward pass, with the base frozen or not."""

UTILISATION = 0.35
"""Share of a GPU's peak that is assumed to be sustained, where nothing was measured."""

MEASURED = {"H200": 0.20, "H100": 0.20}
"""Share of the peak in half precision, by a word of the GPU's name.

Of an H200: 0.21 in sampling from Stable Diffusion 1.4 and 0.19 in training it, in fp16
(``benchmarks/results/gpu.json``). An H100 is the same chip with slower memory."""


class Peak(NamedTuple):
    """A GPU's dense peak in TFLOP/s by number format: fp16 and bf16, TF32, float32."""

    half: float
    tf32: float
    fp32: float


PEAK_TFLOPS = {
    "H200": Peak(989, 495, 67),
    "H100": Peak(989, 495, 67),
    "A100": Peak(312, 156, 19.5),
    "L40S": Peak(362, 183, 92),
    "A6000": Peak(155, 77, 39),
    "4090": Peak(165, 83, 83),
    "3090": Peak(71, 36, 36),
    "V100": Peak(125, 15.7, 15.7),  # has no TF32
    "A10": Peak(125, 62, 31),
    "L4": Peak(121, 60, 30),
}
"""Data sheets' peaks by a word of the GPU's name."""

UNKNOWN = "A100"
"""The GPU whose rate is assumed of one that isn't known."""

PUBLISHED = {name for name, entry in REWARDS.items() if entry.repositories}
"""Rewards that are large networks."""

ENCODER_FLOPS = 335e9
"""Of one image through the largest encoder that a critic reads, ViT-H/14."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        memory: GB of GPU memory, by what they are for.
        work: PFLOP of an epoch, by what they are for.
        host: GB of host memory, of trajectories.
        float32: Names of the work that is in float32, whatever the precision is.
    """

    memory: dict[str, float]
    work: dict[str, float]
    host: float = 0.0
    float32: frozenset[str] = frozenset()

    @property
    def gigabytes(self) -> float:
        """All memory at its peak."""
        return sum(self.memory.values())

    def seconds(
        self, tflops: float, processes: int, float32_tflops: float | None = None
    ) -> float:
        """An epoch's time at a sustained rate of each of several processes.

        Args:
            tflops: The rate, in the run's precision.
            processes: Their number.
            float32_tflops: The rate in float32; None: the same.
        """
        slow = sum(self.work[name] for name in self.float32)
        fast = sum(self.work.values()) - slow
        seconds = fast / tflops + slow / (float32_tflops or tflops)
        return 1e3 * seconds / processes

    def text(
        self, config: RunConfig, tflops: float, float32_tflops: float, whose: str = ""
    ) -> str:
        """What to print; the rates are those of :meth:`seconds`, ``whose`` explains them."""
        epochs = config.training.epochs
        seconds = self.seconds(tflops, config.training.processes, float32_tflops)
        memory = ", ".join(f"{name} {value:.1f}" for name, value in self.memory.items())
        work = ", ".join(f"{name} {value:.1f}" for name, value in self.work.items())
        slow = ", ".join(name for name in self.work if name in self.float32)
        return (
            f"{config.key}: estimate: {self.gigabytes:.0f} GB of GPU memory ({memory})"
            + (f", {self.host:.1f} GB of host memory" if self.host else "")
            + f"; {seconds:.0f} s an epoch, {epochs * seconds / 3600:.1f} h in all, at an "
            f"assumed {tflops:.0f} TFLOP/s a process"
            + (f", {float32_tflops:.0f} in float32 ({slow})" if slow else "")
            + whose
            + f" (PFLOP an epoch: {work})"
        )


def estimate(config: RunConfig, model: Architecture, trained: int) -> Estimate:
    """Memory and work of a run.

    Args:
        config: The run.
        model: Its base model.
        trained: Number of trained weights.
    """
    scale = config.training
    half = 4 if scale.precision == "fp32" else 2
    unet, decoder = model.unet, model.decoder
    frozen = decoder.parameters + model.text_parameters
    frozen += unet.parameters * (scale.finetune == "lora")
    # Weight, gradient, Adam's two moments; the last good weights; three flat gradients
    # for their spread; and of a whole UNet the base model's weights.
    state = 8 + (scale.finetune == "full")
    sample = (2 * scale.num_inference_steps + 1) * model.latent_dims + model.pixels
    kept = unet.kept_checkpointed if scale.gradient_checkpointing else unet.kept
    batch, image = scale.micro_batch_size, guided_copies(config) * kept
    if config.algorithm.needs_gradient:
        batch = scale.backprop_batch_size or batch
        image += (
            decoder.kept_checkpointed if scale.gradient_checkpointing else decoder.kept
        )
    decoded = 1 if scale.vae_slicing else scale.chunk_size
    decoding = 4 * decoder.largest * decoded
    kept_samples = max(
        config.algorithm.kept_numbers(scale, model.latent_dims, epoch)
        for epoch in range(1, scale.epochs + 1)
    )
    if config.algorithm.needs_encoder:
        tiny = config.algorithm.needs_tiny_decoder
        frozen += model.critic_decoder.parameters * tiny
        seen = scale.critic_batch_size or (scale.chunk_size if tiny else decoded)
        decoding = max(decoding, 4 * model.critic_decoder.largest * seen)
    trajectories = FLOAT32 * (scale.samples_per_epoch * sample + kept_samples)
    host = 0
    if (
        scale.offload_trajectories
    ):  # of one chunk they are on the GPU, until it is whole
        host, trajectories = trajectories, FLOAT32 * scale.chunk_size * sample
    memory = {
        "base model": half * frozen,
        "rewards": reward_bytes(config),
        "trained weights and their optimizer": FLOAT32 * trained * state,
        "trajectories": trajectories,
        "activations": max(batch * image, decoding),
    }
    return Estimate(
        {name: value / 1e9 for name, value in memory.items()},
        {name: value / 1e15 for name, value in work(config, model).items()},
        host / 1e9,
        float32_work(config, model),
    )


def guided_copies(config: RunConfig) -> int:
    """Latents that the UNet sees for each one: two with guidance."""
    return 2 if config.algorithm.sampling_guidance(config.training) != 1 else 1


def scored_rewards(config: RunConfig) -> set[str]:
    """The rewards that score an epoch's images."""
    trained = config.task.scored_by
    return {
        *trained,
        *config.training.monitor,
        *config.algorithm.auxiliary_rewards,
    }


def reward_bytes(config: RunConfig) -> float:
    """What the rewards of a run take, and the encoder that its critic reads."""
    reads = config.algorithm.needs_encoder
    owner = (config.critic_encoder or config.task.scorer) if reads else None
    return loaded_bytes(scored_rewards(config), owner)


def work(config: RunConfig, model: Architecture) -> dict[str, float]:
    """FLOPs of an epoch, by what they are for.

    An encoder, of a reward or of a critic, counts as the largest of them does, and those of
    Menagerie's rewards not at all.
    """
    scale, algorithm = config.training, config.algorithm
    samples, steps = scale.samples_per_epoch, scale.num_inference_steps
    guided = guided_copies(config) * model.unet.flops
    again = 1.0 if scale.gradient_checkpointing else 0.0
    visit = guided * (1 + BACKWARD[scale.finetune] + again)
    visits = algorithm.unet_visits(scale)
    parts = {
        "sampling": samples * steps * guided,
        "decoding": samples * model.decoder.flops,
        "KL": scale.kl_samples * steps * guided,
        "updates": visits.trained * visit + visits.forward * guided,
    }
    encoded = samples * len(scored_rewards(config) & PUBLISHED)
    trained = config.task.scored_by
    if algorithm.needs_encoder:
        parts["critic"] = samples * steps * model.critic_decoder.flops
        encoded += samples * steps * _is_large(config.critic_encoder or trained[0])
    if algorithm.needs_gradient:
        queries = samples * algorithm.queries_per_sample
        parts["decoding"] += queries * model.decoder.flops * (2 + again)
        encoded += queries * 2 * sum(map(_is_large, trained))
    if encoded:
        parts["encoders"] = encoded * ENCODER_FLOPS
    return parts


def _is_large(reward: str) -> bool:
    """Whether a reward's encoder is a large network, as one that isn't known may be."""
    return reward in PUBLISHED or reward not in REWARDS


def float32_work(config: RunConfig, model: Architecture) -> frozenset[str]:
    """Names of the :func:`work` that is in float32: encoders are so always."""
    networks = {
        "sampling": model.unet,
        "decoding": model.decoder,
        "KL": model.unet,
        "updates": model.unet,
        "critic": model.critic_decoder,
    }
    slow = {name for name, network in networks.items() if network.float32}
    return frozenset({*slow, "encoders"} & work(config, model).keys())


def announce(config: RunConfig, base_model: Path, device: torch.device) -> str:
    """The estimate of a run, in words.

    Args:
        config: The run.
        base_model: Diffusers pipeline directory; of it only configuration is read.
        device: A GPU.

    Raises:
        DeviceError: If the GPU has less memory than the estimate.
    """

    def measure(other: RunConfig) -> Estimate:
        return estimate(other, *architecture(base_model, other))

    found, name = measure(config), torch.cuda.get_device_name(device)
    gigabytes = torch.cuda.mem_get_info(device)[1] / 1e9
    if found.gigabytes > gigabytes:
        raise too_little_memory(config, gigabytes, name, measure)
    tf32 = config.training.tf32
    return found.text(
        config,
        sustained_tflops(name, config.training.precision, tf32=tf32),
        sustained_tflops(name, "fp32", tf32=tf32),
        "" if known_gpu(name) else f", those of an {UNKNOWN} ({name} isn't known)",
    )


def too_little_memory(
    config: RunConfig,
    gigabytes: float,
    gpu: str,
    measure: Callable[[RunConfig], Estimate],
) -> DeviceError:
    """The error of a run that takes more memory than a GPU has, and what would fit.

    Args:
        config: The run.
        gigabytes: Memory of the GPU.
        gpu: Its name.
        measure: Estimates a run.
    """
    found = measure(config)
    parts = ", ".join(f"{name} {value:.1f}" for name, value in found.memory.items())
    settings, fitting = fitted(config, gigabytes, measure)
    given = ", ".join(f"training.{k}={json.dumps(v)}" for k, v in settings.items())
    advice = "Take a larger GPU"
    if fitting.gigabytes <= gigabytes:
        advice = f"It takes {fitting.gigabytes:.0f} GB with {given}"
    elif given:
        advice += f": even with {given} it takes {fitting.gigabytes:.0f} GB"
    return DeviceError(
        f"The run takes an estimated {found.gigabytes:.0f} GB of GPU memory ({parts}), "
        f"and {gpu} has {gigabytes:.0f} GB. {advice}."
    )


SAVINGS: tuple[dict[str, Any], ...] = (
    {"offload_trajectories": True},
    {"vae_slicing": True, "critic_batch_size": 1},
    {"gradient_checkpointing": True},
    {"chunk_size": 1, "micro_batch_size": 1, "backprop_batch_size": 1},
    {"precision": "bf16"},
    {"monitor": ()},
)
"""Settings that save memory, first those that cost least."""


def fitted(
    config: RunConfig, gigabytes: float, measure: Callable[[RunConfig], Estimate]
) -> tuple[dict[str, Any], Estimate]:
    """The first of :data:`SAVINGS` by which a run fits into a memory, or all that help.

    Returns:
        The settings of ``training`` to change, and the estimate with them.
    """
    changed: dict[str, Any] = {}
    found = measure(config)
    for saving in SAVINGS:
        if found.gigabytes <= gigabytes:
            break
        training = config.training.model_copy(update=changed | saving)
        less = measure(config.model_copy(update={"training": training}))
        if less.gigabytes < found.gigabytes - 0.1:
            given = {
                k: v for k, v in saving.items() if getattr(config.training, k) != v
            }
            changed, found = changed | given, less
    return changed, found


def sustained_tflops(gpu: str, precision: str, *, tf32: bool = False) -> float:
    """Assumed rate of a GPU of that name, in TFLOP/s.

    Args:
        gpu: The name, as the driver gives it.
        precision: Number format of the networks.
        tf32: Whether ``fp32`` is computed in TF32.
    """
    name = known_gpu(gpu) or UNKNOWN
    peak = PEAK_TFLOPS[name]
    if precision != "fp32":
        return MEASURED.get(name, UTILISATION) * peak.half
    return UTILISATION * (peak.tf32 if tf32 else peak.fp32)


def known_gpu(gpu: str) -> str | None:
    """The key of a GPU in :data:`PEAK_TFLOPS` by its whole name; None if it has none."""
    words = re.split(r"[^A-Z0-9]+", gpu.upper())
    return next((known for known in PEAK_TFLOPS if known in words), None)
