"""Menagerie's tokenizer: CLIP's, with one token for each word of the world."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_bpe(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair encoding under which every word of ``words`` is one token.

    Merging goes on until nothing is left to merge. The letters a to z are tokens too,
    so that an unknown word still has a spelling.

    Args:
        words: Lower-case words without blanks.

    Returns:
        Vocabulary (token -> id, the special tokens first) and merges in their order.
    """
    letters = string.ascii_lowercase
    tokenizer = Tokenizer(BPE(end_of_word_suffix=WORD_END))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(
        vocab_size=2**16,
        min_frequency=1,
        show_progress=False,
        # All letters in a fixed order: equally frequent pairs merge by their ids.
        special_tokens=[START, END, *letters, *(f"{x}{WORD_END}" for x in letters)],
        end_of_word_suffix=WORD_END,
    )
    tokenizer.train_from_iterator(words, trainer=trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return dict(model["vocab"]), [(left, right) for left, right in model["merges"]]


def build_tokenizer(words: Sequence[str], max_length: int) -> CLIPTokenizer:
    """A ``CLIPTokenizer`` for which every word of ``words`` is one token.

    Args:
        words: Lower-case words without blanks.
        max_length: Length that prompts are padded or cut to, start and end included.

    Raises:
        ValueError: If a word does not become a single token.
    """
    vocab, merges = train_bpe(words)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)
    split = [w for w in words if tokenizer.tokenize(w) != [w + WORD_END]]
    if split:
        raise ValueError(
            f"{len(split)} words are not single tokens, such as {split[0]!r}: words "
            "must be lower case, of the letters a to z, without blanks."
        )
    return tokenizer
