"""How well the base model draws what its prompts say, as independent readers see it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from scipy.stats import binomtest
from torch import Tensor, nn

from tdpo_pipeline.menagerie.autoencoder import reconstruct
from tdpo_pipeline.menagerie.base_model import sample_images, to_tensor
from tdpo_pipeline.menagerie.base_model_settings import ReportSettings
from tdpo_pipeline.menagerie.classifier import (
    SCENE_OUTPUTS,
    animal_loss,
    build_reader,
    read_animals,
    read_scenes,
    scene_labels,
    scene_loss,
    train_reader,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, parse, sample_scene
from tdpo_pipeline.menagerie.vocabulary import (
    ALL_ANIMALS,
    ANIMALS,
    RARE_COMPOSITIONS,
    UNSEEN_ANIMALS,
)
from tdpo_pipeline.prompts import COMPLEX

logger = logging.getLogger(__name__)

SPECIAL_SHARE = 0.1
"""Share of complex and rare prompts among the scenes that the reader learns from."""


@dataclass(frozen=True)
class Readers:
    """Networks trained on renders.

    Attributes:
        colour: Tells the animal of a plain picture.
        grey: The same, blind to colour.
        scene: Tells all parts of a scene.
    """

    colour: nn.Module
    grey: nn.Module
    scene: nn.Module


def accuracy(right: Sequence[bool]) -> dict[str, Any]:
    """Share of right answers with its 95 % Wilson interval, and their number n.

    Raises:
        ValueError: If there is no answer.
    """
    hits, count = sum(right), len(right)
    low, high = binomtest(hits, count).proportion_ci(method="wilson")
    return {
        "accuracy": round(hits / count, 4),
        "ci95": [round(low, 4), round(high, 4)],
        "n": count,
    }


def plain_renders(per_animal: int, seed: int) -> tuple[Tensor, list[str]]:
    """Renders of every animal: uint8 (53 * per_animal, 3, 32, 32), and the names."""
    rng = np.random.default_rng([seed, per_animal])
    names = [name for name in ALL_ANIMALS for _ in range(per_animal)]
    pictures = [render(Scene(name), int(rng.integers(2**31))) for name in names]
    return to_tensor(pictures), names


def scene_renders(count: int, seed: int) -> tuple[Tensor, list[Scene]]:
    """Renders of mixed scenes, complex and rare ones among them.

    Returns:
        uint8 (count, 3, 32, 32), and the scenes.
    """
    rng = np.random.default_rng([seed, count])
    special = [parse(prompt) for prompt in (*COMPLEX, *RARE_COMPOSITIONS)]
    scenes = [
        special[int(rng.integers(len(special)))]
        if rng.random() < SPECIAL_SHARE
        else sample_scene(rng)
        for _ in range(count)
    ]
    pictures = [render(scene, int(rng.integers(2**31))) for scene in scenes]
    return to_tensor(pictures), scenes


def train_readers(settings: ReportSettings) -> Readers:
    """Train all readers on renders of their own."""
    seed = settings.seed
    common: dict[str, Any] = {
        "passes": settings.passes,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "seed": seed,
    }
    plain, names = plain_renders(settings.renders_per_animal, seed)
    animals = torch.tensor([ALL_ANIMALS.index(name) for name in names])
    mixed, scenes = scene_renders(settings.scenes, seed)
    labels = torch.tensor([scene_labels(scene) for scene in scenes])
    colour, grey = (
        train_reader(
            build_reader(len(ALL_ANIMALS), settings.width, seed),
            plain,
            animals,
            loss=animal_loss,
            grey=blind,
            **common,
        )
        for blind in (False, True)
    )
    scene = train_reader(
        build_reader(SCENE_OUTPUTS, settings.width, seed),
        mixed,
        labels,
        loss=scene_loss,
        grey=False,
        **common,
    )
    return Readers(colour, grey, scene)


def plain_readings(
    readers: Readers, images: Tensor, names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy on plain pictures, by group of animals, with and without colour.

    Args:
        readers: The readers.
        images: Float in [0, 1], shape (N, 3, 32, 32).
        names: The N animals that the pictures should show.
    """
    groups = {"training_animals": ANIMALS, "unseen_animals": UNSEEN_ANIMALS}
    result: dict[str, Any] = {}
    for sight, reader in (("colour", readers.colour), ("grey", readers.grey)):
        read = read_animals(reader, images, grey=sight == "grey")
        result[sight] = {
            group: accuracy(
                [
                    seen == name
                    for seen, name in zip(read, names, strict=True)
                    if name in members
                ]
            )
            for group, members in groups.items()
        }
    return result


