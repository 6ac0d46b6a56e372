"""Prompt sets that others publish as files, and how to read them.

Nothing of them is copied here: ``kedro run --pipelines fetch`` brings the files from
where they are published, at a fixed commit, or from a place of one's own
(``fetch.prompts``).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tdpo_pipeline.prompts.files import PromptError, evenly_spaced, lines, read_text

DRAWBENCH_CATEGORIES = ("Conflicting", "Gary Marcus et al.", "Reddit")
"""The categories of DrawBench that DiffExp trains on: 10, 10 and 38 prompts."""

PARTI_COUNT = 150


class PublishedFile(NamedTuple):
    """A file that prompts are read from.

    Attributes:
        name: Name of the file in the folder of prompt files.
        url: Where it is published, at a fixed commit.
        kilobytes: About its size.
        read: Its prompts, from its text.
    """

    name: str
    url: str
    kilobytes: int
    read: Callable[[str], list[str]]

    def prompts(self, folder: Path) -> list[str]:
        """The prompts of the file in ``folder``.

        Raises:
            PromptError: If the file is missing or is not what it should be.
        """
        path = folder / self.name
        if not path.is_file():
            raise PromptError(
                f"The prompt file {path} ({self.kilobytes} kB) is missing. Fetch it: "
                "kedro run --pipelines fetch, with the --env of your run; or put a copy "
                "of your own there."
            )
        try:
            return self.read(read_text(path))
        except (AttributeError, LookupError, TypeError, ValueError, csv.Error) as error:
            raise PromptError(
                f"{path} is not what is published at {self.url} "
                f"({type(error).__name__}: {error}). Delete it and fetch it again."
            ) from error


def read_lines(text: str) -> list[str]:
    """A prompt a line; each prompt once."""
    return list(dict.fromkeys(lines(text)))


def read_drawbench(text: str) -> list[str]:
    """The prompts of the three categories, from JSON of prompt -> {category}."""
    return [
        prompt
        for prompt, facts in json.loads(text).items()
        if facts["category"].strip() in DRAWBENCH_CATEGORIES
    ]


def read_parti(text: str) -> list[str]:
    """150 of the PartiPrompts, from tab-separated values with a column ``Prompt``.

    DiffExp doesn't say which 150 it evaluates on. Here they are evenly spaced among the
    different ones: the file goes from basic to hard challenges, so that each kind is
    there in proportion.
    """
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    prompts = list(dict.fromkeys(row["Prompt"].strip() for row in rows))
    return evenly_spaced(prompts, PARTI_COUNT)


_GITHUB = "https://raw.githubusercontent.com"

PUBLISHED = {
    "hpdv2_photo": PublishedFile(
        name="hpsv2_photo.txt",
        url=f"{_GITHUB}/ZiyiZhang27/tdpo/206439bda0d995307beb03e2b09e9cae43ed1658/"
        "tdpo_pytorch/assets/hpsv2_photo.txt",
        kilobytes=45,
        read=read_lines,
    ),
    "drawbench": PublishedFile(
        name="drawbench.json",
        url=f"{_GITHUB}/google-research/google-research/"
        "5e786838e9825e74992a9884bc079d46734f1baf/dpok/dataset/drawbench/data_meta.json",
        kilobytes=20,
        read=read_drawbench,
    ),
    "parti": PublishedFile(
        name="PartiPrompts.tsv",
        url=f"{_GITHUB}/google-research/parti/"
        "2c99f6652cbc7f0d0441aa91f4c7e7055bcb0071/PartiPrompts.tsv",
        kilobytes=123,
        read=read_parti,
    ),
    "ddpo_objects": PublishedFile(
        name="everyday_objects.txt",
        url=f"{_GITHUB}/kvablack/ddpo-pytorch/"
        "ce8e9cc66861754968595fd31a3dabdbf64778cf/ddpo_pytorch/assets/"
        "everyday_objects.txt",
        kilobytes=1,
        read=read_lines,
    ),
}
"""Name of the prompt set -> its file."""
