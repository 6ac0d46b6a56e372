"""The device and the number format of a run, held against the machine before any work."""

from __future__ import annotations

import torch
from torch import Tensor

from tdpo_pipeline.config import ComputeSettings

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What networks compute in, by the name of the precision."""


class DeviceError(ValueError):
    """The machine lacks the device, the memory or the precision that is asked for."""


def resolve_device(settings: ComputeSettings) -> torch.device:
    """The device that the settings ask for; of several GPUs torch's current one.

    Raises:
        DeviceError: If it isn't there, or can't compute in their precision.
    """
    found = torch.cuda.is_available()
    if settings.device == "cpu" or (settings.device == "auto" and not found):
        return torch.device("cpu")
    if not found:
        raise DeviceError(
            f"training.device is cuda, but torch {torch.__version__} finds no GPU. Set "
            "training.device to cpu or auto, or install a driver, and a torch built "
            "for it."
        )
    device = torch.device("cuda", torch.cuda.current_device())
    if settings.precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} can't compute in bf16; set "
            "training.precision to fp16."
        )
    return device


def device_name(device: torch.device) -> str:
    """What a device is called: ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def check_memory(device: torch.device, needed_gb: float) -> None:
    """Hold the memory that a training needs against what a GPU has free.

    Raises:
        DeviceError: If it has less.
    """
    if device.type == "cpu":
        return
    free, total = (size / 1e9 for size in torch.cuda.mem_get_info(device))
    # What this process has is its own: torch keeps what the run before it gave back.
    free += torch.cuda.memory_reserved(device) / 1e9
    if free < needed_gb:
        raise DeviceError(
            f"The settings need {needed_gb:g} GB of GPU memory, and "
            f"{torch.cuda.get_device_name(device)} has {free:.1f} GB of its "
            f"{total:.1f} GB free. Take the preset of a smaller GPU (training.preset), or "
            "another GPU; training.gpu_memory_gb=0 leaves this check to the estimate, "
            "which says what would fit."
        )


def set_float32_arithmetic(device: torch.device, *, tf32: bool) -> None:
    """Say how a GPU multiplies float32 matrices and convolves, for the whole process.

    Left to itself torch would convolve in TF32, and multiply matrices in float32. A CPU
    has no TF32, and nothing is set for it.
    """
    if device.type == "cpu":
        return
    # By these switches, since others that are set apart can't be read through them.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, or a CPU tensor without waiting for what the device does."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
