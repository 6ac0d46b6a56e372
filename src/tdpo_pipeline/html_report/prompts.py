"""What training did to each prompt."""

from __future__ import annotations

import pandas as pd

from tdpo_pipeline.overoptimization.cubes import cubes


def prompt_changes(scores: pd.DataFrame) -> pd.DataFrame:
    """Last checkpoint minus base model of every prompt, mean over images and seeds.

    Args:
        scores: Score table of any number of runs.

    Returns:
        One row per method, trained reward, prompt group, prompt and scored reward:
        method, reward, group, prompt, epoch (the last that all seeds have), scored,
        change (own units), base_sd, n_seeds, n_images (of a prompt, in the mean, over all seeds).
    """
    tables = []
    for cube in cubes(scores):
        last = cube.values[:, :, -1] - cube.values[:, :, 0]
        means = pd.DataFrame(last.mean(axis=0), columns=list(cube.rewards))
        prompts = [prompt for _, prompt in cube.prompts]
        table = means.assign(prompt=prompts).melt(
            "prompt", var_name="scored", value_name="change"
        )
        rulers = dict(zip(cube.rewards, cube.base_sd, strict=True))
        tables.append(
            table.assign(
                method=str(cube.names["method"]),
                reward=str(cube.names["reward"]),
                group=str(cube.names["group"]),
                epoch=cube.epochs[-1],
                base_sd=table["scored"].map(rulers),
                n_seeds=len(cube.seeds),
                n_images=cube.n_images // len(prompts),
            )
        )
    columns = ["method", "reward", "group", "prompt", "epoch", "scored", "change"]
    columns += ["base_sd", "n_seeds", "n_images"]
    return pd.concat(tables, ignore_index=True)[columns]
