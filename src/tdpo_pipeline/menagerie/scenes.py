"""Scenes: the typed meaning of a prompt, and the way from one to the other.

``describe`` and ``parse`` are inverse: ``parse(describe(scene)) == scene`` for every
valid scene, and ``describe(parse(prompt))`` is the canonical form of a prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.menagerie import vocabulary as words

_NUMBER_WORDS = {number: word for word, number in words.NUMBERS.items()}
_SINGULARS = {plural: noun for noun, plural in words.PLURALS.items()}
_FORMS = (
    "'cat', 'a green colored cat', 'four cats', 'a cat and a dog', each with a place "
    "such as 'in the park' if wanted, or 'a cat riding a bike'"
)


class VocabularyError(ValueError):
    """A prompt has a word, or a word order, that this world does not know."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        subject: An animal or an object, in the singular.
        count: How many of the subject, 1 to 5.
        colour: One of ``COLOURS``, or None for the natural colour.
        companion: A second, other animal beside the subject.
        place: One of ``PLACES``, or None for a plain background.
        activity: One of ``ALL_ACTIVITIES``; for one animal without a place.

    Raises:
        ValueError: If a part is unknown or the parts do not go together.
    """

    subject: str
    count: int = 1
    colour: str | None = None
    companion: str | None = None
    place: str | None = None
    activity: str | None = None

    def __post_init__(self) -> None:
        """Check every part, then the combination."""
        _check_member("subject", self.subject, words.NOUNS)
        _check_member("count", self.count, (1, *words.NUMBERS.values()))
        for name, allowed in (
            ("colour", words.COLOURS),
            ("companion", words.ALL_ANIMALS),
            ("place", words.PLACES),
            ("activity", words.ALL_ACTIVITIES),
        ):
            if getattr(self, name) is not None:
                _check_member(name, getattr(self, name), allowed)
        conflict = _conflict(self)
        if conflict:
            raise ValueError(f"{self!r} cannot be drawn: {conflict}.")


def _check_member(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError if a part of a scene is not one of the allowed values."""
    if isinstance(value, bool) or value not in allowed:
        raise ValueError(
            f"Scene.{name}={value!r} is not in the vocabulary; "
            f"choose one of {', '.join(map(str, allowed))}."
        )


def _conflict(scene: Scene) -> str | None:
    """Why the parts of a scene do not go together, or None if they do."""
    if scene.companion is not None:
        if scene.companion == scene.subject:
            return "a companion must differ from the subject (use count=2)"
        if scene.subject not in words.ALL_ANIMALS:
            return "only an animal can have a companion"
        if scene.count > 1 or scene.colour is not None:
            return "a companion goes with neither a count nor a colour"
    if scene.activity is not None:
        if scene.subject not in words.ALL_ANIMALS:
            return "only an animal can have an activity"
        if scene.count > 1 or scene.companion is not None or scene.place is not None:
            return "an activity goes with neither a count, a companion nor a place"
    return None


def describe(scene: Scene) -> str:
    """The canonical prompt of a scene, in lower case and without a period.

    A plain scene is the bare noun (``"cat"``), as in the published prompt sets;
    everything else has an article or a number.
    """
    ending = scene.place or scene.activity
    if scene == Scene(scene.subject):
        return scene.subject
    if scene.companion is not None:
        phrase = f"{_with_article(scene.subject)} and {_with_article(scene.companion)}"
    else:
        phrase = _noun_phrase(scene)
    return phrase if ending is None else f"{phrase} {ending}"


def _noun_phrase(scene: Scene) -> str:
    """Number or article, colour and noun of a scene without a companion."""
    adjective = "" if scene.colour is None else f"{scene.colour} colored "
    if scene.count > 1:
        number = _NUMBER_WORDS[scene.count]
        return f"{number} {adjective}{words.PLURALS[scene.subject]}"
    return _with_article(adjective + scene.subject)


def _with_article(phrase: str) -> str:
    """A phrase with its indefinite article before it."""
    return f"{words.article(phrase)} {phrase}"


def parse(prompt: str) -> Scene:
    """The scene that a prompt speaks of.

    Letter case, repeated blanks and one final period do not matter; "a" and "an"
    are read alike, an article before a lone noun and "colored" after a colour may
    be left out or given.

    Args:
        prompt: Such as ``"Four wolves in the park"``.

    Raises:
        VocabularyError: If a word is unknown (the error names words near it) or the
            words have an order that is not understood.
        ValueError: If the parts do not go together, see :class:`Scene`.
    """
    tokens = prompt.strip().removesuffix(".").lower().split()
    _check_words(tokens, prompt)
    tokens, place = _split_ending(tokens, words.PLACES)
    tokens, activity = _split_ending(tokens, words.ALL_ACTIVITIES)
    if "and" in tokens:
        middle = tokens.index("and")
        subject = _singular(tokens[:middle], prompt)
        companion = _singular(tokens[middle + 1 :], prompt)
        return Scene(subject, companion=companion, place=place, activity=activity)
    subject, count, colour = _read_noun_phrase(tokens, prompt)
    return Scene(subject, count, colour, place=place, activity=activity)


