"""Several rewards at once: prompt by prompt, and as a front.

Means hide what happens to single prompts: a method that makes half of them much better
and half a little worse has improved "on average". *Joint domination* and *joint collapse*
count the prompts on which all rewards rose, and all fell. The *front* holds the
checkpoints that no other one beats in every reward, and the *hypervolume* (Zitzler and
Thiele 1999) is how much of the space of rewards they dominate, from the base model up:
the larger, the better the trade-offs that a method offers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tdpo_pipeline.overoptimization.cubes import Cube, one_cube
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    Cells,
    FloatArray,
    crossed_deviations,
    ends,
    equal_weights,
    estimates,
    exact_interval,
    mean_over_prompts,
    mean_over_seeds,
)
from tdpo_pipeline.overoptimization.tables import ScoreTableError, held_out_of, role_of

MOST_REWARDS = 4
"""Rewards of a hypervolume: its exact computation grows steeply with their number, and
so does the part of all points that is on the front and says nothing."""


class Joint(NamedTuple):
    """Joint domination and collapse.

    Attributes:
        rates: One row per curve and checkpoint: the columns ``by``, group, epoch,
            reward_queries, rewards (their names, joined by ", "), dominated,
            dominated_low, dominated_high, collapsed, collapsed_low, collapsed_high
            (parts of all pairs of seed and prompt), net, net_low, net_high (dominated
            minus collapsed, in [-1, 1]), n_seeds, n_prompts, n_images.
        prompts: One row per curve, checkpoint and prompt: the columns ``by``, group,
            epoch, prompt_set, prompt, one column per reward with its change (mean over
            seeds), and outcome ("dominated", "collapsed" or "mixed", of these means).
    """

    rates: pd.DataFrame
    prompts: pd.DataFrame


def joint_outcomes(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str],
    group: str = "seen",
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Joint:
    """On how many prompts all rewards rose, or all fell, since the base model.

    A pair of seed and prompt is dominated if the mean over its images rose in every
    reward, and collapsed if it fell in every one; no change is neither. Where all pairs
    have the same outcome, resampling shows no spread; the interval is then that of as
    many independent trials as there are prompts (Clopper and Pearson 1934).

    Args:
        scores: Score table of any number of runs.
        rewards: The rewards that count; the more, the rarer both outcomes. Leave out the
            trained one to ask about held-out rewards alone.
        group: Prompt group.
        by: What a curve is of.
        bootstrap: How the intervals are made.

    Raises:
        ScoreTableError: If the table is not what it should be, or lacks a reward.
    """
    rates: list[dict[str, object]] = []
    prompts: list[pd.DataFrame] = []
    for cube in one_cube(scores, group=group, by=by):
        found, by_prompt = _joint(cube, rewards, bootstrap)
        rates += found
        prompts += by_prompt
    front = [*by, "group", "epoch"]
    if not rates:
        return Joint(
            pd.DataFrame(columns=[*front, *_RATE_COLUMNS]),
            pd.DataFrame(columns=[*front, "prompt_set", "prompt", *rewards, "outcome"]),
        )
    return Joint(
        pd.DataFrame(rates)[[*front, *_RATE_COLUMNS]],
        pd.concat(prompts, ignore_index=True),
    )


def joint_report(
    scores: pd.DataFrame,
    *,
    held_out: Sequence[str] | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Joint:
    """Joint outcomes of the held-out rewards of every method, on the prompts trained on.

    Args:
        scores: Score table of any number of runs.
        held_out: Rewards that may count; by default all. Of each method those count that
            were scored and are held out of its training (``held_out_of``).
        bootstrap: How the intervals are made.

    Returns:
        The tables of ``joint_outcomes`` by method; rates with the column ``note``, which
        is empty, or says in a row without rates why there are none; prompts of the last
        checkpoint alone.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    rates: list[dict[str, object]] = []
    prompts = []
    for cube in one_cube(scores, group="seen"):
        rewards = [
            name
            for name in held_out_of(cube.trained, cube.rewards)
            if held_out is None or name in held_out
        ]
        if note := _why_no_joint(cube, rewards):
            rates.append({**cube.names, "note": note} | cube.sizes())
            continue
        found, by_prompt = _joint(cube, rewards, bootstrap)
        rates += [row | {"note": ""} for row in found]
        prompts.append(by_prompt[-1])
    columns = [*METHOD, "group", "epoch", *_RATE_COLUMNS, "note"]
    every = pd.concat(prompts, ignore_index=True) if prompts else pd.DataFrame()
    head = [*METHOD, "group", "epoch", "prompt_set", "prompt", "outcome"]
    changed = [name for name in every.columns if name not in head]
    return Joint(
        pd.DataFrame(rates, columns=columns), every.reindex(columns=[*head, *changed])
    )


