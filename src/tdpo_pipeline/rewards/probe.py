"""One trial of every reward, so that a broken one shows before any long work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.rewards.base import Reward, RewardError


@torch.no_grad()
def probe_rewards(
    rewards: Iterable[Reward], policy: Policy, prompts: Sequence[str]
) -> None:
    """Score two pictures of decoded noise, for the first and the last prompt.

    Args:
        rewards: The rewards to try.
        policy: Its base model gives the pictures, in the size of its samples.
        prompts: At least one.

    Raises:
        RewardError: If a reward fails, or breaks its contract.
    """
    noise = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *policy.latent_shape, generator=noise)
    images = policy.decode(latents.to(policy.device))
    for reward in rewards:
        try:
            reward(images, [prompts[0], prompts[-1]])
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(
                f"Reward '{reward.name}' failed on trial pictures of shape "
                f"{tuple(images.shape)}: {type(error).__name__}: {error}"
            ) from error
