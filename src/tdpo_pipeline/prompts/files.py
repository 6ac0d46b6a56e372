"""Text files of prompts, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class PromptError(ValueError):
    """A prompt set that is unknown, or a prompt file that can't be used."""


def read_prompt_file(path: Path) -> list[str]:
    """Prompts of a UTF-8 text file, one a line; blank lines are left out.

    Raises:
        PromptError: If the file is missing, is not text, or holds no prompt.
    """
    if not path.is_file():
        raise PromptError(f"There is no prompt file {path}.")
    prompts = lines(read_text(path))
    if not prompts:
        raise PromptError(f"{path} is empty: write one prompt on each line.")
    return prompts


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file.

    Raises:
        PromptError: If it is not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not a UTF-8 text file (byte {error.start})."
        ) from error
    if "\0" in text:
        raise PromptError(f"{path} is a binary file, not a list of prompts.")
    return text


def lines(text: str) -> list[str]:
    """The lines of a text that aren't blank, without the blanks around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def evenly_spaced(prompts: Sequence[str], count: int) -> list[str]:
    """``count`` of n prompts: those at floor(i n / count) for i = 0 to count - 1."""
    return [prompts[i * len(prompts) // count] for i in range(count)]
