import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tdpo_pipeline.menagerie import vocabulary as words
from tdpo_pipeline.menagerie.scenes import (
    KINDS,
    Scene,
    VocabularyError,
    describe,
    parse,
    sample_scene,
)


def every_scene_of_one_part() -> list[Scene]:
    """Every plain, coloured, counted, placed and active scene of the world."""
    scenes = [Scene(noun) for noun in words.NOUNS]
    for noun in words.NOUNS:
        scenes += [Scene(noun, colour=colour) for colour in words.COLOURS]
        scenes += [Scene(noun, count) for count in words.NUMBERS.values()]
        scenes += [Scene(noun, place=place) for place in words.PLACES]
    for animal in words.ALL_ANIMALS:
        scenes += [Scene(animal, activity=doing) for doing in words.ALL_ACTIVITIES]
    return scenes


def random_valid_scenes(number: int) -> list[Scene]:
    """Scenes whose parts are drawn at will, as far as they go together."""
    rng = np.random.default_rng(7)

    def maybe(items: tuple) -> object:
        index = int(rng.integers(2 * len(items)))
        return items[index] if index < len(items) else None

    scenes: list[Scene] = []
    while len(scenes) < number:
        try:
            scenes.append(
                Scene(
                    subject=words.NOUNS[int(rng.integers(len(words.NOUNS)))],
                    count=int(rng.integers(1, 6)),
                    colour=maybe(words.COLOURS),
                    companion=maybe(words.ALL_ANIMALS),
                    place=maybe(words.PLACES),
                    activity=maybe(words.ALL_ACTIVITIES),
                )
            )
        except ValueError:
            continue
    return scenes


class TestVocabulary:
    def test_has_the_numbers_of_the_papers(self):
        assert len(words.ANIMALS) == 45
        assert len(words.UNSEEN_ANIMALS) == 8
        assert len(set(words.ALL_ANIMALS)) == 53
        assert words.ANIMALS[:3] == ("cat", "dog", "horse")
        assert words.ANIMALS[-1] == "kangaroo"

    @pytest.mark.parametrize(
        ("noun", "plural"),
        [
            ("wolf", "wolves"),
            ("mouse", "mice"),
            ("goose", "geese"),
            ("sheep", "sheep"),
            ("deer", "deer"),
            ("fish", "fish"),
            ("octopus", "octopuses"),
            ("fox", "foxes"),
            ("fly", "flies"),
            ("butterfly", "butterflies"),
            ("monkey", "monkeys"),
            ("coffee cup", "coffee cups"),
        ],
    )
    def test_plurals(self, noun, plural):
        assert words.PLURALS[noun] == plural

    def test_words_are_sorted_single_and_lower_case(self):
        assert list(words.WORDS) == sorted(set(words.WORDS))
        assert all(re.fullmatch("[a-z]+", word) for word in words.WORDS)


class TestRoundTrip:
    def test_every_scene_of_one_part(self):
        for scene in every_scene_of_one_part():
            assert parse(describe(scene)) == scene

    def test_every_pair_of_animals(self):
        for first in words.ALL_ANIMALS:
            for second in words.ALL_ANIMALS:
                if first != second:
                    scene = Scene(first, companion=second)
                    assert parse(describe(scene)) == scene

    def test_any_valid_combination(self):
        for scene in random_valid_scenes(400):
            prompt = describe(scene)
            assert parse(prompt) == scene
            assert parse(prompt.upper() + ".") == scene
            assert set(prompt.split()) <= set(words.WORDS)

    def test_sampled_scenes(self):
        rng = np.random.default_rng(0)
        for _ in range(2000):
            scene = sample_scene(rng)
            assert parse(describe(scene)) == scene

    def test_distinct_scenes_have_distinct_prompts(self):
        scenes = set(every_scene_of_one_part() + random_valid_scenes(400))
        # "fish" and "sheep" are their own plurals, but a number comes before those.
        assert len({describe(scene) for scene in scenes}) == len(scenes)


