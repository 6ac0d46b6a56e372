"""Score tables as arrays: training seed x prompt x checkpoint x reward.

All statistics that follow a whole curve work on these arrays, so that a resampled seed
or prompt takes all its checkpoints and rewards with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD, base_sd
from tdpo_pipeline.overoptimization.intervals import (
    FloatArray,
    by_epoch,
    cell_means,
    common_epochs,
)
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    group_label,
    located,
    ordered_groups,
    reward_columns,
    run_text,
    with_group,
    words_of,
)


@dataclass(frozen=True)
class Cube:
    """Scores of one curve and prompt group, averaged over the images of a prompt.

    Attributes:
        names: What the curve is of, such as method and reward, and the prompt group.
        trained: The reward that was trained on.
        values: Mean scores, shape (seeds, prompts, epochs, rewards), float64.
        seeds: Training seeds.
        prompts: Pairs of prompt set and prompt.
        epochs: Checkpoints that all seeds have; the first is 0, the base model.
        rewards: Scored rewards.
        base_sd: Standard deviation of each reward over the base model's images of the
            prompts trained on; NaN if these were not evaluated.
        queries: Reward queries at each checkpoint, shape (seeds, epochs); 0 at the base
            model.
        kl: KL to the base model in nats, shape (seeds, epochs); 0 at the base model, NaN
            where it was not recorded.
        n_images: Images behind one checkpoint, all seeds together.
    """

    names: Mapping[str, object]
    trained: str
    values: FloatArray
    seeds: tuple[int, ...]
    prompts: tuple[tuple[str, str], ...]
    epochs: tuple[int, ...]
    rewards: tuple[str, ...]
    base_sd: FloatArray
    queries: FloatArray
    kl: FloatArray
    n_images: int

    def changes(self, rewards: Sequence[str]) -> FloatArray:
        """Change since the base model, shape (seeds, prompts, epochs, rewards)."""
        chosen = self.values[..., self.columns(rewards)]
        return chosen - chosen[:, :, :1]

    def columns(self, rewards: Sequence[str]) -> list[int]:
        """Where the rewards are on the last axis of ``values``.

        Raises:
            ScoreTableError: If a reward was not scored.
        """
        missing = [name for name in rewards if name not in self.rewards]
        if missing:
            raise ScoreTableError(
                f"{self.title} was not scored by {missing}, only by "
                f"{list(self.rewards)}."
            )
        return [self.rewards.index(name) for name in rewards]

    @property
    def title(self) -> str:
        """What the curve is of, in words, such as "tdpo_r on aesthetic"."""
        return _title(self.names)

    def sizes(self) -> dict[str, int]:
        """The columns that every table ends with."""
        seeds, prompts = self.values.shape[:2]
        return {"n_seeds": seeds, "n_prompts": prompts, "n_images": self.n_images}


def cubes(
    scores: pd.DataFrame,
    *,
    by: Sequence[str] = METHOD,
    eta: float = MAIN_ETA,
    groups: Sequence[str] | None = None,
) -> Iterator[Cube]:
    """The cube of every curve and prompt group.

    Args:
        scores: Score table of any number of runs.
        by: What a curve is of: ``METHOD`` puts all seeds together, ``RUN`` keeps every
            run by itself.
        eta: The sampler whose images count.
        groups: Prompt groups, by default all that there are.

    Raises:
        ScoreTableError: If the table is not what it should be (``check_scores``), the
            base model is missing, or the seeds have no checkpoint in common.
    """
    check_scores(scores)
    everything = reward_columns(scores)
    table = with_group(scores[scores["eta"] == eta])
    if table.empty:
        raise ScoreTableError(
            f"The score table has no image of eta {eta}; it has "
            f"{sorted(scores['eta'].unique())}."
        )
    for keys, unit in table.groupby(list(by), sort=True):
        names = dict(zip(by, keys, strict=True))
        rewards = [name for name in everything if unit[name].notna().any()]
        ruler = _ruler(unit, rewards)
        for group in ordered_groups(unit["group"]):
            if groups is None or group in groups:
                images = unit[unit["group"] == group]
                yield _cube(images, {**names, "group": group}, rewards, ruler)


def one_cube(
    scores: pd.DataFrame,
    *,
    group: str,
    by: Sequence[str] = METHOD,
    eta: float = MAIN_ETA,
) -> list[Cube]:
    """The cubes of one prompt group, one per curve.

    Raises:
        ScoreTableError: Like ``cubes``, and if no curve was evaluated on the group.
    """
    found = list(cubes(scores, by=by, eta=eta, groups=[group]))
    if not found:
        raise ScoreTableError(_no_group(group, with_group(scores)["group"]))
    return found


def check_same_prompts(cube: Cube, base: Cube) -> None:
    """Raise ScoreTableError if two methods were evaluated on other prompts."""
    if cube.prompts != base.prompts:
        raise ScoreTableError(
            f"{cube.title} and {base.title} were evaluated on other prompts. Evaluate "
            "them again with one set of prompts."
        )


def cubes_by_group(scores: pd.DataFrame) -> dict[str, list[Cube]]:
    """The cubes of every method by prompt group, in the groups' order.

    Raises:
        ScoreTableError: Like ``cubes``, and if none was evaluated on prompts trained on.
    """
    found = list(cubes(scores))
    groups = ordered_groups(str(cube.names["group"]) for cube in found)
    if "seen" not in groups:
        raise ScoreTableError(_no_group("seen", groups))
    return {name: [c for c in found if c.names["group"] == name] for name in groups}


def _no_group(group: str, there: Iterable[str]) -> str:
    return f"No image of the prompt group '{group}', only {ordered_groups(there)}."


def _title(names: Mapping[str, object]) -> str:
    """What a curve is of, in words; its prompt group isn't told."""
    own = {key: name for key, name in names.items() if key != "group"}
    if "run" in own:
        return f"the run {own['run']}"
    return run_text(own) if set(own) == set(METHOD) else words_of(own)


