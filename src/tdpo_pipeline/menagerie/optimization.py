"""What the trainings of Menagerie's networks share: schedule, averaging, progress."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

logger = logging.getLogger(__name__)


class LossError(RuntimeError):
    """A training of Menagerie's networks whose loss is no number any more."""


WARM_UP = 0.05
"""Share of the updates in which the learning rate rises."""

LOG_LINES = 50
"""Rows of a training log."""


def cosine_with_warm_up(step: int, steps: int) -> float:
    """Factor of the learning rate: up in a straight line, then a cosine to zero.

    Args:
        step: Updates done so far, from 0.
        steps: Updates in all.

    Returns:
        In [0, 1].
    """
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, steps: int
) -> tuple[AdamW, LambdaLR]:
    """AdamW with weight decay 0.01, and its schedule over ``steps`` updates."""
    optimizer = AdamW(list(parameters), lr=learning_rate, weight_decay=0.01, fused=True)
    return optimizer, LambdaLR(optimizer, lambda s: cosine_with_warm_up(s, steps))


class AveragedWeights:
    """Exponential moving average of modules' parameters.

    The decay grows with the updates, min(decay, (1 + n) / (10 + n)), so that the
    random start is soon forgotten.
    """

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        """Start at the modules' present weights."""
        self._live: list[Tensor] = [p for m in modules for p in m.parameters()]
        self._average = [p.detach().clone() for p in self._live]
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @torch.no_grad()
    def copy_to_modules(self) -> None:
        """Make the average the modules' weights."""
        torch._foreach_copy_(self._live, self._average)


def batches(
    count: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices of ``steps`` batches: shuffled passes over ``count`` items, end to end.

    Yields:
        int64, shape (batch_size,), each in [0, count). A batch that spans two passes
        may hold an item twice.
    """
    pool = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(pool) < batch_size:
            pool = torch.cat([pool, torch.randperm(count, generator=generator)])
        yield pool[:batch_size]
        pool = pool[batch_size:]


class TrainingLog:
    """Averages losses over stretches of a training, and tells the time left."""

    def __init__(self, stage: str, steps: int) -> None:
        """Start a log of ``steps`` updates of the training called ``stage``."""
        self.rows: list[dict[str, float | str]] = []
        self._stage, self._steps = stage, steps
        self._every = max(1, steps // LOG_LINES)
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._start = time.perf_counter()

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of update ``step`` (1-based).

        Raises:
            LossError: If the mean of a loss is NaN or infinite.
        """
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + loss.detach()
        self._count += 1
        if step % self._every == 0 or step == self._steps:
            self._write(step)

    def _write(self, step: int) -> None:
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        if not all(math.isfinite(mean) for mean in means.values()):
            raise LossError(
                f"The {self._stage}'s loss became {means} by update {step}; lower "
                f"base_model.{self._stage}.learning_rate."
            )
        self.rows.append({"stage": self._stage, "step": step, **means})
        self._sums, self._count = {}, 0
        left = (time.perf_counter() - self._start) * (self._steps - step) / step
        shown = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        logger.info(
            "%s %d/%d: %s; %.0f s left", self._stage, step, self._steps, shown, left
        )
