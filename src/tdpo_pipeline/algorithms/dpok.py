"""DPOK: policy optimization with a pull to the base model (Fan et al., NeurIPS 2023).

Online policy gradient on the steps of a trajectory, with a value function on the noisy
*latent* as baseline and the KL to the base model as a term of the loss. The importance
ratio is clamped and nothing else, so a step that has left the clip range gets no
gradient on either side.

    sample N trajectories; A = R - V(x_t, prompt, t); eps_ref from the base model
    a few steps of V on mean (V - R)^2, on pairs drawn at random
    for pairs in updates:
        rho = exp(log p_theta - log p_old)
        step on mean -w_r A clip(rho, 1 +- eps) + beta mean (eps_theta - eps_ref)^2

The official code keeps the last 1000 pairs, which are about two of its rounds of ten
images, and draws every batch from them. Here an epoch's pairs are all fresh and each is
visited once, so that the ratio starts at 1 and no trajectory has to outlive its epoch.
There V is fitted before it serves as baseline for the same pairs; here after, so that
it knows nothing of the rewards that it is held against.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from tdpo_pipeline.algorithms.kl import loss_penalty, reference_trajectory
from tdpo_pipeline.algorithms.optimization import adamw
from tdpo_pipeline.algorithms.policy_gradient import (
    Penalty,
    PolicyGradient,
    PolicyGradientSettings,
)
from tdpo_pipeline.config import (
    OptimizerSettings,
    Settings,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.critic.critic import explained_variance
from tdpo_pipeline.diffusion.randomness import generator, torch_seed
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.distributed import average_gradients


class ValueSettings(Settings):
    """Shape and learning of the value function.

    Attributes:
        hidden: Width of each hidden layer.
        updates_per_epoch: Optimizer steps an epoch (the official code averages the
            gradients of its five batches into one step).
        batch_size: Pairs of a step.
        optimizer: Its own AdamW.
    """

    hidden: tuple[PositiveInt, ...] = Field(default=(256, 256, 256), min_length=1)
    updates_per_epoch: PositiveInt = 5
    batch_size: PositiveInt = 256
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-4)


class DpokSettings(PolicyGradientSettings):
    """Settings of the value function and the two weights of the loss.

    Of the weights only the quotient matters, since Adam removes a common factor.

    Attributes:
        surrogate: The ratio is clamped only.
        advantage_clip: Clip of the advantage (the official code has none).
        reward_weight: Weight w_r of the surrogate; 10 on a single prompt.
        kl_weight: Weight beta of the distance; 0.01 on a single prompt.
        kl: ``epsilon`` is the mean squared difference of the guided noise predictions,
            as in the official code; ``closed_form`` the exact KL of the two Gaussians,
            per latent dimension, which weighs each step by its own 1 / sigma^2.
        target: What the return is: ``normalised`` the per-prompt z-scored reward, with
            which the weights mean the same for every reward, or ``raw`` the reward, as
            in the official code, whose one reward has deviation 1.
        value: The value function.
    """

    surrogate: Literal["clipped", "clamped", "reinforce"] = "clamped"
    advantage_clip: float | None = Field(default=None, gt=0)
    reward_weight: PositiveFloat = 1000.0
    kl_weight: NonNegativeFloat = 0.1
    kl: Literal["epsilon", "closed_form"] = "epsilon"
    target: Literal["normalised", "raw"] = "normalised"
    value: ValueSettings = ValueSettings()

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """Those of the policy gradient, and every pair once by the base model."""
        visits = super().unet_visits(training)
        pairs = training.samples_per_epoch * training.num_inference_steps
        return visits._replace(forward=visits.forward + pairs * (self.kl_weight > 0))


class ValueFunction(nn.Module):
    """V(x_t, prompt, t): an MLP in which every step scales the neurons by its own gains.

    It begins as V = 0, so that the first advantages are the returns.

    Args:
        inputs: Size of a flat latent and a prompt embedding together.
        steps: Number T of steps.
        hidden: Width of each hidden layer.
    """

    def __init__(self, inputs: int, steps: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            nn.Linear(a, b) for a, b in pairwise((inputs, *hidden))
        )
        self.gains = nn.ParameterList(torch.ones(steps, width) for width in hidden)
        self.last = nn.Linear(hidden[-1], 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, latents: Tensor, prompts: Tensor, steps: Tensor) -> Tensor:
        """Predicted returns.

        Args:
            latents: x_t, float32, shape (B, C, H, W).
            prompts: A vector of each prompt, float32, shape (B, d).
            steps: Index of the step, from noise to image, int64, shape (B,).

        Returns:
            float32, shape (B,).
        """
        x = torch.cat([latents.flatten(1), prompts], 1)
        for linear, gain in zip(self.linears, self.gains, strict=True):
            x = torch.relu(gain[steps] * linear(x))
        return self.last(x).squeeze(-1)


class Dpok(PolicyGradient):
    """Policy and value function, and the base model that the policy is held to."""

    Settings = DpokSettings
    settings: DpokSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        value = self.settings.value
        inputs = self.policy.latent_dims + self.policy.embedding_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.config.seed, "value weights"))
            network = ValueFunction(
                inputs, self.training.num_inference_steps, value.hidden
            )
        self.value = network.to(self.policy.device)
        self.value_optimizer = adamw(list(self.value.parameters()), value.optimizer)

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One epoch of updates of the value function, then of the policy."""
        returns = self.returns(trajectory, rewards)
        values = self.values(trajectory)
        advantages = self.shaped(returns - values)
        loss = self.fit_value(epoch, trajectory, returns)
        trajectory = self.to_replay(trajectory)
        penalty = self.penalty(trajectory)
        weighted = self.settings.reward_weight * advantages
        for pairs in self.updates(epoch, trajectory):
            self.surrogate.step(trajectory, pairs, weighted, penalty)
        return {
            **self.surrogate.metrics(),
            "value_loss": loss,
            "value_explained_variance": explained_variance(values, returns),
        }

    def returns(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """The return of every step, float32, shape (N, T)."""
        final = self.final_returns(trajectory, rewards, self.settings.target)
        return final[:, None].expand(-1, trajectory.num_steps)

    @torch.no_grad()
    def values(self, trajectory: Trajectory) -> Tensor:
        """V of the state before every step, float32, shape (N, T)."""
        samples = torch.arange(len(trajectory))
        columns = [
            self._value_at(trajectory, samples, torch.full_like(samples, step))
            for step in range(trajectory.num_steps)
        ]
        return torch.stack(columns, 1)

    def _value_at(self, trajectory: Trajectory, sample: Tensor, step: Tensor) -> Tensor:
        """V of pairs, given as two index tensors (B,), shape (B,), with gradient."""
        device = trajectory.device
        sample, step = sample.to(device), step.to(device)
        prompts = trajectory.embeds.tokens[sample].mean(1)
        return self.value(trajectory.states(sample, step), prompts, step)

    def fit_value(self, epoch: int, trajectory: Trajectory, returns: Tensor) -> float:
        """Steps of the value function on the epoch's pairs; their mean loss."""
        settings = self.settings.value
        rng = generator(self.config.seed, "value batches", epoch)
        pairs, losses = trajectory.pairs(), []
        for _ in range(settings.updates_per_epoch):
            drawn = torch.from_numpy(rng.permutation(len(pairs)))
            sample, step = pairs[drawn[: settings.batch_size]].unbind(1)
            values = self._value_at(trajectory, sample, step)
            loss = nn.functional.mse_loss(values, returns[sample, step])
            self.value_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            average_gradients(list(self.value.parameters()))
            nn.utils.clip_grad_norm_(
                self.value.parameters(), settings.optimizer.max_grad_norm
            )
            self.value_optimizer.step()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses)

    def penalty(self, trajectory: Trajectory) -> Penalty | None:
        """What the base model adds to the loss of each pair, with its gradient."""
        if not self.settings.kl_weight:
            return None
        reference = reference_trajectory(
            self.policy, trajectory, self.training.micro_batch_size
        )
        return loss_penalty(
            self.policy,
            trajectory,
            reference,
            self.settings.kl_weight,
            self.settings.kl,
        )

    def state_dict(self) -> dict[str, Any]:
        """The policy's side, and the value function."""
        return super().state_dict() | {
            "value": self.value.state_dict(),
            "value_optimizer": self.value_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.value.load_state_dict(state["value"])
        self.value_optimizer.load_state_dict(state["value_optimizer"])
