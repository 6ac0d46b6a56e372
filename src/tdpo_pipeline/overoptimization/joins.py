"""Diversity and image statistics as further columns of a score table.

With them every function for rewards (curves, differences at equal training reward,
comparisons of methods) is one for diversity and statistics too. They are held-out
measures: nothing is trained on them.
"""

from __future__ import annotations

import pandas as pd

from tdpo_pipeline.overoptimization.diversity import MEASURES
from tdpo_pipeline.overoptimization.image_statistics import STATISTICS
from tdpo_pipeline.overoptimization.tables import ScoreTableError

_PROMPT = ["run", "epoch", "eta", "prompt_set", "prompt"]
_IMAGE = [*_PROMPT, "image"]


def with_diversity(scores: pd.DataFrame, diversity: pd.DataFrame) -> pd.DataFrame:
    """Add the measures of diversity; every image of a prompt has the prompt's.

    Intervals are over prompts and seeds, so that the repetition narrows none.

    Args:
        scores: Score table of any number of runs.
        diversity: Their diversity tables.

    Raises:
        ScoreTableError: If a prompt of some checkpoint has no diversity or two, or the
            runs of a method were seen by different encoders.
    """
    seen_by = diversity.groupby(["method", "reward"])["encoder"].unique()
    mixed = seen_by[seen_by.map(len) > 1]
    if len(mixed):
        raise ScoreTableError(
            f"The diversity of {mixed.index[0]} was seen by {list(mixed.iloc[0])}, "
            "which can't be compared. Evaluate its runs with one 'diversity.encoders'."
        )
    return _joined(scores, diversity[[*_PROMPT, *MEASURES]], _PROMPT, "diversity")


def with_statistics(scores: pd.DataFrame, statistics: pd.DataFrame) -> pd.DataFrame:
    """Add the image statistics.

    Args:
        scores: Score table of any number of runs.
        statistics: Their tables of image statistics.

    Raises:
        ScoreTableError: If an image of some checkpoint has no statistics, or two.
    """
    return _joined(scores, statistics[[*_IMAGE, *STATISTICS]], _IMAGE, "statistics")


def _joined(
    scores: pd.DataFrame, other: pd.DataFrame, keys: list[str], what: str
) -> pd.DataFrame:
    """The scores with the other table's columns, one row of it for each image."""
    twice = other[other.duplicated(keys)]
    alone = scores[keys].merge(other[keys], how="left", indicator=True)
    alone = alone[alone["_merge"] == "left_only"]
    for rows, problem in ((twice, "twice"), (alone, "not at all")):
        if len(rows):
            first = rows[keys].iloc[0].to_dict()
            raise ScoreTableError(
                f"The {what} of {first} are there {problem}. Evaluate the runs again."
            )
    return scores.merge(other, how="left", on=keys, validate="many_to_one")
