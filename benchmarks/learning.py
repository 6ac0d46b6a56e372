"""Whether every method learns, at equal reward queries; and two baselines that are free.

    python benchmarks/learning.py --workers 2                     # what is missing, then the table
    python benchmarks/learning.py --methods ddpo_sf rwr --workers 2
    python benchmarks/learning.py --workers 0                     # the table alone

Each method fine-tunes on aesthetic-mini for about 1,500 reward queries, with three seeds;
the methods of the DDPO paper also on both JPEG tasks. From the base model and from every
checkpoint images are then drawn on the same noise, with the plain sampler whatever the
method trained with, and their means of the trained reward and of its gold go to
benchmarks/results/learning.csv. What is in it is not run again, so that it can be done in
pieces. The table shows start, end and, where the trained reward is at its highest, peak.
The epochs' own samples, which a method may draw in its own way and which end before the
last update, are in learning_epochs.csv.

Methods that the papers compare, or that differ in one thing alone, are held against each
other at the end of training, seed by seed; the intervals are not corrected for how many
there are.

The baselines stand beside them: best-of-N picks, of N samples of the base model, the one
with the highest trained reward; interpolation scales the LoRA of a trained method. The
table goes to benchmarks/results/learning.json and learning.md.
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch
from common import (
    BASE_MODEL,
    PROXY_REWARDS,
    ROOT,
    context,
    interval,
    parameters,
    plain,
    run_config,
    write,
)
from runs import append, append_epochs, digest, folder, not_logged, train_all
from scipy.special import comb

from tdpo_pipeline.config import RunConfig, TrainingSettings
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tdpo_pipeline.overoptimization.report import markdown_table
from tdpo_pipeline.overoptimization.tables import gold_of
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.registry import load_reward

RESULTS = ROOT / "benchmarks" / "results"
LOG = RESULTS / "learning.csv"
EPOCHS = RESULTS / "learning_epochs.csv"
BASELINES = RESULTS / "learning_baselines.csv"
QUERIES = 1536
SEEDS = (0, 1, 2)
REWARD = "aesthetic-mini"
JPEG = ("jpeg_compressibility", "jpeg_incompressibility")
ON_JPEG = ("ddpo_sf", "ddpo_is", "rwr", "rwr_sparse", "rwr_sparse_no_cfg")
POINTS = ("start", "peak", "end", "change")
SCORES = (
    *("aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"),
    *("gold_taste", "gold_match"),
)
KEPT = ("epoch", "reward_queries", "kl_to_base", *(f"{name}_mean" for name in SCORES))
IMAGES = 16
"""Images of each prompt, of the base model and of every checkpoint."""
NUMBERS = (1, 2, 4, 8, 16)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
INTERPOLATED = "ddpo_100_timestep_major"
PAIRS = (
    ("ddpo_is", "ddpo_sf"),
    ("ddpo_is", "rwr"),
    ("ddpo_sf", "rwr"),
    ("ddpo_sf", "rwr_sparse"),
    ("rwr_sparse", "rwr"),
    ("rwr_no_cfg", "rwr"),
    ("rwr_sparse_no_cfg", "rwr_sparse"),
    ("ddpo_100", "ddpo_2"),
    ("tdpo_2", "ddpo_2"),
    ("tdpo_sample_major", "ddpo_100"),
    ("tdpo_sample_major", "tdpo_no_critic_sample_major"),
    ("ddpo_100_timestep_major", "ddpo_100"),
    ("tdpo", "ddpo_100_timestep_major"),
    ("tdpo", "tdpo_sample_major"),
    ("tdpo", "tdpo_2"),
    ("tdpo", "ddpo_100"),
    ("tdpo_r", "ddpo_100"),
    ("tdpo_r", "tdpo"),
    ("tdpo", "tdpo_no_critic"),
    ("tdpo_r", "tdpo_no_critic"),
    ("tdpo_paper", "tdpo"),
    ("tdpo_r", "tdpo_reset_dormant"),
    ("tdpo_r", "tdpo_reset_all"),
    ("tdpo_policy_reset_active", "tdpo"),
    ("tdpo_policy_reset_dormant", "tdpo"),
    ("tdpo", "tdpo_misaligned_encoder"),
    ("tdpo_kl", "tdpo"),
    ("tdpo_kl_closed_form", "tdpo"),
    ("tdpo_constrained", "tdpo"),
    ("tdpo_constrained_gain", "tdpo"),
    ("tdpo_replay", "tdpo"),
    ("tdpo_replay", "tdpo_policy_reset_active"),
    ("ddpo_diffexp", "ddpo_100_timestep_major"),
    ("ddpo_diffexp_guidance", "ddpo_100_timestep_major"),
    ("ddpo_diffexp_prompts", "ddpo_100_timestep_major"),
    ("ddpo_diffexp_target", "ddpo_100_timestep_major"),
    ("ddpo_low_guidance", "ddpo_100_timestep_major"),
    ("alignprop_2023", "alignprop_trl"),
    ("alignprop_diffexp", "alignprop_trl"),
    ("alignprop_diffexp_guidance", "alignprop_trl"),
    ("alignprop_diffexp_prompts", "alignprop_trl"),
    ("alignprop_diffexp_800", "alignprop_trl"),
    ("alignprop_diffexp_700", "alignprop_trl"),
    ("alignprop_low_guidance", "alignprop_trl"),
)
"""Methods that the papers compare, or that differ in one thing alone."""


def configuration(
    params: dict[str, object], method: str, reward: str, seed: int
) -> RunConfig:
    """A run with as many epochs as ``QUERIES`` reward queries allow."""
    config = run_config(params, method, reward, seed)
    samples = config.training.samples_per_epoch * config.algorithm.queries_per_sample
    return run_config(
        params, method, reward, seed, training={"epochs": QUERIES // samples}
    )


def points(run: pd.DataFrame) -> dict[str, float]:
    """Start, end and the trained reward's peak of a run, from its checkpoints."""
    at = {"start": 0, "end": -1, "peak": int(run["proxy"].argmax())}
    return {
        f"{name}_{point}": run[name].iloc[place]
        for name in ("proxy", "gold")
        for point, place in at.items()
    }


