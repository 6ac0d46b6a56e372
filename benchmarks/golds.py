"""What the gold rewards say about renders, base samples and spoiled copies of both.

    python benchmarks/golds.py

Renders and samples are of all 53 animals. For every way to spoil a picture: the chance
(AUC) that a clean picture is worth more than its own spoiled copy (paired), and than any
spoiled picture of the set (pooled), with 95 % bootstrap intervals over animals. Of the
complex prompts: what ``gold_match`` is made of, on renders, on the same renders through
the autoencoder, and on samples. One thread; the result goes to
benchmarks/results/golds.json.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BASE_MODEL, output_argument, write
from diffusers import StableDiffusionPipeline
from torch import Tensor

from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.menagerie.base_model import sample_images, to_tensor
from tdpo_pipeline.menagerie.gold import (
    QUALITY_NEEDED,
    RIVAL_TEMPERATURE,
    candidate_scenes,
    contrast,
    drawing_quality,
    explained,
    gold_match,
    gold_taste,
    light,
    see,
    template_bank,
    warmth,
    well_drawn,
)
from tdpo_pipeline.menagerie.proxies_training import (
    CORRUPTIONS,
    GOLDS,
    Pool,
    corrupt,
    gold_scores,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, describe, parse
from tdpo_pipeline.menagerie.vocabulary import ALL_ANIMALS, COLOURS, UNSEEN_ANIMALS
from tdpo_pipeline.prompts import COMPLEX

RENDERS, SAMPLES, COMPLEX_PICTURES = 15, 8, 64
GUIDANCE = (2.0, 3.0)
STEPS, ETA = 10, 1.0
SEED = 2**31
"""First seed of everything drawn here. Training draws its seeds below this one, and
those of tests and configuration are small."""


def rendered(scenes: Sequence[Scene], seed: int) -> Pool:
    """A render of each scene."""
    pictures = [render(scene, seed + i) for i, scene in enumerate(scenes)]
    return Pool(to_tensor(pictures) / 255, list(scenes))


def sampled(
    pipeline: StableDiffusionPipeline,
    scenes: Sequence[Scene],
    guidance: float,
    seed: int,
) -> Pool:
    """A sample of the base model for each scene."""
    images = sample_images(
        pipeline,
        [describe(scene) for scene in scenes],
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        eta=ETA,
        seed=seed,
    )
    return Pool(images, list(scenes))


@torch.no_grad()
def reconstructed(pipeline: StableDiffusionPipeline, pool: Pool) -> Pool:
    """The pictures through the autoencoder and back."""
    latents = pipeline.vae.encode(2 * pool.images - 1).latent_dist.mode()
    images = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    return Pool(images, pool.scenes)


def spoiled(pool: Pool, name: str, rng: np.random.Generator) -> Pool:
    """Each picture spoiled by itself: its own noise, place or order of patches."""
    rows = [corrupt(image[None], name, rng) for image in pool.images]
    return Pool(torch.cat(rows), pool.scenes)


def golds(pool: Pool) -> dict[str, Tensor]:
    """Values (N,) of both golds, each picture judged by its own prompt."""
    prompts = [describe(scene) for scene in pool.scenes]
    return {name: gold_scores(name, pool.images, prompts) for name in GOLDS}


def spread(values: Tensor) -> dict[str, float]:
    """Mean and standard deviation."""
    return {
        "mean": round(float(values.mean()), 4),
        "std": round(float(values.std()), 4),
    }


def distribution(values: Tensor) -> dict[str, float]:
    """Mean, standard deviation, median, 95 % quantile and maximum."""
    return spread(values) | {
        "median": round(float(values.median()), 4),
        "quantile_95": round(float(values.quantile(0.95)), 4),
        "max": round(float(values.max()), 4),
    }


def quality(pool: Pool) -> dict[str, float]:
    """How well the pictures are drawn, and the share that counts as drawn."""
    values = drawing_quality(pool.images)
    above = float((values > QUALITY_NEEDED).float().mean())
    return spread(values) | {"share_above": round(above, 4)}


def aucs(clean: Tensor, other: Tensor, animals: int) -> dict[str, Any]:
    """Paired and pooled AUC, with intervals over animals.

    Args:
        clean: Values (N,), of equally many pictures of each animal, animal by animal.
        other: Values (N,) of the spoiled copies.
        animals: How many animals.
    """
    wins = (clean[:, None] > other).double() + 0.5 * (clean[:, None] == other)
    paired = wins.diagonal().view(animals, -1).mean(1).numpy()
    pooled = wins.view(animals, len(clean) // animals, animals, -1).mean((1, 3)).numpy()
    drawn = np.random.default_rng(SEED).multinomial(
        animals, np.full(animals, 1 / animals), 2000
    )
    weights = drawn / animals
    return {
        "paired": round(float(paired.mean()), 4),
        "paired_interval_95": interval(weights @ paired),
        "pooled": round(float(pooled.mean()), 4),
        "pooled_interval_95": interval(((weights @ pooled) * weights).sum(1)),
    }


def interval(draws: np.ndarray) -> list[float]:
    """The middle 95 % of bootstrap draws."""
    return [round(float(q), 4) for q in np.quantile(draws, [0.025, 0.975])]


def clean_and_spoiled(pool: Pool) -> dict[str, Any]:
    """Everything that is measured of one set of pictures."""
    values, rng = golds(pool), np.random.default_rng(SEED)
    animals = len(set(pool.scenes))
    result: dict[str, Any] = {
        "pictures": len(pool),
        "warmth": spread(warmth(pool.images)),
        "contrast": spread(contrast(pool.images)),
        "light": spread(light(pool.images)),
        "drawing_quality": quality(pool),
        **{name: distribution(value) for name, value in values.items()},
        "spoiled": {},
    }
    for name in CORRUPTIONS:
        other = spoiled(pool, name, rng)
        worse = golds(other)
        result["spoiled"][name] = {
            "drawing_quality": quality(other),
            **{gold: aucs(values[gold], worse[gold], animals) for gold in GOLDS},
        }
    return result


def occluded_that_count(pool: Pool, copies: int) -> dict[str, float]:
    """Share of occluded pictures that count as well drawn, of the worst animals."""
    rng = np.random.default_rng(SEED + 1)
    shares = {}
    for animal in ALL_ANIMALS:
        rows = [i for i, scene in enumerate(pool.scenes) if scene.subject == animal]
        images = torch.cat([pool.images[rows]] * copies)
        hidden = spoiled(Pool(images, []), "occlusion", rng)
        above = drawing_quality(hidden.images) > QUALITY_NEEDED
        shares[animal] = round(float(above.float().mean()), 3)
    return dict(Counter(shares).most_common(6))


def weights_by_colour(animals: Sequence[str]) -> dict[str, float]:
    """Mean weight of a render's drawing quality, over animals, for every colour."""
    found = {}
    for i, colour in enumerate((None, *COLOURS)):
        scenes = [Scene(animal, colour=colour) for animal in animals] * RENDERS
        pool = rendered(scenes, SEED + 10**6 * (i + 1))
        weight = well_drawn(drawing_quality(pool.images)).mean()
        found[colour or "its own"] = round(float(weight), 3)
    return found


