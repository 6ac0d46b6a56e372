"""Which of two pictures of a prompt is better: how often two rewards say the same.

Learned rewards are trained on such choices, and fine-tuning goes by them: a policy can't
change its prompts, only its pictures of them. So the share of pairs of one prompt's
pictures that the trained reward ranks as its gold does (the accuracy of a reward model on
pairs) says before training what there is to learn from it, and afterwards whether it is
still so on the policy's own pictures. By chance it is one half. A correlation over all
pictures says less, for most of it may be that some prompts score higher than others.

Where no gold is known, another reward stands in its place: how alike the two judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, cubes
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    Cells,
    FloatArray,
    estimates,
    exact_interval,
)
from tdpo_pipeline.overoptimization.tables import (
    IMAGE_KEYS,
    INDEX_COLUMNS,
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    reward_columns,
    role_of,
    with_group,
    words_of,
)

_PROMPT = [key for key in IMAGE_KEYS if key != "image"]
_VALUES = ["agreement", "agreement_low", "agreement_high"]
_CHANGES = ["change", "change_low", "change_high"]
_SIZES = ["n_seeds", "n_prompts", "n_images"]


def pairwise_agreement(
    scores: pd.DataFrame,
    *,
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """How often the trained reward and another one rank two pictures of a prompt alike.

    Args:
        scores: Score table of any number of runs. Prompts with one image, which have no
            pair, are left out.
        by: What a row is of: ``METHOD`` puts all seeds of a method together, ``RUN``
            keeps every run by itself.
        bootstrap: How the intervals are made.

    Returns:
        One row per curve, group, checkpoint and scored reward other than the trained one,
        at eta 1: the columns ``by``, group, epoch, reward_queries, kl_to_base (nats, mean
        over seeds), scored, role (of ``ROLES``), agreement (part of the pairs, 0 to 1; a
        tie counts half; prompts weigh equally) with _low and _high, change (since the
        base model, on the same prompts and noise) with _low and _high, n_seeds,
        n_prompts, n_images (over all seeds). Intervals are over prompts and seeds, and
        end where the values do. No rows if there is one image of every prompt.

    Raises:
        ScoreTableError: If the table is not what it should be (``check_scores``,
            ``cubes``), or a run was not scored by the reward that it was trained on.
    """
    prompts = agreement_by_prompt(scores)
    columns = [*by, "group", "epoch", "reward_queries", "kl_to_base", "scored", "role"]
    columns += [*_VALUES, *_CHANGES, *_SIZES]
    if prompts.empty:
        return pd.DataFrame(columns=columns)
    found = [
        row
        for cube in cubes(prompts.drop(columns="n_images"), by=by)
        for row in _rows(cube, _images(prompts, cube), bootstrap)
    ]
    return pd.DataFrame(found)[columns]


def agreement_by_prompt(scores: pd.DataFrame) -> pd.DataFrame:
    """The agreement of the trained reward with each other one, prompt by prompt.

    Args:
        scores: Score table of any number of runs.

    Returns:
        A row for each prompt of each checkpoint with several images, in the shape of a
        score table: ``INDEX_COLUMNS`` (image: 0), group, n_images, and for every reward
        the part of the pairs of these images, from 0 to 1, that it ranks as the trained
        one does; NaN for the trained one, and where there are no scores.

    Raises:
        ScoreTableError: As ``pairwise_agreement``.
    """
    check_scores(scores)
    rewards = reward_columns(scores)
    # A prompt that is in several sets has the pictures of all of them.
    ordered = with_group(scores).sort_values(["reward", *IMAGE_KEYS], ignore_index=True)
    sizes = ordered.groupby(["reward", *_PROMPT])["image"].transform("size")
    _check_images(ordered, sizes)
    parts = [
        _of_task(rows[sizes[rows.index] == size], str(trained), rewards, size)
        for trained, rows in ordered.groupby("reward", sort=True)
        for size in sorted(set(sizes[rows.index]) - {1})
    ]
    columns = [*INDEX_COLUMNS, "group", "n_images", *rewards]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def _check_images(ordered: pd.DataFrame, sizes: pd.Series) -> None:
    """Raise ScoreTableError where a checkpoint lacks images that another one has."""
    of_run = [name for name in _PROMPT if name != "epoch"]
    every = ordered.groupby(["reward", *of_run])["image"].transform("nunique")
    if (sizes != every).any():
        first = ordered[["run", "epoch", "prompt"]][sizes != every].iloc[0].to_dict()
        raise ScoreTableError(
            f"{words_of(first)}: not all images of that prompt that the run has at other "
            "checkpoints. Evaluate all checkpoints on the same."
        )


def _of_task(
    rows: pd.DataFrame, trained: str, rewards: Sequence[str], size: int
) -> pd.DataFrame:
    """The prompts with ``size`` images each, in order, of one trained reward."""
    if trained not in rewards or rows[trained].isna().any():
        raise ScoreTableError(
            f"Runs that were trained on '{trained}' were not scored by it. Evaluate them "
            "with it."
        )
    values = rows[list(rewards)].to_numpy(np.float64).reshape(-1, size, len(rewards))
    first, second = np.triu_indices(size, 1)
    order = np.sign(values[:, first] - values[:, second])  # (prompts, pairs, rewards)
    own = order[:, :, [rewards.index(trained)]]
    agreed = (1 + (order * own).mean(axis=1)) / 2
    agreed[:, rewards.index(trained)] = np.nan
    prompts = rows[[*INDEX_COLUMNS, "group"]].iloc[::size].reset_index(drop=True)
    table = pd.DataFrame(agreed, columns=list(rewards))
    return pd.concat([prompts.assign(image=0, n_images=size), table], axis=1)


def _images(prompts: pd.DataFrame, cube: Cube) -> int:
    """Images behind one checkpoint of a cube, all seeds together."""
    of_cube = {**cube.names, "epoch": 0, "eta": MAIN_ETA}
    own = np.logical_and.reduce([prompts[key] == of_cube[key] for key in of_cube])
    return int(prompts.loc[own, "n_images"].sum())


def _rows(
    cube: Cube, n_images: int, bootstrap: Bootstrap
) -> Iterator[dict[str, object]]:
    """The rows of one curve and prompt group."""
    levels = _intervals(cube.values, bootstrap).clip(0, 1)
    for always in (0.0, 1.0):  # no prompt differs from another, and shows no spread
        ends = exact_interval(always, len(cube.prompts), bootstrap.confidence)
        levels[levels[..., 0] == always, 1:] = ends
    # Nor does one prompt, of which all seeds have the base model's same pictures.
    levels[levels[..., 1] == levels[..., 2], 1:] = np.nan
    changes = _intervals(cube.changes(cube.rewards), bootstrap).clip(-1, 1)
    sizes = {**cube.sizes(), "n_images": n_images}
    for e, epoch in enumerate(cube.epochs):
        where = {
            "epoch": epoch,
            "reward_queries": cube.queries[:, e].mean(),
            "kl_to_base": cube.kl[:, e].mean(),
        }
        for r, scored in enumerate(cube.rewards):
            yield {
                **cube.names,
                **where,
                "scored": scored,
                "role": role_of(scored, cube.trained),
                **dict(zip(_VALUES, levels[e, r], strict=True)),
                **dict(zip(_CHANGES, changes[e, r], strict=True)),
                **sizes,
            }


def _intervals(values: FloatArray, bootstrap: Bootstrap) -> FloatArray:
    """Mean, low and high of each checkpoint and reward, shape (epochs, rewards, 3).

    Args:
        values: Shape (seeds, prompts, epochs, rewards).
        bootstrap: How the intervals are made.
    """
    seeds, prompts, *shape = values.shape
    found = estimates(Cells(values.reshape(seeds, prompts, -1), 0), bootstrap)
    ends = np.array([estimate[:3] for estimate in found]).reshape(*shape, 3)
    return ends.round(12)  # no change is 0, and not some rounding error
