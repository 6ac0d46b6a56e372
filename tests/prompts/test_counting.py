from __future__ import annotations

from tdpo_pipeline.prompts import prompt_metadata, prompt_set


def test_numbers_and_plurals() -> None:
    prompts = prompt_set("n_animals")
    assert prompts[:2] == ["two cats", "three cats"]
    assert {"nine wolves", "five sheep", "six mice", "seven butterflies"} < set(prompts)
    assert "one cat" not in prompts


def test_what_a_scorer_asks_and_expects() -> None:
    wolves, cat = prompt_metadata(["four wolves", "a cat"])
    assert (wolves["number"], wolves["animal"], wolves["plural"]) == (
        "four",
        "wolf",
        "wolves",
    )
    assert wolves["questions"][0] == "How many wolves are there in this image?"
    assert wolves["answers"] == ["four", "wolf"]
    assert cat == {}


def test_every_counted_prompt_says_what_it_counts() -> None:
    for prompt, facts in zip(
        prompt_set("n_animals"), prompt_metadata(prompt_set("n_animals")), strict=True
    ):
        assert prompt == f"{facts['number']} {facts['plural']}"