def parts_of_match(pool: Pool, prompt: str) -> dict[str, Any]:
    """Both golds of pictures of one prompt, and the two factors of ``gold_match``.

    ``nearest`` counts the scenes among the rivals that explain the pictures best.
    """
    candidates = candidate_scenes(parse(prompt))
    seen = see(pool.images)
    fractions = torch.stack(
        [explained(seen, template_bank(scene)) for scene in candidates], 1
    )
    best = Counter(describe(candidates[i]) for i in fractions.argmax(1).tolist())
    chance = torch.softmax(fractions / RIVAL_TEMPERATURE, 1)[:, 0]
    return {
        "gold_match": spread(gold_match(pool.images, [prompt] * len(pool))),
        "gold_taste": spread(gold_taste(pool.images)),
        "explained": spread(fractions[:, 0]),
        "probability": spread(chance),
        "nearest": dict(best.most_common(3)),
    }


def complex_prompts(pipeline: StableDiffusionPipeline) -> dict[str, Any]:
    """The papers' complex prompts: renders, reconstructions and samples."""
    result = {}
    for i, prompt in enumerate(COMPLEX):
        scenes = [parse(prompt)] * COMPLEX_PICTURES
        renders = rendered(scenes, SEED + 10**7 + 10**3 * i)
        pools = {
            "renders": renders,
            "reconstructions": reconstructed(pipeline, renders),
            "samples": sampled(pipeline, scenes, GUIDANCE[0], SEED + 100 + i),
        }
        result[prompt] = {
            where: parts_of_match(pool, prompt) for where, pool in pools.items()
        }
    return result


def main() -> None:
    """Draw, sample, spoil, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", type=Path, default=BASE_MODEL)
    output_argument(parser, "golds.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    pipeline = load_pipeline(options.base_model)
    animals = [Scene(name) for name in ALL_ANIMALS]
    scenes = [scene for scene in animals for _ in range(RENDERS)]
    renders = rendered(scenes, SEED)
    unseen = [i for i, s in enumerate(scenes) if s.subject in UNSEEN_ANIMALS]
    pools = {
        "renders, 53 animals": renders,
        "renders, 8 unseen animals": Pool(
            renders.images[unseen], [scenes[i] for i in unseen]
        ),
    }
    scenes = [scene for scene in animals for _ in range(SAMPLES)]
    for i, guidance in enumerate(GUIDANCE):
        pools[f"samples at guidance {guidance:g}, 53 animals"] = sampled(
            pipeline, scenes, guidance, SEED + 1 + i
        )
    result = {
        "num_inference_steps": STEPS,
        "eta": ETA,
        "complex_pictures": COMPLEX_PICTURES,
        "pictures": {name: clean_and_spoiled(pool) for name, pool in pools.items()},
        "occluded_renders_well_drawn": occluded_that_count(renders, 4),
        "weight_by_colour": weights_by_colour(ALL_ANIMALS),
        "complex_prompts": complex_prompts(pipeline),
    }
    result["cpu_s"] = round(time.process_time() - start, 1)
    write(options.output, result)


if __name__ == "__main__":
    main()
