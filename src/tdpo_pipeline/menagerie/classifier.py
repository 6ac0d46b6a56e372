"""Independent readers of pictures: they tell what a picture shows.

Trained on renders only, never on samples, and used only to measure the base model.
The animal reader names the animal of a plain picture (with or without sight of
colour). The scene reader tells everything that a scene may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tdpo_pipeline.menagerie.optimization import adamw, batches
from tdpo_pipeline.menagerie.scenes import Scene
from tdpo_pipeline.menagerie.vocabulary import (
    ALL_ACTIVITIES,
    ALL_ANIMALS,
    COLOURS,
    NOUNS,
    PLACES,
)

_BATCH = 500
_LUMA = (0.299, 0.587, 0.114)

COUNTS = (1, 2, 3, 4, 5)
HEADS: dict[str, tuple[object, ...]] = {
    "count": COUNTS,
    "colour": (None, *COLOURS),
    "place": (None, *PLACES),
    "activity": (None, *ALL_ACTIVITIES),
}
"""What the scene reader tells besides the nouns, with all possible answers."""


def to_grey(images: Tensor) -> Tensor:
    """Pictures without colour (ITU-R 601 luma in all channels), same shape."""
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def build_reader(outputs: int, width: int, seed: int) -> nn.Sequential:
    """A small convolutional network from pictures to logits, with random weights.

    Args:
        outputs: Number of logits.
        width: Channels of the first layer; doubled whenever the picture is halved.
        seed: Seed of the weights.

    Returns:
        Module: float (N, 3, 32, 32) in [0, 1] -> (N, outputs).
    """

    def stage(inside: int, outside: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *stage(3, width, 1),
            *stage(width, 2 * width, 2),
            *stage(2 * width, 2 * width, 1),
            *stage(2 * width, 4 * width, 2),
            *stage(4 * width, 4 * width, 1),
            *stage(4 * width, 8 * width, 2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * width, outputs),
        )


def animal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of animals: logits (N, 53), labels int64 (N,)."""
    return functional.cross_entropy(logits, labels)


def scene_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of the scene reader: one yes or no for each noun, one choice a head.

    Args:
        logits: Shape (N, outputs of the scene reader).
        labels: From :func:`scene_labels`, stacked.
    """
    nouns, *heads = _split(logits)
    wanted, answers = labels[:, : len(NOUNS)].float(), labels[:, len(NOUNS) :]
    loss = 10 * functional.binary_cross_entropy_with_logits(nouns, wanted)
    for head, answer in zip(heads, answers.T, strict=True):
        loss = loss + functional.cross_entropy(head, answer)
    return loss


SCENE_OUTPUTS = len(NOUNS) + sum(len(answers) for answers in HEADS.values())
"""Logits of the scene reader."""


def _split(logits: Tensor) -> tuple[Tensor, ...]:
    sizes = [len(NOUNS), *(len(answers) for answers in HEADS.values())]
    return logits.split(sizes, dim=1)


def scene_labels(scene: Scene) -> list[int]:
    """What the scene reader should tell: 0 or 1 for each noun, an index a head."""
    shown = {scene.subject, scene.companion}
    nouns = [int(noun in shown) for noun in NOUNS]
    answers = [HEADS[name].index(getattr(scene, name)) for name in HEADS]
    return nouns + answers


def train_reader(
    reader: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    grey: bool,
    passes: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> nn.Module:
    """Train a reader in place; gives it back in evaluation mode.

    Args:
        reader: From :func:`build_reader`.
        images: Renders, uint8, shape (N, 3, 32, 32).
        labels: int64, shape (N,) for animals, (N, K) for scenes.
        loss: :func:`animal_loss` or :func:`scene_loss`.
        grey: Hide the colour.
        passes: Passes over the pictures.
        batch_size: Pictures an update.
        learning_rate: Peak of the learning rate.
        seed: Seed of the order.
    """
    steps = max(1, passes * len(images) // batch_size)
    optimizer, schedule = adamw(reader.parameters(), learning_rate, steps)
    generator = torch.Generator().manual_seed(seed)
    reader.train()
    for chosen in batches(len(images), batch_size, steps, generator):
        batch = images[chosen].float() / 255
        value = loss(reader(to_grey(batch) if grey else batch), labels[chosen])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


@torch.no_grad()
def logits_of(reader: nn.Module, images: Tensor, *, grey: bool = False) -> Tensor:
    """Logits (N, outputs) of pictures, float in [0, 1], shape (N, 3, 32, 32)."""
    parts = [reader(to_grey(b) if grey else b) for b in images.split(_BATCH)]
    return torch.cat(parts)


def read_animals(reader: nn.Module, images: Tensor, *, grey: bool = False) -> list[str]:
    """The animal in each picture, as the animal reader sees it."""
    best = logits_of(reader, images, grey=grey).argmax(1).tolist()
    return [ALL_ANIMALS[index] for index in best]


def read_scenes(
    reader: nn.Module, images: Tensor, scenes: Sequence[Scene]
) -> dict[str, Tensor]:
    """Which parts of the wanted scenes the scene reader finds.

    Nouns count as right if the most probable one is the subject, or the two most
    probable ones are subject and companion.

    Args:
        reader: The scene reader.
        images: Float in [0, 1], shape (N, 3, 32, 32).
        scenes: The N wanted scenes.

    Returns:
        Bool of shape (N,) for ``nouns``, each head, and ``all`` of them together.
    """
    nouns, *heads = _split(logits_of(reader, images))
    labels = torch.tensor([scene_labels(scene) for scene in scenes])
    found = torch.zeros_like(nouns, dtype=torch.long)
    for row, scene in enumerate(scenes):
        kinds = 1 if scene.companion is None else 2
        found[row, nouns[row].topk(kinds).indices] = 1
    right = {"nouns": (found == labels[:, : len(NOUNS)]).all(1)}
    for column, (name, head) in enumerate(zip(HEADS, heads, strict=True)):
        right[name] = head.argmax(1) == labels[:, len(NOUNS) + column]
    right["all"] = torch.stack(list(right.values())).all(0)
    return right
