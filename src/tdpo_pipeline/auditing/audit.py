"""From a reward's name to its scores of perturbed pictures of the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tdpo_pipeline.auditing.perturbations import check_perturbations, wrong_prompts
from tdpo_pipeline.auditing.probe import examples, score_perturbed
from tdpo_pipeline.config import RewardSettings, TrainingSettings
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout_chunks
from tdpo_pipeline.rewards.probe import probe_rewards
from tdpo_pipeline.rewards.registry import load_rewards


class Audited(NamedTuple):
    """What an audit measured.

    Attributes:
        scores: A row a picture and probe; see ``score_perturbed``. The column of the
            reward comes before that of its gold.
        examples: One picture under every perturbation; see ``examples``.
    """

    scores: pd.DataFrame
    examples: np.ndarray


def audit_reward(
    rewards: Sequence[str],
    prompts: Sequence[str],
    strengths: Mapping[str, Sequence[float]],
    *,
    images_per_prompt: int,
    seed: int,
    sampler: TrainingSettings,
    base_model: Path,
    weights: Path,
    task: RewardSettings | None = None,
) -> Audited:
    """Draw pictures by the untouched base model, and score them clean and perturbed.

    Args:
        rewards: The reward in question and, where there is one, its gold.
        prompts: Two prompts or more.
        strengths: Strengths of each perturbation, by its name.
        images_per_prompt: Pictures of each prompt, each with noise of its own.
        seed: Seed of the pictures and of the perturbations.
        sampler: Steps, guidance, eta, chunk size and device, as in training.
        base_model: Diffusers pipeline directory.
        weights: Folder of reward weights.
        task: The task whose trained reward is among them, if it is one of a task.

    Raises:
        ValueError: If there is only one prompt, or a perturbation or reward is unknown.
        RewardError: If a reward can't score the base model's pictures.
    """
    check_perturbations(strengths)
    asked_for = [prompt for prompt in prompts for _ in range(images_per_prompt)]
    wrong_prompts(asked_for)
    if sampler.threads:
        torch.set_num_threads(sampler.threads)
    loaded = list(load_rewards(rewards, weights, task).values())
    policy = Policy(
        load_pipeline(base_model),
        num_inference_steps=sampler.num_inference_steps,
        lora=None,
        trained=False,
        compute=sampler,
    )
    for reward in loaded:
        reward.to(policy.device)
    probe_rewards(loaded, policy, asked_for)
    chunks = rollout_chunks(
        policy,
        asked_for,
        seed=seed,
        epoch=0,
        guidance_scale=sampler.guidance_scale,
        eta=sampler.eta,
        chunk_size=sampler.chunk_size,
        purpose="audit",
    )
    images = torch.cat([chunk.images for _, chunk in chunks])
    scores = score_perturbed(
        loaded, images, asked_for, strengths, seed=seed, chunk_size=sampler.chunk_size
    )
    return Audited(scores, examples(images, asked_for, strengths, seed=seed))