def _why_no_joint(cube: Cube, rewards: Sequence[str]) -> str:
    """Why a report has no joint outcomes of a curve; empty if it has."""
    if len(rewards) < 2:
        found = f"of {', '.join(rewards)} alone" if rewards else "of none"
        return f"joint outcomes take two held-out rewards; there are scores {found}"
    if len(cube.epochs) == 1:
        return "no checkpoint besides the base model"
    return ""


def _joint(
    cube: Cube, rewards: Sequence[str], bootstrap: Bootstrap
) -> tuple[list[dict[str, object]], list[pd.DataFrame]]:
    """For every checkpoint of a curve its row of rates, and its table of prompts."""
    changes = cube.changes(rewards)
    checkpoints = [(i, changes[:, :, i]) for i in range(1, len(cube.epochs))]
    return (
        [_rates(cube, i, at, rewards, bootstrap) for i, at in checkpoints],
        [
            _prompts(cube, cube.epochs[i], at.mean(axis=0), rewards)
            for i, at in checkpoints
        ],
    )


_RATE_COLUMNS = [
    *("reward_queries", "rewards"),
    *("dominated", "dominated_low", "dominated_high"),
    *("collapsed", "collapsed_low", "collapsed_high"),
    *("net", "net_low", "net_high"),
    *("n_seeds", "n_prompts", "n_images"),
]


def _rates(
    cube: Cube,
    position: int,
    changes: FloatArray,
    rewards: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, object]:
    """The row of one checkpoint; ``changes`` has the shape (seeds, prompts, rewards)."""
    rose, fell = (changes > 0).all(axis=2), (changes < 0).all(axis=2)
    outcomes = np.stack([rose, fell], axis=2).astype(np.float64)
    net = outcomes[..., :1] - outcomes[..., 1:]
    cells = Cells(np.concatenate([outcomes, net], axis=2), cube.n_images)
    row: dict[str, Any] = {
        **cube.names,
        "epoch": cube.epochs[position],
        "reward_queries": cube.queries[:, position].mean(),
        "rewards": ", ".join(rewards),
        **cube.sizes(),
    }
    for name, least, found in zip(
        ("dominated", "collapsed", "net"),
        (0.0, 0.0, -1.0),
        estimates(cells, bootstrap),
        strict=True,
    ):
        low, high = found.low, found.high
        span = 1.0 - least
        if found.mean in (least, 1.0):
            rate = (found.mean - least) / span
            exact = exact_interval(rate, found.n_prompts, bootstrap.confidence)
            low, high = (least + span * end for end in exact)
        row |= {
            name: found.mean,
            f"{name}_low": np.clip(low, least, 1),
            f"{name}_high": np.clip(high, least, 1),
        }
    if not outcomes.any():  # no spread here either
        row |= {"net_low": -row["collapsed_high"], "net_high": row["dominated_high"]}
    return row


def _prompts(
    cube: Cube, epoch: int, changes: FloatArray, rewards: Sequence[str]
) -> pd.DataFrame:
    """The rows of one checkpoint's prompts."""
    outcome = np.full(len(changes), "mixed", dtype=object)
    outcome[(changes > 0).all(axis=1)] = "dominated"
    outcome[(changes < 0).all(axis=1)] = "collapsed"
    names = pd.DataFrame(list(cube.prompts), columns=["prompt_set", "prompt"])
    table = pd.DataFrame(changes, columns=list(rewards))
    head = pd.DataFrame({**cube.names, "epoch": epoch}, index=table.index)
    return pd.concat([head, names, table], axis=1).assign(outcome=outcome)