class TestParse:
    @pytest.mark.parametrize(
        ("prompt", "scene"),
        [
            ("A green colored rabbit", Scene("rabbit", colour="green")),
            ("Four wolves in the park.", Scene("wolf", 4, place="in the park")),
            ("A cat and a dog", Scene("cat", companion="dog")),
            ("A dog on the moon.", Scene("dog", place="on the moon")),
            ("cat", Scene("cat")),
            ("sheep", Scene("sheep")),
            ("two sheep", Scene("sheep", 2)),
            ("a cat", Scene("cat")),
            ("  a   Cat ", Scene("cat")),
            ("a ant playing chess", Scene("ant", activity="playing chess")),
            ("a dolphin riding a bike", Scene("dolphin", activity="riding a bike")),
            ("a bear driving a car", Scene("bear", activity="driving a car")),
            ("car", Scene("car")),
            ("three red coffee cups", Scene("coffee cup", 3, colour="red")),
            (
                "an orange colored cat doing laundry",
                Scene("cat", colour="orange", activity="doing laundry"),
            ),
            (
                "a cat and an octopus under water",
                Scene("cat", companion="octopus", place="under water"),
            ),
        ],
    )
    def test_reads(self, prompt, scene):
        assert parse(prompt) == scene

    def test_reads_the_papers_prompt_sets(self):
        prompts = [*words.ANIMALS, *words.UNSEEN_ANIMALS, *words.RARE_COMPOSITIONS]
        for activity in words.ALL_ACTIVITIES:
            for animal in words.ALL_ANIMALS:
                prompts.append(f"{words.article(animal)} {animal} {activity}")
        for prompt in prompts:
            assert describe(parse(prompt)) == prompt

    @pytest.mark.parametrize(
        ("prompt", "unknown", "near"),
        [
            ("a wolff", "wolff", "wolf"),
            ("a grean colored rabbit", "grean", "green"),
            ("a dog on the mooon", "mooon", "moon"),
        ],
    )
    def test_names_the_unknown_word_and_those_near_it(self, prompt, unknown, near):
        with pytest.raises(VocabularyError, match=repr(unknown)) as error:
            parse(prompt)
        assert near in str(error.value).split("did you mean")[1].partition("?")[0]

    @pytest.mark.parametrize(
        "prompt",
        [
            "",
            ".",
            "a",
            "in the park",
            "dog cat",
            "four wolf",
            "a wolves",
            "two a cats",
            "a colored cat",
            "a cat and",
            "and a dog",
            "a cat in",
            "a cat playing",
            "a cat in the park in the park",
        ],
    )
    def test_refuses_known_words_in_no_known_form(self, prompt):
        with pytest.raises(VocabularyError, match="Known forms"):
            parse(prompt)


class TestSceneValidates:
    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"subject": "unicorn"}, "subject='unicorn'"),
            ({"subject": "wolves"}, "subject='wolves'"),
            ({"subject": "cat", "count": 0}, "count=0"),
            ({"subject": "cat", "count": 6}, "count=6"),
            ({"subject": "cat", "count": True}, "count=True"),
            ({"subject": "cat", "colour": "beige"}, "colour='beige'"),
            ({"subject": "cat", "companion": "chair"}, "companion='chair'"),
            ({"subject": "cat", "place": "park"}, "place='park'"),
            ({"subject": "cat", "activity": "sleeping"}, "activity='sleeping'"),
            ({"subject": "cat", "companion": "cat"}, "must differ"),
            ({"subject": "cat", "companion": "dog", "count": 2}, "neither a count"),
            ({"subject": "cat", "companion": "dog", "colour": "red"}, "nor a colour"),
            ({"subject": "chair", "companion": "dog"}, "only an animal"),
            ({"subject": "chair", "activity": "riding a bike"}, "only an animal"),
            (
                {"subject": "cat", "activity": "riding a bike", "count": 2},
                "neither a count",
            ),
            (
                {"subject": "cat", "activity": "riding a bike", "place": "on the moon"},
                "nor a place",
            ),
        ],
    )
    def test_refuses(self, parts, message):
        with pytest.raises(ValueError, match=message):
            Scene(**parts)

    def test_refuses_on_replace_too(self):
        with pytest.raises(ValueError, match="must differ"):
            replace(Scene("cat"), companion="cat")


class TestSampleScene:
    def test_is_deterministic(self):
        first, second = np.random.default_rng(3), np.random.default_rng(3)
        assert [sample_scene(first) for _ in range(50)] == [
            sample_scene(second) for _ in range(50)
        ]

    def test_shares(self):
        assert sum(share for share, _ in KINDS) == pytest.approx(1.0)
        rng = np.random.default_rng(1)
        scenes = [sample_scene(rng) for _ in range(20_000)]
        plain = [scene for scene in scenes if scene == Scene(scene.subject)]
        animals = Counter(
            scene.subject for scene in plain if scene.subject in words.ALL_ANIMALS
        )
        assert 0.55 < sum(animals.values()) / len(scenes) < 0.60
        # 11,400 draws over 53 animals: 215 each, standard deviation 15.
        assert len(animals) == 53
        assert min(animals.values()) > 140
        assert max(animals.values()) < 290

    def test_shows_every_kind_but_no_rare_composition(self):
        rng = np.random.default_rng(2)
        scenes = [sample_scene(rng) for _ in range(20_000)]
        assert {scene.colour for scene in scenes} == {None, *words.COLOURS}
        assert {scene.place for scene in scenes} == {None, *words.PLACES}
        assert {scene.activity for scene in scenes} == {None, *words.ALL_ACTIVITIES}
        assert {scene.count for scene in scenes} == {1, 2, 3, 4, 5}
        rare = {parse(prompt) for prompt in words.RARE_COMPOSITIONS}
        assert len(rare) == len(words.RARE_COMPOSITIONS) == 10
        assert not rare & set(scenes)
