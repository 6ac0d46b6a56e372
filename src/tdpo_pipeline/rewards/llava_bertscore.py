"""DDPO's prompt alignment by a vision-language model (DDPO paper, section 5.3).

LLaVA says what is in the picture; the reward is how much of the prompt its answer
recalls (BERTScore), or, strictly, what part of known answers to questions it gives,
which is how DDPO's counting task "n animals" is scored. Neither has a gradient.

DDPO asked an earlier LLaVA over HTTP; this is LLaVA 1.5 in the same process, so the
absolute scores differ from the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpo_pipeline.rewards.base import Reward, RewardError, Scores
from tdpo_pipeline.rewards.bertscore import BertScorer, bert_scorer
from tdpo_pipeline.rewards.clip import LendsClipL
from tdpo_pipeline.rewards.llava import Llava, llava
from tdpo_pipeline.rewards.reading import check_not_empty

QUESTION = "Answer concisely: what is going on in this image?"
PLACE = "{prompt}"
REFERENCE = f"The image contains {PLACE}"


class LlavaBertScore(LendsClipL):
    """BERTScore recall of the prompt by LLaVA's answer.

    Args:
        vlm: Answers the question.
        scorer: Compares the answer with the reference.
        weights: Folder of weights, for a critic's encoder.
        question: Asked of every image.
        reference: What an answer is compared with; ``{prompt}`` is the image's prompt.
    """

    name = "llava_bertscore"
    value_range = (-1.0, 1.0)

    def __init__(
        self,
        vlm: Llava,
        scorer: BertScorer,
        weights: Path,
        question: str = QUESTION,
        reference: str = REFERENCE,
    ) -> None:
        super().__init__(weights)
        if PLACE not in reference:
            raise RewardError(
                f"The 'reference' of {self.name} must have the place {PLACE}; it is "
                f"{reference!r}."
            )
        self.vlm = vlm
        self.scorer = scorer
        self.question = question
        self.reference = reference

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """BERTScore's recall of the reference in LLaVA's answer, shape (N,)."""
        check_not_empty(self.name, prompts)
        answers = self.vlm(images, [self.question] * len(prompts))
        references = [self.reference.replace(PLACE, prompt) for prompt in prompts]
        return Scores(self.scorer(references, answers))


class LlavaStrict(LendsClipL):
    """The part of known answers that LLaVA's answers contain.

    Questions and answers of "n animals" are known by the prompt.

    Args:
        vlm: Answers the questions.
        weights: Folder of weights, for a critic's encoder.
    """

    name = "llava_strict"
    value_range = (0.0, 1.0)

    def __init__(self, vlm: Llava, weights: Path) -> None:
        super().__init__(weights)
        self.vlm = vlm

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Parts (N,) in [0, 1].

        Raises:
            RewardError: If there are no questions for a prompt.
        """
        tasks = _tasks(self.name, prompts)
        asked = [(row, q) for row, task in enumerate(tasks) for q in task["questions"]]
        rows = [row for row, _ in asked]
        found = self.vlm(images[rows], [question for _, question in asked])
        answers: list[list[str]] = [[] for _ in prompts]
        for row, answer in zip(rows, found, strict=True):
            answers[row].append(answer)
        values = [
            contained(answers[row], task["answers"]) for row, task in enumerate(tasks)
        ]
        return Scores(torch.tensor(values))


def contained(answers: Sequence[str], expected: Sequence[str]) -> float:
    """The part of expected answers that their answers contain, letter by letter."""
    hits = [want in answer for answer, want in zip(answers, expected, strict=True)]
    return sum(hits) / len(hits)


def _tasks(name: str, prompts: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Questions and answers of each image."""
    from tdpo_pipeline.prompts.counting import prompt_metadata

    check_not_empty(name, prompts)
    tasks = prompt_metadata(prompts)
    for prompt, task in zip(prompts, tasks, strict=True):
        questions, answers = task.get("questions", ()), task.get("answers", ())
        if not questions or len(questions) != len(answers):
            raise RewardError(
                f"Reward '{name}' has no questions with answers for the prompt "
                f"{prompt!r}. Train it with 'n animals' prompts, such as 'two dogs'."
            )
    return tasks


def load(weights: Path, question: str = QUESTION, reference: str = REFERENCE) -> Reward:
    """BERTScore recall of the prompt by LLaVA's answer.

    Args:
        weights: Folder of weights.
        question: Asked of every image.
        reference: What an answer is compared with; ``{prompt}`` is the image's prompt.

    Raises:
        RewardError: If the reference has no place for the prompt.
        MissingWeightsError: If files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    return LlavaBertScore(
        llava(weights), bert_scorer(weights), weights, question, reference
    )


def load_strict_mode(weights: Path) -> Reward:
    """Known answers to questions; errors as of :func:`load`."""
    return LlavaStrict(llava(weights), weights)
