"""Seconds spent in the parts of an epoch."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class Stopwatch:
    """Adds up wall-clock seconds by name.

    A GPU works on after Python has gone ahead; it is waited for at both ends of a part,
    so that each part is charged with its own work.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent in this context to ``name``."""
        _wait_for_gpu()
        start = time.perf_counter()
        try:
            yield
        finally:
            _wait_for_gpu()
            self._seconds[name] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Seconds by name since the last call."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds


def _wait_for_gpu() -> None:
    """Wait for the current GPU, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
