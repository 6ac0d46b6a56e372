"""Randomness addressed by what it is for, never by device, batch or order.

Every draw has an address (seed, purpose, epoch, sample, step), from which a
counter-based generator (Philox; Salmon et al. 2011) makes it. So a sample has the same
noise whatever batch or process it is computed in, and a resumed run needs no state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def generator(
    seed: int, purpose: str, epoch: int = 0, sample: int = 0, step: int = 0
) -> np.random.Generator:
    """A NumPy generator for one address; equal addresses give equal draws."""
    digest = hashlib.sha256(purpose.encode()).digest()
    key = np.array([seed, int.from_bytes(digest[:8], "little")], dtype=np.uint64)
    counter = np.array([0, step, sample, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def noise(
    seed: int,
    purpose: str,
    epoch: int,
    samples: Iterable[int],
    step: int,
    shape: Sequence[int],
) -> Tensor:
    """Standard normal noise of several samples at one step.

    Returns:
        float32, shape (number of samples, *shape).
    """
    draws = [
        generator(seed, purpose, epoch, sample, step).standard_normal(
            shape, dtype=np.float32
        )
        for sample in samples
    ]
    return torch.from_numpy(np.stack(draws))


def torch_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A seed for torch's own generator (weights, dropout) at one address."""
    return int(generator(seed, purpose, epoch).integers(2**63))
