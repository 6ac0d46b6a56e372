"""Is it better to train on several proxies of one gold than on one?

    python benchmarks/several_rewards.py

Of the study's runs (`dvc repro`): TDPO and AlignProp on `pick-mini`, on the sum of it
and `hps-mini`, on that of three proxies, and TDPO on `pick-mini` with a constraint that
`imagereward-mini` must not fall, or has to rise, all on the same prompts and of the
same gold. Each training is compared with that of its method on `pick-mini` alone
(TDPO's also with the first constrained one), by every proxy and by the gold: at the
last checkpoint, and at equal KL and an equal rise of `pick-mini`, where both have been.
A proxy that neither of the two saw is marked as held out. Intervals and p-values are
those of the report (`tdpo_pipeline.overoptimization`), p-values corrected for the
judges of one comparison. What hasn't been run is left out, and named. The tables go to
benchmarks/results/several_rewards.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd
from common import ADD_RUNS, ROOT, STUDY, write

from tdpo_pipeline.overoptimization import (
    MAIN_ETA,
    ScoreTableError,
    compare_methods,
    final_rows,
    furthest_levels,
    matched_differences,
    reward_curves,
    with_group,
)

SCORES = STUDY / "scores"
ONE = "pick-mini"
PROXIES = ("pick-mini", "hps-mini", "imagereward-mini")
JUDGES = (*PROXIES, "aesthetic-mini", "gold_match")
ALONG = ("kl", "training_reward")


class Training(NamedTuple):
    """A method on a trained reward, and the proxies that it saw."""

    method: str
    reward: str
    saw: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called among those that it is compared with."""
        return f"{self.method} on {self.reward}"


TRAININGS = (
    *(
        training
        for method in ("tdpo", "alignprop_2023")
        for training in (
            Training(method, ONE, PROXIES[:1]),
            Training(method, "pick_hps-mini", PROXIES[:2]),
            Training(method, "pick_hps_imagereward-mini", PROXIES),
        )
    ),
    Training("tdpo_constrained_gain", ONE, ("pick-mini", "imagereward-mini")),
    Training("tdpo_constrained", ONE, ("pick-mini", "imagereward-mini")),
)
CONSTRAINED = TRAININGS[-1]


def reference_of(training: Training) -> Training:
    """The training on one proxy that another is compared with."""
    method, *_ = training.method.split("_constrained")
    return next(t for t in TRAININGS if (t.method, t.reward) == (method, ONE))


def one_comparison(runs: dict[Training, pd.DataFrame]) -> pd.DataFrame:
    """Scores of several trainings, as of methods that were trained on ``ONE``.

    Args:
        runs: Score table of each training, all seeds together.
    """
    tables = [
        table[table["eta"] == MAIN_ETA].assign(method=training.name, reward=ONE)
        for training, table in runs.items()
    ]
    return pd.concat(tables, ignore_index=True)


def at_the_end(scores: pd.DataFrame, reference: str) -> Iterator[pd.DataFrame]:
    """The other training minus the reference at the last checkpoint, group by group."""
    for group in with_group(scores)["group"].unique():
        yield compare_methods(
            scores, reference=reference, group=group, rewards=JUDGES
        ).drop(columns=["reward", "role", "seeds_needed", "note"])


def matched(scores: pd.DataFrame, reference: str) -> Iterator[pd.DataFrame]:
    """The same at the highest level with an interval, on the prompts trained on."""
    for along in ALONG:
        table = furthest_levels(matched_differences(scores, along, reference=reference))
        yield table[table["scored"].isin(JUDGES)].drop(columns=["reward", "role"])


def records(table: pd.DataFrame, saw: frozenset[str]) -> list[dict[str, Any]]:
    """Rows for JSON, without what isn't there, saying which proxies were held out."""
    held_out = table["scored"].isin(set(JUDGES) - saw - {"gold_match"})
    rows = table.assign(held_out=held_out).round(4).to_dict("records")
    return [{k: v for k, v in row.items() if pd.notna(v)} for row in rows]


def changes(training: Training, table: pd.DataFrame) -> list[dict[str, Any]]:
    """What one training changed by its last checkpoint, on every prompt group."""
    curves = reward_curves(one_comparison({training: table}))
    last = final_rows(curves)
    kept = last[last["scored"].isin(JUDGES)].drop(columns=["reward", "role", "eta"])
    return records(kept, frozenset(training.saw))


def comparison(
    training: Training, reference: Training, runs: dict[Training, pd.DataFrame]
) -> dict[str, Any]:
    """A training minus that on one proxy."""
    scores = one_comparison({t: runs[t] for t in (reference, training)})
    saw = frozenset((*training.saw, *reference.saw))
    return {
        "last checkpoint": records(pd.concat(at_the_end(scores, reference.name)), saw),
        "matched": records(pd.concat(matched(scores, reference.name)), saw),
    }


def main() -> None:
    """Read the study's scores and compare."""
    runs = {}
    for training in TRAININGS:
        files = sorted((SCORES / training.method / training.reward).glob("s*.parquet"))
        if files:
            runs[training] = pd.concat(map(pd.read_parquet, files))
    several = [t for t in runs if reference_of(t) in runs and reference_of(t) != t]
    missing = [training.name for training in TRAININGS if training not in runs]
    if not several:
        raise ScoreTableError(
            f"There is nothing to compare: no run of {', '.join(missing)} in {SCORES}. "
            f"{ADD_RUNS}"
        )
    result = {
        "not run": missing,
        "since the base model": {t.name: changes(t, runs[t]) for t in runs},
        "minus one proxy": {
            t.name: comparison(t, reference_of(t), runs) for t in several
        },
        f"minus {CONSTRAINED.name}": {
            t.name: comparison(t, CONSTRAINED, runs)
            for t in several
            if CONSTRAINED in runs
            and reference_of(t) == reference_of(CONSTRAINED)
            and t != CONSTRAINED
        },
    }
    write(ROOT / "benchmarks" / "results" / "several_rewards.json", result)


if __name__ == "__main__":
    main()
