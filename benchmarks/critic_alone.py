"""What the temporal critic learns by itself, at the official size: 768 dimensions.

    python benchmarks/critic_alone.py

The effect of the official code's doubly divided critic gradient depends on the size of
the embedding, and Menagerie's are small. Here the critic is trained without a policy, on
synthetic embeddings of 768 dimensions that lie in a cone (as CLIP's do) and targets that
are linear in them, for 10,000 updates of 128 pairs: the updates of 100 epochs at Stable
Diffusion's scale. Its neurons are also measured and reset with weights that are never
trained. The result goes to benchmarks/results/critic_alone.json, the curves to a CSV.
"""

from __future__ import annotations

import argparse
import itertools

import pandas as pd
import torch
from common import ROOT, output_argument, write
from torch import Tensor

from tdpo_pipeline.critic.critic import CriticSettings, explained_variance
from tdpo_pipeline.critic.learner import CriticLearner
from tdpo_pipeline.critic.neurons import NeuronSettings

DIM = 768
EMBEDDINGS = 4096
BATCH = 128
HIDDEN = (1024, 128, 64, 16)
CONE = {"wide": 0.5, "narrow": 0.95}
MEANS = (0.3, 0.0)
LEARNING_RATE = 1e-4
CURVES = ROOT / "benchmarks" / "results" / "critic_alone.csv"


def embeddings(concentration: float, seed: int) -> Tensor:
    """Unit vectors (N, d) whose mean pairwise cosine is about ``concentration``."""
    rng = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(DIM, generator=rng), dim=0)
    noise = torch.nn.functional.normalize(
        torch.randn(EMBEDDINGS, DIM, generator=rng), dim=-1
    )
    return torch.nn.functional.normalize(
        concentration**0.5 * axis + (1 - concentration) ** 0.5 * noise, dim=-1
    )


def targets(inputs: Tensor, mean: float, seed: int) -> Tensor:
    """Targets (N,) linear in the inputs, with deviation 1 and the given mean."""
    rng = torch.Generator().manual_seed(seed + 1)
    linear = inputs @ torch.randn(DIM, generator=rng)
    return (linear - linear.mean()) / linear.std() + mean


def learner(init: str, precision: str, reset: str, seed: int) -> CriticLearner:
    """A critic of the official shape."""
    settings = {
        "hidden": HIDDEN,
        "init": init,
        "precision": precision,
        "value_clip": None,
        "optimizer": {"learning_rate": LEARNING_RATE},
    }
    neurons = {"reset": reset, "stats_steps": "one"}
    return CriticLearner(
        DIM,
        CriticSettings.model_validate(settings),
        NeuronSettings.model_validate(neurons),
        seed,
        torch.device("cpu"),
    )


def train(
    init: str, precision: str, mean: float, updates: int, every: int, seed: int
) -> list[dict[str, object]]:
    """Explained variance and weight change on held-out embeddings, while training."""
    inputs = embeddings(CONE["wide"], seed)
    wanted = targets(inputs, mean, seed)
    held_out = slice(EMBEDDINGS - 512, EMBEDDINGS)
    critic = learner(init, precision, "none", seed)
    rng = torch.Generator().manual_seed(seed + 2)
    rows: list[dict[str, object]] = []
    torch.manual_seed(seed)
    for update in range(1, updates + 1):
        at = torch.randint(EMBEDDINGS - 512, (BATCH,), generator=rng)
        critic.step(inputs[at], torch.zeros(BATCH), wanted[at])
        if update % every == 0:
            predictions = critic.predict(inputs[held_out, None])[:, 0]
            rows.append(
                {
                    "init": init,
                    "precision": precision,
                    "target_mean": mean,
                    "updates": update,
                    "explained_variance": round(
                        explained_variance(predictions, wanted[held_out]), 4
                    ),
                    "prediction_std": float(predictions.std()),
                    "weight_change": critic.metrics()["critic_weight_change"],
                }
            )
            critic.begin_epoch()
    return rows


def never_trained(reset: str, cone: str, seed: int) -> list[dict[str, object]]:
    """Neuron states over 100 epochs of a critic with resets and without updates."""
    critic = learner("official", "fp32", reset, seed)
    rows = []
    for epoch in range(1, 101):
        inputs = embeddings(CONE[cone], seed + epoch)[:64, None]
        states = critic.measure_and_reset(epoch, 100, inputs)
        rows.append(
            {
                "reset": reset,
                "cone": cone,
                "epoch": epoch,
                "dormant_pct": round(states["critic_dormant_pct"], 2),
                "overlap_pct": round(states["critic_overlap_pct"], 2),
            }
        )
    return rows


def main() -> None:
    """Train, reset, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    output_argument(parser, "critic_alone.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained, curves = [], []
    for seed, mean, init, precision in itertools.product(
        options.seeds, MEANS, ("official", "default"), ("fp32", "official_fp16")
    ):
        rows = train(init, precision, mean, options.updates, 250, seed)
        curves += [{"seed": seed} | row for row in rows]
        trained.append({"seed": seed} | rows[-1])
        print(trained[-1], flush=True)
    pd.DataFrame(curves).to_csv(CURVES, index=False)
    states = [
        {"seed": seed} | row
        for seed in options.seeds
        for reset in ("none", "active", "dormant", "all")
        for cone in CONE
        for row in never_trained(reset, cone, seed)
        if row["epoch"] == 1 or row["epoch"] % 10 == 0
    ]
    write(
        options.output,
        {
            "command": "python benchmarks/critic_alone.py",
            "updates": options.updates,
            "trained": trained,
            "never_trained": states,
        },
    )


if __name__ == "__main__":
    main()
