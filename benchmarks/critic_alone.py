"""What the temporal critic learns by itself, at the official size: 768 dimensions.

    python benchmarks/critic_alone.py

The effect of the official code's doubly divided critic gradient depends on the size of
the embedding, and Menagerie's are small. Here the critic is trained without a policy, on
synthetic embeddings of 768 dimensions that lie in a cone (as CLIP's do) and targets that
are linear in them, for 10,000 updates of 128 pairs: the updates of 100 epochs at Stable
Diffusion's scale, with the official value clip around an epoch's first predictions. Its
neurons are also measured and reset with weights that are never trained. A row that is in
benchmarks/results/critic_alone.csv, which holds the curves, is not computed again; the
summary over seeds goes to critic_alone.json.
"""

from __future__ import annotations

import argparse
import itertools

import pandas as pd
import torch
from common import ROOT, interval, output_argument, write
from runs import append
from torch import Tensor

from tdpo_pipeline.critic.critic import CriticSettings, explained_variance
from tdpo_pipeline.critic.learner import CriticLearner
from tdpo_pipeline.critic.neurons import NeuronSettings

DIM = 768
EMBEDDINGS = 4096
BATCH = 128
HIDDEN = (1024, 128, 64, 16)
CONE = {"wide": 0.5, "middle": 0.8, "narrow": 0.95}
STATS_SAMPLES = 64
MEANS = (0.3, 0.0)
LEARNING_RATE = 1e-4
LOG = ROOT / "benchmarks" / "results" / "critic_alone.csv"
EPOCH = 100
"""Updates between the predictions that the value clip holds to."""
UPDATES = 10_000
KEYS = ["seed", "target_mean", "init", "precision"]
FOUND = ("explained_variance", "prediction_std", "weight_change")


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
        "optimizer": {"learning_rate": LEARNING_RATE},
    }
    neurons = {"reset": reset, "reset_seed": "fixed", "stats_steps": "one"}
    return CriticLearner(
        DIM,
        CriticSettings.model_validate(settings),
        NeuronSettings.model_validate(neurons),
        seed,
        torch.device("cpu"),
    )


def train(
    seed: int, mean: float, init: str, precision: str, updates: int
) -> list[dict[str, object]]:
    """Explained variance and weight change on held-out embeddings, while training."""
    inputs = embeddings(CONE["wide"], seed)
    wanted = targets(inputs, mean, seed)
    train_size = EMBEDDINGS - 512
    critic = learner(init, precision, "none", seed)
    rng = torch.Generator().manual_seed(seed + 2)
    rows: list[dict[str, object]] = []
    torch.manual_seed(seed)
    for epoch in range(1, updates // EPOCH + 1):
        old = critic.predict(inputs[:, None])[:, 0]
        for at in torch.randint(train_size, (EPOCH, BATCH), generator=rng):
            critic.step(inputs[at], old[at], wanted[at])
        predictions = critic.predict(inputs[train_size:, None])[:, 0]
        found = (
            explained_variance(predictions, wanted[train_size:]),
            float(predictions.std()),
            critic.metrics()["critic_weight_change"],
        )
        key = dict(zip(KEYS, (seed, mean, init, precision), strict=True))
        rows.append(
            key | {"updates": epoch * EPOCH} | dict(zip(FOUND, found, strict=True))
        )
        critic.begin_epoch()
    return rows


def never_trained(reset: str, cone: str, seed: int) -> list[dict[str, object]]:
    """Neuron states over 100 epochs of a critic with resets and without updates.

    What it sees changes from epoch to epoch; the cone in which all of it lies doesn't.
    """
    critic = learner("official", "fp32", reset, seed)
    pool = embeddings(CONE[cone], seed)
    rng = torch.Generator().manual_seed(seed + 3)
    rows = []
    for epoch in range(1, 101):
        seen = torch.randperm(len(pool), generator=rng)[:STATS_SAMPLES]
        states = critic.measure_and_reset(epoch, 100, pool[seen, None])
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
    """Train what is missing, reset, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    output_argument(parser, "critic_alone.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = set(map(tuple, pd.read_csv(LOG)[KEYS].values)) if LOG.exists() else set()
    for key in itertools.product(
        options.seeds, MEANS, ("official", "default"), ("fp32", "official_fp16")
    ):
        if key not in done:
            rows = pd.DataFrame(train(*key, UPDATES))
            append(rows, LOG)
            print(rows.iloc[-1].to_dict(), flush=True)
    curves = pd.read_csv(LOG).query("seed in @options.seeds")
    last = curves[curves["updates"] == curves["updates"].max()]
    states = pd.DataFrame(
        {"seed": seed} | row
        for seed in options.seeds
        for reset in ("none", "active", "dormant", "all")
        for cone in CONE
        for row in never_trained(reset, cone, seed)
        if row["epoch"] == 1 or row["epoch"] % 10 == 0
    )
    write(
        options.output,
        {
            "updates": UPDATES,
            "trained": over_seeds(last, KEYS[1:], FOUND),
            "never_trained": over_seeds(
                states, ["reset", "cone", "epoch"], ("dormant_pct", "overlap_pct")
            ),
        },
    )


def over_seeds(
    table: pd.DataFrame, keys: list[str], columns: tuple[str, ...]
) -> list[dict[str, object]]:
    """Mean and interval of each column over seeds."""
    return [
        dict(zip(keys, key, strict=True))
        | {column: interval(rows[column]) for column in columns}
        for key, rows in table.groupby(keys, sort=False)
    ]


if __name__ == "__main__":
    main()
