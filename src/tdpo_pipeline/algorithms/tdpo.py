"""TDPO and TDPO-R: temporal rewards from a critic, and resets of its active neurons.

"Confronting Reward Overoptimization for Diffusion Models: A Perspective of Inductive
and Primacy Biases" (Zhang et al., ICML 2024). A critic on the reward's own frozen
encoder predicts, from the decoded noisy state of every step, the final reward; what it
didn't foresee is that step's temporal reward. Policy and critic are updated together,
one timestep of many samples at a time. TDPO-R re-draws the critic's active neurons
every F epochs.

    sample N trajectories; e = Encoder(decode(x_t)); r = critic(e)
    R = z_per_prompt(reward); returns_t = gamma^(T-1-t) R; A = whiten(returns - r)
    for pairs in updates:
        policy step on mean max(-A rho, -A clip(rho, 1 +- eps))
        critic step on 1/2 mean max((v - returns)^2, (v_clip - returns)^2)
    every F epochs: re-draw the critic's active neurons                 # TDPO-R

Where paper and official code differ, the settings of :class:`TdpoSettings`,
:class:`CriticSettings` and :class:`NeuronSettings` switch between them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from tdpo_pipeline.algorithms.advantages import PerPromptStatTracker, whiten
from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.policy_gradient import (
    GradientSpread,
    PolicyGradientSettings,
    SurrogateUpdate,
    adamw,
    flat_gradient,
)
from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.critic.critic import (
    CriticSettings,
    TemporalCritic,
    critic_loss,
    explained_variance,
)
from tdpo_pipeline.critic.neurons import (
    NeuronSettings,
    dormant_masks,
    masked_percent,
    overlap_percent,
    reset_neurons,
)
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator, torch_seed
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.rewards.base import ImageEncoder
from tdpo_pipeline.rewards.registry import critic_encoder


class TdpoSettings(PolicyGradientSettings):
    """Settings of the temporal rewards, the critic and its neurons.

    Attributes:
        advantage_clip: Clip of the temporal rewards (the official code has none).
        whiten: Whiten the temporal rewards over all N x T of an epoch.
        gamma: Discount from the last step backwards.
        critic: The temporal critic.
        neurons: Neuron states and resets.
    """

    needs_encoder: ClassVar[bool] = True

    advantage_clip: float | None = Field(default=None, gt=0)
    whiten: bool = True
    gamma: float = Field(default=1.0, gt=0, le=1)
    critic: CriticSettings
    neurons: NeuronSettings = NeuronSettings()


def discounted_returns(rewards: Tensor, steps: int, gamma: float) -> Tensor:
    """Returns of a reward (N,) given at the last of T steps: R gamma^(T-1-i), (N, T)."""
    exponents = torch.arange(steps - 1, -1, -1, device=rewards.device)
    return rewards[:, None] * gamma**exponents


def temporal_rewards(
    returns: Tensor, predictions: Tensor, *, whitened: bool, clip: float | None
) -> Tensor:
    """What the critic did not foresee (TDPO paper, equation 6), shape (N, T)."""
    rewards = returns - predictions
    if whitened:
        rewards = whiten(rewards)
    return rewards if clip is None else rewards.clamp(-clip, clip)


@torch.no_grad()
def critic_inputs(
    policy: Policy,
    encoder: ImageEncoder,
    trajectory: Trajectory,
    settings: CriticSettings,
    chunk_size: int,
) -> Tensor:
    """What the critic reads at every step, float32, shape (N, T, d).

    The states are decoded after the rollout, batched over samples: the critic has no
    part in the sampling, so the result is that of decoding on the way.
    """
    steps = []
    for i in range(trajectory.num_steps):
        states = _critic_states(policy, trajectory, i, settings.state)
        images = (policy.decode(chunk) for chunk in states.split(chunk_size))
        steps.append(torch.cat([encoder(image).float() for image in images]))
    features = torch.stack(steps, 1)
    if settings.inputs == "image_prompt":
        text = nn.functional.normalize(trajectory.embeds.mean(1), dim=-1)
        text = text[:, None].expand(-1, features.shape[1], -1)
        features = torch.cat([features, text], -1)
    return features


def _critic_states(
    policy: Policy, trajectory: Trajectory, step: int, kind: str
) -> Tensor:
    """Latents (N, C, H, W) shown to the critic at a step: pre, post or x0hat."""
    if kind == "post":
        return trajectory.latents[:, step + 1]
    latents = trajectory.latents[:, step]
    if kind == "pre":
        return latents
    timestep = trajectory.timesteps[step].cpu()
    a = policy.scheduler.alphas_cumprod[timestep].to(latents.device)
    return (latents - (1 - a).sqrt() * trajectory.noise_preds[:, step]) / a.sqrt()


class Tdpo(Algorithm):
    """Policy and temporal critic, learning together."""

    Settings = TdpoSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert isinstance(self.config.algorithm, TdpoSettings)
        self.settings = self.config.algorithm
        self.surrogate = SurrogateUpdate(self.policy, self.settings, self.training)
        statistics = self.settings.per_prompt
        self.tracker = PerPromptStatTracker(
            statistics.buffer_size, statistics.min_count
        )
        self.encoder = critic_encoder(
            self.reward, self.config.task.critic_encoder, self.weights
        )
        self.critic = _new_critic(
            self.config, self.settings.critic, self.encoder, self.policy
        )
        self.critic_optimizer = adamw(
            list(self.critic.parameters()), self.settings.critic.optimizer
        )
        self.previous_dormant: list[Tensor] | None = None

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One epoch of updates of policy and critic, then the neurons."""
        steps = trajectory.num_steps
        with self.stopwatch.measure("critic_features"):
            inputs = critic_inputs(
                self.policy,
                self.encoder,
                trajectory,
                self.settings.critic,
                self.training.chunk_size,
            )
            predictions = self.predict(inputs)
        targets = self.targets(trajectory, rewards)
        returns = discounted_returns(targets, steps, self.settings.gamma)
        advantages = temporal_rewards(
            returns,
            predictions,
            whitened=self.settings.whiten,
            clip=self.settings.advantage_clip,
        )
        old = self.surrogate.old_log_probs(trajectory)
        rng = generator(self.config.seed, "pair order", epoch)
        self.surrogate.begin_epoch()
        losses, norms, spread = [], [], GradientSpread()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.config.seed, "critic", epoch))
            for pairs in self.surrogate.updates(rng, len(trajectory), steps):
                self.surrogate.step(trajectory, pairs, old, advantages)
                at = pairs.unbind(1)
                loss, norm = self.critic_step(
                    inputs[at], predictions[at], returns[at], spread
                )
                losses.append(loss)
                norms.append(norm)
            neurons = self.measure_and_reset(epoch, inputs)
        return self.surrogate.metrics() | {
            "critic_loss": sum(losses) / len(losses),
            "critic_explained_variance": explained_variance(predictions, returns),
            "critic_prediction_std": float(predictions.std(correction=0)),
            "critic_grad_norm": sum(norms) / len(norms),
            "critic_grad_spread": spread.value(),
            **neurons,
        }

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """The critic's predictions (N, T), without dropout.

        They are made before this epoch's updates, so the explained variance that they
        reach is on pairs not trained on.
        """
        self.critic.eval()
        return self.critic(inputs.flatten(0, 1)).view(inputs.shape[:2])

    def targets(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """What the critic is to predict, float32, shape (N,)."""
        z = self.tracker.update(trajectory.prompts, rewards.cpu().numpy())
        if self.settings.critic.target == "raw":
            return rewards.float().to(trajectory.latents.device)
        return torch.from_numpy(z).float().to(trajectory.latents.device)

    def critic_step(
        self,
        inputs: Tensor,
        old_values: Tensor,
        targets: Tensor,
        spread: GradientSpread,
    ) -> tuple[float, float]:
        """One optimizer step of the critic; its loss and gradient norm."""
        settings = self.settings.critic
        parameters = list(self.critic.parameters())
        self.critic.train()
        self.critic_optimizer.zero_grad(set_to_none=True)
        values = self.critic(inputs)
        loss = critic_loss(values, old_values, targets, settings.value_clip)
        loss.backward()
        spread.add(flat_gradient(parameters))
        norm = nn.utils.clip_grad_norm_(parameters, settings.optimizer.max_grad_norm)
        if settings.double_unscale is not None:
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad /= settings.double_unscale
        self.critic_optimizer.step()
        return float(loss.detach()), float(norm)

    @torch.no_grad()
    def measure_and_reset(self, epoch: int, inputs: Tensor) -> dict[str, float]:
        """Neuron states after the epoch's updates, and the reset if one is due."""
        settings = self.settings.neurons
        self.critic.eval()
        outputs = self.critic.hidden(self._statistics_inputs(epoch, inputs))
        dormant = dormant_masks(outputs, settings.threshold, settings.activation)
        metrics = {"critic_dormant_pct": masked_percent(dormant)}
        for layer, mask in enumerate(dormant, start=1):
            metrics[f"critic_dormant_pct_layer{layer}"] = masked_percent([mask])
        metrics["critic_overlap_pct"] = self._overlap(dormant)
        self.previous_dormant = dormant
        metrics["neurons_reset"] = float(self._reset(epoch, dormant))
        return metrics

    def _statistics_inputs(self, epoch: int, inputs: Tensor) -> Tensor:
        """Embeddings (B, d) over which neuron scores are taken."""
        settings = self.settings.neurons
        rng = generator(self.config.seed, "neuron statistics", epoch)
        samples, steps = inputs.shape[:2]
        count = min(settings.stats_samples, samples)
        chosen = torch.from_numpy(rng.permutation(samples)[:count])
        if settings.stats_steps == "all":
            return inputs[chosen].flatten(0, 1)
        return inputs[chosen, torch.from_numpy(rng.integers(steps, size=count))]

    def _overlap(self, dormant: list[Tensor]) -> float:
        """Percentage of dormant neurons shared with the epoch before."""
        if self.previous_dormant is None:
            return float("nan")
        if self.settings.neurons.overlap == "official":
            return 100.0
        return overlap_percent(self.previous_dormant, dormant)

    def _reset(self, epoch: int, dormant: list[Tensor]) -> int:
        """Reset neurons if it is time; the number reset."""
        settings = self.settings.neurons
        due = epoch % settings.reset_every(self.training.epochs) == 0
        if settings.reset == "none" or not due:
            return 0
        masks = {
            "active": [~mask for mask in dormant],
            "dormant": dormant,
            "all": [torch.ones_like(mask) for mask in dormant],
        }[settings.reset]
        address = 0 if settings.reset_seed == "fixed" else epoch
        torch.manual_seed(torch_seed(self.config.seed, "reset", address))
        return reset_neurons(
            self.critic,
            masks,
            self.critic_optimizer,
            reset_adam_step=settings.reset_adam_step,
        )

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers, the critic, per-prompt statistics and neuron masks."""
        return {
            "optimizer": self.surrogate.optimizer.state_dict(),
            "tracker": self.tracker.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "previous_dormant": self.previous_dormant,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.surrogate.optimizer.load_state_dict(state["optimizer"])
        self.tracker.load_state_dict(state["tracker"])
        self.critic.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.previous_dormant = state["previous_dormant"]


def _new_critic(
    config: RunConfig, settings: CriticSettings, encoder: ImageEncoder, policy: Policy
) -> TemporalCritic:
    """A critic with weights drawn from the run's seed."""
    dim = encoder.embedding_dim
    if settings.inputs == "image_prompt":
        dim += policy.encode([""]).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seed, "critic weights"))
        return TemporalCritic(dim, settings).to(policy.device)
