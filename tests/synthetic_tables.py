"""Made-up tables with a known truth, in the project's schemas.

They try out intervals, figures and texts where the right answer is known and nothing
has to be trained. They say nothing about any method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.menagerie.vocabulary import ANIMALS, UNSEEN_ANIMALS

COMPLEX = (
    "a green colored rabbit",
    "four wolves in the park",
    "a cat and a dog",
    "a dog on the moon",
)
REWARDS = (
    *("aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"),
    *("gold_match", "gold_taste", "jpeg_compressibility", "jpeg_incompressibility"),
)


def synthetic_scores(
    method: str,
    reward: str,
    seed: int,
    *,
    gains: Mapping[str, Sequence[float]],
    epochs: Sequence[int] = (0, 4, 8, 12, 16),
    prompts: Mapping[str, Sequence[str]] | None = None,
    trained_on: Sequence[str] = ANIMALS[:8],
    images: int = 4,
    etas: Sequence[float] = (1.0,),
    samples_per_epoch: int = 128,
    kl_per_epoch: float = 0.25,
    prompt_sd: float = 0.5,
    seed_sd: float = 0.1,
    noise_sd: float = 0.2,
) -> pd.DataFrame:
    """Score table of one run whose rewards move by known amounts.

    A score is a prompt's own level, plus the image's noise (both equal at all epochs
    and for all runs), plus the gain of the epoch, plus how far this training seed and
    each prompt of it deviate from that gain.

    Args:
        method: The run's method.
        reward: The run's trained reward.
        seed: The run's training seed.
        gains: Expected change since the base model at each of ``epochs``, for each
            reward that moves; the others stay, with the same deviations.
        epochs: Evaluated checkpoints, 0 first.
        prompts: Prompts of each prompt set; by default all the project's.
        trained_on: The prompts that are marked as seen.
        images: Images a prompt.
        etas: Etas that are evaluated.
        samples_per_epoch: Reward queries of an epoch.
        kl_per_epoch: KL to the base model that an epoch adds, in nats.
        prompt_sd: Spread of the prompts' levels.
        seed_sd: Spread of the gains over training seeds; over prompts it is thrice
            that.
        noise_sd: Spread of the images of a prompt.

    Returns:
        One row per eta, epoch, prompt and image.
    """
    prompts = prompts or {
        "simple_animals": ANIMALS,
        "unseen_animals": UNSEEN_ANIMALS,
        "complex": COMPLEX,
    }
    index = pd.DataFrame(
        [
            (eta, prompt_set, prompt, prompt in trained_on, image)
            for eta in etas
            for prompt_set, names in prompts.items()
            for prompt in names
            for image in range(images)
        ],
        columns=["eta", "prompt_set", "prompt", "seen", "image"],
    )
    # The first generator is the world's, the second this run's own.
    world = np.random.default_rng(0)
    run = np.random.default_rng([seed, *method.encode(), *reward.encode()])
    prompt_of_row = pd.factorize(index["prompt_set"] + ":" + index["prompt"])[0]
    n_prompts = prompt_of_row.max() + 1
    columns = {}
    for name in REWARDS:
        level = world.normal(0, prompt_sd, n_prompts)[prompt_of_row]
        noise = world.normal(0, noise_sd, len(index))
        own = run.normal(0, seed_sd) + run.normal(0, 3 * seed_sd, n_prompts)
        columns[name] = (level + noise, own[prompt_of_row])
    tables = []
    for position, epoch in enumerate(epochs):
        reached = position / max(len(epochs) - 1, 1)
        scores = {
            name: base + (gains[name][position] if name in gains else 0) + reached * own
            for name, (base, own) in columns.items()
        }
        head: dict[str, Any] = {
            "run": f"{method}-{reward}-s{seed}",
            "method": method,
            "reward": reward,
            "seed": seed,
            "epoch": epoch,
            "reward_queries": epoch * samples_per_epoch,
            "kl_to_base": epoch * kl_per_epoch,
        }
        tables.append(index.assign(**head, **scores))
    order = ["run", "method", "reward", "seed", "epoch", "reward_queries", "kl_to_base"]
    order += ["eta", "prompt_set", "prompt", "seen", "image", *REWARDS]
    return pd.concat(tables, ignore_index=True)[order]


def synthetic_history(
    method: str,
    reward: str,
    seed: int,
    *,
    gain: float,
    epochs: int = 16,
    samples_per_epoch: int = 128,
    reset_every: int = 0,
) -> pd.DataFrame:
    """History table of one run whose reward rises by ``gain``, saturating.

    Args:
        method: The run's method; those that start with "tdpo" get a critic.
        reward: The run's trained reward.
        seed: The run's training seed.
        gain: Total rise of the trained reward.
        epochs: Number of epochs.
        samples_per_epoch: Reward queries of an epoch.
        reset_every: Epochs between resets of the critic's neurons; 0 for none.

    Returns:
        One row per epoch, with the column ``run`` and the others of a history that
        figures read.
    """
    rng = np.random.default_rng([seed, *method.encode(), *reward.encode()])
    epoch = np.arange(1, epochs + 1)
    rise = gain * (1 - np.exp(-2 * (epoch - 1) / epochs))
    error = 0.5 / np.sqrt(samples_per_epoch)
    history = pd.DataFrame(
        {
            "run": f"{method}-{reward}-s{seed}",
            "method": method,
            "reward": reward,
            "seed": seed,
            "epoch": epoch,
            "reward_queries": epoch * samples_per_epoch,
            f"{reward}_mean": rise + rng.normal(0, error, epochs),
            f"{reward}_std": np.full(epochs, 0.5),
        }
    )
    if not method.startswith("tdpo"):
        return history
    resets = epoch % reset_every == 0 if reset_every else np.zeros(epochs, bool)
    slope = 2.0 if reset_every else 0.6
    return history.assign(
        critic_dormant_pct=10 + slope * epoch + rng.normal(0, 1, epochs),
        critic_overlap_pct=np.where(epoch == 1, np.nan, rng.uniform(70, 90, epochs)),
        neurons_reset=np.where(resets, 1000, 0),
    )
