"""RWR: reward-weighted regression (Lee et al. 2023; DDPO paper, section 4.1).

Ordinary denoising training on the model's own pictures, in which a picture counts the
more the better its reward. It takes no notice of how a picture was denoised.

    for each round:
        sample M images with the policy as it is; R = their rewards
        w = n softmax(beta R) among the n images of a prompt    # mean 1
            or 1 for the prompt's best tenth and 0 for the others, "sparse"
        begin AdamW anew; for batches of several passes over the images with w > 0:
            x = s z, z ~ the VAE's encoding of the image        # s: scaling factor
            t ~ U{0 .. 999}, e ~ N(0, I), x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e
            step on mean w |e - eps_theta(x_t, t, prompt)|^2

A run's epochs are dealt evenly to the rounds. All epochs of a round sample with the
same policy, and the last one trains it too. ``eps_theta`` is the prediction with
guidance, as in sampling (``cfg_training``): trained without guidance the conditional
branch alone drifts, and from the second round on guidance multiplies the drift.

Nothing but the softmax normalises the rewards: paper and official code put them in as
they are, so beta = 0.2 weighs kilobytes, which differ by tens between images, almost as
a maximum, and aesthetic scores, which differ by half a point, almost evenly. With
``unit: base_std`` beta is in standard deviations of the first round's rewards instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.optimization import PolicyOptimizer
from tdpo_pipeline.config import (
    AlgorithmSettings,
    OptimizerSettings,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.diffusion.devices import to_device
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.prompt_embeds import PromptEmbeds
from tdpo_pipeline.diffusion.randomness import generator, noise
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.distributed import collect, compute_parts, deal


class RwrSettings(AlgorithmSettings):
    """Rounds, weights and regression.

    Attributes:
        rounds: Rounds of the run.
        weighting: ``exponential`` is the softmax, ``sparse`` keeps the best.
        scope: Among which images of a round to compare: those of the same ``prompt``
            (the paper, and the official code for animals), or ``all`` (the official
            code for file sizes).
        inverse_temperature: Beta of the softmax.
        unit: What beta is per: the ``reward``'s own unit (paper and code), or
            ``base_std``, a standard deviation, within the scope, of the first round's
            rewards, in which the base model samples.
        percentile: Part of the images that ``sparse`` leaves out.
        cfg_training: Whether the prediction that is trained has guidance.
        passes: Passes over the kept images in a round. They make one stream, which is
            cut into batches; what is left at its end is dropped, unless it is all.
        batch_size: Images of an update.
        optimizer: The policy's AdamW, new in every round.
    """

    rounds: PositiveInt = 5
    weighting: Literal["exponential", "sparse"] = "exponential"
    scope: Literal["prompt", "all"] = "prompt"
    inverse_temperature: PositiveFloat = 0.2
    unit: Literal["reward", "base_std"] = "reward"
    percentile: float = Field(default=0.9, ge=0, lt=1)
    cfg_training: bool = True
    passes: PositiveInt = 5
    batch_size: PositiveInt = 128
    optimizer: OptimizerSettings

    def round_ends(self, epochs: int) -> list[int]:
        """Last epoch (1-based) of each round; the last round ends with the run."""
        return [epochs * number // self.rounds for number in range(1, self.rounds + 1)]

    def kept_numbers(
        self, training: TrainingSettings, latent_dims: int, epoch: int
    ) -> int:
        """Numbers of an unfinished round after an epoch: moments and rewards."""
        ends = [end for end in self.round_ends(training.epochs) if end <= epoch]
        epochs = epoch - max(ends, default=0)
        return epochs * training.samples_per_epoch * (2 * latent_dims + 1)

    @property
    def needs_base_samples(self) -> str | None:
        """The temperature, if it is per deviation of the base model's rewards."""
        weighted = self.weighting == "exponential"
        return "unit: base_std" if weighted and self.unit == "base_std" else None

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """Passes over the kept images; without guidance, half of the UNet's work each."""
        kept = 1 - self.percentile if self.weighting == "sparse" else 1.0
        guided = self.cfg_training or training.guidance_scale == 1
        visits = training.samples_per_epoch * self.passes * kept
        return UnetVisits(visits if guided else visits / 2)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where rounds or batches don't fit the scale."""
        if self.rounds > training.epochs:
            raise ValueError(
                f"rounds {self.rounds} is more than the {training.epochs} epochs, and a "
                "round takes one at least."
            )
        if self.batch_size % training.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {training.micro_batch_size} must divide batch_size "
                f"{self.batch_size}."
            )
        training.check_dealt("micro_batch_size", self.batch_size, "images of an update")
        if self.exploration is not None and self.exploration.log_prob == "target":
            raise ValueError(
                "exploration.log_prob: target has no meaning for rwr, which has no "
                "log-probs: it learns from images, however they were sampled."
            )

    def summary(self, training: TrainingSettings) -> str:
        """Rounds, passes and batches, learning rate."""
        lengths = np.diff([0, *self.round_ends(training.epochs)])
        images = sorted({int(n) * training.samples_per_epoch for n in lengths})
        kept = "them"
        if self.weighting == "sparse":
            kept = f"the best {1 - self.percentile:.0%}"
        return (
            f"{self.rounds} rounds of {' or '.join(map(str, images))} images, "
            f"{self.passes} passes over {kept} in batches of {self.batch_size}, "
            f"guidance {'on' if self.cfg_training else 'off'} in training, "
            f"lr {self.optimizer.learning_rate:g}"
        )