def by_animal(
    readers: Readers, images: Tensor, names: Sequence[str]
) -> dict[str, float]:
    """Share of the pictures of each animal that are read right, colour seen."""
    read = read_animals(readers.colour, images)
    right = np.array([seen == name for seen, name in zip(read, names, strict=True)])
    which = np.array(names)
    return {name: round(float(right[which == name].mean()), 3) for name in ALL_ANIMALS}


def scene_readings(
    readers: Readers, images: Tensor, prompts: Sequence[str]
) -> dict[str, Any]:
    """Per prompt: how often each part of its scene is found, and all of them.

    Args:
        readers: The readers.
        images: Float in [0, 1], shape (N, 3, 32, 32).
        prompts: The N prompts; equal ones stand together or apart.
    """
    right = read_scenes(readers.scene, images, [parse(p) for p in prompts])
    which = np.array(prompts)
    return {
        prompt: {
            part: accuracy(hits.numpy()[which == prompt].tolist())
            for part, hits in right.items()
        }
        for prompt in dict.fromkeys(prompts)
    }


def renders_of(prompts: Sequence[str], seed: int) -> Tensor:
    """A render of each prompt, float in [0, 1], shape (N, 3, 32, 32)."""
    rng = np.random.default_rng([seed, len(prompts)])
    pictures = [render(parse(p), int(rng.integers(2**31))) for p in prompts]
    return to_tensor(pictures).float() / 255


def base_model_report(
    pipeline: StableDiffusionPipeline, settings: ReportSettings
) -> dict[str, Any]:
    """Measure a base model with readers trained on renders alone.

    Returns:
        What the report holds, ready for JSON: the sampler; readings of held-out
        renders (how good the readers are), of their reconstructions by the VAE (what
        the latents keep) and of samples (what the model draws); the complex and the
        rare prompts, with renders of them as a control.
    """
    logger.info("Training readers on renders.")
    readers = train_readers(settings)
    held_out, held_out_names = plain_renders(settings.held_out, settings.seed + 1)

    def samples(prompts: Sequence[str], seed: int) -> Tensor:
        return sample_images(
            pipeline,
            prompts,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            eta=settings.eta,
            seed=seed,
        )

    plain = [name for name in ALL_ANIMALS for _ in range(settings.images_per_prompt)]
    logger.info("Sampling %d plain prompts.", len(plain))
    drawn = samples(plain, settings.seed + 2)
    complex_ = [p for p in COMPLEX for _ in range(settings.images_per_complex_prompt)]
    rare = [p for p in RARE_COMPOSITIONS for _ in range(settings.images_per_prompt)]
    logger.info("Sampling complex and rare prompts.")
    sampler = {
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "eta": settings.eta,
    }
    return {
        "sampler": sampler,
        "seed": settings.seed,
        "renders": plain_readings(readers, held_out.float() / 255, held_out_names),
        "reconstructions": plain_readings(
            readers, reconstruct(pipeline.vae, held_out), held_out_names
        ),
        "samples": plain_readings(readers, drawn, plain),
        "samples_by_animal": by_animal(readers, drawn, plain),
        "complex": scene_readings(
            readers, samples(complex_, settings.seed + 3), complex_
        ),
        "complex_renders": scene_readings(
            readers, renders_of(complex_, settings.seed + 4), complex_
        ),
        "rare": scene_readings(readers, samples(rare, settings.seed + 5), rare),
        "rare_renders": scene_readings(
            readers, renders_of(rare, settings.seed + 6), rare
        ),
    }
