"""What a study found: how far each reward moved, and whether its gold fell."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.curves import (
    METHOD,
    RUN,
    in_base_sd,
)
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    Estimate,
    common_epochs,
    drop_from_peak,
    paired_difference,
)
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    gold_of,
    ordered_groups,
    with_group,
)

Verdict = Literal["rose", "fell", "cannot tell"]


def verdict(change: Estimate) -> Verdict:
    """What an interval allows to say: only what holds at both of its ends.

    Without an interval (NaN) nothing can be told.
    """
    if change.low > 0:
        return "rose"
    return "fell" if change.high < 0 else "cannot tell"


def final_rows(curves: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of every curve that all of its seeds have.

    Args:
        curves: From ``reward_curves``, for methods or for runs.

    Returns:
        Its rows. Where that is the base model, the difference and its interval are NaN:
        nothing was trained that all seeds have.
    """
    unit = [name for name in RUN if name in curves.columns] + ["eta", "group"]
    complete = curves[
        curves["n_seeds"] == curves.groupby(unit)["n_seeds"].transform("max")
    ]
    last = complete.groupby(unit)["epoch"].transform("max")
    rows = complete[complete["epoch"] == last].reset_index(drop=True)
    rows.loc[rows["epoch"] == 0, ["difference", "low", "high"]] = np.nan
    return rows


def summarise_runs(history: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """One row per run, eta, prompt group and scored reward, at the last checkpoint.

    Args:
        history: History table with the column ``run``.
        curves: From ``reward_curves`` by run.

    Returns:
        The columns of ``reward_curves``, with the differences in base standard
        deviations (``difference_sd``, ``low_sd``, ``high_sd``) and ``epochs_trained``.

    Raises:
        ScoreTableError: If a run has scores but no history.
    """
    rows = in_base_sd(final_rows(curves))
    trained = history.groupby("run")["epoch"].max()
    missing = sorted(set(rows["run"]) - set(trained.index))
    if missing:
        raise ScoreTableError(f"Scores, but no history, of the runs {missing}.")
    return rows.assign(epochs_trained=rows["run"].map(trained))


def summarise_methods(curves: pd.DataFrame) -> pd.DataFrame:
    """One row per method, trained reward, eta, group and scored reward, seeds pooled.

    Args:
        curves: From ``reward_curves`` by method.
    """
    return in_base_sd(final_rows(curves))


def gold_report(
    scores: pd.DataFrame, *, bootstrap: Bootstrap = BOOTSTRAP
) -> pd.DataFrame:
    """Whether the gold of each trained proxy fell: below the base, below its peak.

    Only a proxy's own gold is reported (``gold_of``), at eta 1. The change from the
    peak has a simultaneous interval over all checkpoints, because the peak was picked
    (see ``drop_from_peak``).

    Returns:
        One row per method, reward and group: method, reward, gold, group, epoch (the
        last), change, low, high, verdict (against the base model), peak_epoch,
        peak_change, peak_low, peak_high, peak_verdict ("fell", "cannot tell", or
        "is at its peak"), n_seeds, n_prompts, n_images. Where the seeds have only the
        base model in common, changes are NaN and nothing can be told. Empty if no
        trained reward has a gold that was scored.
    """
    check_scores(scores)
    scores = with_group(scores[scores["eta"] == MAIN_ETA])
    rows = []
    for (method, reward), unit in scores.groupby(list(METHOD), sort=True):
        gold = gold_of(str(reward))
        if gold is None or gold not in unit.columns or unit[gold].isna().all():
            continue
        for group in ordered_groups(unit["group"]):
            found = _gold_row(unit[unit["group"] == group], gold, bootstrap)
            head = {"method": method, "reward": reward, "gold": gold, "group": group}
            rows.append({**head, **found})
    return pd.DataFrame(rows, columns=_GOLD_COLUMNS)


_GOLD_COLUMNS = [
    *("method", "reward", "gold", "group", "epoch"),
    *("change", "low", "high", "verdict"),
    *("peak_epoch", "peak_change", "peak_low", "peak_high", "peak_verdict"),
    *("n_seeds", "n_prompts", "n_images"),
]


def _gold_row(
    images: pd.DataFrame, gold: str, bootstrap: Bootstrap
) -> dict[str, object]:
    """The columns of ``gold_report`` after the group."""
    if common_epochs(images) == [0]:
        return _nothing_in_common(images)
    peak = drop_from_peak(images, gold, bootstrap=bootstrap)
    change = paired_difference(
        images, gold, epoch=peak.final_epoch, bootstrap=bootstrap
    )
    return {
        "epoch": peak.final_epoch,
        "change": change.mean,
        "low": change.low,
        "high": change.high,
        "verdict": verdict(change),
        "peak_epoch": peak.peak_epoch,
        "peak_change": peak.change.mean,
        "peak_low": peak.change.low,
        "peak_high": peak.change.high,
        "peak_verdict": _peak_verdict(peak.change),
        "n_seeds": change.n_seeds,
        "n_prompts": change.n_prompts,
        "n_images": change.n_images,
    }


def _nothing_in_common(images: pd.DataFrame) -> dict[str, object]:
    """The row of seeds that were evaluated at different checkpoints each."""
    base = images[images["epoch"] == 0]
    changes = [
        name for name in _GOLD_COLUMNS if name.endswith(("change", "low", "high"))
    ]
    return {
        **dict.fromkeys(changes, np.nan),
        **dict.fromkeys(("epoch", "peak_epoch"), 0),
        **dict.fromkeys(("verdict", "peak_verdict"), "cannot tell"),
        "n_seeds": base["seed"].nunique(),
        "n_prompts": len(base[["prompt_set", "prompt"]].drop_duplicates()),
        "n_images": len(base),
    }


def _peak_verdict(change: Estimate) -> str:
    """The verdict on last minus peak, which can't be a rise."""
    if change.mean == 0 and np.isnan(change.low):
        return "is at its peak"
    return verdict(change)
