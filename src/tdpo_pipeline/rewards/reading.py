"""Prompts into token ids, as a scorer reads them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tdpo_pipeline.rewards.base import RewardError


class TruncatedPromptWarning(UserWarning):
    """A scorer, or the base model, reads only the beginning of a prompt."""


def check_not_empty(reader: str, prompts: Sequence[str]) -> None:
    """Raise RewardError if a prompt that the scorer ``reader`` is to read is empty."""
    if not all(prompt.strip() for prompt in prompts):
        raise RewardError(
            f"Reward '{reader}' compares an image with its prompt, and a prompt is empty."
        )


class PromptReader:
    """Token ids of prompts, of one length, with what is too long cut.

    All scorers here cut in the same way: the beginning of the prompt stays, and the
    token that ends it comes last. A prompt that is cut is told once.

    Args:
        encode: Token ids of a prompt, whole, with its first and last special tokens.
        length: Tokens that the scorer reads.
        pad_id: Token that fills up shorter prompts.
        reader: Name of the scorer, for messages.
    """

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        length: int,
        pad_id: int,
        reader: str,
    ) -> None:
        self.encode = encode
        self.length = length
        self.pad_id = pad_id
        self.reader = reader
        self.told: set[str] = set()

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (1: token, 0: filling), both int64, shape (N, length).

        Raises:
            RewardError: If a prompt is empty.
        """
        check_not_empty(self.reader, prompts)
        ids = torch.full((len(prompts), self.length), self.pad_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            tokens = self.tokens(prompt)
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask

    def tokens(self, prompt: str) -> list[int]:
        """The ids that are read of a prompt."""
        tokens = list(self.encode(prompt))
        if len(tokens) <= self.length:
            return tokens
        if prompt not in self.told:
            self.told.add(prompt)
            warnings.warn(
                f"Reward '{self.reader}' reads the first {self.length} of the "
                f"{len(tokens)} tokens of the prompt {prompt!r:.120}.",
                TruncatedPromptWarning,
                stacklevel=2,
            )
        return [*tokens[: self.length - 1], tokens[-1]]
