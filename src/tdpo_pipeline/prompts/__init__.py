"""Prompt sets by name: the papers' own, and those read from published files."""

from tdpo_pipeline.prompts.counting import prompt_metadata
from tdpo_pipeline.prompts.files import PromptError, read_prompt_file
from tdpo_pipeline.prompts.lists import COMPLEX, QUICK_ANIMALS
from tdpo_pipeline.prompts.published import PUBLISHED, PublishedFile
from tdpo_pipeline.prompts.registry import (
    PROMPT_SETS,
    check_prompt_source,
    is_prompt_source,
    prompt_set,
)

__all__ = [
    "COMPLEX",
    "PROMPT_SETS",
    "PUBLISHED",
    "QUICK_ANIMALS",
    "PromptError",
    "PublishedFile",
    "check_prompt_source",
    "is_prompt_source",
    "prompt_metadata",
    "prompt_set",
    "read_prompt_file",
]