def summary(log: pd.DataFrame) -> list[dict[str, object]]:
    """A line for each task and method: means over seeds, changes with intervals."""
    lines = []
    for (reward, method), table in log.groupby(["reward", "method"], sort=False):
        runs = pd.DataFrame([points(run) for _, run in table.groupby("seed")])
        line: dict[str, object] = {"reward": reward, "method": method}
        line["seeds"] = len(runs)
        line |= {name: interval(values) for name, values in runs.items()}
        for name in ("proxy", "gold"):
            change = runs[f"{name}_end"] - runs[f"{name}_start"]
            line[f"{name}_change"] = interval(change)
        lines.append(line)
    return lines


def differences(log: pd.DataFrame) -> list[dict[str, object]]:
    """Where the methods of ``PAIRS`` end, the first minus the second, paired by seed."""
    ends = log.groupby(["reward", "method", "seed"])[["proxy", "gold"]].last()
    run = set(ends.index.droplevel("seed"))
    lines = []
    for reward in (REWARD, *JPEG):
        for method, other in PAIRS:
            if {(reward, method), (reward, other)} <= run:
                found = ends.loc[reward, method] - ends.loc[reward, other]
                line: dict[str, object] = {"reward": reward, "method": method}
                line |= {"minus": other, "seeds": int(found["proxy"].count())}
                lines.append(line | {name: interval(found[name]) for name in found})
    return lines


def base_policy(config: RunConfig) -> Policy:
    """The base model, ready to load a run's checkpoints."""
    return Policy(
        load_pipeline(BASE_MODEL),
        num_inference_steps=config.training.num_inference_steps,
        lora=config.training.lora,
        seed=config.seed,
    )


@torch.no_grad()
def scored(
    policy: Policy, config: RunConfig, sampler: TrainingSettings
) -> pd.DataFrame:
    """Trained reward and gold of ``IMAGES`` images of each prompt, a row an image.

    Args:
        policy: What to sample from.
        config: The run; its seed is that of the noise.
        sampler: Its settings, the same for all methods.
    """
    prompts = [p for p in prompt_set(config.task.train_prompts) for _ in range(IMAGES)]
    images = rollout(
        policy,
        prompts,
        seed=config.seed,
        epoch=0,
        guidance_scale=sampler.guidance_scale,
        eta=sampler.eta,
        chunk_size=sampler.chunk_size,
        purpose="learning",
    ).images
    scores = pd.DataFrame({"prompt": prompts})
    for column, name in (("proxy", config.reward), ("gold", gold_of(config.reward))):
        if name is None:
            scores[column] = float("nan")
        else:
            scores[column] = load_reward(name, PROXY_REWARDS)(images, prompts).values
    return scores


def checkpoints(config: RunConfig, sampler: TrainingSettings) -> pd.DataFrame:
    """Means of the base model's images, and of every checkpoint's of a trained run."""
    policy = base_policy(config)
    kept = sorted((folder(config) / "checkpoints").glob("epoch_*"))
    lines = []
    for path in (None, *kept):
        if path is not None:
            policy.load(path)
        means = scored(policy, config, sampler)[["proxy", "gold"]].mean()
        epoch = 0 if path is None else int(path.name.removeprefix("epoch_"))
        lines.append({"epoch": epoch} | means.to_dict())
    run = {"method": config.method, "reward": config.reward, "seed": config.seed}
    return pd.DataFrame([run | line for line in lines]).assign(digest=digest(config))


