import json
from pathlib import Path

import pytest

from tdpo_pipeline.menagerie.scenes import VocabularyError, describe, parse
from tdpo_pipeline.prompts import (
    PUBLISHED,
    QUICK_ANIMALS,
    PromptError,
    is_prompt_source,
    prompt_set,
    read_prompt_file,
)

MODELS = Path(__file__).resolve().parents[2] / "data" / "06_models" / "menagerie"


MENAGERIE = (
    *("simple_animals", "quick_animals", "unseen_animals", "unseen_animals_6"),
    *("complex", "complex_dpok", "activities", "unseen_activities"),
    *("unseen_animals_unseen_activities", "unseen_animals_6_unseen_activities"),
    *(
        "one_prompt",
        "everyday_objects",
        "broad_scenes",
        "rarely_drawn",
        "rare_compositions",
    ),
)
"""Sets in the language of the embedded world."""


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("simple_animals", 45),
        ("unseen_animals", 8),
        ("complex", 4),
        ("activities", 45 * 3),
        ("activities_printed", 45 * 3),
        ("unseen_activities", 45 * 3),
        ("unseen_animals_unseen_activities", 8 * 3),
        ("unseen_animals_6_unseen_activities", 6 * 3),
        ("quick_animals", 8),
        ("one_prompt", 1),
        ("n_animals", 45 * 8),
        ("imagenet_animals", 398),
    ],
)
def test_sets_have_the_papers_sizes(name, count):
    assert len(set(prompt_set(name))) == count


@pytest.mark.parametrize("name", MENAGERIE)
def test_menagerie_understands_its_sets(name):
    for prompt in prompt_set(name):
        parse(prompt)


@pytest.mark.parametrize("name", ["n_animals", "imagenet_animals"])
def test_menagerie_has_no_words_for_the_others(name):
    with pytest.raises(VocabularyError):
        for prompt in prompt_set(name):
            parse(prompt)


def test_imagenet_ends_where_its_animals_end():
    animals = prompt_set("imagenet_animals")
    assert animals[0] == "tench, Tinca tinca"
    assert animals[-1] == "puffer, pufferfish, blowfish, globefish"
    # DDPO's dogs are classes 151 to 268.
    assert (animals[151], animals[268]) == ("Chihuahua", "Mexican hairless")


def test_spellings_of_papers_and_code():
    assert prompt_set("complex_dpok")[1] == "Four wolves in the park."
    assert "an ant washing dishes" in prompt_set("activities_printed")
    assert "an ant washing the dishes" in prompt_set("activities")
    assert prompt_set("unseen_animals_6")[-1] == "octopus"


def test_activities_are_described_as_menagerie_would():
    for prompt in prompt_set("activities") + prompt_set("unseen_activities"):
        assert describe(parse(prompt)) == prompt


def test_a_part_of_a_set_is_evenly_spaced():
    # floor(i 45 / 4) for i = 0 to 3.
    animals = prompt_set("simple_animals")
    assert prompt_set("simple_animals/4") == [animals[i] for i in (0, 11, 22, 33)]
    assert prompt_set("simple_animals/45") == animals


@pytest.mark.parametrize("part", ["0", "46", "x", "", "-3"])
def test_a_part_that_cannot_be_taken(part):
    with pytest.raises(PromptError, match="how many of the 45 prompts"):
        prompt_set(f"simple_animals/{part}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_without_its_file_says_how_to_get_it(name, tmp_path):
    with pytest.raises(PromptError, match=r"kB\) is missing.*--pipelines fetch"):
        prompt_set(name, tmp_path)
    with pytest.raises(PromptError, match=PUBLISHED[name].name):
        prompt_set(name)


def test_a_published_set_is_read_from_its_file(tmp_path):
    (tmp_path / "everyday_objects.txt").write_text(
        "\n".join(f"object {i}" for i in range(50))
    )
    assert prompt_set("ddpo_objects", tmp_path)[49] == "object 49"


TOO_FEW = {
    "hpdv2_photo": ("a cat\na dog\n", "should have 800 prompts.*there are 2,"),
    "drawbench": (
        '{"A cat.": {"category": "Reddit"}, "A dog.": {"category": "Reddit"}}',
        "should have 58 prompts.*there are 2,",
    ),
    # 150 are taken, of two with repetition.
    "parti": (
        "Prompt\tCategory\nA cat.\tAnimals\nA dog.\tAnimals\n",
        "should have 150 prompts.*there are 150, 2 of them different",
    ),
    "ddpo_objects": ("toaster\nchair\n", "should have 50 prompts.*there are 2,"),
}
"""Content of a published file, and what is said of it."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_of_another_length_is_an_error(name, tmp_path):
    content, message = TOO_FEW[name]
    (tmp_path / PUBLISHED[name].name).write_text(content)
    with pytest.raises(PromptError, match=message):
        prompt_set(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "is_source"),
    [
        ("complex", True),
        ("imagenet_animals/32", True),
        ("mine.txt", True),
        ("a cat and a dog", False),
    ],
)
def test_prompts_are_told_from_names_of_sets(text, is_source):
    assert is_prompt_source(text) == is_source


def test_sets_are_what_their_names_say():
    animals = prompt_set("simple_animals")
    assert set(QUICK_ANIMALS) < set(animals)
    assert not set(prompt_set("unseen_animals")) & set(animals)
    assert "a cat riding a bike" in prompt_set("activities")


def test_broad_scenes_leave_out_what_stays_unseen():
    """9 scenes of each of 45 animals, less the three rare compositions among them."""
    broad = {parse(prompt) for prompt in prompt_set("broad_scenes")}
    assert len(broad) == 45 * 9 - 3
    for name in ("complex", "rare_compositions", "unseen_animals", "unseen_activities"):
        assert not broad & {parse(prompt) for prompt in prompt_set(name)}


def test_unknown_set_suggests_a_name():
    with pytest.raises(PromptError, match="did you mean simple_animals"):
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
