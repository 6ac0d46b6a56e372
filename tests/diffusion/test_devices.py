"""What a run asks of the machine; the GPU is a pretended one."""

import pytest
import torch

from tdpo_pipeline.config import ComputeSettings
from tdpo_pipeline.diffusion.devices import (
    DeviceError,
    check_memory,
    resolve_device,
    set_float32_arithmetic,
)
from tdpo_pipeline.diffusion.policy import Policy
from tests import tiny


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 24 GB, of which 20 are free, that can't compute in bf16."""
    answers = {
        "is_available": True,
        "current_device": 1,
        "is_bf16_supported": False,
        "get_device_name": "Pretence",
        "mem_get_info": (20e9, 24e9),
        "memory_reserved": 0,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def device(**settings):
    return resolve_device(ComputeSettings(**settings))


def memory(gigabytes, **settings):
    check_memory(device(**settings), gigabytes)


def test_a_cpu_is_a_cpu_whatever_else_is_there(gpu):
    assert device() == torch.device("cpu")
    memory(1000)


def test_auto_takes_the_gpu_if_there_is_one(gpu):
    # The current one, which a launcher sets for each of several processes.
    assert device(device="auto") == device(device="cuda") == torch.device("cuda", 1)


def test_auto_takes_the_cpu_if_there_is_none(no_gpu):
    assert device(device="auto") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_an_error(no_gpu):
    with pytest.raises(DeviceError, match=r"training\.device is cuda.*finds no GPU"):
        device(device="cuda")


def test_too_little_memory_is_an_error(gpu):
    # Work that trains nothing needs less, and isn't held to it.
    device(device="cuda", gpu_memory_gb=22)
    memory(20, device="cuda")
    with pytest.raises(DeviceError, match=r"need 22 GB.*20\.0 GB of its 24\.0 GB free"):
        memory(22, device="cuda")


def test_what_the_run_before_has_used_is_free(gpu, monkeypatch):
    # torch's allocator keeps 2 GB of a run that is over: 20 + 2 GB are to be had.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: 2e9)
    memory(22, device="cuda")
    with pytest.raises(DeviceError, match=r"has 22\.0 GB of its 24\.0 GB free"):
        memory(23, device="cuda")


def test_a_gpu_without_bf16_is_an_error(gpu):
    device(device="cuda", precision="fp16")
    with pytest.raises(DeviceError, match="Pretence can't compute in bf16"):
        device(device="cuda", precision="bf16")


def test_float32_is_float32_on_a_gpu_unless_tf32_is_asked_for():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for tf32 in (True, False):
            set_float32_arithmetic(torch.device("cuda"), tf32=tf32)
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
            # A CPU says nothing of what GPUs do.
            set_float32_arithmetic(torch.device("cpu"), tf32=not tf32)
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
            assert torch.get_float32_matmul_precision() == (
                "high" if tf32 else "highest"
            )
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    assert not ComputeSettings().tf32


def test_a_policy_asks_before_anything_else(no_gpu):
    with pytest.raises(DeviceError):
        Policy(
            tiny.pipeline(),
            num_inference_steps=4,
            lora=tiny.LORA,
            compute=ComputeSettings(device="cuda"),
        )