def on_front(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other one dominates (at least as good in all, better in one).

    Args:
        points: Shape (n, k); higher is better.

    Returns:
        Shape (n,). Equal points are on the front together.
    """
    p = np.asarray(points, dtype=np.float64)
    at_least = (p[:, None] >= p[None]).all(axis=2)  # row i against column j
    better = (p[:, None] > p[None]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0), dtype=np.bool_)


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike | float = 0.0) -> float:
    """Volume between the reference and the points, exactly.

    The last coordinate is swept from its highest value down; between two neighbouring
    values the slice is the hypervolume, in one dimension less, of all points above.

    Args:
        points: Shape (n, k), k at least 1; higher is better. Points that are not above
            the reference in every coordinate add nothing.
        reference: Shape (k,), or a number for all.

    Returns:
        In the product of the coordinates' units.
    """
    p = np.asarray(points, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    p = p[(p > 0).all(axis=1)]
    if not len(p):
        return 0.0
    if p.shape[1] == 1:
        return float(p.max())
    p = p[np.argsort(-p[:, -1])]
    heights = np.append(p[:, -1], 0.0)
    return sum(
        (heights[i] - heights[i + 1]) * hypervolume(p[: i + 1, :-1])
        for i in range(len(p))
        if heights[i] > heights[i + 1]
    )


def pareto_points(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str],
    group: str = "seen",
    by: Sequence[str] = METHOD,
) -> pd.DataFrame:
    """Every checkpoint as a point in the space of rewards, and who is on the front.

    Args:
        scores: Score table of any number of runs.
        rewards: The rewards, one coordinate each.
        group: Prompt group.
        by: What a curve is of.

    Returns:
        One row per curve and checkpoint (the base model is 0 everywhere and in no row):
        the columns ``by``, group, epoch, reward_queries, kl_to_base, one column per
        reward with its change in base standard deviations, on_own_front (among the
        curve's checkpoints), on_front (among all curves of the same trained reward).

    Raises:
        ScoreTableError: If the table is not what it should be, lacks a reward, or a
            reward does not vary on the base model.
    """
    blocks = []
    for cube in one_cube(scores, group=group, by=by):
        points = _points(cube, rewards).mean(axis=(0, 1))
        block = pd.DataFrame(points, columns=list(rewards))
        head = {
            **cube.names,
            "reward": cube.trained,
            "epoch": cube.epochs[1:],
            "reward_queries": cube.queries[:, 1:].mean(axis=0),
            "kl_to_base": cube.kl[:, 1:].mean(axis=0),
        }
        block = pd.concat([pd.DataFrame(head, index=block.index), block], axis=1)
        blocks.append(block.assign(on_own_front=on_front(points)))
    table = pd.concat(blocks, ignore_index=True)
    front = np.zeros(len(table), dtype=bool)
    for rows in table.groupby("reward").indices.values():
        front[rows] = on_front(table.iloc[rows][list(rewards)])
    return table.assign(on_front=front)


def hypervolumes(
    scores: pd.DataFrame,
    *,
    rewards: Sequence[str],
    group: str = "seen",
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Hypervolume of every curve's checkpoints, the base model being the reference.

    The largest of noisy points look better than they are, and more checkpoints give more
    of them: compare curves with equally many checkpoints, seeds and images. The interval
    allows for that: it holds both the bootstrap's own and that turned round.

    Args:
        scores: As for ``pareto_points``.
        rewards: Two to four rewards.
        group: As there.
        by: As there.
        bootstrap: How the interval is made; by default with 500 draws.

    Returns:
        One row per curve: the columns ``by``, group, rewards, hypervolume (product of
        base standard deviations), low, high, n_checkpoints, n_seeds, n_prompts, n_images.

    Raises:
        ScoreTableError: Like ``pareto_points``, and if there are too many rewards or one.
    """
    if not 2 <= len(rewards) <= MOST_REWARDS:
        raise ScoreTableError(
            f"A hypervolume takes 2 to {MOST_REWARDS} rewards, not {len(rewards)}."
        )
    bootstrap = bootstrap or _FEW_DRAWS
    found = one_cube(scores, group=group, by=by)
    return pd.DataFrame([_volume(cube, rewards, bootstrap) for cube in found])


_FEW_DRAWS = Bootstrap(draws=500)


def hypervolume_report(
    scores: pd.DataFrame,
    *,
    held_out: Sequence[str] | None = None,
    bootstrap: Bootstrap | None = None,
) -> pd.DataFrame:
    """Hypervolume of the trained reward and what it stands for, by method.

    Its second coordinate is the trained reward's gold; where none was scored, there are
    up to three of the held-out rewards instead. Methods that were trained on the same
    reward are measured by the same rewards.

    Args:
        scores: Score table of any number of runs.
        held_out: Held-out rewards that may be taken, the best first; by default all, in
            the table's order.
        bootstrap: As for ``hypervolumes``.

    Returns:
        The columns of ``hypervolumes`` on the prompts trained on, and note, which is
        empty, or says in a row without a hypervolume why there is none.

    Raises:
        ScoreTableError: If the table is not what it should be.
    """
    found = one_cube(scores, group="seen")
    rows = []
    for cube in found:
        others = [c.rewards for c in found if c.trained == cube.trained]
        shared = [name for name in cube.rewards if all(name in o for o in others)]
        head = {**cube.names, "n_checkpoints": len(cube.epochs) - 1, **cube.sizes()}
        try:
            rewards = _traded(cube, shared, held_out)
            row = _volume(cube, rewards, bootstrap or _FEW_DRAWS) | {"note": ""}
        except ScoreTableError as error:
            row = head | {"note": str(error)}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*METHOD, *_VOLUME_COLUMNS, "note"])


