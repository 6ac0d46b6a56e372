"""Whether every method learns, at equal reward queries; and two baselines that are free.

    python benchmarks/learning.py --workers 2                     # what is missing, then the table
    python benchmarks/learning.py --methods ddpo_sf rwr --workers 2
    python benchmarks/learning.py --workers 0                     # the table alone

Each method fine-tunes on aesthetic-mini for about 1,500 reward queries, with three seeds;
the methods of the DDPO paper also on both JPEG tasks. A finished run appends its epochs to
benchmarks/results/learning.csv: the means over an epoch's samples of the trained reward
and of the others. Runs that are in it are not run again, so that it can be done in pieces.
The table shows the trained reward and its gold at the start (the base model), at the end
and, of the trained reward, at its highest.

The baselines stand beside them: best-of-N picks, of N samples of the base model, the one
with the highest trained reward; interpolation scales the LoRA of a trained method. The
table goes to benchmarks/results/learning.json and learning.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
import torch
from common import (
    BASE_MODEL,
    PROXY_REWARDS,
    ROOT,
    context,
    interval,
    parameters,
    run_config,
    write,
)
from runs import append_epochs, digest, folder, not_logged, train_all

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tdpo_pipeline.overoptimization.tables import gold_of
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.registry import load_reward

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "learning.csv"
BASELINES = RESULTS / "learning_baselines.csv"
QUERIES = 1536
SEEDS = (0, 1, 2)
REWARD = "aesthetic-mini"
JPEG = ("jpeg_compressibility", "jpeg_incompressibility")
ON_JPEG = ("ddpo_sf", "ddpo_is", "rwr", "rwr_sparse")
SCORES = (
    *("aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"),
    *("gold_taste", "gold_match"),
)
KEPT = ("epoch", "reward_queries", "kl_to_base", *(f"{name}_mean" for name in SCORES))
NUMBERS = (1, 2, 4, 8, 16)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
INTERPOLATED = "ddpo_100_timestep_major"


def configuration(
    params: dict[str, object], method: str, reward: str, seed: int
) -> RunConfig:
    """A run with as many epochs as ``QUERIES`` reward queries allow."""
    config = run_config(params, method, reward, seed)
    samples = config.training.samples_per_epoch * config.algorithm.queries_per_sample
    return run_config(
        params, method, reward, seed, training={"epochs": QUERIES // samples}
    )


def row(run: pd.DataFrame) -> dict[str, object]:
    """A run's line of the table, from its epochs: start, end and the reward's peak."""
    gold = gold_of(run["reward"].iloc[0])
    proxy = run["trained_mean"]
    points = {"start": run.index[0], "end": run.index[-1], "peak": proxy.idxmax()}
    line: dict[str, object] = {
        "kl_end": run["kl_to_base"].iloc[-1],
        "stopped": bool(run["stopped"].notna().iloc[0]),
    }
    for point, at in points.items():
        line[f"proxy_{point}"] = proxy[at]
        line[f"gold_{point}"] = run.at[at, f"{gold}_mean"] if gold else float("nan")
    return line


def summary(log: pd.DataFrame) -> list[dict[str, object]]:
    """A line for each task and method: means over seeds, changes with intervals."""
    lines = []
    for (reward, method), table in log.groupby(["reward", "method"], sort=False):
        runs = pd.DataFrame([row(run) for _, run in table.groupby("seed")])
        line: dict[str, object] = {"reward": reward, "method": method}
        line["seeds"] = len(runs)
        for name in ("proxy", "gold"):
            for point in ("start", "end", "peak"):
                line[f"{name}_{point}"] = round(runs[f"{name}_{point}"].mean(), 4)
            change = runs[f"{name}_end"] - runs[f"{name}_start"]
            line[f"{name}_change"] = interval(change)
        line["kl_end"] = round(runs["kl_end"].mean(), 1)
        line["stopped"] = int(runs["stopped"].sum())
        lines.append(line)
    return lines


@torch.no_grad()
def scored(policy: Policy, config: RunConfig, prompts: list[str], seed: int):
    """Trained reward and gold of samples, one for each prompt."""
    training = config.training
    trajectory = rollout(
        policy,
        prompts,
        seed=seed,
        epoch=0,
        guidance_scale=training.guidance_scale,
        eta=training.eta,
        chunk_size=training.chunk_size,
        purpose="baselines",
    )
    names = {"proxy": config.reward, "gold": str(gold_of(config.reward))}
    return pd.DataFrame(
        {
            name: load_reward(reward, PROXY_REWARDS)(trajectory.images, prompts).values
            for name, reward in names.items()
        }
    )


def best_of_n(config: RunConfig, policy: Policy) -> list[dict[str, object]]:
    """Proxy and gold of the sample of N with the highest proxy, for each N."""
    most = max(NUMBERS)
    prompts = [p for p in prompt_set(config.task.train_prompts) for _ in range(most)]
    scores = scored(policy, config, prompts, config.seed)
    image = pd.Series(range(len(scores))) % most
    lines = []
    for count in NUMBERS:
        subset = scores[image < count]
        groups = subset["proxy"].groupby(subset.index // most)
        best = subset.loc[groups.idxmax()]
        lines.append(
            {"baseline": "best of N", "at": count, "queries_per_image": count}
            | {name: round(best[name].mean(), 4) for name in ("proxy", "gold")}
        )
    return lines


def interpolation(config: RunConfig, policy: Policy) -> list[dict[str, object]]:
    """Proxy and gold of a trained LoRA at several strengths."""
    kept = sorted((folder(config) / "checkpoints").iterdir())
    policy.load(kept[-1])
    prompts = [p for p in prompt_set(config.task.train_prompts) for _ in range(16)]
    lines = []
    for strength in STRENGTHS:
        policy.set_strength(strength)
        means = scored(policy, config, prompts, config.seed).mean().round(4)
        line = {"baseline": f"{config.method}, LoRA strength", "at": strength}
        lines.append(line | {"queries_per_image": 1} | means.to_dict())
    return lines


def baselines(params: dict[str, object]) -> pd.DataFrame:
    """Both baselines for every seed; the LoRA is that of the learning run.

    Where that run isn't on this machine, what was measured before is kept.
    """
    runs = [configuration(params, INTERPOLATED, REWARD, seed) for seed in SEEDS]
    if BASELINES.exists() and not all((folder(run) / "done").exists() for run in runs):
        return pd.read_csv(BASELINES)
    lines: list[dict[str, object]] = []
    for seed, config in zip(SEEDS, runs, strict=True):
        policy = Policy(
            load_pipeline(BASE_MODEL),
            num_inference_steps=config.training.num_inference_steps,
            lora=config.training.lora,
            seed=seed,
        )
        found = best_of_n(config, policy)
        if (folder(config) / "checkpoints").exists():
            found += interpolation(config, policy)
        lines += [{"seed": seed} | line for line in found]
    return pd.DataFrame(lines)


def markdown(lines: list[dict[str, object]]) -> str:
    """The summary as a table."""

    def change(value: dict[str, float]) -> str:
        if not value["n"]:
            return ""
        if "low" not in value:
            return f"{value['mean']:+.3f}"
        return f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    def level(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.3f}"

    head = (
        "| task | method | seeds | proxy, start | peak | end | change (95 %) | "
        "gold, start | end | change (95 %) | KL, end |"
    )
    rows = [
        f"| {x['reward']} | {x['method']} | {x['seeds']} | {x['proxy_start']:.3f} | "
        f"{x['proxy_peak']:.3f} | {x['proxy_end']:.3f} | {change(x['proxy_change'])} "
        f"| {level(x['gold_start'])} | {level(x['gold_end'])} "
        f"| {change(x['gold_change'])} "
        f"| {x['kl_end']:.0f} |"
        for x in lines
    ]
    return "\n".join([head, "|" + "---|" * head.count(" | ") + "---|", *rows])


def baseline_table(means: pd.DataFrame) -> str:
    """The baselines as a table."""
    rows = [
        f"| {x.baseline} | {x.at:g} | {x.proxy:.3f} | {x.gold:.3f} |"
        for x in means.itertuples()
    ]
    return "\n".join(["| baseline | at | proxy | gold |", "|---|---|---|---|", *rows])


def main() -> None:
    """Train what is missing, and make the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    params = parameters("base")
    tasks = [(method, REWARD) for method in params["methods"]]
    tasks += [(method, reward) for reward in JPEG for method in ON_JPEG]
    configs = [
        configuration(params, method, reward, seed)
        for seed in options.seeds
        for method, reward in tasks
        if not options.methods or method in options.methods
    ]
    missing = not_logged(configs, LOG) if options.workers else []
    for config, history, stopped in train_all(missing, max(options.workers, 1)):
        append_epochs(config, history, stopped, LOG, KEPT)
        print(f"{config.key}: done", flush=True)
    log = pd.read_csv(LOG)
    in_order = {
        digest(configuration(params, method, reward, seed)): at
        for at, (method, reward) in enumerate(tasks)
        for seed in SEEDS
    }
    log = log.assign(at=log["digest"].map(in_order)).dropna(subset="at")
    lines = summary(log.sort_values(["at", "seed", "epoch"]))
    found = baselines(params)
    found.to_csv(BASELINES, index=False)
    means = found.groupby(["baseline", "at"])[["proxy", "gold"]].mean().round(4)
    write(
        RESULTS / "learning.json",
        {
            "command": "python benchmarks/learning.py",
            "reward_queries": QUERIES,
            "methods": lines,
            "baselines": means.reset_index().to_dict("records"),
        },
    )
    Path(RESULTS / "learning.md").write_text(
        f"Command: `python benchmarks/learning.py`, commit {context()['commit']}.\n\n"
        f"{markdown(lines)}\n\n{baseline_table(means.reset_index())}\n"
    )


if __name__ == "__main__":
    main()