def best_of_n(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Expected proxy and gold of the image of N with the highest proxy, for each N.

    The expectation is over all ways to pick N of a prompt's images: the image with r
    better ones is the best of C(M - 1 - r, N - 1) of the C(M, N).
    """
    ranked = scores.sort_values(["prompt", "proxy"], ascending=[True, False])
    better = ranked.groupby("prompt").cumcount()
    lines = []
    for count in NUMBERS:
        weight = comb(IMAGES - 1 - better, count - 1) / comb(IMAGES, count)
        line = {"baseline": "best of N", "at": count, "queries_per_image": count}
        for name in ("proxy", "gold"):
            sums = (ranked[name] * weight).groupby(ranked["prompt"]).sum()
            line[name] = float(sums.mean())
        lines.append(line)
    return lines


def interpolation(
    config: RunConfig, policy: Policy, sampler: TrainingSettings
) -> list[dict[str, object]]:
    """Proxy and gold of a trained LoRA at several strengths."""
    policy.load(max((folder(config) / "checkpoints").glob("epoch_*")))
    lines = []
    for strength in STRENGTHS:
        policy.set_strength(strength)
        means = scored(policy, config, sampler)[["proxy", "gold"]].mean()
        line = {"baseline": f"{config.method}, LoRA strength", "at": strength}
        lines.append(line | {"queries_per_image": 1} | means.to_dict())
    return lines


def baselines(params: dict[str, object], sampler: TrainingSettings) -> pd.DataFrame:
    """Both baselines of the seeds whose LoRA is on this machine, others as they were."""
    known = pd.read_csv(BASELINES) if BASELINES.exists() else pd.DataFrame()
    lines: list[dict[str, object]] = []
    for seed in SEEDS:
        config = configuration(params, INTERPOLATED, REWARD, seed)
        if (folder(config) / "done").exists():
            policy = base_policy(config)
            found = best_of_n(scored(policy, config, sampler))
            found += interpolation(config, policy, sampler)
            lines += [{"seed": seed} | line for line in found]
        elif not known.empty:
            lines += known[known["seed"] == seed].to_dict("records")
    return pd.DataFrame(lines)


def method_table(lines: list[dict[str, object]]) -> str:
    """The summary of the methods as a table."""
    columns = [f"{name}_{p}" for name in ("proxy", "gold") for p in POINTS]
    rows = [
        [line["reward"], line["method"], str(line["seeds"])]
        + [cell(line[column], column) for column in columns]
        for line in lines
    ]
    head = ["task", "method", "seeds", *(name.replace("_", ", ") for name in columns)]
    return markdown_table(head, rows)


def difference_table(lines: list[dict[str, object]]) -> str:
    """The differences as a table."""
    rows = [
        [line["reward"], line["method"], line["minus"], str(line["seeds"])]
        + [cell(line[name], "change") for name in ("proxy", "gold")]
        for line in lines
    ]
    head = ["task", "method", "minus", "seeds", "proxy, end", "gold, end"]
    return markdown_table(head, rows)


def cell(value: dict[str, float], column: str) -> str:
    """A mean, with its interval where there is one."""
    if "mean" not in value:
        return ""
    sign = "+" if column.endswith("change") else ""
    text = f"{value['mean']:{sign}.3f}"
    if "low" in value:
        text += f" [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
    return text


def baseline_table(found: pd.DataFrame) -> tuple[list[dict[str, object]], str]:
    """The baselines over seeds, as lines and as a table."""
    lines = [
        {"baseline": baseline, "at": at}
        | {name: interval(rows[name]) for name in ("proxy", "gold")}
        for (baseline, at), rows in found.groupby(["baseline", "at"])
    ]
    rows = [
        [x["baseline"], f"{x['at']:g}", cell(x["proxy"], ""), cell(x["gold"], "")]
        for x in lines
    ]
    return lines, markdown_table(["baseline", "at", "proxy", "gold"], rows)


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
    sampler = TrainingSettings.model_validate(plain(params["training"]))
    missing = not_logged(configs, LOG) if options.workers else []
    for config, history, stopped in train_all(missing, max(options.workers, 1)):
        append_epochs(config, history, stopped, EPOCHS, KEPT)
        append(checkpoints(config, sampler), LOG)
        print(f"{config.key}: done", flush=True)
    in_order = {
        digest(configuration(params, method, reward, seed)): at
        for at, (method, reward) in enumerate(tasks)
        for seed in SEEDS
    }
    log = pd.read_csv(LOG)
    log = log.assign(at=log["digest"].map(in_order)).dropna(subset="at")
    log = log.sort_values(["at", "seed", "epoch"])
    lines, pairs = summary(log), differences(log)
    found = baselines(params, sampler)
    found.to_csv(BASELINES, index=False, float_format="%.6g")
    free, table = baseline_table(found)
    write(
        RESULTS / "learning.json",
        {
            "command": "python benchmarks/learning.py",
            "reward_queries": QUERIES,
            "methods": lines,
            "differences": pairs,
            "baselines": free,
        },
    )
    (RESULTS / "learning.md").write_text(
        f"Command: `python benchmarks/learning.py`, commit {context()['commit']}.\n\n"
        f"{method_table(lines)}\n\n{difference_table(pairs)}\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
