"""What the history of a training must be, before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.tables import ScoreTableError


def check_history(history: pd.DataFrame, columns: Sequence[str] = ()) -> None:
    """Refuse a history that would give made-up numbers without a word.

    Rows that are there twice pass for further seeds, and a NaN drops out of a mean that
    still counts its seed. Columns that nobody reads may hold what they will.

    Args:
        history: Of one run or several.
        columns: What is read of it, for every epoch.

    Raises:
        ScoreTableError: If an epoch of a seed is there twice, or a column is missing,
            NaN or infinite.
    """
    # The history of a run that is alone may not name it.
    names = [n for n in ("method", "reward", "seed", "epoch") if n in history.columns]
    twice = history.duplicated(names, keep=False)
    if twice.any():
        same = (history[names] == history.loc[twice, names].iloc[0]).all(axis=1)
        raise ScoreTableError(
            f"In the history, {_epoch_of(history[twice])} is there {int(same.sum())} "
            "times, perhaps under another run's name: one seed would pass for several. "
            "Were tables put together twice?"
        )
    missing = [name for name in columns if name not in history.columns]
    if missing:
        raise ScoreTableError(
            f"The history of {run_of(history)} lacks the columns {missing}; it has "
            f"{list(history.columns)}."
        )
    for name in columns:
        bad = ~np.isfinite(history[name].to_numpy(np.float64))
        if bad.any():
            raise ScoreTableError(
                f"The column '{name}' is NaN or infinite in {_epoch_of(history[bad])}: "
                "nobody knows what that epoch's value was. Train the run again, or "
                "leave it out."
            )


def was_scored(history: pd.DataFrame, reward: str) -> bool:
    """Whether a reward was scored in training, if only in some epochs."""
    name = f"{reward}_mean"
    return name in history.columns and bool(history[name].notna().any())


def run_of(history: pd.DataFrame) -> str:
    """What to call the first run of a history."""
    named = "run" in history.columns and len(history)
    return str(history["run"].iloc[0]) if named else "the run"


def _epoch_of(history: pd.DataFrame) -> str:
    """What to call the first row of a history."""
    return f"epoch {history['epoch'].iloc[0]} of {run_of(history)}"
