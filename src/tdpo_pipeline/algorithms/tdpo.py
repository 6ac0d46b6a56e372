"""TDPO and TDPO-R: temporal rewards from a critic, and resets of its active neurons.

"Confronting Reward Overoptimization for Diffusion Models: A Perspective of Inductive
and Primacy Biases" (Zhang et al., ICML 2024). A critic on the reward's own frozen
encoder predicts, from the decoded noisy state of every step, the final reward; what it
didn't foresee is that step's temporal reward. Policy and critic are updated together,
one timestep of many samples at a time. TDPO-R re-draws the critic's active neurons
every F epochs.

    sample N trajectories; e = Encoder(decode(x_t)); r = critic(e)
    R = z_per_prompt(reward); returns_t = gamma^(T-1-t) R - KL penalties from t on
    A = whiten(returns - r)
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

from tdpo_pipeline.algorithms.kl import (
    MOST_STEERED,
    KlOfEpoch,
    KlPenalty,
    KlSettings,
)
from tdpo_pipeline.algorithms.policy_gradient import (
    PolicyGradient,
    PolicyGradientSettings,
)
from tdpo_pipeline.config import (
    AlgorithmSettings,
    RewardSettings,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.critic.critic import CriticSettings, explained_variance
from tdpo_pipeline.critic.learner import CriticLearner
from tdpo_pipeline.critic.neurons import NeuronSettings
from tdpo_pipeline.diffusion.ddim import predicted_x0
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import torch_seed
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.distributed import compute_parts
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
        kl: Penalty on the distance from the base model, or None.
    """

    needs_encoder: ClassVar[bool] = True

    advantage_clip: float | None = Field(default=None, gt=0)
    whiten: bool = True
    gamma: float = Field(default=1.0, gt=0, le=1)
    critic: CriticSettings
    neurons: NeuronSettings = NeuronSettings()
    kl: KlSettings | None = None

    @property
    def critic_encoder(self) -> str | None:
        """Reward whose image encoder the critic reads instead of that of the task."""
        return self.critic.encoder

    @property
    def needs_tiny_decoder(self) -> bool:
        """Whether the critic sees states by the base model's tiny decoder."""
        return self.critic.decoder == "tiny"

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """Those of the policy gradient, and every pair once by the base model."""
        visits = super().unet_visits(training)
        pairs = training.samples_per_epoch * training.num_inference_steps
        return visits._replace(forward=visits.forward + pairs * (self.kl is not None))

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError for a controller that could turn the penalty's sign, too."""
        super().check(training)
        if self.kl is not None and self.kl.target is not None:
            least = training.samples_per_epoch * MOST_STEERED
            if self.kl.horizon <= least:
                raise ValueError(
                    f"kl.horizon {self.kl.horizon:g} must be above {least:g}, a fifth of "
                    "the samples of an epoch, or one step could turn the penalty's sign."
                )

    def check_task(self, task: RewardSettings) -> None:
        """Raise ValueError if the critic's encoder is the task's own anyway."""
        if self.critic.encoder in (task.scorer, task.critic_encoder):
            if self.critic.encoder is not None:
                raise ValueError(
                    f"critic.encoder: {self.critic.encoder} is what the task reads "
                    "anyway; name another reward's."
                )


def discounted_returns(
    rewards: Tensor, steps: int, gamma: float, penalties: Tensor | None = None
) -> Tensor:
    """Returns of T steps: the reward comes at the last, penalties at their own.

    Args:
        rewards: Shape (N,).
        steps: Number T of steps.
        gamma: Discount.
        penalties: Taken off each step's reward, shape (N, T), or None.

    Returns:
        R gamma^(T-1-i) - sum over j >= i of gamma^(j-i) penalty_j, shape (N, T).
    """
    per_step = torch.zeros(len(rewards), steps, device=rewards.device)
    per_step[:, -1] = rewards
    if penalties is not None:
        per_step = per_step - penalties
    returns = [per_step[:, -1]]
    for i in range(steps - 2, -1, -1):
        returns.append(per_step[:, i] + gamma * returns[-1])
    return torch.stack(returns[::-1], 1)