def prompt_groups(prompts: Sequence[str]) -> list[Tensor]:
    """Numbers of the images of each prompt, int64, in the order of first appearance."""
    found: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        found.setdefault(prompt, []).append(number)
    return [torch.tensor(numbers) for numbers in found.values()]


def exponential_weights(
    rewards: Tensor, groups: Sequence[Tensor], beta: float
) -> Tensor:
    """Weights n softmax(beta R) within each group of n images; their mean is 1.

    Args:
        rewards: float, shape (M,).
        groups: Numbers of the images of each group, int64; each image is in one.
        beta: Inverse temperature, per unit of the rewards.

    Returns:
        As ``rewards``, shape (M,).
    """
    weights = torch.empty_like(rewards)
    for group in groups:
        weights[group] = len(group) * torch.softmax(beta * rewards[group], 0)
    return weights


def sparse_weights(
    rewards: Tensor, groups: Sequence[Tensor], percentile: float
) -> Tensor:
    """1 where the reward is at or above its group's percentile, else 0.

    The percentile is interpolated between neighbouring rewards, so of n images with
    different rewards (n - 1)(1 - p) + 1 are kept, rounded down; arguments as for
    :func:`exponential_weights`.
    """
    weights = torch.zeros_like(rewards)
    for group in groups:
        own = rewards[group].double()
        weights[group] = (own >= own.quantile(percentile)).to(weights)
    return weights


def deviation_within(rewards: Tensor, groups: Sequence[Tensor]) -> float:
    """Root mean square distance of the rewards from the means of their groups."""
    centred = [
        rewards[group].double() - rewards[group].double().mean() for group in groups
    ]
    return float(torch.cat(centred).square().mean().sqrt())


def effective_fraction(weights: Tensor) -> float:
    """(sum w)^2 / (M sum w^2): the part of the images that the weights let speak."""
    w = weights.double()
    return float(w.sum() ** 2 / (len(w) * w.square().sum()))


