import json
from pathlib import Path

import pytest

from tdpo_pipeline.menagerie.scenes import parse
from tdpo_pipeline.prompts import (
    PROMPT_SETS,
    QUICK_ANIMALS,
    PromptError,
    prompt_set,
    read_prompt_file,
)

MODELS = Path(__file__).resolve().parents[1] / "data" / "06_models" / "menagerie"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("simple_animals", 45),
        ("unseen_animals", 8),
        ("complex", 4),
        ("activities", 135),
        ("unseen_activities", 135),
        ("unseen_animals_unseen_activities", 24),
        ("quick_animals", 8),
    ],
)
def test_sets_have_the_papers_sizes(name, count):
    assert len(set(prompt_set(name))) == count


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_menagerie_understands_every_set(name):
    for prompt in prompt_set(name):
        parse(prompt)


def test_sets_are_what_their_names_say():
    animals = prompt_set("simple_animals")
    assert set(QUICK_ANIMALS) < set(animals)
    assert not set(prompt_set("unseen_animals")) & set(animals)
    assert "a cat riding a bike" in prompt_set("activities")


def test_unknown_set_suggests_a_name():
    with pytest.raises(PromptError, match="Did you mean simple_animals"):
        prompt_set("simple_animal")


def test_prompt_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("cat\n\n  a dog on the moon \n")
    assert read_prompt_file(path) == ["cat", "a dog on the moon"]
    assert prompt_set(str(path)) == ["cat", "a dog on the moon"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\xff", "not a UTF-8"),
        (b"cat\0dog", "binary"),
    ],
)
def test_unusable_prompt_files_are_errors(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_prompt_file(path)
    with pytest.raises(PromptError, match="no prompt file"):
        read_prompt_file(tmp_path / "missing.txt")


def test_rarely_drawn_compositions_are_what_the_report_says():
    report = json.loads((MODELS / "base_model_report.json").read_text())["rare"]
    rates = {prompt: reading["all"]["accuracy"] for prompt, reading in report.items()}
    assert set(rates) == set(prompt_set("rare_compositions"))
    seldom = {prompt for prompt, rate in rates.items() if rate < 0.2}
    assert seldom == set(prompt_set("rarely_drawn"))


def test_base_model_report_meets_its_requirements():
    report = json.loads((MODELS / "base_model_report.json").read_text())["samples"]
    for animals in ("training_animals", "unseen_animals"):
        assert report["colour"][animals]["accuracy"] >= 0.85
        assert report["grey"][animals]["accuracy"] >= 0.75


def test_proxy_report_meets_its_requirements():
    report = json.loads((MODELS / "proxy_report.json").read_text())
    assert min(report["golds"].values()) >= 0.95
    for proxy in report["proxies"].values():
        assert proxy["base samples, 45 animals"]["interval_95"][0] > 0
