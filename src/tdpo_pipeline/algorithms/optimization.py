"""Optimizer steps on a policy, in micro-batches that change nothing but the memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdpo_pipeline.config import OptimizerSettings
from tdpo_pipeline.diffusion.policy import Policy


def adamw(
    parameters: list[nn.Parameter], settings: OptimizerSettings
) -> torch.optim.AdamW:
    """AdamW as configured."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


@dataclass
class GradientSpread:
    """How far the gradients of an epoch lie apart, without keeping them.

    ``value()`` is sqrt(E|g|^2 - |E g|^2) / |E g| over the gradients added: 0 if all are
    equal; large where noise drowns the mean. The policy adds the gradient of every
    micro-batch, the critic (which has none) that of every update.
    """

    total: Tensor | None = None
    squared: float = 0.0
    count: int = 0

    def add(self, gradient: Tensor) -> None:
        """Add one flat gradient."""
        self.total = gradient.clone() if self.total is None else self.total + gradient
        self.squared += float(gradient.double().square().sum())
        self.count += 1

    def value(self) -> float:
        """The spread, relative to the norm of the mean gradient."""
        if self.total is None:
            return float("nan")
        mean = float((self.total.double() / self.count).square().sum())
        variance = max(self.squared / self.count - mean, 0.0)
        return (variance / mean) ** 0.5 if mean else float("nan")


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """All gradients in one vector (zeros where there is none)."""
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in parameters
        ]
    )


class PolicyOptimizer:
    """Takes optimizer steps on a policy, and measures its gradients over an epoch.

    Args:
        policy: The policy.
        settings: AdamW's settings and the largest norm of a gradient.
    """

    def __init__(self, policy: Policy, settings: OptimizerSettings) -> None:
        self.parameters = policy.parameters()
        self.settings = settings
        self.adamw = adamw(self.parameters, settings)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the measurements of the last epoch."""
        self.spread = GradientSpread()
        self.norms: list[float] = []

    def step(self, parts: Iterable[tuple[float, Tensor]]) -> None:
        """One step on the sum of weight x loss over the parts of an update.

        Args:
            parts: Weight and scalar loss of each micro-batch; weights sum to 1. Each
                is backpropagated before the next is asked for, so that one graph is in
                memory at a time.
        """
        self.adamw.zero_grad(set_to_none=True)
        before = torch.zeros(1)
        for weight, loss in parts:
            (weight * loss).backward()
            after = flat_gradient(self.parameters)
            self.spread.add((after - before.to(after)) / weight)
            before = after
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.norms.append(float(norm))
        self.adamw.step()

    def metrics(self) -> dict[str, float]:
        """Mean gradient norm before clipping, and the spread, of the epoch."""
        if not self.norms:
            return {
                "policy_grad_norm": float("nan"),
                "policy_grad_spread": float("nan"),
            }
        return {
            "policy_grad_norm": float(np.mean(self.norms)),
            "policy_grad_spread": self.spread.value(),
        }

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state."""
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.adamw.load_state_dict(state)
