"""Whether every method learns, at equal reward queries; and two baselines that are free.

    python benchmarks/learning.py --workers 2                     # what is missing, then the table
    python benchmarks/learning.py --methods ddpo_sf rwr --workers 2
    python benchmarks/learning.py --workers 0                     # the table alone

Each method fine-tunes on aesthetic-mini for about 1,500 reward queries, with three seeds;
the methods of the DDPO paper also on both JPEG tasks. A finished run appends a line to
benchmarks/results/learning.csv: the means over an epoch's samples of the trained reward
and of its gold at the start (the base model), at the end and at the trained reward's
highest. Runs that are in it are not run again, so that it can be done in pieces.

The baselines stand beside them: best-of-N picks, of N samples of the base model, the one
with the highest trained reward; interpolation scales the LoRA of a trained method. The
table goes to benchmarks/results/learning.json and learning.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from common import (
    BASE_MODEL,
    PROXY_REWARDS,
    ROOT,
    context,
    parameters,
    run_config,
    write,
)
from runs import append, digest, folder, not_logged, train_all
from scipy import stats

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


def row(config: RunConfig, history: pd.DataFrame, stopped: str) -> dict[str, object]:
    """A run's line in the log."""
    proxy = history[f"{config.reward}_mean"]
    points = {"start": 0, "end": len(history) - 1, "peak": int(proxy.argmax())}
    line: dict[str, object] = {
        "method": config.method,
        "reward": config.reward,
        "seed": config.seed,
        "epochs": len(history),
        "reward_queries": int(history["reward_queries"].iloc[-1]),
        "peak_epoch": points["peak"] + 1,
        "start_std": round(history[f"{config.reward}_std"].iloc[0], 4),
        "kl_end": round(history["kl_to_base"].iloc[-1], 2),
    }
    for point, at in points.items():
        line[f"proxy_{point}"] = round(proxy.iloc[at], 4)
        gold = gold_of(config.reward)
        if gold is not None:
            line[f"gold_{point}"] = round(history[f"{gold}_mean"].iloc[at], 4)
        else:
            line[f"gold_{point}"] = float("nan")
    return line | {"stopped": stopped, "digest": digest(config)}


def change(table: pd.DataFrame, name: str) -> dict[str, float]:
    """Mean and 95 % t interval over seeds of end minus start."""
    values = (table[f"{name}_end"] - table[f"{name}_start"]).dropna()
    if len(values) < 2:
        return {"mean": round(float(values.mean()), 4), "low": None, "high": None}
    reach = stats.t.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5
    mean = float(values.mean())
    return {
        "mean": round(mean, 4),
        "low": round(mean - reach, 4),
        "high": round(mean + reach, 4),
    }


def summary(log: pd.DataFrame) -> list[dict[str, object]]:
    """A line for each task and method: means over seeds, changes with intervals."""
    lines = []
    for (reward, method), table in log.groupby(["reward", "method"], sort=False):
        line: dict[str, object] = {"reward": reward, "method": method}
        line["seeds"] = len(table)
        for name in ("proxy", "gold"):
            for point in ("start", "end", "peak"):
                line[f"{name}_{point}"] = round(table[f"{name}_{point}"].mean(), 4)
            line[f"{name}_change"] = change(table, name)
        line["kl_end"] = round(table["kl_end"].mean(), 1)
        line["stopped"] = int(table["stopped"].notna().sum())
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

    def interval(value: dict[str, float]) -> str:
        if value["low"] is None:
            return f"{value['mean']:+.3f}"
        return f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    head = (
        "| task | method | seeds | proxy, start | peak | end | change (95 %) | "
        "gold, start | end | change (95 %) | KL, end |"
    )
    rows = [
        f"| {x['reward']} | {x['method']} | {x['seeds']} | {x['proxy_start']:.3f} | "
        f"{x['proxy_peak']:.3f} | {x['proxy_end']:.3f} | {interval(x['proxy_change'])} "
        f"| {x['gold_start']:.3f} | {x['gold_end']:.3f} | {interval(x['gold_change'])} "
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
    methods = options.methods or list(params["methods"])
    tasks = [(method, REWARD) for method in methods]
    tasks += [(method, reward) for reward in JPEG for method in ON_JPEG]
    configs = [
        configuration(params, method, reward, seed)
        for seed in options.seeds
        for method, reward in tasks
        if method in methods
    ]
    missing = not_logged(configs, LOG) if options.workers else []
    for config, history, stopped in train_all(missing, max(options.workers, 1)):
        append(row(config, history, stopped), LOG)
        print(f"{config.key}: done", flush=True)
    log = pd.read_csv(LOG)
    everything = {
        digest(configuration(params, method, reward, seed))
        for seed in SEEDS
        for reward in (REWARD, *JPEG)
        for method in params["methods"]
        if reward == REWARD or method in ON_JPEG
    }
    lines = summary(log[log["digest"].isin(everything)])
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
