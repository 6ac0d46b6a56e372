"""The scores of many images, in chunks that are dealt to the processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tdpo_pipeline.diffusion.devices import to_device
from tdpo_pipeline.distributed import compute_parts
from tdpo_pipeline.rewards.base import Reward


@torch.no_grad()
def scores(
    reward: Reward,
    images: Tensor,
    prompts: Sequence[str],
    chunk_size: int,
    device: torch.device | None = None,
) -> Tensor:
    """A reward's scores.

    Args:
        reward: The reward.
        images: Float in [0, 1], shape (N, 3, H, W).
        prompts: Their N prompts.
        chunk_size: Images scored together.
        device: Where the reward is; None: where the images are.

    Returns:
        float32, shape (N,), on that device.

    Raises:
        RewardError: If the reward breaks its contract.
    """

    def scored(start: int) -> tuple[Tensor]:
        part = slice(start, start + chunk_size)
        chunk = to_device(images[part], device or images.device)
        return (reward(chunk, prompts[part]).values,)

    parts = compute_parts(scored, range(0, len(prompts), chunk_size))
    return torch.cat([part for (part,) in parts])
