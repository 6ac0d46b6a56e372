"""Seconds of one epoch by part and method, what that is in DDPO's, and how it grows.

    python benchmarks/epoch.py

All methods take turns, epoch by epoch, in one process, so that the ratio between them is
that of like circumstances; the first epoch of each is left out. RWR, which trains at the
end of a round of several epochs, has a round an epoch here. The result goes to
benchmarks/results/epoch.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import (
    BASE_MODEL,
    PROXY_REWARDS,
    output_argument,
    parameters,
    run_config,
    write,
)

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.trainer.loop import Trainer
from tdpo_pipeline.trainer.state import RunState

DDPO = "ddpo_100_timestep_major"
GROWTH = [
    {},
    {"samples_per_epoch": 256},
    {"samples_per_epoch": 384},
    {"num_inference_steps": 5},
    {"num_inference_steps": 20},
    {"micro_batch_size": 16, "chunk_size": 16},
    {"micro_batch_size": 32, "chunk_size": 32},
]


def timings(configs: list[RunConfig], epochs: int) -> list[list[dict[str, Any]]]:
    """Timing rows of ``epochs`` epochs of each configuration, taken in turns."""
    trainers = [
        Trainer.create(
            config, prompt_set(config.task.train_prompts), BASE_MODEL, PROXY_REWARDS
        )
        for config in configs
    ]
    with tempfile.TemporaryDirectory() as folder:
        states = [
            RunState(Path(folder) / str(i), config, "benchmark")
            for i, config in enumerate(configs)
        ]
        for state in states:
            state.open()
        for _ in range(epochs + 1):
            for trainer, state in zip(trainers, states, strict=True):
                trainer.run_epoch(state)
    return [trainer.timings[1:] for trainer in trainers]


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of each part."""
    parts = [name for name in rows[0] if name.endswith("_s")]
    return {
        name: round(statistics.median(row[name] for row in rows), 3) for name in parts
    }


def in_every_epoch(params: dict[str, Any], method: str, reward: str) -> RunConfig:
    """A run of which every epoch has its share of the updates."""
    config = run_config(params, method, reward, 0)
    if not hasattr(config.algorithm, "rounds"):
        return config
    rounds = {"rounds": config.training.epochs}
    return run_config(params, method, reward, 0, algorithm=rounds)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+")
    output_argument(parser, "epoch.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    params = parameters("base")
    methods = options.methods or list(params["methods"])
    reward = "aesthetic-mini"
    configs = [in_every_epoch(params, method, reward) for method in methods]
    by_method = {
        method: medians(rows)
        for method, rows in zip(methods, timings(configs, options.epochs), strict=True)
    }
    result = {
        "threads": options.threads,
        "epochs_timed": options.epochs,
        "seconds": by_method,
    }
    if DDPO in by_method:
        ddpo = by_method[DDPO]["total_s"]
        result[f"total_s_over_{DDPO}"] = {
            method: round(parts["total_s"] / ddpo, 2)
            for method, parts in by_method.items()
        }
    changed = [run_config(params, DDPO, reward, 0, training=c) for c in GROWTH]
    result["growth"] = [
        change | {"total_s": medians(rows)["total_s"]}
        for change, rows in zip(GROWTH, timings(changed, 1), strict=True)
    ]
    write(options.output, result)


if __name__ == "__main__":
    main()
