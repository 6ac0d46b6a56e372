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

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from common import ROOT, STUDY, parameters, plain, told, write

from tdpo_pipeline.overoptimization import count_alarms
from tdpo_pipeline.pipelines.reporting.nodes import judge_stops

HISTORIES = STUDY / "history"
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
    history: pd.DataFrame, params: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each alpha, trained reward (and all of them) and time of the fall.

    Args:
        history: Of all runs.
        params: The project's parameters: what is judged is judged as in the report.
    """
    training = plain(params["training"])
    for alpha in ALPHAS:
        *_, alarms, counts = judge_stops(
            history,
            params["reporting"]["held_out"],
            alpha,
            training["early_stop"]["min_epochs"],
            training["epochs"],
            params["methods"],
            params["rewards"],
        )
        together = count_alarms(alarms.assign(reward=ALL)).drop(columns="judge")
        for row in pd.concat([counts, together]).round(3).to_dict("records"):
            yield {"alpha": alpha, **told(row)}


def main() -> None:
    """Judge the study's runs, and write the result."""
    history = histories(HISTORIES)
    rows = calibration(history, parameters("study"))
    result = {"runs": history["run"].nunique(), "rows": list(rows)}
    write(ROOT / "benchmarks" / "results" / "onset_calibration.json", result)


if __name__ == "__main__":
    main()
