"""The words of the world: what a prompt may speak of.

Pure data, without imports of its own world: scenes give the words a grammar and
the renderer gives them a look.
"""

ANIMALS: tuple[str, ...] = (
    *("cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep"),
    *("deer", "cow", "goat", "lion", "tiger", "bear", "raccoon", "fox", "wolf"),
    *("lizard", "beetle", "ant", "butterfly", "fish", "shark", "whale", "dolphin"),
    *("squirrel", "mouse", "rat", "snake", "turtle", "frog", "chicken", "duck"),
    *("goose", "bee", "pig", "turkey", "fly", "llama", "camel", "bat", "gorilla"),
    *("hedgehog", "kangaroo"),
)
"""The 45 training animals, in the order of the published prompt file."""

UNSEEN_ANIMALS: tuple[str, ...] = (
    *("snail", "hippopotamus", "cheetah", "crocodile", "lobster", "octopus"),
    *("elephant", "jellyfish"),
)
"""The 8 animals that fine-tuning never trains on."""

ALL_ANIMALS: tuple[str, ...] = ANIMALS + UNSEEN_ANIMALS

OBJECTS: tuple[str, ...] = (
    *("toaster", "chair", "car", "coffee cup", "umbrella", "clock", "lamp", "book"),
)
"""Everyday objects; a noun may have two words."""

NOUNS: tuple[str, ...] = ALL_ANIMALS + OBJECTS

IRREGULAR_PLURALS: dict[str, str] = {
    "sheep": "sheep",
    "deer": "deer",
    "wolf": "wolves",
    "fish": "fish",
    "mouse": "mice",
    "goose": "geese",
    "jellyfish": "jellyfish",
    "octopus": "octopuses",
    "hippopotamus": "hippopotamuses",
}


def _plural(noun: str) -> str:
    """Plural of a noun: irregular where listed, else by the rules of spelling."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


PLURALS: dict[str, str] = {noun: _plural(noun) for noun in NOUNS}
"""Plural of every noun, e.g. ``PLURALS["wolf"] == "wolves"``."""

COLOURS: tuple[str, ...] = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise"),
)

NUMBERS: dict[str, int] = {"two": 2, "three": 3, "four": 4, "five": 5}

PLACES: tuple[str, ...] = (
    "in the park",
    "on the moon",
    "on the beach",
    "in the snow",
    "in the city",
    "under water",
    "in the desert",
    "in the sky",
)

ACTIVITIES: tuple[str, ...] = ("washing the dishes", "riding a bike", "playing chess")
"""Activities that fine-tuning trains on."""

UNSEEN_ACTIVITIES: tuple[str, ...] = (
    "doing laundry",
    "driving a car",
    "playing soccer",
)
"""Activities that fine-tuning never trains on."""

ALL_ACTIVITIES: tuple[str, ...] = ACTIVITIES + UNSEEN_ACTIVITIES

RARE_COMPOSITIONS: tuple[str, ...] = (
    "a fish riding a bike",
    "a shark riding a bike",
    "a whale riding a bike",
    "a dolphin riding a bike",
    "a lobster riding a bike",
    "an octopus riding a bike",
    "a jellyfish riding a bike",
    "a shark playing chess",
    "a snake washing the dishes",
    "a whale driving a car",
)
"""Prompts that pre-training never shows: their parts are known, their sum is not."""

RARELY_DRAWN: tuple[str, ...] = (
    "a fish riding a bike",
    "a shark riding a bike",
    "a whale riding a bike",
    "a dolphin riding a bike",
    "an octopus riding a bike",
    "a jellyfish riding a bike",
    "a snake washing the dishes",
)
"""Those of them that the shipped base model draws in less than a fifth of its samples
(`base_model_report.json`, "rare"); the others it puts together more often."""

FUNCTION_WORDS: tuple[str, ...] = ("a", "an", "and", "colored")


def _all_words() -> tuple[str, ...]:
    """Every word that can occur in a prompt, sorted."""
    phrases = (
        *FUNCTION_WORDS,
        *NOUNS,
        *PLURALS.values(),
        *COLOURS,
        *NUMBERS,
        *PLACES,
        *ALL_ACTIVITIES,
    )
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


WORDS: tuple[str, ...] = _all_words()
"""Every word that can occur in a prompt, lower case, sorted, without repetition."""


def article(word: str) -> str:
    """The indefinite article of a word of this world: ``"an"`` before a vowel."""
    return "an" if word[0] in "aeiou" else "a"