def visits(
    rng: np.random.Generator, kept: Tensor, passes: int, batch_size: int
) -> list[Tensor]:
    """The images of each update of a round.

    Args:
        rng: Shuffles each pass.
        kept: Numbers of the kept images, int64, shape (K,).
        passes: Passes over them.
        batch_size: Images B of an update.

    Returns:
        floor(passes x K / B) batches (B,), which may span two passes; one batch of all
        passes if they are shorter than B.
    """
    orders = [torch.from_numpy(rng.permutation(len(kept))) for _ in range(passes)]
    stream = kept[torch.cat(orders)]
    updates = max(1, len(stream) // batch_size)
    return list(stream[: updates * batch_size].split(batch_size))


@torch.no_grad()
def encode_images(policy: Policy, images: Tensor, chunk_size: int) -> Tensor:
    """Mean and log-variance of the VAE's latents, neither of them scaled.

    Args:
        policy: The policy whose VAE encodes.
        images: float32 in [0, 1], shape (N, 3, H, W).
        chunk_size: Images computed together.

    Returns:
        float32, shape (N, 2C, h, w).
    """
    vae = policy.pipeline.vae

    def moments(chunk: Tensor) -> tuple[Tensor]:
        chunk = to_device(chunk, policy.device)
        encoded = vae.encode((2 * chunk - 1).to(vae.dtype), return_dict=False)[0]
        return (encoded.parameters.float(),)

    parts = compute_parts(moments, images.split(chunk_size))
    return torch.cat([part for (part,) in parts])


def drawn_latents(policy: Policy, moments: Tensor, noises: Tensor) -> Tensor:
    """Scaled latents from the distributions that the VAE gave.

    Args:
        policy: The policy.
        moments: Mean and log-variance, shape (B, 2C, h, w).
        noises: Standard normal, shape (B, C, h, w).

    Returns:
        float32, shape (B, C, h, w).
    """
    latents = DiagonalGaussianDistribution(moments)
    scale = policy.pipeline.vae.config.scaling_factor
    return (latents.mean + latents.std * noises) * scale


def denoising_losses(
    policy: Policy,
    latents: Tensor,
    timesteps: Tensor,
    noises: Tensor,
    embeds: PromptEmbeds,
    guidance_scale: float,
) -> Tensor:
    """Mean squared error of the predicted noise for each image, with gradient.

    Args:
        policy: The policy.
        latents: Clean latents, float32, shape (B, C, H, W).
        timesteps: Training timesteps, int64, shape (B,).
        noises: Standard normal, float32, shape (B, C, H, W).
        embeds: Text embeddings of the B prompts.
        guidance_scale: Guidance of the prediction; 1 for none.

    Returns:
        float32, shape (B,).
    """
    noisy = policy.scheduler.add_noise(latents, noises, timesteps)
    predicted = policy.predict_noise(noisy, timesteps, embeds, guidance_scale)
    return ((noises - predicted) ** 2).flatten(1).mean(1)


@dataclass
class RoundData:
    """What a round has sampled so far.

    Attributes:
        prompts: M prompts.
        rewards: float32, shape (M,).
        moments: Mean and log-variance of the images' latents, float32, shape
            (M, 2C, h, w).
    """

    prompts: list[str]
    rewards: Tensor
    moments: Tensor

    def add(self, prompts: Sequence[str], rewards: Tensor, moments: Tensor) -> None:
        """Add the samples of an epoch."""
        self.prompts = [*self.prompts, *prompts]
        self.rewards = torch.cat([self.rewards, rewards.float().to(self.rewards)])
        self.moments = torch.cat([self.moments, moments.to(self.moments)])


class Rwr(Algorithm):
    """Collects the samples of a round, and trains on them at its end."""

    Settings = RwrSettings
    settings: RwrSettings

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.base_std: float | None = None
        self._begin_round()

    def _begin_round(self) -> None:
        channels, height, width = self.policy.latent_shape
        self.data = RoundData(
            prompts=[],
            rewards=torch.zeros(0, device=self.policy.device),
            moments=torch.zeros(0, 2 * channels, height, width, device=self.storage),
        )

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """Keep the epoch's samples; train if it ends a round.

        Returns:
            Updates, and of them: mean loss, part of the images that the weights let
            speak, norm and spread of the gradients. In an epoch that only samples there
            are 0 updates, and the others are NaN.
        """
        moments = encode_images(
            self.policy, trajectory.images, self.training.chunk_size
        )
        self.data.add(trajectory.prompts, rewards, moments)
        optimizer = PolicyOptimizer(self.policy, self.settings.optimizer)
        loss = fraction = float("nan")
        if epoch in self.settings.round_ends(self.training.epochs):
            weights = self.image_weights()
            fraction = effective_fraction(weights)
            loss = self.train(epoch, weights, optimizer)
            self._begin_round()
        return {
            "updates": float(len(optimizer.norms)),
            "loss": loss,
            "effective_fraction": fraction,
            **optimizer.metrics(),
        }

    def image_weights(self) -> Tensor:
        """The weight of each image of the round, float32, shape (M,)."""
        rewards = self.data.rewards
        if self.settings.scope == "prompt":
            groups = prompt_groups(self.data.prompts)
        else:
            groups = [torch.arange(len(rewards))]
        if self.settings.weighting == "sparse":
            return sparse_weights(rewards, groups, self.settings.percentile)
        beta = self.settings.inverse_temperature
        if self.settings.unit == "base_std":
            if not self.base_std:
                self.base_std = deviation_within(rewards, groups)
            # Rewards that are equal weigh 1 each, whatever beta is.
            beta /= self.base_std or 1.0
        return exponential_weights(rewards, groups, beta)

    def train(self, epoch: int, weights: Tensor, optimizer: PolicyOptimizer) -> float:
        """All updates of a round.

        Args:
            epoch: The round's last, 1-based, for addressed randomness.
            weights: Weight of each image, shape (M,); those of 0 are left out.
            optimizer: A new one.

        Returns:
            The updates' mean loss.
        """
        rng = generator(self.config.seed, "rwr passes", epoch)
        kept = weights.cpu().nonzero().flatten()
        batches = visits(rng, kept, self.settings.passes, self.settings.batch_size)
        losses: list[float] = []
        for number, batch in enumerate(batches):
            first = number * self.settings.batch_size
            optimizer.step(self._losses(epoch, batch, first, weights, losses))
        return sum(collect(losses)) / len(batches)

    def _losses(
        self,
        epoch: int,
        batch: Tensor,
        first: int,
        weights: Tensor,
        losses: list[float],
    ) -> Iterator[tuple[float, Tensor]]:
        """Weight and mean loss of each micro-batch of this process.

        ``losses`` keeps their products.

        The batch's images are visited ``first``, ``first + 1``, ... in the round, which
        is the address of their timesteps and noise.
        """
        guidance = self.guidance_scale if self.settings.cfg_training else 1.0
        visited = torch.arange(first, first + len(batch))
        size = self.training.micro_batch_size
        parts = list(zip(batch.split(size), visited.split(size), strict=True))
        for images, numbers in deal(parts):
            timesteps, drawn, added = self._draws(epoch, numbers.tolist())
            moments = to_device(self.data.moments[images], self.policy.device)
            errors = denoising_losses(
                self.policy,
                drawn_latents(self.policy, moments, drawn),
                timesteps,
                added,
                self.policy.encode([self.data.prompts[i] for i in images.tolist()]),
                guidance,
            )
            loss = (weights[images] * errors).mean()
            share = len(images) / len(batch)
            losses.append(share * float(loss.detach()))
            yield share, loss

    def _draws(self, epoch: int, visits: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Timesteps (B,), and noise of latents and of x_t, (B, C, H, W) each."""
        seed, shape = self.config.seed, self.policy.latent_shape
        steps = self.policy.scheduler.config.num_train_timesteps
        timesteps = torch.tensor(
            [
                int(generator(seed, "rwr timestep", epoch, visit).integers(steps))
                for visit in visits
            ]
        )
        drawn, added = (
            noise(seed, f"rwr {what}", epoch, visits, 0, shape)
            for what in ("latents", "noise")
        )
        device = self.policy.device
        return timesteps.to(device), drawn.to(device), added.to(device)

    def state_dict(self) -> dict[str, Any]:
        """The samples of an unfinished round, and the unit of the rewards.

        AdamW begins anew with each round, and a round trains within one epoch.
        """
        return {"data": vars(self.data), "base_std": self.base_std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.data = RoundData(**state["data"])
        self.data.moments = self.data.moments.to(self.storage)
        self.data.rewards = self.data.rewards.to(self.policy.device)
        self.base_std = state["base_std"]