def _ruler(unit: pd.DataFrame, rewards: list[str]) -> FloatArray:
    try:
        return base_sd(unit, rewards).to_numpy(np.float64)
    except ScoreTableError:
        return np.full(len(rewards), np.nan)


def _cube(
    images: pd.DataFrame,
    names: dict[str, object],
    rewards: list[str],
    ruler: FloatArray,
) -> Cube:
    epochs = common_epochs(images)
    where = f"{_title(names)}, {group_label(str(names['group']))}"
    if not epochs or epochs[0] != 0:
        raise ScoreTableError(
            f"{where}: no image of epoch 0 (the untouched base model) for every seed, "
            "so that changes have nothing to start from. Evaluate epoch 0."
        )
    every = by_epoch(images, rewards)
    checkpoints = [every[epoch] for epoch in epochs]
    same = checkpoints[0].index
    for epoch, checkpoint in zip(epochs, checkpoints, strict=True):
        if not checkpoint.index.equals(same):
            raise ScoreTableError(
                f"{where}: epoch {epoch} was evaluated on other prompts or images than "
                "the base model. Evaluate all checkpoints on the same."
            )
    with located(where):
        cells = [cell_means(checkpoint) for checkpoint in checkpoints]
    values = np.stack([cell.values for cell in cells], axis=2)
    per_run = images.groupby(["seed", "epoch"])[["reward_queries", "kl_to_base"]]
    steps = per_run.first()
    kl = steps["kl_to_base"].unstack()[epochs].to_numpy(np.float64, copy=True)
    queries = steps["reward_queries"].unstack()[epochs].to_numpy(np.float64, copy=True)
    kl[:, 0] = queries[:, 0] = 0.0  # whatever its images were recorded with
    keys = same.to_frame(index=False)[["prompt_set", "prompt"]].drop_duplicates()
    return Cube(
        names=names,
        trained=str(images["reward"].iloc[0]),
        values=values,
        seeds=tuple(int(seed) for seed in same.unique("seed")),
        prompts=tuple(keys.itertuples(index=False, name=None)),
        epochs=tuple(epochs),
        rewards=tuple(rewards),
        base_sd=ruler,
        queries=queries,
        kl=kl,
        n_images=cells[0].n_images,
    )
