"""What tables of results allow to say: the rules that decide a verdict, and its words.

Each takes rows of one table and knows nothing of screens, Markdown or pages, so that all
of these say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD

ALPHA = 0.05
"""Corrected p-values up to here are called a difference."""

CORRECTED = (
    "corrected for all methods and rewards that are compared of one trained reward"
)
"""What p-values of comparisons are corrected for."""

ONE_SEED = "cannot tell: one seed of it or of the reference says nothing of others"
"""What is said of a method and a reference where one has a single training seed."""


def text_or_empty(value: object) -> str:
    """A text; empty where a table that was written and read again has none."""
    return value if isinstance(value, str) else ""


def one_seed_mark(row: Mapping[Any, Any]) -> str:
    """What stands behind the name of a method whose intervals speak of one seed alone.

    Args:
        row: With ``n_seeds``.
    """
    return " (one seed)" if row["n_seeds"] == 1 else ""


def comparison_verdict(row: Mapping[Any, Any]) -> str:
    """Whether a method has more of a reward than the reference, corrected for asking often.

    Args:
        row: Of ``compare_report``.
    """
    if pd.isna(row["difference"]):
        return str(row["note"])
    if min(row["n_seeds"], row["n_reference_seeds"]) == 1:
        return ONE_SEED
    if not row["p_holm"] <= ALPHA:
        return "cannot tell"
    return "higher" if row["difference"] > 0 else "lower"


def matched_verdict(row: Mapping[Any, Any]) -> str:
    """Whether a method has more of a reward than the reference at an equal level.

    Args:
        row: Of ``matched_report``, with a level.
    """
    if min(row["n_seeds"], row["n_reference_seeds"]) == 1:
        return ONE_SEED
    if row["low"] > 0:
        return "higher"
    return "lower" if row["high"] < 0 else "cannot tell"


def cost_verdict(row: Mapping[Any, Any]) -> str:
    """Whether a method spends more than the reference for an equal training reward.

    Args:
        row: Of ``cost_report``.
    """
    if gap := text_or_empty(row["gap"]):
        return gap
    if min(row["n_seeds"], row["n_reference_seeds"]) == 1:
        return ONE_SEED
    if row["low"] > 1:
        return "more"
    return "fewer" if row["high"] < 1 else "cannot tell"


def judged_rows(compared: pd.DataFrame) -> pd.DataFrame:
    """The row of each comparison that decides: the gold's, or else the trained reward's.

    Args:
        compared: From ``compare_report``.
    """
    rank = compared["role"].map({"gold": 0, "trained": 1}).fillna(2)
    ranked = compared.assign(rank=rank).sort_values("rank", kind="stable")
    judged = ranked.drop_duplicates(["reward", "method"]).drop(columns="rank")
    return judged.sort_index()


def telling_pairs(agreement: pd.DataFrame) -> pd.DataFrame:
    """Of the prompts trained on the gold's rows, or else those of the held-out rewards.

    Args:
        agreement: From ``pairwise_agreement``.
    """
    seen = agreement[agreement["group"] == "seen"]
    golds = seen["role"] == "gold"
    judged = seen["reward"].isin(seen.loc[golds, "reward"])
    return seen[golds | (~judged & (seen["role"] == "cross"))]


def with_comparable(volumes: pd.DataFrame) -> pd.DataFrame:
    """Add ``comparable``: whether a method has as much as any other of the same reward.

    More checkpoints dominate more, and so do those whose means rest on fewer seeds or
    images, because the noise of a mean counts where it is in its favour. So a method is
    comparable if none that has a hypervolume has more checkpoints, seeds or images.

    Args:
        volumes: From ``hypervolume_report``.
    """
    unknown = volumes["hypervolume"].isna()
    of_reward = volumes.mask(unknown).groupby(volumes["reward"])
    alike = np.logical_and.reduce(
        [
            volumes[size] == of_reward[size].transform("max")
            for size in ("n_checkpoints", "n_seeds", "n_images")
        ]
    )
    return volumes.assign(comparable=alike | unknown)


def peak_verdict(statements: Iterable[str]) -> str:
    """What the fits of one method and scored reward say together.

    Args:
        statements: Of each form; where nothing could be fitted, why.
    """
    first, *others = dict.fromkeys(statements)
    return "the two forms don't say the same" if others else first


def last_joint(joint: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of each method, or the row that says why there is none.

    Args:
        joint: The rates of ``joint_report``.
    """
    return joint.drop_duplicates(list(METHOD), keep="last").reset_index(drop=True)


def joint_verdict(row: Mapping[Any, Any]) -> str:
    """Whether all held-out rewards rose together more often than they fell together.

    How often either happens where nothing changed depends on how alike the rewards are;
    the two are then equally frequent, however alike they are.

    Args:
        row: Of the rates of ``joint_report``.
    """
    if pd.isna(row["dominated"]):
        return str(row["note"])
    if row["net_low"] > 0:
        return "all rose together on more prompts than all fell"
    if row["net_high"] < 0:
        return "all fell together on more prompts than all rose"
    return "cannot tell which was on more prompts"