def _check_words(tokens: list[str], prompt: str) -> None:
    """Raise VocabularyError at the first word that this world does not know."""
    for token in tokens:
        if token not in words.WORDS:
            raise VocabularyError(
                f"Unknown word {token!r}{did_you_mean(token, words.WORDS)} in prompt "
                f"{prompt!r}. All words: tdpo_pipeline.menagerie.vocabulary.WORDS."
            )


def _split_ending(
    tokens: list[str], endings: tuple[str, ...]
) -> tuple[list[str], str | None]:
    """Split the phrase off that ends a prompt, if it is one of ``endings``."""
    for ending in endings:
        length = len(ending.split())
        if len(tokens) > length and tokens[-length:] == ending.split():
            return tokens[:-length], ending
    return tokens, None


def _read_noun_phrase(tokens: list[str], prompt: str) -> tuple[str, int, str | None]:
    """Subject, count and colour of a noun phrase."""
    count, rest = 1, tokens
    if rest and rest[0] in words.NUMBERS:
        count, rest = words.NUMBERS[rest[0]], rest[1:]
    elif rest and rest[0] in ("a", "an"):
        rest = rest[1:]
    colour = rest[0] if rest and rest[0] in words.COLOURS else None
    if colour is not None:
        rest = rest[2:] if rest[1:2] == ["colored"] else rest[1:]
    if count == 1:
        return _singular(rest, prompt, articles=()), count, colour
    noun = _SINGULARS.get(" ".join(rest))
    if noun is None:
        raise _misread(prompt)
    return noun, count, colour


def _singular(
    tokens: list[str], prompt: str, articles: tuple[str, ...] = ("a", "an")
) -> str:
    """The noun in ``[article] noun``."""
    noun = " ".join(tokens[1:] if tokens[:1] and tokens[0] in articles else tokens)
    if noun not in words.NOUNS:
        raise _misread(prompt)
    return noun


def _misread(prompt: str) -> VocabularyError:
    """The error for known words in an unknown order."""
    return VocabularyError(
        f"Prompt {prompt!r} has known words but no known form. Known forms: {_FORMS}."
    )


def _pick(rng: np.random.Generator, items: tuple[str, ...]) -> str:
    """One of the items, uniformly."""
    return items[int(rng.integers(len(items)))]


def _plain(rng: np.random.Generator) -> Scene:
    return Scene(_pick(rng, words.ALL_ANIMALS))


def _object(rng: np.random.Generator) -> Scene:
    return Scene(_pick(rng, words.OBJECTS))


def _coloured(rng: np.random.Generator) -> Scene:
    return Scene(_pick(rng, words.ALL_ANIMALS), colour=_pick(rng, words.COLOURS))


def _counted(rng: np.random.Generator) -> Scene:
    """Several animals; half of the time in a place."""
    number = words.NUMBERS[_pick(rng, tuple(words.NUMBERS))]
    place = _pick(rng, words.PLACES) if rng.random() < COUNTED_IN_PLACE else None
    return Scene(_pick(rng, words.ALL_ANIMALS), number, place=place)


def _accompanied(rng: np.random.Generator) -> Scene:
    first, second = rng.choice(len(words.ALL_ANIMALS), size=2, replace=False)
    return Scene(words.ALL_ANIMALS[first], companion=words.ALL_ANIMALS[second])


def _placed(rng: np.random.Generator) -> Scene:
    return Scene(_pick(rng, words.ALL_ANIMALS), place=_pick(rng, words.PLACES))


def _active(rng: np.random.Generator) -> Scene:
    """An animal with an activity, but never a rare composition."""
    while True:
        activity = _pick(rng, words.ALL_ACTIVITIES)
        scene = Scene(_pick(rng, words.ALL_ANIMALS), activity=activity)
        if describe(scene) not in words.RARE_COMPOSITIONS:
            return scene


COUNTED_IN_PLACE = 0.4
"""Share of the counted scenes that also have a place."""

KINDS: tuple[tuple[float, Callable[[np.random.Generator], Scene]], ...] = (
    (0.57, _plain),
    (0.05, _object),
    (0.07, _coloured),
    (0.08, _counted),
    (0.06, _accompanied),
    (0.08, _placed),
    (0.09, _active),
)
"""The pre-training distribution: share and sampler of each kind of scene."""

_CUMULATIVE = np.cumsum([share for share, _ in KINDS])


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw one scene of the pre-training distribution.

    More than half are plain animals, all 53 alike, because the main prompt sets are
    bare nouns; the rest teach the language of the complex prompts. Scenes in
    ``RARE_COMPOSITIONS`` never come.

    Args:
        rng: Source of randomness; the result depends on nothing else.
    """
    kind = int(np.searchsorted(_CUMULATIVE, rng.random() * _CUMULATIVE[-1], "right"))
    return KINDS[min(kind, len(KINDS) - 1)][1](rng)
