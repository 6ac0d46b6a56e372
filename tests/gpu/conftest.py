"""The device of the tests that need a GPU.

pytest -m gpu tests/gpu
TDPO_GPU_TESTS_ON=cpu pytest -m gpu tests/gpu    # that the tests themselves are right
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tdpo_pipeline.diffusion.devices import set_float32_arithmetic


@pytest.fixture
def device() -> Iterator[str]:
    """``cuda``, in float32 where float32 is asked for, or what the environment names."""
    name = os.environ.get("TDPO_GPU_TESTS_ON", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    set_float32_arithmetic(torch.device(name), tf32=False)
    yield name
    matmul.allow_tf32, cudnn.allow_tf32 = before