@torch.no_grad()
def critic_inputs(
    policy: Policy,
    encoder: ImageEncoder,
    trajectory: Trajectory,
    settings: CriticSettings,
    batch_size: int,
) -> Tensor:
    """What the critic reads at every step, float32, shape (N, T, d).

    The states are decoded after the rollout, ``batch_size`` of any steps together: the
    critic has no part in the sampling, so the result is that of decoding on the way.
    """
    tiny = settings.decoder == "tiny"
    decode = policy.decode_roughly if tiny else policy.decode

    def embedded(pairs: Tensor) -> tuple[Tensor]:
        states = _critic_states(policy, trajectory, pairs, settings.state)
        return (encoder(decode(states)).float(),)

    # Step by step, so that a batch that divides N is of one step.
    size = len(trajectory), trajectory.num_steps
    pairs = trajectory.pairs().unflatten(0, size).transpose(0, 1).flatten(0, 1)
    parts = compute_parts(embedded, pairs.split(batch_size))
    features = torch.cat([part for (part,) in parts])
    features = features.unflatten(0, size[::-1]).transpose(0, 1).contiguous()
    if settings.inputs == "image_prompt":
        text = nn.functional.normalize(trajectory.embeds.tokens.mean(1), dim=-1)
        text = text[:, None].expand(-1, features.shape[1], -1)
        features = torch.cat([features, text], -1)
    return features


def _critic_states(
    policy: Policy, trajectory: Trajectory, pairs: Tensor, kind: str
) -> Tensor:
    """Latents (B, C, H, W) shown to the critic at pairs (B, 2): pre, post or x0hat."""
    sample, step = pairs.to(trajectory.device).unbind(1)
    if kind == "post":
        return trajectory.states(sample, step + 1)
    latents = trajectory.states(sample, step)
    if kind == "pre":
        return latents
    noise_preds, timesteps = trajectory.predictions(sample, step), trajectory.timesteps
    return predicted_x0(policy.scheduler, noise_preds, timesteps[step], latents)


class Tdpo(PolicyGradient):
    """Policy and temporal critic, learning together."""

    Settings: ClassVar[type[AlgorithmSettings]] = TdpoSettings
    settings: TdpoSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.encoder = critic_encoder(
            self.reward, self.config.critic_encoder, self.weights
        ).to(self.policy.device)
        dim = self.encoder.embedding_dim
        if self.settings.critic.inputs == "image_prompt":
            dim += self.policy.embedding_dim
        self.critic = CriticLearner(
            dim,
            self.settings.critic,
            self.settings.neurons,
            self.config.seed,
            self.policy.device,
        )
        kl, size = self.settings.kl, self.training.micro_batch_size
        self.kl = KlPenalty(kl, self.policy, size) if kl else None
        self.advantages = torch.empty(0)  # of the latest epoch, (N, T)

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """One epoch of updates of policy and critic, then the neurons."""
        with self.stopwatch.measure("critic_features"):
            inputs = self.critic_inputs(trajectory)
            # Made before the epoch's updates, so on pairs not trained on.
            predictions = self.critic.predict(inputs)
        trajectory = self.to_replay(trajectory)
        kl = self.kl.of_epoch(trajectory) if self.kl else KlOfEpoch()
        returns = discounted_returns(
            self.targets(trajectory, rewards),
            trajectory.num_steps,
            self.settings.gamma,
            kl.per_step,
        )
        self.advantages = self.shaped(returns - predictions)
        self.critic.begin_epoch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.config.seed, "critic", epoch))
            for pairs in self.updates(epoch, trajectory):
                self.surrogate.step(trajectory, pairs, self.advantages, kl.on_loss)
                at = pairs.unbind(1)
                self.critic.step(inputs[at], predictions[at], returns[at])
        residual = returns - predictions
        return {
            **self.surrogate.metrics(),
            **self.critic.metrics(),
            "critic_explained_variance": explained_variance(predictions, returns),
            "critic_prediction_std": float(predictions.std(correction=0)),
            "critic_residual_std": float(residual.std(correction=0)),
            **self.critic.measure_and_reset(epoch, self.training.epochs, inputs),
            **kl.metrics,
        }

    def critic_inputs(self, trajectory: Trajectory) -> Tensor:
        """What the critic reads at every step, float32, shape (N, T, d)."""
        together = self.training.critic_batch_size
        with self.policy.slicing(self.training.vae_slicing and together is None):
            return critic_inputs(
                self.policy,
                self.encoder,
                trajectory,
                self.settings.critic,
                together or self.training.chunk_size,
            )

    def targets(self, trajectory: Trajectory, rewards: Tensor) -> Tensor:
        """The final return of each trajectory, float32, shape (N,)."""
        target = self.settings.critic.target
        return self.final_returns(trajectory, rewards, target)

    def state_dict(self) -> dict[str, Any]:
        """The policy's side, the critic, and the KL's weight."""
        return super().state_dict() | {
            "critic": self.critic.state_dict(),
            "kl_weight": self.kl.weight if self.kl else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.critic.load_state_dict(state["critic"])
        if self.kl:
            self.kl.weight = state["kl_weight"]
