"""Optimizer steps on a policy, in micro-batches that change nothing but the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdpo_pipeline import distributed
from tdpo_pipeline.algorithms.base import DivergedError
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
    squared: Tensor | None = None
    count: int = 0

    def add(self, gradient: Tensor) -> None:
        """Add one flat gradient, without waiting for the device."""
        squared = squared_norm(gradient)
        if self.total is None or self.squared is None:
            self.total, self.squared = gradient.clone(), squared
        else:
            self.total, self.squared = self.total + gradient, self.squared + squared
        self.count += 1

    def of_all_processes(self, size: int) -> GradientSpread:
        """The spread of what all processes have added, gradients of ``size`` elements."""
        count = sum(distributed.collect([self.count]))
        if distributed.world_size() == 1 or not count:
            return self
        total, squared = self.total, self.squared
        if total is None or squared is None:
            total, squared = torch.zeros(size), torch.zeros((), dtype=torch.float64)
        total, squared = distributed.sum_over(total), distributed.sum_over(squared)
        return GradientSpread(total, squared, count)

    def value(self) -> float:
        """The spread, relative to the norm of the mean gradient."""
        if self.total is None or self.squared is None:
            return float("nan")
        mean = float(squared_norm(self.total, self.count))
        variance = max(float(self.squared) / self.count - mean, 0.0)
        return (variance / mean) ** 0.5 if mean else float("nan")


def squared_norm(vector: Tensor, divisor: float = 1.0) -> Tensor:
    """|v / divisor|^2 in float64, a part of a long vector at a time, for the memory."""
    parts = vector.split(distributed.BUCKET)
    squares = [(part.double() / divisor).square().sum() for part in parts]
    return torch.stack(squares).sum()


def fetched(values: Sequence[Tensor]) -> list[float]:
    """Scalars of a device as numbers, for which it is waited once."""
    return torch.stack(list(values)).tolist() if values else []


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """All gradients in one vector (zeros where there is none)."""
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in parameters
        ]
    )


LEAST_LOSS_SCALE = 2.0**-14


class PolicyOptimizer:
    """Takes optimizer steps on a policy, and measures its gradients over an epoch.

    A policy that computes in fp16 has its loss scaled, by a scale of this optimizer's
    own: gradients are unscaled once, before they are clipped, and a step whose gradient
    overflowed is skipped and not counted.

    Args:
        policy: The policy.
        settings: AdamW's settings and the largest norm of a gradient.
    """

    def __init__(self, policy: Policy, settings: OptimizerSettings) -> None:
        self.parameters = policy.parameters()
        self.settings = settings
        self.adamw = adamw(self.parameters, settings)
        self.scaler = torch.amp.GradScaler(
            policy.device.type, enabled=policy.dtype == torch.float16
        )
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the measurements of the last epoch."""
        self.spread = GradientSpread()
        self.norms: list[Tensor] = []  # of the steps that were taken
        self.skipped = 0

    def step(self, parts: Iterable[tuple[float, Tensor]]) -> None:
        """One step on the sum of weight x loss over the parts of an update.

        Args:
            parts: Weight and scalar loss of each micro-batch of this process; weights
                sum to 1 over all processes. Each is backpropagated before the next is
                asked for, so that one graph is in memory at a time. Where they raise in
                one process, all raise the same, and the run is stopped in order.

        Raises:
            DivergedError: If gradients overflow fp16 however small the loss scale.
        """
        self.adamw.zero_grad(set_to_none=True)
        spread = replace(self.spread)
        distributed.all_or_none(lambda: self._backward(parts, spread))
        distributed.sum_gradients(self.parameters)
        learns = any(p.grad is not None for p in self.parameters)
        if learns:
            self.scaler.unscale_(self.adamw)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        if self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            self.skipped += 1
        else:
            self.norms.append(norm.detach())
            self.spread = spread
        if learns:
            self.scaler.step(self.adamw)
            self.scaler.update()

    def _backward(
        self, parts: Iterable[tuple[float, Tensor]], spread: GradientSpread
    ) -> None:
        """Add up this process's gradients, and their spread over the parts."""
        scale = self._loss_scale()
        before = torch.zeros(1)
        for weight, loss in parts:
            self.scaler.scale(weight * loss).backward()
            after = flat_gradient(self.parameters)
            spread.add((after - before.to(after)) / (weight * scale))
            before = after

    def _loss_scale(self) -> float:
        scale = self.scaler.get_scale()
        if scale < LEAST_LOSS_SCALE:
            raise DivergedError(
                f"the policy's gradients overflow fp16 even at a loss scale of {scale:g}. "
                "Set training.precision to bf16 or fp32."
            )
        return scale

    def metrics(self) -> dict[str, float]:
        """Mean gradient norm before clipping, and the spread, of the epoch."""
        measured = {
            "policy_grad_norm": float("nan"),
            "policy_grad_spread": float("nan"),
        }
        if self.norms:
            size = sum(p.numel() for p in self.parameters)
            measured = {
                "policy_grad_norm": float(np.mean(fetched(self.norms))),
                "policy_grad_spread": self.spread.of_all_processes(size).value(),
            }
        if self.scaler.is_enabled():
            measured["skipped_updates"] = float(self.skipped)
        return measured

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, and the loss scale's."""
        return {"adamw": self.adamw.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.adamw.load_state_dict(state["adamw"])
        self.scaler.load_state_dict(state["scaler"])
