from __future__ import annotations

import json
from pathlib import Path

import pytest

from tdpo_pipeline.prompts import PUBLISHED, PromptError
from tdpo_pipeline.prompts.published import read_drawbench, read_lines, read_parti


def test_lines_lose_blanks_and_repetitions() -> None:
    assert read_lines("a cat\n\n  a dog \na cat\n") == ["a cat", "a dog"]


def test_drawbench_keeps_three_categories() -> None:
    categories = {
        "A fish eating a pelican.": "Conflicting",
        "A red car.": "Colors",
        "A pear in seven pieces.": "Gary Marcus et al. ",  # with the file's blank
        "A church of hamburgers.": "Reddit",
        "A sign.": "Text",
    }
    text = json.dumps({prompt: {"category": c} for prompt, c in categories.items()})
    assert read_drawbench(text) == [
        "A fish eating a pelican.",
        "A pear in seven pieces.",
        "A church of hamburgers.",
    ]


def test_parti_is_sampled_evenly() -> None:
    # 600 different prompts, one of them twice: every fourth of the 600.
    rows = [f"prompt {i}\tArts\tBasic\t" for i in range(600)]
    text = "\n".join(["Prompt\tCategory\tChallenge\tNote", rows[0], *rows]) + "\n"
    assert read_parti(text) == [f"prompt {4 * i}" for i in range(150)]


def test_parti_takes_quotes_as_they_are() -> None:
    # A quotation mark opens no quoted field: it is part of the prompt.
    rows = [f'"prompt" {i}\tArts\tBasic\t' for i in range(150)]
    text = "\n".join(["Prompt\tCategory\tChallenge\tNote", *rows])
    assert read_parti(text)[1] == '"prompt" 1'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("drawbench", b"<html>not found</html>"),
        ("drawbench", b'{"A cat.": "Reddit"}'),
        ("parti", b"Frage\tKategorie\na\tb\n"),
        ("parti", b"Prompt\tCategory\n"),
    ],
)
def test_a_file_that_is_something_else(
    tmp_path: Path, name: str, content: bytes
) -> None:
    file = PUBLISHED[name]
    (tmp_path / file.name).write_bytes(content)
    with pytest.raises(PromptError, match="is not what is published at https://"):
        file.prompts(tmp_path)


def test_every_file_is_published_at_a_fixed_commit() -> None:
    for file in PUBLISHED.values():
        commit = file.url.split("/")[5]
        assert len(commit) == 40
        assert set(commit) <= set("0123456789abcdef")
