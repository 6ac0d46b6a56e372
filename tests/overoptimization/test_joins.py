"""Diversity beside the scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import ScoreTableError, reward_curves
from tdpo_pipeline.overoptimization.joins import with_diversity
from tests.synthetic_tables import synthetic_scores

KEYS = ["run", "method", "reward", "seed", "epoch", "eta", "prompt_set", "prompt"]


def scores() -> pd.DataFrame:
    gains = {"pick-mini": [0.0, 1.0]}
    return pd.concat(
        [
            synthetic_scores("tdpo", "pick-mini", seed, gains=gains, epochs=(0, 4))
            for seed in (0, 1)
        ],
        ignore_index=True,
    )


def diversity(table: pd.DataFrame) -> pd.DataFrame:
    """A fall from 3 to 2.5 effective images in all prompts."""
    rows = table.drop_duplicates(KEYS)[KEYS]
    trained = rows["epoch"] > 0
    return rows.assign(
        encoder="hps-mini",
        image=0,
        n_images=4,
        pairwise_distance=0.5,
        vendi_score=np.where(trained, 2.5, 3.0),
    )


def test_diversity_becomes_a_curve_like_a_rewards() -> None:
    table = scores()
    joined = with_diversity(table, diversity(table))
    assert len(joined) == len(table)
    curves = reward_curves(joined)
    row = curves[(curves["scored"] == "vendi_score") & (curves["epoch"] == 4)]
    np.testing.assert_allclose(row["difference"], -0.5)
    assert (row["role"] == "cross").all()
    pd.testing.assert_frame_equal(joined[table.columns], table)


def test_what_does_not_fit_is_an_error() -> None:
    table = scores()
    good = diversity(table)
    with pytest.raises(ScoreTableError, match="not at all"):
        with_diversity(table, good.iloc[1:])
    with pytest.raises(ScoreTableError, match="twice"):
        with_diversity(table, pd.concat([good, good.iloc[:1]]))
    mixed = good.assign(encoder=np.where(good["seed"] == 0, "hps-mini", "pick-mini"))
    with pytest.raises(ScoreTableError, match="trained on pick-mini .* be compared"):
        with_diversity(table, mixed)
