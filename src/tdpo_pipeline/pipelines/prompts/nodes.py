"""The node that resolves prompt sets by name or file, and checks every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import RootModel, model_validator

from tdpo_pipeline.config import EvaluationSettings, RewardSettings, Settings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.prompts import PromptError, check_prompt_source, prompt_set


class PromptSettings(Settings):
    """Which prompts are allowed.

    Attributes:
        vocabulary: ``menagerie`` refuses prompts outside the embedded world's
            language, ``open`` takes any text.
        files: Folder of published prompt files, relative to the project.
    """

    vocabulary: Literal["menagerie", "open"]
    files: str


class OwnEvaluation(Settings):
    """What runs that train on some set are evaluated on.

    Attributes:
        prompt_sets: Names of prompt sets.
        strip_prompts: Prompts to show in the sample strip.
        alone: Whether in place of what all runs are evaluated on, and not beside it.
    """

    prompt_sets: tuple[str, ...] = ()
    strip_prompts: tuple[str, ...] = ()
    alone: bool = False

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.alone and not (self.prompt_sets and self.strip_prompts):
            raise ValueError("alone takes prompt_sets and strip_prompts of its own.")
        return self

    def of(self, evaluation: EvaluationSettings) -> tuple[list[str], list[str]]:
        """Names of all sets that the runs are evaluated on, and their strip's prompts."""
        shared = OwnEvaluation() if self.alone else evaluation
        sets = dict.fromkeys((*shared.prompt_sets, *self.prompt_sets))
        strip = dict.fromkeys((*shared.strip_prompts, *self.strip_prompts))
        return list(sets), list(strip)


class OwnEvaluations(RootModel[dict[str, OwnEvaluation]]):
    """By what is trained on: ``train_prompts`` of a task, as it is written there."""


def task_prompts(
    task: RewardSettings,
    evaluation: EvaluationSettings,
    own: OwnEvaluations,
    settings: PromptSettings,
) -> tuple[str, dict[str, Any]]:
    """The prompts that a task trains on, and those that its runs are evaluated on.

    Args:
        task: Names a prompt set or a text file.
        evaluation: Names what all runs are evaluated on.
        own: Names what takes its place or is added.
        settings: Which prompts are allowed.

    Returns:
        Training prompts, one a line. The evaluation's ``prompt_sets``, the prompts of every
        set, each once, by the name of the set; and its ``strip_prompts``.

    Raises:
        PromptError: If a set is unknown, a file unusable, a prompt not allowed, a prompt of
            the sample strip in none of the sets, or no training prompt among those
            evaluated: the report measures in the base model's deviation on them.
    """
    for source, its in own.root.items():
        for name in (source, *its.prompt_sets):
            check_prompt_source(name)
    trained = checked_prompts(task.train_prompts, settings)
    names, strip = own.root.get(task.train_prompts, OwnEvaluation()).of(evaluation)
    sets = {
        name: list(dict.fromkeys(checked_prompts(name, settings))) for name in names
    }
    evaluated = {prompt for prompts in sets.values() for prompt in prompts}
    if stray := [prompt for prompt in strip if prompt not in evaluated]:
        raise PromptError(
            f"strip_prompts (evaluation or own_evaluation) has "
            f"{', '.join(map(repr, stray))}, which no evaluated set ({', '.join(sets)}) has."
        )
    if evaluated.isdisjoint(trained):
        source = task.train_prompts
        raise PromptError(
            f"None of the prompts of '{source}' is evaluated, and changes are measured in "
            "the base model's deviation on prompts trained on. Add to own_evaluation in the "
            "parameters_evaluation.yml of the environment that is run, or of conf/base if "
            f"it has none, the set or a part of it: {source}: {{prompt_sets: [{source}]}}"
        )
    return "\n".join(trained) + "\n", {"prompt_sets": sets, "strip_prompts": strip}


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
