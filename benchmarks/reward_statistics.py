"""Mean and deviation of the rewards over the base model's images.

    python benchmarks/reward_statistics.py

They are the constants of the ensemble in conf/base/parameters_rewards.yml: run this, and
copy them there, whenever the base model or the rewards are trained anew. The images are
of the 45 simple animals, from the training sampler, each with noise of its own. The
result goes to benchmarks/results/reward_statistics.json.
"""

from __future__ import annotations

import argparse

import torch
from common import BASE_MODEL, PROXY_REWARDS, output_argument, parameters, plain, write

from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.registry import load_rewards

REWARDS = ["aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"]


def main() -> None:
    """Sample, score and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewards", nargs="+", default=REWARDS)
    parser.add_argument("--images", type=int, default=16, help="of each prompt")
    parser.add_argument("--seed", type=int, default=77)
    output_argument(parser, "reward_statistics.json")
    options = parser.parse_args()
    settings = TrainingSettings.model_validate(plain(parameters("base")["training"]))
    steps = settings.num_inference_steps
    policy = Policy(load_pipeline(BASE_MODEL), num_inference_steps=steps, lora=None)
    trajectory = rollout(
        policy,
        prompt_set("simple_animals") * options.images,
        seed=options.seed,
        epoch=0,
        guidance_scale=settings.guidance_scale,
        eta=settings.eta,
        chunk_size=settings.chunk_size,
        purpose="reward statistics",
    )
    statistics = {}
    for name, reward in load_rewards(options.rewards, PROXY_REWARDS).items():
        with torch.no_grad():
            values = reward(trajectory.images, trajectory.prompts).values.double()
        mean, std = float(values.mean()), float(values.std(correction=0))
        statistics[name] = {"mean": round(mean, 3), "std": round(std, 3)}
    write(
        options.output,
        {
            "command": "python benchmarks/reward_statistics.py",
            "images": len(trajectory),
            "seed": options.seed,
            "rewards": statistics,
        },
    )


if __name__ == "__main__":
    main()
