"""Labels for the proxy rewards, their training, and how well they know their gold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.menagerie.base_model import (
    sample_images,
    to_tensor,
    torch_threads,
)
from tdpo_pipeline.menagerie.gold import gold_match, gold_taste
from tdpo_pipeline.menagerie.optimization import adamw, batches
from tdpo_pipeline.menagerie.proxies import ProxyNetwork, save_proxy
from tdpo_pipeline.menagerie.proxies_settings import (
    PoolSettings,
    ProxyRewardsSettings,
    ProxySettings,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, describe
from tdpo_pipeline.menagerie.vocabulary import ANIMALS, COLOURS, UNSEEN_ANIMALS

logger = logging.getLogger(__name__)

SCORING_BATCH = 256
GOLDS = ("gold_match", "gold_taste")


@dataclass(frozen=True)
class Pool:
    """Pictures to label.

    Attributes:
        images: Float in [0, 1], shape (N, 3, 32, 32).
        scenes: What each was made for.
    """

    images: Tensor
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)


@dataclass(frozen=True)
class Labels:
    """What a proxy is trained on.

    Attributes:
        first: Rows of the pool, int64, shape (L,).
        second: Rows that ``first`` is compared with (the same rows for ratings).
        prompts: The L prompts that pictures are judged by.
        values: Ratings; or 1 where ``first`` was preferred and 0 where ``second`` was.
    """

    first: Tensor
    second: Tensor
    prompts: list[str]
    values: Tensor


def draw_scene(
    rng: np.random.Generator, animals: Sequence[str], coloured: float
) -> Scene:
    """A plain animal, or now and then one of a named colour."""
    animal = animals[int(rng.integers(len(animals)))]
    if rng.random() < coloured:
        return Scene(animal, colour=COLOURS[int(rng.integers(len(COLOURS)))])
    return Scene(animal)


def make_pool(
    pipeline: StableDiffusionPipeline,
    settings: PoolSettings,
    count: int,
    animals: Sequence[str],
    seed: int,
) -> Pool:
    """Samples of the base model at several guidance weights, renders, corruptions."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, animals, settings.coloured) for _ in range(count)]
    scales = settings.guidance_scales
    images = torch.empty(count, 3, 32, 32)
    for i, scale in enumerate(scales):
        rows = range(i, count, len(scales))
        images[i :: len(scales)] = sample_images(
            pipeline,
            [describe(scenes[row]) for row in rows],
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=scale,
            eta=1.0,
            seed=seed + i,
        )
    rendered = np.flatnonzero(rng.random(count) < settings.rendered)
    if len(rendered):
        pictures = [render(scenes[row], int(rng.integers(2**31))) for row in rendered]
        images[torch.from_numpy(rendered)] = to_tensor(pictures) / 255
    for row in np.flatnonzero(rng.random(count) < settings.corrupted):
        name = list(CORRUPTIONS)[rng.integers(len(CORRUPTIONS))]
        images[row] = corrupt(images[row : row + 1], name, rng)[0]
    return Pool(images, scenes)


def blur(images: Tensor, radius: float) -> Tensor:
    """Gaussian blur with this standard deviation in pixels."""
    x = torch.arange(-4, 5)
    kernel = torch.exp(-((x / radius) ** 2) / 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).repeat(3, 1, 1, 1)
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    rows = F.conv2d(padded, kernel, groups=3)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=3)


def _shuffle_patches(images: Tensor, rng: np.random.Generator) -> Tensor:
    patches = F.unfold(images, 8, stride=8)
    order = torch.from_numpy(rng.permutation(patches.shape[-1]))
    return F.fold(patches[..., order], images.shape[2:], 8, stride=8)


def _occlude(images: Tensor, rng: np.random.Generator) -> Tensor:
    y, x = rng.integers(4, 12, size=2)
    hidden = images.clone()
    hidden[:, :, y : y + 16, x : x + 16] = 0.5
    return hidden


def _noise(images: Tensor, rng: np.random.Generator) -> Tensor:
    drawn = rng.standard_normal(images.shape).astype(np.float32)
    return (images + 0.2 * torch.from_numpy(drawn)).clamp(0, 1)


CORRUPTIONS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "blur": lambda images, rng: blur(images, 1.5),
    "noise": _noise,
    "shuffled patches": _shuffle_patches,
    "occlusion": _occlude,
    "darkening": lambda images, rng: 0.4 * images,
}
"""Ways to spoil pictures (N, 3, 32, 32) in [0, 1]."""


def corrupt(images: Tensor, name: str, rng: np.random.Generator) -> Tensor:
    """Spoil pictures in the named way."""
    return CORRUPTIONS[name](images, rng)


