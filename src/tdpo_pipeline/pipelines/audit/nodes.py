"""The nodes that audit a reward; every output is kept by the reward's name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tdpo_pipeline.config import RewardSettings, Settings, TrainingSettings
from tdpo_pipeline.overoptimization import gold_of
from tdpo_pipeline.overoptimization import reward_audit as words
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings, checked_prompts

# A logger of its own, so that the logging configuration can print it as it is.
logger = logging.getLogger("tdpo_pipeline.report")


class AuditSettings(Settings):
    """What to audit, and how.

    Attributes:
        reward: A task of ``rewards``, a name in the reward registry, or
            ``module:Class`` of one's own.
        gold: The reward that it should be like; None: the gold that it was trained to
            predict, if one is known.
        prompts: Name of a prompt set, or path of a text file.
        images_per_prompt: Pictures of each prompt.
        seed: Seed of the pictures and of the perturbations.
        negligible: Change in base standard deviations that doesn't matter.
        perturbations: Strengths of each perturbation, by its name.
    """

    reward: str
    gold: str | None
    prompts: str
    images_per_prompt: PositiveInt
    seed: NonNegativeInt
    negligible: PositiveFloat
    perturbations: Annotated[dict[str, tuple[PositiveFloat, ...]], Field(min_length=1)]

    @property
    def key(self) -> str:
        """The reward's name in file names."""
        return self.reward.replace(":", ".")


def audited_rewards(settings: AuditSettings, tasks: dict[str, Any]) -> list[str]:
    """The rewards that an audit loads."""
    scorer, task = _audited(settings, tasks)
    gold = _gold(settings, scorer, task)
    parts = tuple((task.ensemble if task else None) or (scorer,))
    return [*parts, *([] if gold is None else [gold])]


def _gold(
    settings: AuditSettings, scorer: str, task: RewardSettings | None
) -> str | None:
    """The reward that tells what a change is worth; None if nobody knows."""
    parts = task.ensemble if task else None
    if settings.gold == scorer:
        from tdpo_pipeline.auditing.perturbations import AuditError

        raise AuditError(f"audit.gold names '{scorer}', which is what is audited.")
    return settings.gold or gold_of(scorer, parts or ())


def _audited(
    settings: AuditSettings, tasks: dict[str, Any]
) -> tuple[str, RewardSettings | None]:
    """The audited reward, and the task that it is of, if any."""
    if settings.reward not in tasks:
        return settings.reward, None
    task = RewardSettings.model_validate(tasks[settings.reward])
    return task.scorer, task


def probe(
    settings: AuditSettings,
    sampler: TrainingSettings,
    tasks: dict[str, Any],
    allowed: PromptSettings,
    base_model: Path,
    reward_weights: Path,
) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """Score the base model's pictures, clean and perturbed.

    Args:
        settings: What to audit, and how.
        sampler: The base model samples as in training.
        tasks: The configured tasks; an audited ensemble is one of them.
        allowed: Which prompts are allowed.
        base_model: Folder of the base model.
        reward_weights: Folder of reward weights.

    Returns:
        Scores and example pictures, by the reward's name in file names.
    """
    from tdpo_pipeline.auditing.audit import audit_reward

    scorer, task = _audited(settings, tasks)
    gold = _gold(settings, scorer, task)
    audited = audit_reward(
        [scorer] if gold is None else [scorer, gold],
        checked_prompts(settings.prompts, allowed),
        settings.perturbations,
        images_per_prompt=settings.images_per_prompt,
        seed=settings.seed,
        sampler=sampler,
        base_model=base_model,
        weights=reward_weights,
        task=task,
    )
    return {settings.key: audited.scores}, {settings.key: audited.examples}


def report(
    settings: AuditSettings,
    scores: Mapping[str, Callable[[], pd.DataFrame]],
    examples: Mapping[str, Callable[[], np.ndarray]],
) -> tuple[dict[str, pd.DataFrame], dict[str, Figure], dict[str, str]]:
    """Say what the reward can be fooled by, as a table, a figure and a text.

    Args:
        settings: What was audited.
        scores: Scores of all audits so far, by the reward's name in file names.
        examples: Their example pictures.

    Returns:
        Table, figure and text of the audit, each by the reward's name in file names.
    """
    from tdpo_pipeline.figures.reward_audit import reward_audit

    key = settings.key
    table = scores[key]()
    reward, *gold = [name for name in table.columns if name not in words.INDEX]
    found = words.audit_report(table, reward, *gold, negligible=settings.negligible)
    drawn = reward_audit(found, examples[key](), negligible=settings.negligible)
    logger.info("%s", "\n".join([f"Audit of {reward}", *words.audit_sentences(found)]))
    return {key: found}, {key: drawn.figure}, {key: words.audit_markdown(found)}
