"""Methods minus one of them, on a reward of the study that all were trained on.

    python benchmarks/method_differences.py --reference tdpo_r \\
        --methods tdpo tdpo_reset_all tdpo_reset_dormant

The report compares every method with DDPO-100; this compares with any. Differences of all
rewards at the last checkpoint and at equal training reward on every prompt group, and at
equal reward queries and KL on the prompts trained on (at the highest level that has an
interval; whole paths are resampled), with 95 % intervals over prompts and seeds; p-values
are corrected by Holm for the rewards and methods of a group. With ``--prompts`` the same of
each of these prompts alone, over seeds. Beside them what part of the
critic's neurons was dormant (mean over the epochs of a run, t interval over seeds) for the
methods that measured it. The result goes to
benchmarks/results/method_differences_<reward>_<reference>.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from common import ROOT, interval, left_by, told, write

from tdpo_pipeline.overoptimization import (
    MAIN_ETA,
    compare_methods,
    furthest_levels,
    matched_differences,
    with_group,
)
from tdpo_pipeline.overoptimization.paths import Axis

DORMANT = "critic_dormant_pct"


def at_the_end(scores: pd.DataFrame, reference: str) -> Iterator[pd.DataFrame]:
    """Every method minus the reference at the last checkpoint, group by group."""
    for group in with_group(scores)["group"].unique():
        yield compare_methods(scores, reference=reference, group=group)


def matched(scores: pd.DataFrame, reference: str) -> Iterator[pd.DataFrame]:
    """The same at the highest equal level that has an interval."""
    asked: list[tuple[Axis, str]] = [("reward_queries", "seen"), ("kl", "seen")]
    asked += [("training_reward", str(g)) for g in with_group(scores)["group"].unique()]
    for along, group in asked:
        yield furthest_levels(
            matched_differences(scores, along, reference=reference, group=group)
        )


def rows_of(tables: Iterator[pd.DataFrame]) -> list[dict[str, Any]]:
    """Rows for JSON, without what isn't there."""
    return [told(row) for row in pd.concat(tables).round(4).to_dict("records")]


def dormant(method: str, reward: str) -> dict[str, Any] | None:
    """Percent of the critic's neurons that were dormant; None if nobody looked."""
    histories = left_by("history", method, reward)
    if not all(DORMANT in history for history in histories):
        return None
    return interval(pd.Series([history[DORMANT].mean() for history in histories]))


def differences(
    scores: pd.DataFrame, reference: str
) -> dict[str, list[dict[str, Any]]]:
    """All differences of a score table.

    Args:
        scores: Of methods that were trained on one reward.
        reference: The method that is subtracted.
    """
    scores = scores[scores["eta"] == MAIN_ETA]
    return {
        "last checkpoint": rows_of(at_the_end(scores, reference)),
        "matched": rows_of(matched(scores, reference)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the study's runs, and compare."""
    parser = argparse.ArgumentParser(description="Methods minus one of them.")
    parser.add_argument("--reference", required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--reward", default="aesthetic-mini")
    parser.add_argument("--prompts", nargs="*", default=[])
    given = parser.parse_args(arguments)
    methods = [given.reference, *given.methods]
    runs = {method: left_by("scores", method, given.reward) for method in methods}
    scores = pd.concat(
        [table for own in runs.values() for table in own], ignore_index=True
    )
    if unknown := sorted({*given.prompts} - {*scores["prompt"]}):
        parser.error(
            f"No run on {given.reward} was evaluated on the prompts {unknown}."
        )
    result = {
        "seeds": {method: len(own) for method, own in runs.items()},
        **differences(scores, given.reference),
        **{
            f"prompt: {prompt}": differences(
                scores[scores["prompt"] == prompt], given.reference
            )
            for prompt in given.prompts
        },
        "dormant neurons of the critic, percent": {
            m: found for m in methods if (found := dormant(m, given.reward))
        },
    }
    name = f"method_differences_{given.reward}_{given.reference}.json"
    write(ROOT / "benchmarks" / "results" / name, result)


if __name__ == "__main__":
    main()
