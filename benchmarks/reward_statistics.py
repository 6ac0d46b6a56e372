"""Mean and deviation of rewards over the base model's images: what ensembles need.

    python benchmarks/reward_statistics.py
    python benchmarks/reward_statistics.py --env sd15 --task ensemble

The first gives the constants of the ensembles in conf/base/parameters_rewards.yml, over
images of the 45 simple animals: run it, and copy them there, whenever the base model or
the rewards are trained anew. The second measures the parts of an ensemble with
the base model and on the device of an environment, over images of the prompts that the
task trains on, and prints what goes into conf/<env>/parameters_rewards.yml. Images are
by ancestral sampling, each with noise of its own. Results go to
benchmarks/results/reward_statistics.json and reward_statistics_<env>_<task>.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

import torch
import yaml
from common import ROOT, output_argument, parameters, plain, write
from tqdm import tqdm

from tdpo_pipeline.config import RewardSettings, TrainingSettings
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout_chunks
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings, checked_prompts
from tdpo_pipeline.rewards.base import Reward
from tdpo_pipeline.rewards.registry import load_rewards

REWARDS = ["aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"]
PROMPTS = "simple_animals"


def main() -> None:
    """Sample, score and save; of a task, print what goes into the configuration."""
    options = arguments()
    settings = parameters(options.env)
    folders = plain(settings["fetch"])
    names, prompts = REWARDS, PROMPTS
    if options.task is not None:
        names, prompts = ensemble(settings["rewards"], options.task)
    training = TrainingSettings.model_validate(plain(settings["training"]))
    allowed = PromptSettings.model_validate(plain(settings["prompts"]))
    drawn = checked_prompts(prompts, allowed) * options.images
    # Before any sampling, because files may be missing.
    rewards = load_rewards(names, ROOT / folders["reward_weights"])
    policy = Policy(
        load_pipeline(ROOT / folders["base_model"]),
        num_inference_steps=training.num_inference_steps,
        lora=None,
        trained=False,
        compute=training,
    )
    for reward in rewards.values():
        reward.to(policy.device)
    found = statistics(policy, rewards, drawn, training, seed=options.seed)
    write(
        options.output,
        {
            "prompts": prompts,
            "images": len(drawn),
            "seed": options.seed,
            "rewards": found,
        },
    )
    if options.task is not None:
        entry = {"rewards": {options.task: {"ensemble": found}}}
        print(f"\n# conf/{options.env}/parameters_rewards.yml")
        print(yaml.safe_dump(entry, sort_keys=False))


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="base", help="environment, such as sd15")
    parser.add_argument(
        "--task", help="an ensemble of `rewards`, whose parts to measure"
    )
    parser.add_argument("--images", type=int, default=16, help="of each prompt")
    parser.add_argument("--seed", type=int, default=77)
    output_argument(parser, "reward_statistics.json")
    options = parser.parse_args()
    if options.task is not None and options.output == parser.get_default("output"):
        name = f"reward_statistics_{options.env}_{options.task}.json"
        options.output = options.output.with_name(name)
    return options


def ensemble(tasks: Mapping[str, object], name: str) -> tuple[list[str], str]:
    """The rewards of an ensemble, and the prompts that it trains on."""
    if name not in tasks:
        raise SystemExit(f"`rewards` has no task '{name}'.")
    task = RewardSettings.model_validate(plain(tasks[name]))
    if task.ensemble is None:
        raise SystemExit(f"The task '{name}' is no ensemble.")
    return list(task.ensemble), task.train_prompts


@torch.no_grad()
def statistics(
    policy: Policy,
    rewards: Mapping[str, Reward],
    prompts: Sequence[str],
    training: TrainingSettings,
    *,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Mean and deviation of each reward, over an image of each of ``prompts``."""
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in rewards}
    chunks = rollout_chunks(
        policy,
        prompts,
        seed=seed,
        epoch=0,
        guidance_scale=training.guidance_scale,
        eta=training.eta,
        chunk_size=training.chunk_size,
        purpose="reward statistics",
    )
    total = math.ceil(len(prompts) / training.chunk_size)
    for _, chunk in tqdm(chunks, total=total, disable=None):
        for name, reward in rewards.items():
            values = reward(chunk.images, chunk.prompts).values
            scores[name].append(values.double().cpu())
    return {name: moments(torch.cat(values)) for name, values in scores.items()}


def moments(values: torch.Tensor) -> dict[str, float]:
    """Mean and deviation, to three decimals or three digits of the deviation."""
    mean, std = float(values.mean()), float(values.std(correction=0))
    digits = max(3, 2 - math.floor(math.log10(std)))
    return {"mean": round(mean, digits), "std": round(std, digits)}


if __name__ == "__main__":
    main()
