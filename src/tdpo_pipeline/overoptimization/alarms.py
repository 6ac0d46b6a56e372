"""Were the alarms right? The online test of each run against what became of its gold.

``training.early_stop`` watches held-out rewards and never a gold. Where a gold was scored
every epoch, as in Menagerie, each finished run is one trial: was there an alarm, and did
the gold fall? Runs in which both happened or neither did speak for the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD, epoch_samples
from tdpo_pipeline.overoptimization.histories import (
    check_history,
    run_of,
    was_scored,
)
from tdpo_pipeline.overoptimization.intervals import BOOTSTRAP, exact_interval
from tdpo_pipeline.overoptimization.onset import PeakSet, epoch_peak_set
from tdpo_pipeline.overoptimization.stopping import (
    ALPHA,
    alarm_of_run,
    checked_run,
    epoch_means,
)
from tdpo_pipeline.overoptimization.tables import ScoreTableError, gold_of

FELL, NOT_SHOWN = "fell", "no fall shown"
"""What became of a gold: its last epoch is below an earlier one, or may be the highest."""

AT_END, AT_ALARM = "by the end", "at the alarm"
"""When that is asked; of a run without an alarm, at the end both times."""

_RUN_COLUMNS = [
    *("run", "method", "reward", "seed", "judge", "epochs", "alarm", "onset"),
    *("gold_peak", "gold_low", "gold_high", AT_END, AT_ALARM, "note"),
]


def judge_alarms(
    history: pd.DataFrame,
    *,
    held_out: Sequence[str],
    alpha: float = ALPHA,
    min_epochs: int = 5,
    horizons: Mapping[str, int] | None = None,
    confidence: float = BOOTSTRAP.confidence,
) -> pd.DataFrame:
    """The alarm of each run, and what became of its gold.

    Args:
        history: Histories of any number of runs, with the columns run, method, reward
            and seed.
        held_out: Rewards that the test watches, of each run those that it was scored by;
            what was trained on and the gold are left out.
        alpha: Rate of false alarms.
        min_epochs: Epochs before which there is no alarm.
        horizons: Planned epochs by method; by default as many as a run has.
        confidence: Of the sets in which a gold's highest epoch lies.

    Returns:
        One row per run: run, method, reward, seed, judge (the gold), epochs (rows of the
        history); alarm and onset (positions as in ``stopping``; NaN without an alarm);
        gold_peak (its best epoch's position) with the ends gold_low and gold_high of its
        confidence set; ``AT_END`` and ``AT_ALARM``, each ``FELL`` or ``NOT_SHOWN``; note:
        why a run can't be judged, whose other columns are NaN.
    """
    rows = []
    for (method, trained), runs in history.groupby(list(METHOD), sort=True):
        for _, run in runs.groupby("run", sort=True):
            head = {name: run[name].iloc[0] for name in ("run", *METHOD, "seed")}
            try:
                found = _judged(
                    run,
                    str(trained),
                    held_out,
                    confidence,
                    alpha=alpha,
                    min_epochs=min_epochs,
                    horizon=(horizons or {}).get(str(method)),
                )
            except ScoreTableError as error:
                found = {"note": str(error)}
            rows.append(head | found)
    return pd.DataFrame(rows, columns=_RUN_COLUMNS)


def _judged(
    run: pd.DataFrame,
    trained: str,
    held_out: Sequence[str],
    confidence: float,
    *,
    alpha: float,
    min_epochs: int,
    horizon: int | None,
) -> dict[str, object]:
    """The columns of ``judge_alarms`` from the judge on."""
    gold = gold_of(trained)
    if gold is None or not was_scored(run, gold):
        raise ScoreTableError("no gold was scored in training")
    run = checked_run(run)
    if len(run) < max(min_epochs, 2):
        raise ScoreTableError(
            f"{run_of(run)} has too few epochs for an alarm ({len(run)})"
        )
    alarm = alarm_of_run(
        run,
        [name for name in held_out if name != gold and was_scored(run, name)],
        trained=trained,
        alpha=alpha,
        min_epochs=min_epochs,
        horizon=horizon,
    )
    check_history(run, [f"{gold}_std"])
    means, errors = epoch_means(run, gold)
    # Where the others' errors are those of a change since the first epoch, it has none; its
    # own samples have, and it may be the best.
    first = run[f"{gold}_std"].iloc[0] / np.sqrt(epoch_samples(run).iloc[0])
    errors = np.where(np.isnan(errors), first, errors)
    peak = epoch_peak_set(means, errors, confidence)
    seen = len(run) if alarm is None else alarm.position + 1
    then = epoch_peak_set(means[:seen], errors[:seen], confidence)
    return {
        "judge": gold,
        "epochs": len(run),
        "alarm": np.nan if alarm is None else alarm.position,
        "onset": np.nan if alarm is None else alarm.onset,
        "gold_peak": peak.peak,
        "gold_low": peak.first,
        "gold_high": peak.last,
        AT_END: _outcome(peak, len(run)),
        AT_ALARM: _outcome(then, seen),
        "note": "",
    }


def _outcome(peak: PeakSet, epochs: int) -> str:
    return NOT_SHOWN if peak.last == epochs - 1 else FELL


def count_alarms(
    alarms: pd.DataFrame, *, confidence: float = BOOTSTRAP.confidence
) -> pd.DataFrame:
    """How often alarms and falls of the gold went together, by trained reward.

    Args:
        alarms: From ``judge_alarms``.
        confidence: Coverage of the intervals, Clopper's and Pearson's for as many
            independent trials as runs.

    Returns:
        Two rows per trained reward, for ``AT_END`` and ``AT_ALARM`` (one, without a when,
        if no run can be judged): reward, judge, when, n_runs (judged); the runs in
        alarm_fell, alarm_not (alarm, and no fall of the gold shown), silent_fell,
        silent_not; and, each with low and high, found (part of the falls with an alarm),
        false (part of the runs without a fall that had one), right (part of the alarms
        with a fall), NaN where there is none to count; note: which runs aren't judged.
    """
    return pd.DataFrame(
        [
            {"reward": reward, **row, "note": "; ".join(_notes(runs))}
            for reward, runs in alarms.groupby("reward", sort=True)
            for row in _counted(runs[runs[AT_END].notna()], confidence)
        ]
    )


def _notes(runs: pd.DataFrame) -> list[str]:
    """Why runs can't be judged, each reason once."""
    # Of a table that was read back, an empty note is NaN.
    return [note for note in runs["note"].dropna().unique() if note]


def _counted(runs: pd.DataFrame, confidence: float) -> Iterator[dict[str, object]]:
    """The rows of one trained reward.

    Args:
        runs: Those of ``judge_alarms`` that can be judged.
        confidence: Coverage of the intervals.
    """
    alarmed = runs["alarm"].notna()
    for when in (AT_END, AT_ALARM) if len(runs) else (None,):
        fell = runs[when or AT_END] == FELL
        both, neither = int((alarmed & fell).sum()), int((~alarmed & ~fell).sum())
        alone, missed = int((alarmed & ~fell).sum()), int((~alarmed & fell).sum())
        yield {
            "judge": runs["judge"].iloc[0] if len(runs) else None,
            "when": when,
            "n_runs": len(runs),
            "alarm_fell": both,
            "alarm_not": alone,
            "silent_fell": missed,
            "silent_not": neither,
            **_rate("found", both, both + missed, confidence),
            **_rate("false", alone, alone + neither, confidence),
            **_rate("right", both, both + alone, confidence),
        }


def _rate(name: str, count: int, of: int, confidence: float) -> dict[str, float]:
    """A part with its exact interval; NaN of nothing."""
    if not of:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    low, high = exact_interval(count / of, of, confidence)
    return {name: count / of, f"{name}_low": low, f"{name}_high": high}
