"""What the score table holds: its columns, its prompt groups, each proxy's gold.

The score table has one row per evaluated image: the columns of ``INDEX_COLUMNS``,
then one float column per reward, the golds included. Epoch 0 is the untouched base
model. Equal ``(prompt_set, prompt, image, eta)`` means equal noise, at every epoch
and for every method, which is what makes differences paired.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

INDEX_COLUMNS = (
    "run",
    "method",
    "reward",
    "seed",
    "epoch",
    "reward_queries",
    "kl_to_base",
    "eta",
    "prompt_set",
    "prompt",
    "seen",
    "image",
)

MAIN_ETA = 1.0
"""Figures and verdicts are of ancestral sampling, in which policy gradients train."""

GROUPS = {
    "seen": "prompts trained on",
    "untrained": "simple animals not trained on",
    "unseen": "unseen animals",
    "complex": "complex prompts",
}
"""Prompt groups in the order of the figures, and how to call them."""

_GROUP_OF_SET = {
    "simple_animals": "untrained",
    "unseen_animals": "unseen",
    "unseen_animals_6": "unseen",
    "complex": "complex",
    "unseen_animals_6_unseen_activities": "unseen_animals_unseen_activities",
}

# Overoptimization is claimed only against the gold that a proxy was trained to
# predict. Against anything else a falling score says that the rewards disagree.
_GOLDS = {
    "aesthetic-mini": "gold_taste",
    "pick-mini": "gold_match",
    "hps-mini": "gold_match",
    "imagereward-mini": "gold_match",
}


class ScoreTableError(ValueError):
    """A history or score table is not what it should be."""


_T = TypeVar("_T")
_golds: ContextVar[Mapping[str, str]] = ContextVar("golds", default=_GOLDS)
_NO_PARTS: Mapping[str, Collection[str]] = MappingProxyType({})
_parts: ContextVar[Mapping[str, Collection[str]]] = ContextVar(
    "parts", default=_NO_PARTS
)


_checkpoint: ContextVar[str] = ContextVar("checkpoint", default="epoch")


@contextmanager
def known_rewards(
    *,
    golds: Mapping[str, str] | None = None,
    parts: Mapping[str, Collection[str]] | None = None,
) -> Iterator[None]:
    """Inside the block, this is what is known of the trained rewards.

    Args:
        golds: The gold reward of each trained reward that has one; None: as outside,
            where they are Menagerie's. Tables from elsewhere have rewards and golds of
            their own.
        parts: The rewards that each weighted ensemble is the sum of, by its name; None:
            as outside, where no trained reward is an ensemble.
    """
    with _set(_golds, golds), _set(_parts, parts):
        yield


@contextmanager
def checkpoints_called(word: str) -> Iterator[None]:
    """Inside the block texts call a checkpoint this, with its number behind it.

    Args:
        word: "epoch", as outside; or "checkpoint", where a table from elsewhere doesn't
            number its epochs.
    """
    with _set(_checkpoint, word):
        yield


def checkpoint_word() -> str:
    """What texts call a checkpoint."""
    return _checkpoint.get()


@contextmanager
def _set(variable: ContextVar[_T], value: _T | None) -> Iterator[None]:
    """Inside the block the variable has this value; None leaves it as it is."""
    if value is None:
        yield
        return
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def gold_of(reward: str, parts: Collection[str] | None = None) -> str | None:
    """The one gold reward that ``reward`` was trained to predict.

    Args:
        reward: Its name.
        parts: The rewards that it is the weighted sum of; None: as known inside the
            block of ``known_rewards``.

    Returns:
        Its name, for an ensemble the gold that all its parts share; None for a reward
        without one: a gold itself, JPEG sizes (they are what they claim to be),
        real-world scorers (nobody knows their gold), and a sum of proxies of several.
    """
    golds = _golds.get()
    if reward in golds:
        return golds[reward]
    made_of = _parts.get().get(reward, ()) if parts is None else parts
    own = {golds.get(part) for part in made_of}
    return own.pop() if len(own) == 1 else None


ROLES = ("trained", "part", "gold", "cross", "size")
"""How a scored reward may stand to the trained one, in the order of tables: it is that
one, a part of that ensemble, its gold, none of these ("cross", which is *held out*), or a
size that nobody takes for a preference."""

ASKED = ("trained", "part", "gold")
"""Roles of what training was for."""

SIZES = ("jpeg_compressibility", "jpeg_incompressibility")
"""Measurements that some runs train on, and none is held against: each is the other's
negative, and that a file is smaller makes a picture neither better nor worse."""


def role_of(scored: str, trained: str) -> str:
    """How a scored reward stands to the trained one, one of ``ROLES``.

    A part of an ensemble is trained on, whatever the ensemble does to it: its rise says
    nothing of what was left out, and its fall is a trade within what was asked for.
    """
    if scored == trained:
        return "trained"
    if scored in _parts.get().get(trained, ()):
        return "part"
    if scored == gold_of(trained):
        return "gold"
    return "size" if scored in SIZES else "cross"


def held_out_of(trained: str, scored: Iterable[str]) -> list[str]:
    """Those of the scored rewards that are held out of training.

    Golds are apart, and ``SIZES`` say nothing for or against a run.
    """
    return [name for name in scored if role_of(name, trained) == "cross"]


def reward_columns(scores: pd.DataFrame) -> list[str]:
    """Names of the reward columns, in the table's order.

    Raises:
        ScoreTableError: If an index column is missing, or no reward is left.
    """
    missing = [name for name in INDEX_COLUMNS if name not in scores.columns]
    if missing:
        raise ScoreTableError(
            f"The score table lacks the columns {missing}; it has "
            f"{list(scores.columns)}. Evaluate the runs again."
        )
    known = {*INDEX_COLUMNS, "group"}
    rewards = [name for name in scores.columns if name not in known]
    if not rewards:
        raise ScoreTableError("The score table has no reward column.")
    return rewards


IMAGE_KEYS = ("run", "epoch", "eta", "prompt_set", "prompt", "image")
"""What one row of the score table is of."""


def run_text(row: Mapping[Any, object]) -> str:
    """What a row of runs of one method is of, such as "tdpo_r on aesthetic"."""
    return f"{row['method']} on {row['reward']}"


def words_of(names: Mapping[Any, object]) -> str:
    """What a row is of, in words, such as "run a-b-s0, epoch 1, prompt a cat"."""
    return ", ".join(f"{name} {value}" for name, value in names.items())


def check_scores(scores: pd.DataFrame) -> None:
    """Refuse a score table that would give wrong numbers without a word.

    A reward that no run of a method (trained on one reward) was scored by is fine: it is
    left out for that method.

    Raises:
        ScoreTableError: If the table is empty, lacks a column, holds an image twice, an
            epoch or a seed is no whole number, "seen" is neither true nor false, a reward
            is no number, or is NaN or infinite for some of a method's images.
    """
    rewards = reward_columns(scores)
    if scores.empty:
        raise ScoreTableError("The score table has no rows. Evaluate the runs.")
    _check_kinds(scores, rewards)
    twice = scores.duplicated(list(IMAGE_KEYS))
    if twice.any():
        first = scores[list(IMAGE_KEYS)][twice].iloc[0].to_dict()
        raise ScoreTableError(
            f"{int(twice.sum())} rows of the score table are there more than once; the "
            f"first is {words_of(first)}. Several images of a prompt are told apart by "
            "the column 'image'; or were tables put together twice?"
        )
    for name in rewards:
        values = scores[name].astype("float64")
        good = np.isfinite(values)
        if good.all():
            continue
        method = [scores["method"], scores["reward"]]
        scored = values.notna().groupby(method).transform("any")
        bad = ~good & scored
        if bad.any():
            where = words_of(scores[["run", "epoch", "prompt"]][bad].iloc[0].to_dict())
            raise ScoreTableError(
                f"The reward '{name}' is NaN or infinite for {int(bad.sum())} images; "
                f"the first is {where}. A mean over the others would compare other "
                "images at each checkpoint. Score them again, or leave the reward out."
            )


def _check_kinds(scores: pd.DataFrame, rewards: Sequence[str]) -> None:
    """Refuse values that would be taken for others: 0.5 for epoch 0, "False" for true."""
    for name in ("epoch", "seed"):
        fraction = _numbers(scores[name]) % 1 != 0  # NaN too
        if fraction.any():
            raise ScoreTableError(
                f"The column '{name}' needs whole numbers; there is "
                f"{scores[name][fraction].iloc[0]}."
            )
    neither = ~scores["seen"].isin([True, False])
    if neither.any():
        raise ScoreTableError(
            "The column 'seen' needs True or False; there is "
            f"{scores['seen'][neither].iloc[0]} as {scores['seen'].dtype}."
        )
    texts = [
        name
        for name in rewards
        if (np.isnan(_numbers(scores[name])) & scores[name].notna().to_numpy()).any()
    ]
    if texts:
        raise ScoreTableError(
            f"The columns {texts} are no numbers. Every column besides "
            f"{list(INDEX_COLUMNS)} is taken for a reward: leave them out."
        )


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    """A column of any type as numbers; NaN where there is none."""
    values = pd.to_numeric(column, errors="coerce")
    return values.to_numpy(np.float64, na_value=np.nan)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Inside the block errors begin with what the rows are of.

    Raises:
        ScoreTableError: With ``where`` in front.
    """
    try:
        yield
    except ScoreTableError as error:
        raise ScoreTableError(f"{where}: {error}") from error


def with_group(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``group``: "seen" where trained on, else by prompt set.

    A prompt set without a usual group is a group of its own name. A prompt that is in
    several sets of a group is of the first of them alone, and each of its pictures is
    there once: counted twice, they would pass for independent ones.
    """
    by_set = scores["prompt_set"].astype(str)
    by_set = by_set.map(_GROUP_OF_SET).fillna(by_set)
    grouped = scores.assign(group=by_set.mask(scores["seen"].astype(bool), "seen"))
    of_prompt = grouped.groupby(["group", "prompt"], sort=False)["prompt_set"]
    grouped = grouped.assign(prompt_set=of_prompt.transform("first"))
    return grouped[~grouped.duplicated(list(IMAGE_KEYS))]


def ordered_groups(groups: Iterable[str]) -> list[str]:
    """The groups at hand: the usual ones first in their order, then the others."""
    present = set(groups)
    usual = [group for group in GROUPS if group in present]
    return usual + sorted(present - set(usual))


def group_label(group: str) -> str:
    """How to call a prompt group in a figure or a text."""
    return GROUPS.get(group, group.replace("_", " "))
