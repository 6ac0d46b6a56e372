"""The onset test's stated rate of false alarms, held against the golds of real runs.

    python benchmarks/onset_calibration.py

The test of ``training.early_stop`` promises its rate for runs in which no *held-out*
reward falls (onset_test.py checks that on simulated ones). Whether its alarms are of use
is another question: did the *gold* fall, which it never sees? Of the study's runs (their
histories are in the repository), for each alpha: how many falls had an alarm, and how
many runs without a fall had one, by trained reward and of all; a fall being one shown by
the end of the run, or by the time of the alarm. 95 % intervals are Clopper and Pearson's.
The result goes to benchmarks/results/onset_calibration.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from common import ROOT, parameters, plain, write

from tdpo_pipeline.overoptimization import count_alarms, judge_alarms

HISTORIES = ROOT / "data" / "study" / "07_model_output" / "history"
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
ALL = "all"


def histories(folder: Path) -> pd.DataFrame:
    """The histories of all runs, each with its name, method, reward and seed."""
    tables = []
    for path in sorted(folder.glob("*/*/s*.csv")):
        method, reward, name = *path.parts[-3:-1], path.stem
        run = {"method": method, "reward": reward, "seed": int(name[1:])}
        table = pd.read_csv(path)
        tables.append(table.assign(**run, run=f"{method}-{reward}-{name}"))
    return pd.concat(tables, ignore_index=True)


def calibration(
    history: pd.DataFrame, *, held_out: list[str], min_epochs: int
) -> Iterator[dict[str, Any]]:
    """A row for each alpha, trained reward (and all of them) and time of the fall.

    Args:
        history: Of all runs.
        held_out: Rewards that the test watches.
        min_epochs: Epochs before which it gives no alarm.
    """
    for alpha in ALPHAS:
        alarms = judge_alarms(
            history, held_out=held_out, alpha=alpha, min_epochs=min_epochs
        )
        together = alarms.assign(reward=ALL)
        counts = pd.concat([count_alarms(alarms), count_alarms(together)])
        for row in counts[counts["n_runs"] > 0].round(3).to_dict("records"):
            told = {k: v for k, v in row.items() if pd.notna(v) and v != ""}
            yield {"alpha": alpha, **told}


def main() -> None:
    """Judge the study's runs, and write the result."""
    params = parameters("study")
    early_stop = plain(params["training"])["early_stop"]
    history = histories(HISTORIES)
    rows = calibration(
        history,
        held_out=list(params["reporting"]["held_out"]),
        min_epochs=early_stop["min_epochs"],
    )
    result = {"runs": history["run"].nunique(), "rows": list(rows)}
    write(ROOT / "benchmarks" / "results" / "onset_calibration.json", result)


if __name__ == "__main__":
    main()
