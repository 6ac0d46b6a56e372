"""Scores of the base model's pictures, clean and perturbed, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from tdpo_pipeline.auditing.perturbations import (
    PERTURBATIONS,
    Batch,
    check_perturbations,
    wrong_prompts,
)
from tdpo_pipeline.overoptimization.reward_audit import CLEAN
from tdpo_pipeline.rewards.base import Reward
from tdpo_pipeline.rewards.preprocessing import levels


@torch.no_grad()
def score_perturbed(
    rewards: Sequence[Reward],
    images: Tensor,
    prompts: Sequence[str],
    strengths: Mapping[str, Sequence[float]],
    *,
    seed: int,
    chunk_size: int,
) -> pd.DataFrame:
    """Score pictures as they are, and under every perturbation.

    Args:
        rewards: What to score with: the reward in question and its references.
        images: Pictures of the base model, float in [0, 1], shape (N, 3, H, W).
        prompts: Their N prompts, at least two different ones.
        strengths: Strengths of each perturbation, by its name.
        seed: Seed of the perturbations' noise.
        chunk_size: Pictures scored together.

    Returns:
        N rows a probe, the clean one first: perturbation, kind, strength (0 of the
        clean ones), prompt (the picture's own), image (0, 1, ... of each prompt), and
        a column a reward.

    Raises:
        AuditError: If a perturbation is unknown.
        RewardError: If a reward breaks its contract.
    """
    check_perturbations(strengths)
    pictures = pd.DataFrame({"prompt": list(prompts)})
    pictures["image"] = pictures.groupby("prompt").cumcount()
    batch = Batch(images, prompts, wrong_prompts(prompts), range(len(images)), seed)
    probes = [(CLEAN, 0.0)]
    probes += [(name, strength) for name in strengths for strength in strengths[name]]
    tables = []
    names = "/".join(reward.name for reward in rewards)
    for name, strength in tqdm(probes, desc=f"audit {names}", disable=None):
        kind = "clean" if name == CLEAN else PERTURBATIONS[name].kind
        head = {"perturbation": name, "kind": kind, "strength": float(strength)}
        scores = _scores(rewards, batch, name, strength, chunk_size)
        tables.append(pictures.assign(**scores).assign(**head))
    order = ["perturbation", "kind", "strength", *pictures.columns]
    table = pd.concat(tables, ignore_index=True)
    return table[[*order, *(reward.name for reward in rewards)]]


def _scores(
    rewards: Sequence[Reward],
    batch: Batch,
    name: str,
    strength: float,
    chunk_size: int,
) -> dict[str, np.ndarray]:
    """Scores (N,) by every reward of the pictures under one perturbation."""
    parts: dict[str, list[Tensor]] = {reward.name: [] for reward in rewards}
    for chunk in _chunks(batch, chunk_size):
        probed = chunk if name == CLEAN else PERTURBATIONS[name].apply(chunk, strength)
        for reward in rewards:
            values = reward(probed.images, probed.prompts).values
            parts[reward.name].append(values.float().cpu())
    return {key: torch.cat(values).numpy() for key, values in parts.items()}


def _chunks(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most ``size`` pictures."""
    for start in range(0, len(batch.images), size):
        part = slice(start, start + size)
        yield Batch(
            batch.images[part],
            batch.prompts[part],
            batch.wrong_prompts[part],
            batch.numbers[part],
            batch.seed,
        )


def examples(
    images: Tensor,
    prompts: Sequence[str],
    strengths: Mapping[str, Sequence[float]],
    *,
    seed: int,
) -> np.ndarray:
    """The first picture clean, and under the greatest strength of each perturbation.

    Returns:
        uint8, one below the other, shape ((1 + perturbations) x H, W, 3).
    """
    batch = Batch(images[:1], prompts[:1], wrong_prompts(prompts)[:1], [0], seed)
    shown = [images[:1]]
    shown += [
        PERTURBATIONS[name].apply(batch, max(values)).images
        for name, values in strengths.items()
    ]
    pixels = levels(torch.cat(shown)).cpu()
    return np.concatenate(list(pixels.permute(0, 2, 3, 1).numpy()), axis=0)
