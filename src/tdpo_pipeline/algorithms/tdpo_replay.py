"""TDPO with resets of the policy's own neurons, and a replay buffer to recover from them.

The TDPO paper finds that resetting the policy's active neurons destroys what had been
learned, and suggests a replay buffer as future work (section 5.4); this is our reading
of it. Trajectories of the last epochs are kept with their advantages. After a reset the
policy learns from them again, without a new reward query:

    keep M trajectories of each of the last K epochs, with their advantages A
    after a reset: for each kept epoch:
        log p_old = log p_theta of the kept steps            # so the ratio starts at 1
        one pass of surrogate updates on (log p_old, max(A, 0))

The kept steps come from older policies. Taking the reset policy as the old one makes the
clip a trust region around it. The advantage is not reweighted, so this is no unbiased
policy gradient but an imitation of the policy's own good steps, as in self-imitation
learning (Oh et al. 2018, equation 2). Bad steps are left out: a step that the policy no
longer takes is ever less likely the further it is pushed away, and nothing ends that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from tdpo_pipeline.algorithms.tdpo import Tdpo, TdpoSettings
from tdpo_pipeline.config import AlgorithmSettings, TrainingSettings, UnetVisits
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Steps, Trajectory, reevaluate


class TdpoReplaySettings(TdpoSettings):
    """TDPO's settings, and the buffer.

    Attributes:
        buffer_epochs: Epochs that the buffer reaches back, K.
        buffer_samples: Trajectories kept of each epoch, M.
    """

    buffer_epochs: PositiveInt = 4
    buffer_samples: PositiveInt = 64

    def kept_numbers(
        self, training: TrainingSettings, latent_dims: int, epoch: int
    ) -> int:
        """Numbers in the buffer after an epoch: states and advantages."""
        steps = training.num_inference_steps
        each = (steps + 1) * latent_dims + steps
        return min(epoch, self.buffer_epochs) * self.buffer_samples * each

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """TDPO's; and after each reset every kept pair once, and once for its log-prob."""
        trained, forward = super().unet_visits(training)
        epochs = training.epochs
        kept = sum(
            min(epoch, self.buffer_epochs)
            for epoch in range(1, epochs)  # there is no epoch after the last
            if self.policy_neurons.reset_due(epoch, epochs)
        )
        pairs = self.buffer_samples * training.num_inference_steps
        again = kept * pairs / epochs
        return UnetVisits(trained + again, forward + again)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where the buffer doesn't fit, or nothing is ever reset."""
        super().check(training)
        if self.policy_neurons.reset == "none":
            raise ValueError(
                "a replay buffer serves resets of the policy's neurons: set "
                "policy_neurons.reset."
            )
        if self.buffer_samples > training.samples_per_epoch:
            raise ValueError(
                f"buffer_samples {self.buffer_samples} is more than samples_per_epoch "
                f"{training.samples_per_epoch}."
            )
        if self.loop == "sample_major" and self.buffer_samples % self.group_size:
            raise ValueError(
                f"group_size {self.group_size} must divide buffer_samples "
                f"{self.buffer_samples}."
            )
        if self.kl is not None or self.exploration is not None:
            raise ValueError("a replay buffer goes with neither kl nor exploration.")
        if self.buffer_samples % training.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {training.micro_batch_size} must divide "
                f"buffer_samples {self.buffer_samples}."
            )


@dataclass
class Kept:
    """What is kept of M trajectories, to learn from them again.

    Attributes:
        prompts: M prompts.
        latents: Their states, float32, shape (M, T + 1, C, H, W).
        advantages: Of their steps, float32, shape (M, T).
    """

    prompts: list[str]
    latents: Tensor
    advantages: Tensor


class TdpoReplay(Tdpo):
    """TDPO that learns again from kept trajectories after a reset of its policy."""

    Settings: ClassVar[type[AlgorithmSettings]] = TdpoReplaySettings
    settings: TdpoReplaySettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.buffer: deque[Kept] = deque(maxlen=self.settings.buffer_epochs)

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """TDPO's epoch; some of its trajectories are kept with their advantages."""
        metrics = super().update(epoch, trajectory, rewards)
        rng = generator(self.config.seed, "replay buffer", epoch)
        order = torch.from_numpy(rng.permutation(len(trajectory)))
        kept = order[: self.settings.buffer_samples]
        prompts = [trajectory.prompts[i] for i in kept.tolist()]
        self.buffer.append(
            Kept(prompts, trajectory.latents[kept], self.advantages[kept])
        )
        return metrics

    def kept_steps(self, kept: Kept) -> Steps:
        """The kept steps with the log-probs of the policy as it is now.

        Without exploration, everything but the states is as for any epoch.
        """
        steps = Steps(
            prompts=kept.prompts,
            embeds=self.policy.encode(kept.prompts),
            timesteps=self.policy.timesteps,
            guidance=self.guidance_scale,
            eta=self.eta,
            latents=kept.latents,
            log_probs=torch.full_like(kept.advantages, torch.nan),
        )
        return reevaluate(self.policy, steps, self.training.micro_batch_size)

    def before_epoch(self, epoch: int) -> dict[str, float]:
        """Reset the adapters' neurons if due, then learn from the buffer's good steps."""
        metrics = super().before_epoch(epoch)
        if not metrics:
            return metrics
        updates = 0
        for age, kept in enumerate(self.buffer):
            steps = self.kept_steps(kept)
            gains = kept.advantages.clamp(min=0)
            self.surrogate.begin_epoch()
            rng = generator(self.config.seed, f"replay order {age}", epoch)
            for pairs in self.surrogate.updates(rng, len(steps), steps.num_steps):
                self.surrogate.step(steps, pairs, gains)
                updates += 1
        return metrics | {"replay_updates": float(updates)}

    def state_dict(self) -> dict[str, Any]:
        """TDPO's state and the buffer."""
        return super().state_dict() | {"buffer": [vars(kept) for kept in self.buffer]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.buffer.clear()
        for entry in state["buffer"]:
            latents = entry["latents"].to(self.storage)
            advantages = entry["advantages"].to(self.policy.device)
            self.buffer.append(Kept(entry["prompts"], latents, advantages))
