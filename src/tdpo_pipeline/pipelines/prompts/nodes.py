"""Nodes that resolve prompt sets by name or file, and check every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tdpo_pipeline.config import EvaluationSettings, RewardSettings, Settings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.prompts import PromptError, prompt_set


class PromptSettings(Settings):
    """Which prompts are allowed.

    Attributes:
        vocabulary: ``menagerie`` refuses prompts outside the embedded world's
            language, ``open`` takes any text.
        files: Folder of published prompt files, relative to the project.
    """

    vocabulary: Literal["menagerie", "open"]
    files: str


def training_prompts(
    task: RewardSettings, evaluation: EvaluationSettings, settings: PromptSettings
) -> str:
    """The prompts that a task trains on.

    Args:
        task: Names a prompt set or a text file.
        evaluation: Must evaluate at least one of the prompts, because the report
            measures in the base model's deviation on prompts trained on.
        settings: Which prompts are allowed.

    Returns:
        One prompt a line.

    Raises:
        PromptError: If the set is unknown, the file unusable, a prompt not allowed or
            none of them evaluated.
    """
    prompts = checked_prompts(task.train_prompts, settings)
    files = ROOT / settings.files
    evaluated = {p for name in evaluation.prompt_sets for p in prompt_set(name, files)}
    if evaluated.isdisjoint(prompts):
        raise PromptError(
            f"None of the prompts of '{task.train_prompts}' is evaluated. Add the set to "
            "evaluation.prompt_sets in the parameters_evaluation.yml of the environment "
            "that is run, or of conf/base if it has none: changes are measured in the "
            "base model's deviation on prompts trained on."
        )
    return "\n".join(prompts) + "\n"


def evaluation_prompts(
    evaluation: EvaluationSettings, settings: PromptSettings
) -> dict[str, list[str]]:
    """The prompts of every evaluated set, each once, by the name of the set.

    Raises:
        PromptError: If a set is unknown, a file unusable, a prompt not allowed, or a
            prompt of the sample strip in none of the sets.
    """
    sets = {
        name: list(dict.fromkeys(checked_prompts(name, settings)))
        for name in evaluation.prompt_sets
    }
    evaluated = {prompt for prompts in sets.values() for prompt in prompts}
    stray = [p for p in evaluation.strip_prompts if p not in evaluated]
    if stray:
        raise PromptError(
            f"evaluation.strip_prompts has {', '.join(map(repr, stray))}, which no set "
            f"of evaluation.prompt_sets ({', '.join(sets)}) has."
        )
    return sets


def checked_prompts(source: str, settings: PromptSettings) -> list[str]:
    """The prompts of a set or file, all of them allowed."""
    prompts = prompt_set(source, ROOT / settings.files)
    if settings.vocabulary == "menagerie":
        check_vocabulary(prompts, source)
    return prompts


def check_vocabulary(prompts: Sequence[str], source: str) -> None:
    """Raise a PromptError naming the first prompt that Menagerie has no words for."""
    from tdpo_pipeline.menagerie.scenes import VocabularyError, parse

    for prompt in prompts:
        try:
            parse(prompt)
        except VocabularyError as error:
            raise PromptError(
                f"Prompt {prompt!r} of '{source}' isn't in Menagerie's language: "
                f"{error} (for a base model that knows more, set prompts.vocabulary: "
                "open)"
            ) from error
