"""The temporal critic as it learns: predictions, updates, neuron states and resets."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from tdpo_pipeline.algorithms.optimization import (
    GradientSpread,
    adamw,
    fetched,
    flat_gradient,
)
from tdpo_pipeline.critic.critic import CriticSettings, TemporalCritic, critic_loss
from tdpo_pipeline.critic.neurons import (
    NeuronSettings,
    dormant_masks,
    masked_percent,
    overlap_percent,
    reset_neurons,
)
from tdpo_pipeline.diffusion.randomness import generator, torch_seed
from tdpo_pipeline.distributed import average_gradients

OFFICIAL_LOSS_SCALE = 65536.0


class CriticLearner:
    """A critic, its optimizer, and the states of its neurons.

    Args:
        embedding_dim: Size d of what the critic reads.
        critic: Shape and learning of the critic.
        neurons: Neuron states and resets.
        seed: Seed of the run: weights, dropout, statistics and resets.
        device: Where to keep it.
    """

    def __init__(
        self,
        embedding_dim: int,
        critic: CriticSettings,
        neurons: NeuronSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings = critic
        self.neurons = neurons
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "critic weights"))
            self.critic = TemporalCritic(embedding_dim, critic).to(device)
        self.parameters = list(self.critic.parameters())
        self.initial = self._flat_weights()
        self.optimizer = adamw(self.parameters, critic.optimizer)
        self.scaler: torch.amp.GradScaler | None = None
        if critic.precision == "official_fp16":
            self.scaler = torch.amp.GradScaler(
                device.type, init_scale=OFFICIAL_LOSS_SCALE
            )
        self.previous_dormant: list[Tensor] | None = None
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the measurements of the last epoch."""
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.spread = GradientSpread()

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """The critic's predictions (N, T) for inputs (N, T, d), without dropout."""
        self.critic.eval()
        with self._autocast():
            values = self.critic(inputs.flatten(0, 1))
        return values.float().view(inputs.shape[:2])

    def step(self, inputs: Tensor, old_values: Tensor, targets: Tensor) -> None:
        """One optimizer step on inputs (B, d), old predictions and targets (B,)."""
        self.critic.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            values = self.critic(inputs).float()
        loss = critic_loss(values, old_values, targets, self.settings.value_clip)
        if self.scaler is None:
            loss.backward()
            self._clip()
            self.optimizer.step()
        else:
            self._official_step(self.scaler, loss)
        self.losses.append(loss.detach())

    def _official_step(self, scaler: torch.amp.GradScaler, loss: Tensor) -> None:
        """The official code's calls of the loss scaler that its two optimizers share.

        The policy's step, which comes first, ends in ``update()``. That forgets that the
        critic's gradient had been unscaled, so ``step()`` divides it by the scale again.
        """
        scaler.scale(loss).backward()
        scaler.unscale_(self.optimizer)
        self._clip()
        scaler.update()
        scaler.step(self.optimizer)
        scaler.update()

    def _clip(self) -> None:
        average_gradients(self.parameters)
        self.spread.add(flat_gradient(self.parameters))
        limit = self.settings.optimizer.max_grad_norm
        self.norms.append(nn.utils.clip_grad_norm_(self.parameters, limit))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.scaler is None:
            return contextlib.nullcontext()
        device = self.parameters[0].device.type
        return torch.autocast(device, dtype=torch.float16)

    @torch.no_grad()
    def measure_and_reset(
        self, epoch: int, epochs: int, inputs: Tensor
    ) -> dict[str, float]:
        """Neuron states on inputs (N, T, d), and the reset if one is due.

        Args:
            epoch: 1-based.
            epochs: Epochs of the run.
            inputs: What the critic read in this epoch.
        """
        self.critic.eval()
        with self._autocast():
            outputs = self.critic.hidden(self._statistics_inputs(epoch, inputs))
        outputs = [output.float() for output in outputs]
        settings = self.neurons
        dormant = dormant_masks(outputs, settings.threshold, settings.activation)
        metrics = {"critic_dormant_pct": masked_percent(dormant)}
        for layer, mask in enumerate(dormant, start=1):
            metrics[f"critic_dormant_pct_layer{layer}"] = masked_percent([mask])
        metrics["critic_overlap_pct"] = self._overlap(dormant)
        self.previous_dormant = dormant
        metrics["neurons_reset"] = float(self._reset(epoch, epochs, dormant))
        return metrics

    def _statistics_inputs(self, epoch: int, inputs: Tensor) -> Tensor:
        """Embeddings (B, d) over which neuron scores are taken."""
        rng = generator(self.seed, "neuron statistics", epoch)
        samples, steps = inputs.shape[:2]
        count = min(self.neurons.stats_samples, samples)
        chosen = torch.from_numpy(rng.permutation(samples)[:count])
        if self.neurons.stats_steps == "all":
            return inputs[chosen].flatten(0, 1)
        return inputs[chosen, torch.from_numpy(rng.integers(steps, size=count))]

    def _overlap(self, dormant: list[Tensor]) -> float:
        """Percentage of dormant neurons shared with the epoch before."""
        if self.neurons.overlap == "official":
            return 0.0 if self.previous_dormant is None else 100.0
        if self.previous_dormant is None:
            return float("nan")
        return overlap_percent(self.previous_dormant, dormant)

    def _reset(self, epoch: int, epochs: int, dormant: list[Tensor]) -> int:
        """Reset neurons if it is time; the number reset."""
        settings = self.neurons
        if not settings.reset_due(epoch, epochs):
            return 0
        masks = {
            "active": [~mask for mask in dormant],
            "dormant": dormant,
            "all": [torch.ones_like(mask) for mask in dormant],
        }[settings.reset]
        address = 0 if settings.reset_seed == "fixed" else epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, "reset", address))
            return reset_neurons(
                self.critic,
                masks,
                self.optimizer,
                reset_adam_step=settings.reset_adam_step,
            )

    def metrics(self) -> dict[str, float]:
        """Measurements of the epoch's updates, and how far the weights have come.

        ``critic_weight_change`` is the norm of the weights' change since the run began,
        relative to the norm that they began with.
        """
        change = (self._flat_weights() - self.initial).norm() / self.initial.norm()
        return {
            "critic_loss": sum(fetched(self.losses)) / len(self.losses),
            "critic_grad_norm": sum(fetched(self.norms)) / len(self.norms),
            "critic_grad_spread": self.spread.value(),
            "critic_weight_change": float(change),
        }

    def _flat_weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters])

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, loss scale and neuron masks."""
        return {
            "weights": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "previous_dormant": self.previous_dormant,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.critic.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        device = self.parameters[0].device
        masks = state["previous_dormant"]
        self.previous_dormant = masks and [mask.to(device) for mask in masks]
