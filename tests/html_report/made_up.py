"""A report of made-up tables whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.figures.strips import Strip
from tdpo_pipeline.html_report import Tables, html_report, lineage
from tdpo_pipeline.html_report.prompts import prompt_changes
from tdpo_pipeline.overoptimization import (
    compare_report,
    cost_report,
    find_onsets,
    gold_report,
    goodhart_report,
    hypervolume_report,
    joint_report,
    matched_report,
    pairwise_agreement,
    reward_curves,
    summarise_methods,
)
from tdpo_pipeline.overoptimization.intervals import Bootstrap
from tests.synthetic_tables import synthetic_scores

PROMPTS = {
    "simple_animals": ["cat", "dog", "fox", "cow"],
    "unseen_animals": ["snail"],
}
SEEN = ("cat", "dog", "fox")
EPOCHS = (0, 4, 8)
FEW = Bootstrap(draws=200)

# In a reward's own units. The deviations of seeds and prompts are far smaller, so that
# TDPO-R's gold surely rose, DDPO-2's surely fell, and both surely gave up HPS.
GAINS = {
    "ddpo_2": {"aesthetic-mini": [0, 1, 2], "gold_taste": [0, 1, -2]},
    "tdpo_r": {"aesthetic-mini": [0, 1, 1.5], "gold_taste": [0, 1, 2]},
}


def made_up_scores(
    seeds: int = 2, prompts: Mapping[str, Sequence[str]] = PROMPTS
) -> pd.DataFrame:
    """Both methods on one reward."""
    return pd.concat(
        [
            synthetic_scores(
                method,
                "aesthetic-mini",
                seed,
                gains=gains | {"hps-mini": [0, -1, -2]},
                epochs=EPOCHS,
                prompts=prompts,
                trained_on=SEEN,
                images=2,
                seed_sd=0.01,
            )
            for method, gains in GAINS.items()
            for seed in range(seeds)
        ],
        ignore_index=True,
    )


def made_up_strips(method: str = "tdpo_r") -> dict[str, Strip]:
    """Samples of seed 0 and 1 of a method."""
    rng = np.random.default_rng(0)
    return {
        f"{method}-aesthetic-mini-s{seed}": Strip(
            {e: rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for e in EPOCHS},
            ("cat", "snail"),
        )
        for seed in (1, 0)
    }


def page_of(
    scores: pd.DataFrame,
    root: Path,
    *,
    regrets: pd.DataFrame | None = None,
    alarms: pd.DataFrame | None = None,
    **more: Any,
) -> str:
    """The page of a score table."""
    curves = reward_curves(scores, bootstrap=FEW)
    made_from = lineage(
        scores,
        {"methods": {"tdpo_r": {"gamma": 1}}},
        root=root,
        folder="data/report",
        pipeline="reporting",
    )
    tables = Tables(
        curves,
        summarise_methods(curves),
        gold_report(scores, bootstrap=FEW),
        find_onsets(scores, bootstrap=FEW),
        pairwise_agreement(scores, bootstrap=FEW),
        prompt_changes(scores),
        matched_report(scores, references=["ddpo_2"], bootstrap=FEW),
        cost_report(scores, references=["ddpo_2"], bootstrap=FEW),
        compare_report(scores, references=["ddpo_2"], bootstrap=FEW),
        hypervolume_report(scores, bootstrap=FEW),
        goodhart_report(scores, bootstrap=FEW),
        joint_report(scores, bootstrap=FEW).rates,
        regrets,
        alarms,
    )
    return html_report(
        tables,
        lineage=made_from,
        **more,
    )
