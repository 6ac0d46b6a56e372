"""How well the base model draws at each guidance, and what an evaluation costs.

    python benchmarks/base_model.py

Readings: 95 % Wilson intervals of how often readers trained on renders alone name the
animal that the prompt asked for, with and without sight of colour, and the spread of
the pictures of one prompt. Costs: one thread, milliseconds a sample, the least of a few
repetitions. Result: benchmarks/results/base_model.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import BASE_MODEL, output_argument, parameters, write

from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.menagerie.base_model import sample_images
from tdpo_pipeline.menagerie.base_model_report import plain_readings, train_readers
from tdpo_pipeline.menagerie.base_model_settings import BaseModelSettings
from tdpo_pipeline.menagerie.vocabulary import ALL_ANIMALS

GUIDANCE = (1.0, 2.0, 3.0, 4.0, 5.0, 7.5)
BATCH = 64
REPETITIONS = 7


def spread(images: torch.Tensor, per_prompt: int) -> float:
    """Mean standard deviation of a pixel over the pictures of one prompt."""
    return images.unflatten(0, (-1, per_prompt)).std(1).mean().item()


def readings(folder: Path, settings: BaseModelSettings, images: int) -> dict[str, Any]:
    """Accuracies and spread at every guidance."""
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    report, pipeline = settings.report, load_pipeline(folder)
    readers = train_readers(report)
    prompts = [name for name in ALL_ANIMALS for _ in range(images)]
    result = {}
    for guidance in GUIDANCE:
        drawn = sample_images(
            pipeline,
            prompts,
            num_inference_steps=report.num_inference_steps,
            guidance_scale=guidance,
            eta=report.eta,
            seed=report.seed + 7,
        )
        result[str(guidance)] = {
            **plain_readings(readers, drawn, prompts),
            "spread": round(spread(drawn, images), 4),
        }
    return result


def milliseconds(function: Callable[[], object]) -> float:
    """Least time of a call, in milliseconds a sample."""
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return round(min(times) / BATCH * 1e3, 3)


def costs(folder: Path) -> dict[str, float]:
    """Milliseconds a sample on one thread, and the size of the weights."""
    torch.set_num_threads(1)
    pipeline = load_pipeline(folder)
    latents, embeds = torch.randn(BATCH, 4, 8, 8), torch.randn(BATCH, 16, 64)
    timesteps = torch.randint(1000, (BATCH,))

    def forward() -> torch.Tensor:
        return pipeline.unet(latents, timesteps, embeds, return_dict=False)[0]

    with torch.no_grad():
        once = milliseconds(forward)
        decode = milliseconds(lambda: pipeline.vae.decode(latents))
    both = milliseconds(lambda: forward().square().mean().backward())
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {
        "unet_forward_ms": once,
        "unet_forward_and_backward_ms": both,
        "decode_ms": decode,
        "unet_parameters": sum(p.numel() for p in pipeline.unet.parameters()),
        "weights_mb": round(weights / 1e6, 3),
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", type=Path, default=BASE_MODEL)
    parser.add_argument("--images", type=int, default=32, help="samples a prompt")
    output_argument(parser, "base_model.json")
    arguments = parser.parse_args()
    settings = BaseModelSettings.model_validate(parameters("base")["base_model"])
    result = {
        "costs": costs(arguments.base_model),
        "guidance": readings(arguments.base_model, settings, arguments.images),
    }
    write(arguments.output, result)


if __name__ == "__main__":
    main()
