"""What stopping early is worth on the runs that have been trained, judged by gold.

    python benchmarks/stopping_rules.py --histories data/07_model_output/history

Reads the histories (<method>/<reward>/s<seed>.csv) of all runs there, and for every rule
reports the regret against the run's best epoch in base standard deviations of the trained
reward's own gold: mean over seeds with 95 % t intervals. The onset rules watch the
rewards of ``training.early_stop.held_out`` and see no gold; the fixed epoch and the KL
budget were tuned on the gold of the other seeds. Beside them: how the alarms lie to the
gold's best epoch. Nothing is trained, and a run without gold is left out. The result goes
to benchmarks/results/stopping_rules.json, run by run to a CSV beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from common import ROOT, output_argument, parameters, write

from tdpo_pipeline.overoptimization import stopping_regrets, summarise_regrets


def read_histories(folder: Path) -> pd.DataFrame:
    """All histories under a folder, with the columns run, method, reward and seed."""
    tables = []
    for path in sorted(folder.glob("*/*/s*.csv")):
        method, reward = path.parts[-3:-1]
        names = {"run": f"{method}-{reward}-{path.stem}", "method": method}
        names |= {"reward": reward, "seed": int(path.stem.removeprefix("s"))}
        tables.append(pd.read_csv(path).assign(**names))
    if not tables:
        raise SystemExit(f"No history <method>/<reward>/s<seed>.csv in {folder}.")
    return pd.concat(tables, ignore_index=True)


def alarms(regrets: pd.DataFrame) -> dict[str, int]:
    """How many runs got an alarm, and where the onset lay to the gold's best epoch."""
    table = regrets.pivot(index="run", columns="rule", values="position")
    epochs = regrets.groupby("run")["epochs"].first().reindex(table.index)
    onset, best = table["onset, rollback"], table["best"]
    alarmed, fell = onset < epochs - 1, best < epochs - 1
    return {
        "runs": len(table),
        "runs with an alarm": int(alarmed.sum()),
        "onset before the gold's best epoch": int((alarmed & (onset < best)).sum()),
        "onset after it": int((alarmed & (onset > best)).sum()),
        "no alarm though gold was best before the end": int((~alarmed & fell).sum()),
    }


def main() -> None:
    """Judge all rules on all runs, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--histories", type=Path, default=ROOT / "data/07_model_output/history"
    )
    output_argument(parser, "stopping_rules.json")
    arguments = parser.parse_args()
    stop = parameters("base")["training"].early_stop
    regrets = stopping_regrets(
        read_histories(arguments.histories),
        held_out=stop.held_out,
        alpha=stop.alpha,
        min_epochs=stop.min_epochs,
    )
    regrets.round(4).to_csv(arguments.output.with_suffix(".csv"), index=False)
    summary = summarise_regrets(regrets).round(4)
    result = {
        "command": "python benchmarks/stopping_rules.py",
        "held out": list(stop.held_out),
        "alpha": stop.alpha,
        "min_epochs": stop.min_epochs,
        "alarms": alarms(regrets),
        "regret": summary.astype(object)
        .where(summary.notna(), None)
        .to_dict("records"),
    }
    write(arguments.output, result)


if __name__ == "__main__":
    main()
