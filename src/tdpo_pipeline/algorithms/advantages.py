"""Advantages: per-prompt statistics and whitening."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from torch import Tensor


class PerPromptStatTracker:
    """Normalises rewards by the running mean and deviation of their own prompt.

    As in DDPO (Black et al. 2024, section 4.3): each prompt keeps its last
    ``buffer_size`` rewards, this epoch's included; with fewer than ``min_count`` of
    them, the statistics of the whole batch are used.

    Args:
        buffer_size: Rewards kept for each prompt.
        min_count: Rewards a prompt needs before its own statistics are used.
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self.buffer_size = buffer_size
        self.min_count = min_count
        self.rewards: dict[str, deque[float]] = {}

    def update(self, prompts: Sequence[str], rewards: np.ndarray) -> np.ndarray:
        """Add rewards (N,) of N prompts, and give their z-scores, float64 (N,)."""
        rewards = np.asarray(rewards, dtype=np.float64)
        names = np.asarray(prompts)
        z = np.empty_like(rewards)
        for prompt in dict.fromkeys(prompts):
            own = names == prompt
            kept = self.rewards.setdefault(prompt, deque(maxlen=self.buffer_size))
            kept.extend(rewards[own].tolist())
            source = rewards if len(kept) < self.min_count else np.array(kept)
            z[own] = (rewards[own] - source.mean()) / (source.std() + 1e-6)
        return z

    def state_dict(self) -> dict[str, list[float]]:
        """The rewards kept for each prompt."""
        return {prompt: list(kept) for prompt, kept in self.rewards.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.rewards = {
            prompt: deque(kept, maxlen=self.buffer_size)
            for prompt, kept in state.items()
        }


def whiten(values: Tensor) -> Tensor:
    """Shift and scale all values to mean 0 and population deviation 1."""
    return (values - values.mean()) / (values.std(correction=0) + 1e-8)
