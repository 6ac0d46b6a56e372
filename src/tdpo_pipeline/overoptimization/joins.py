"""Diversity as further columns of a score table.

With them every function for rewards (curves, differences at equal training reward,
comparisons of methods) is one for diversity too. Its measures are held out: nothing is
trained on them.
"""

from __future__ import annotations

import pandas as pd

from tdpo_pipeline.overoptimization.diversity import MEASURES
from tdpo_pipeline.overoptimization.tables import ScoreTableError

_PROMPT = ["run", "epoch", "eta", "prompt_set", "prompt"]


def with_diversity(scores: pd.DataFrame, diversity: pd.DataFrame) -> pd.DataFrame:
    """Add the measures of diversity; every image of a prompt has the prompt's.

    Intervals are over prompts and seeds, so that the repetition narrows none.

    Args:
        scores: Score table of any number of runs.
        diversity: Their diversity tables.

    Raises:
        ScoreTableError: If a prompt of some checkpoint has no diversity or two, or the
            runs of a trained reward were seen by different encoders.
    """
    seen_by = diversity.groupby("reward")["encoder"].unique()
    mixed = seen_by[seen_by.map(len) > 1]
    if len(mixed):
        raise ScoreTableError(
            f"The diversity of runs trained on {mixed.index[0]} was seen by "
            f"{list(mixed.iloc[0])}, which can't be compared. Evaluate them with one "
            "'diversity.encoders'."
        )
    twice = diversity[diversity.duplicated(_PROMPT)]
    alone = scores[_PROMPT].merge(diversity[_PROMPT], how="left", indicator=True)
    alone = alone[alone["_merge"] == "left_only"]
    for rows, problem in ((twice, "twice"), (alone, "not at all")):
        if len(rows):
            first = rows[_PROMPT].iloc[0].to_dict()
            raise ScoreTableError(
                f"The diversity of {first} is there {problem}. Evaluate the runs again."
            )
    measures = diversity[[*_PROMPT, *MEASURES]]
    return scores.merge(measures, how="left", on=_PROMPT, validate="many_to_one")