_VOLUME_COLUMNS = [
    *("group", "rewards", "hypervolume", "low", "high"),
    *("n_checkpoints", "n_seeds", "n_prompts", "n_images"),
]


def _traded(
    cube: Cube, shared: Sequence[str], held_out: Sequence[str] | None
) -> list[str]:
    """The trained reward, and its gold or else a few held-out rewards."""
    if len(cube.epochs) == 1:
        raise ScoreTableError("no checkpoint besides the base model")
    golds = [name for name in shared if role_of(name, cube.trained) == "gold"]
    others = held_out_of(cube.trained, shared)
    if held_out is not None:
        others = [name for name in held_out if name in others]
    against = golds or others[: MOST_REWARDS - 1]
    if cube.trained not in shared or not against:
        raise ScoreTableError(
            "a hypervolume takes the trained reward and another one that was held out; "
            f"there are scores of {', '.join(shared) or 'none'}"
        )
    return [cube.trained, *against]


def _volume(
    cube: Cube, rewards: Sequence[str], bootstrap: Bootstrap
) -> dict[str, object]:
    """The row of one curve."""
    points = _points(cube, rewards)  # (seeds, prompts, epochs, rewards)

    def volume(prompts: FloatArray, seeds: FloatArray) -> FloatArray:
        means = mean_over_seeds(mean_over_prompts(points, prompts), seeds)
        return np.array([[hypervolume(draw)] for draw in means])

    sizes = [len(cube.prompts), len(cube.seeds)]
    plain = volume(*equal_weights(sizes))[0]
    spread = crossed_deviations(volume, sizes, bootstrap)
    # Without a checkpoint, or with none that counts in any draw, no spread is to be seen.
    if not spread.any():
        spread = np.full_like(spread, np.nan)
    # Noise makes the volume of the means too large, and that of resampled ones again:
    # turned round, the deviations take it off. Where there is hardly any volume the
    # deviations are upward alone, and as they are tell how much there may be.
    reach = [ends(plain, way * spread, bootstrap.confidence) for way in (1, -1)]
    low, high = np.maximum(np.min(reach, axis=0)[0], 0), np.max(reach, axis=0)[1]
    return {
        **cube.names,
        "rewards": ", ".join(rewards),
        "hypervolume": plain[0],
        "low": low[0],
        "high": high[0],
        "n_checkpoints": len(cube.epochs) - 1,
        **cube.sizes(),
    }


def _points(cube: Cube, rewards: Sequence[str]) -> FloatArray:
    """Changes in base standard deviations, shape (seeds, prompts, epochs - 1, k)."""
    ruler = cube.base_sd[cube.columns(rewards)]
    flat = [name for name, sd in zip(rewards, ruler, strict=True) if not sd > 0]
    if flat:
        raise ScoreTableError(
            f"{flat} do not vary over the base model's images of the prompts trained "
            "on, so that changes can't be counted in base standard deviations."
        )
    return cube.changes(rewards)[:, :, 1:] / ruler
