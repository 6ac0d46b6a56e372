"""The nodes that evaluate a run's checkpoints, and put the outcome in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from tdpo_pipeline.config import EvaluationSettings, RunConfig, Settings
from tdpo_pipeline.grid import ROOT


class DiversitySettings(Settings):
    """How it is seen whether the images of a prompt differ.

    Attributes:
        encoders: Rewards by whose image encoder; the first that a run didn't train on
            is taken, so that all runs of a reward are seen by the same.
    """

    encoders: Annotated[tuple[str, ...], Field(min_length=1)]


def evaluated_rewards(
    config: dict[str, Any],
    evaluation: EvaluationSettings,
    diversity: DiversitySettings,
) -> list[str]:
    """The rewards that the evaluation of a run loads.

    Raises:
        EvaluationError: If none is left to see diversity by.
    """
    from tdpo_pipeline.evaluation import diversity_encoder

    run = RunConfig.model_validate(config)
    trained = run.task.scored_by
    eyes = diversity_encoder(diversity.encoders, run)
    return list(dict.fromkeys((*evaluation.rewards, *trained, eyes)))


def evaluate(
    config: dict[str, Any],
    checkpoints: Path,
    train_prompts: str,
    evaluation_prompts: dict[str, Any],
    base_model: Path,
    reward_weights: Path,
    evaluation: EvaluationSettings,
    diversity: DiversitySettings,
    state: str,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, np.ndarray, dict[str, Any]]:
    """Evaluate every kept checkpoint of a run, and the untouched base model.

    Args:
        config: The run, whole.
        checkpoints: Folder of its checkpoints.
        train_prompts: Prompts that it was trained on, one a line.
        evaluation_prompts: The task's ``prompt_sets``, prompts to evaluate on by the name
            of the set, and its ``strip_prompts``.
        base_model: Folder of the base model.
        reward_weights: Folder of reward weights.
        evaluation: Images, noise and rewards; its prompts are the task's.
        diversity: How it is seen.
        state: Folder of resume state, relative to the project.

    Returns:
        The scores and the image statistics (a row an image), the diversity (a row a
        prompt), the sample strip as uint8 (H, W, 3), and what is where in the strip.
    """
    from tdpo_pipeline.evaluation import evaluate_run

    run = RunConfig.model_validate(config)
    sets, strip = (evaluation_prompts[key] for key in ("prompt_sets", "strip_prompts"))
    own = {"prompt_sets": tuple(sets), "strip_prompts": tuple(strip)}
    result = evaluate_run(
        run,
        evaluation.model_copy(update=own),
        prompt_sets=sets,
        train_prompts=train_prompts.splitlines(),
        checkpoints=checkpoints,
        base_model=base_model,
        weights=reward_weights,
        diversity_encoders=diversity.encoders,
        state_dir=ROOT / state / f"{run.key}.evaluation",
    )
    return (
        result.scores,
        result.statistics,
        result.diversity,
        result.strip,
        result.strip_index,
    )


def summarise(scores: pd.DataFrame) -> dict[str, Any]:
    """A run's outcome in numbers that ``dvc metrics diff`` can compare.

    Args:
        scores: Score table of one run.

    Returns:
        The last epoch; and for each prompt group and reward, with ancestral sampling: the
        mean of the base model, that of the last checkpoint, the change.
    """
    from tdpo_pipeline.overoptimization.tables import (
        MAIN_ETA,
        ordered_groups,
        reward_columns,
        with_group,
    )

    table = with_group(scores[scores["eta"] == MAIN_ETA])
    last = int(table["epoch"].max())
    rewards = reward_columns(scores)
    means = table.groupby(["epoch", "group"])[rewards].mean()
    base, final = means.loc[0], means.loc[last]
    columns: dict[str, Any] = {"base": base, "final": final, "change": final - base}
    groups = {
        group: {
            reward: {name: float(c.loc[group, reward]) for name, c in columns.items()}
            for reward in rewards
        }
        for group in ordered_groups(base.index)
    }
    return {"epoch": last, **groups}
