"""DiffExp: exploration while sampling, for any algorithm that samples.

"DiffExp: Efficient Exploration in Reward Fine-tuning for Text-to-Image Diffusion
Models" (Chae et al., AAAI 2025). Two changes to the sampler, in the first part of
training only: guidance that is weak at the noisy steps, and a random word of each
prompt that is given more weight. Evaluation samples plainly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpo_pipeline.config import GuidanceScheduleSettings, PromptWeightingSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.prompt_embeds import PromptEmbeds


def guidance_schedule(
    timesteps: Tensor, settings: GuidanceScheduleSettings, guidance_scale: float
) -> float | Tensor:
    """The guidance weight of each step: low above the threshold, high from there on.

    Args:
        timesteps: Training timesteps, int64, shape (T,).
        settings: Threshold and weights.
        guidance_scale: The scale's own weight.

    Returns:
        float32, shape (T,); the number itself where all steps have the same.
    """
    high = guidance_scale if settings.high is None else settings.high
    noisy = timesteps > settings.threshold
    if settings.low == high or not noisy.any():
        return high
    if noisy.all():
        return settings.low
    weights = torch.full(timesteps.shape, high, device=timesteps.device)
    weights[noisy] = settings.low
    return weights


def weighted_embeds(
    policy: Policy,
    prompts: Sequence[str],
    rng: np.random.Generator,
    settings: PromptWeightingSettings,
) -> PromptEmbeds:
    """Embeddings of prompts in each of which one random word has a random weight.

    At the word's tokens, and nowhere else, c becomes c_null + w (c - c_null), with the
    embedding c_null of the empty prompt at the same position and w ~ U(low, high).

    The paper is about one text encoder. For the two of Stable Diffusion XL this is our
    reading: the word has one weight in both, c_null is what each makes of the empty
    prompt (not the zeros that guidance may use), and the pooled embedding, which belongs
    to no word, stays as it is.

    Args:
        policy: Gives embeddings and tokenizers.
        prompts: N prompts.
        rng: Draws words and weights.
        settings: Range of the weights.

    Returns:
        Embeddings of the N prompts.
    """
    plain, null = policy.encode(prompts), policy.encode([""]).tokens[0]
    tokens = plain.tokens.clone()
    # Both tokenizers of XL cut words alike; what differs is how they fill up.
    tokenizer = policy.pipeline.tokenizer
    for embed, prompt in zip(tokens, prompts, strict=True):
        words = word_tokens(tokenizer, prompt)
        draw, weight = rng.random(), rng.uniform(settings.low, settings.high)
        if words and weight != 1:
            at = words[int(draw * len(words))]
            embed[at] = null[at] + weight * (embed[at] - null[at])
    return replace(plain, tokens=tokens)


def word_tokens(tokenizer: Any, prompt: str) -> list[list[int]]:
    """Positions of the tokens of each word of a prompt, in the order of the words.

    Words are what white space separates. Special tokens belong to none (nor does a sign
    that the tokenizer doesn't know), nor does what the tokenizer cuts off.
    """
    encoding = tokenizer(
        prompt,
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_offsets_mapping=True,
    )
    special = set(tokenizer.all_special_ids)
    begins = {
        position: begin
        for position, (token, (begin, _)) in enumerate(
            zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        )
        if token not in special
    }
    words = [
        [position for position, begin in begins.items() if start <= begin < end]
        for start, end in (word.span() for word in re.finditer(r"\S+", prompt))
    ]
    return [word for word in words if word]
