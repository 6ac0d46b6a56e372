"""How strongly to apply a LoRA: the frontier of two rewards over its strength.

Strength 0 is the base model, 1 the policy that was trained. In between lies, for nothing
but sampling, a choice between the trained reward and what it was meant to stand for. A
held-out reward, which training never saw, says where that choice begins to cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout_chunks
from tdpo_pipeline.overoptimization.curves import t_interval
from tdpo_pipeline.rewards.base import Reward
from tdpo_pipeline.rewards.scoring import scores as scores_of

CONFIDENCE = 0.95


@torch.no_grad()
def measure_strengths(
    policy: Policy,
    rewards: dict[str, Reward],
    prompts: Sequence[str],
    training: TrainingSettings,
    *,
    strengths: Sequence[float],
    images_per_prompt: int,
    seed: int,
) -> pd.DataFrame:
    """Score samples of every strength, by the scale's sampler and with the same noise.

    Args:
        policy: A policy with LoRA, its weights loaded; left at strength 1.
        rewards: Rewards by the name of their column.
        prompts: Prompts to sample for.
        training: Steps, guidance, eta and chunk size of the sampler.
        strengths: Strengths to sample at.
        images_per_prompt: Images of each prompt and strength.
        seed: Seed of the noise.

    Returns:
        One row an image: strength, prompt, image, and a column for each reward.
    """
    repeated = [prompt for prompt in prompts for _ in range(images_per_prompt)]
    numbers = list(range(images_per_prompt)) * len(prompts)
    tables = []
    for strength in tqdm(strengths, desc="strengths", disable=None):
        policy.set_strength(strength)
        parts = []
        for _, chunk in rollout_chunks(
            policy,
            repeated,
            seed=seed,
            epoch=0,
            guidance_scale=training.guidance_scale,
            eta=training.eta,
            chunk_size=training.chunk_size,
            purpose="strengths",
        ):
            values = {
                name: scores_of(reward, chunk.images, chunk.prompts, len(chunk)).cpu()
                for name, reward in rewards.items()
            }
            parts.append(pd.DataFrame({k: v.numpy() for k, v in values.items()}))
        table = pd.DataFrame({"strength": strength, "prompt": repeated})
        table["image"] = numbers
        tables.append(pd.concat([table, pd.concat(parts, ignore_index=True)], axis=1))
    policy.set_strength(1.0)
    return pd.concat(tables, ignore_index=True)


def frontier(scores: pd.DataFrame, trained: str, held_out: str) -> pd.DataFrame:
    """Both rewards at every strength, and what the held-out one changed by.

    Args:
        scores: As :func:`measure_strengths` gives them, strength 0 among them.
        trained: Column of the reward that was trained on.
        held_out: Column of the reward that wasn't.

    Returns:
        One row a strength, in order: ``strength``, ``trained``, ``held_out`` (means in
        which prompts weigh equally), and the held-out reward's ``change`` from strength
        0 on the same prompts and noise, with the ends ``low`` and ``high`` of a 95 %
        t interval over prompts (NaN with a single prompt).

    Raises:
        ValueError: If strength 0 was not measured.
    """
    means = scores.groupby(["strength", "prompt"])[[trained, held_out]].mean()
    if 0.0 not in means.index.get_level_values("strength"):
        raise ValueError("Strength 0, the base model, must be among the strengths.")
    base = means.xs(0.0, level="strength")[held_out]
    rows = []
    for strength, table in means.groupby(level="strength"):
        of_prompts = table.droplevel("strength")
        change = of_prompts[held_out] - base
        low, high = t_interval(change, CONFIDENCE)
        rows.append(
            {
                "strength": strength,
                "trained": of_prompts[trained].mean(),
                "held_out": of_prompts[held_out].mean(),
                "change": change.mean(),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def recommended_strength(table: pd.DataFrame) -> float | None:
    """The strength with the highest trained reward of those that cost nothing.

    A strength costs nothing if the held-out reward's mean is not below the base model's.

    Args:
        table: As :func:`frontier` gives it.

    Returns:
        A strength above 0, or None if every one costs.
    """
    free = table[(table["strength"] > 0) & (table["change"] >= 0)]
    if free.empty:
        return None
    return float(free["strength"].to_numpy()[free["trained"].to_numpy().argmax()])