def gold_scores(gold: str, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Scores (N,) of a gold, by name, in batches."""
    parts = []
    for start in range(0, len(images), SCORING_BATCH):
        rows = slice(start, start + SCORING_BATCH)
        if gold == "gold_taste":
            parts.append(gold_taste(images[rows]))
        else:
            parts.append(gold_match(images[rows], prompts[rows]))
    return torch.cat(parts)


def give_labels(pool: Pool, settings: ProxySettings) -> Labels:
    """Noisy labels of a proxy's gold on pictures drawn from the pool.

    A rating is the gold plus noise. A preference is for whichever picture has the
    higher gold plus noise under one prompt: one picture made for that prompt, and one
    that was in half of the pairs made for another.
    """
    rng = np.random.default_rng(settings.seed)
    first = rng.integers(len(pool), size=settings.labels)
    prompts = [describe(pool.scenes[row]) for row in first]
    if settings.gold == "gold_taste":
        gold = gold_scores(settings.gold, pool.images[first], prompts)
        values = gold + settings.noise * _normal(rng, len(gold))
        rows = torch.from_numpy(first)
        return Labels(rows, rows, prompts, values)
    second = _partners(pool, first, rng)
    golds = [
        gold_scores(settings.gold, pool.images[rows], prompts)
        for rows in (first, second)
    ]
    lead = golds[0] - golds[1]
    noise = settings.noise * 2**0.5 * _normal(rng, len(lead))
    # Which of the two is shown first says nothing.
    swapped = torch.from_numpy(rng.random(len(lead)) < 0.5)
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    values = torch.where(swapped, -lead + noise > 0, lead + noise > 0)
    return Labels(
        torch.where(swapped, b, a), torch.where(swapped, a, b), prompts, values.float()
    )


def _normal(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(count).astype(np.float32))


def _partners(pool: Pool, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row another one: of the same scene for half of them, if there is one."""
    rows_of: dict[Scene, list[int]] = {}
    for row, scene in enumerate(pool.scenes):
        rows_of.setdefault(scene, []).append(row)
    partners = []
    for row in first:
        others = [r for r in rows_of[pool.scenes[row]] if r != row]
        if others and rng.random() < 0.5:
            partners.append(others[rng.integers(len(others))])
        else:
            partners.append(int(rng.integers(len(pool))))
    return np.array(partners)


def train_proxy(pool: Pool, settings: ProxySettings) -> ProxyNetwork:
    """Train one proxy on labels of its own: ratings by squared error, else preferences.

    Preferences are learned as in PickScore and ImageReward: cross-entropy on the
    difference of the two scores. Pictures are mirrored at random.
    """
    labels = give_labels(pool, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = ProxyNetwork(settings).train()
        optimizer, schedule = adamw(
            list(network.parameters()), settings.learning_rate, settings.steps
        )
        generator = torch.Generator().manual_seed(settings.seed)
        size = settings.batch_size
        for chosen in batches(len(labels.prompts), size, settings.steps, generator):
            loss = _loss(network, pool, labels, chosen, generator)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return network.eval()


def _loss(
    network: ProxyNetwork,
    pool: Pool,
    labels: Labels,
    chosen: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Mean loss of the chosen labels."""
    prompts = [labels.prompts[i] for i in chosen]
    values = labels.values[chosen]
    first = _mirrored(pool.images[labels.first[chosen]], generator)
    if network.kind == "aesthetic":
        return F.mse_loss(network(first, prompts), values)
    second = _mirrored(pool.images[labels.second[chosen]], generator)
    scores = network(torch.cat([first, second]), prompts + prompts)
    lead = scores[: len(chosen)] - scores[len(chosen) :]
    return F.binary_cross_entropy_with_logits(lead, values)


def _mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(3), images)


@torch.no_grad()
def rank_correlation(
    network: ProxyNetwork, gold: str, pool: Pool, prompts: Sequence[str], seed: int
) -> dict[str, Any]:
    """Spearman's rho between a proxy and its gold, with a 95 % bootstrap interval."""
    proxy = network(pool.images, prompts).numpy()
    truth = gold_scores(gold, pool.images, prompts).numpy()
    rho = stats.spearmanr(proxy, truth).statistic
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(proxy), size=(1000, len(proxy)))
    draws = [stats.spearmanr(proxy[r], truth[r]).statistic for r in rows]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "spearman": round(float(rho), 3),
        "interval_95": [round(float(low), 3), round(float(high), 3)],
        "n": len(proxy),
    }


def auc(better: Tensor, worse: Tensor) -> float:
    """Chance that one of ``better`` scores above one of ``worse`` (ties count half)."""
    statistic = stats.mannwhitneyu(better.numpy(), worse.numpy()).statistic
    return round(float(statistic) / (len(better) * len(worse)), 4)


def paired_auc(better: Tensor, worse: Tensor) -> float:
    """Share of pictures that score above their own spoiled copy (ties count half).

    Paired, so that it says what spoiling takes away, and not how pictures differ.
    """
    above, equal = (better > worse).float(), (better == worse).float()
    return round(float((above + 0.5 * equal).mean()), 4)


def gold_aucs(renders: Pool, samples: Pool, seed: int) -> dict[str, Any]:
    """How well the golds tell matched from mismatched and clean from spoiled.

    Matched and mismatched are pooled over pictures; a spoiled picture is compared with
    its own original.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for name, pool in (("renders", renders), ("base_samples", samples)):
        prompts = [describe(scene) for scene in pool.scenes]
        others = _other_prompts(prompts, rng)
        matched = gold_match(pool.images, prompts)
        result[f"gold_match, matched over mismatched, {name}"] = auc(
            matched, gold_match(pool.images, others)
        )
    prompts = [describe(scene) for scene in renders.scenes]
    taste, match = gold_taste(renders.images), gold_match(renders.images, prompts)
    for corruption in CORRUPTIONS:
        spoiled = corrupt(renders.images, corruption, rng)
        result[f"gold_match, clean over {corruption}"] = paired_auc(
            match, gold_match(spoiled, prompts)
        )
        result[f"gold_taste, clean over {corruption}"] = paired_auc(
            taste, gold_taste(spoiled)
        )
    return result


def _other_prompts(prompts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """For each prompt another one of them."""
    names = sorted(set(prompts))
    shifts = rng.integers(1, len(names), size=len(prompts))
    return [
        names[(names.index(prompt) + shift) % len(names)]
        for prompt, shift in zip(prompts, shifts, strict=True)
    ]


def train_proxy_rewards(
    base_model: Path, settings: ProxyRewardsSettings, folder: Path
) -> dict[str, Any]:
    """Make the pictures, train and save every proxy, and measure all.

    Args:
        base_model: Folder of the base model.
        settings: Pictures and proxies.
        folder: Gets a safetensors file for each proxy.

    Returns:
        The report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(base_model)
    pool_settings = settings.pool
    plain = pool_settings.model_copy(
        update={"corrupted": 0.0, "rendered": 0.0, "coloured": 0.0}
    )
    renders = plain.model_copy(update={"rendered": 1.0})
    count, seed = pool_settings.held_out, pool_settings.seed
    report: dict[str, Any] = {"proxies": {}}
    with torch_threads(settings.threads):
        logger.info("Sampling %d pictures to label.", pool_settings.images)
        pool = make_pool(pipeline, pool_settings, pool_settings.images, ANIMALS, seed)
        held_out = {
            "base samples, 45 animals": make_pool(
                pipeline, plain, count, ANIMALS, seed + 100
            ),
            "base samples, 8 unseen animals": make_pool(
                pipeline, plain, count, UNSEEN_ANIMALS, seed + 200
            ),
            "renders, 45 animals": make_pool(
                pipeline, renders, count, ANIMALS, seed + 300
            ),
        }
        for name, proxy in settings.proxies.items():
            logger.info("Training %s on %d labels.", name, proxy.labels)
            network = train_proxy(pool, proxy)
            save_proxy(name, network, proxy, folder)
            report["proxies"][name] = _measure(network, proxy, held_out, seed)
        report["golds"] = gold_aucs(
            held_out["renders, 45 animals"], held_out["base samples, 45 animals"], seed
        )
        report["gold values"] = {
            where: _gold_values(pool) for where, pool in held_out.items()
        }
    return report


def _measure(
    network: ProxyNetwork,
    settings: ProxySettings,
    held_out: Mapping[str, Pool],
    seed: int,
) -> dict[str, Any]:
    """What a proxy was trained on, and its rank correlations with its gold.

    Half of the pictures are judged by a prompt that is not theirs, as far as the proxy
    reads prompts.
    """
    facts: dict[str, Any] = {
        "gold": settings.gold,
        "labels": settings.labels,
        "label_noise": settings.noise,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    for where, pool in held_out.items():
        prompts = [describe(scene) for scene in pool.scenes]
        if settings.kind != "aesthetic":
            others = _other_prompts(prompts, np.random.default_rng(seed))
            half = len(prompts) // 2
            matched = rank_correlation(network, settings.gold, pool, prompts, seed)
            facts[f"{where}, matched prompts"] = matched
            prompts = prompts[:half] + others[half:]
        facts[where] = rank_correlation(network, settings.gold, pool, prompts, seed)
    return facts


def _gold_values(pool: Pool) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of both golds."""
    prompts = [describe(scene) for scene in pool.scenes]
    values = {gold: gold_scores(gold, pool.images, prompts) for gold in GOLDS}
    return {
        gold: {"mean": round(float(v.mean()), 4), "std": round(float(v.std()), 4)}
        for gold, v in values.items()
    }
