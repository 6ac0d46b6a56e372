"""The readers that measure the base model, and the report they make."""

from __future__ import annotations

import json

import pytest
import torch

from tdpo_pipeline.menagerie.base_model import build_pipeline
from tdpo_pipeline.menagerie.base_model_report import (
    accuracy,
    base_model_report,
    plain_renders,
    scene_renders,
)
from tdpo_pipeline.menagerie.base_model_settings import BaseModelSettings
from tdpo_pipeline.menagerie.classifier import (
    HEADS,
    SCENE_OUTPUTS,
    animal_loss,
    build_reader,
    read_animals,
    read_scenes,
    scene_labels,
    to_grey,
    train_reader,
)
from tdpo_pipeline.menagerie.scenes import Scene, describe
from tdpo_pipeline.menagerie.vocabulary import (
    ALL_ANIMALS,
    NOUNS,
    RARE_COMPOSITIONS,
)
from tests.menagerie.test_base_model import TINY


class Answers(torch.nn.Module):
    """Gives the logits it was made with, whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


def perfect_logits(scenes: list[Scene]) -> torch.Tensor:
    """Logits of a reader that is right about all scenes."""
    rows = []
    for scene in scenes:
        labels = scene_labels(scene)
        parts = [torch.tensor(labels[: len(NOUNS)]).float()]
        for answers, label in zip(HEADS.values(), labels[len(NOUNS) :], strict=True):
            parts.append(torch.eye(len(answers))[label])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def test_accuracy() -> None:
    # 8 of 10: centre (0.8 + 0.19207) / 1.38415, half width 0.22663
    eight = accuracy([True] * 8 + [False] * 2)
    assert eight["ci95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert accuracy([True, True, False, True]) == {
        "accuracy": 0.75,
        "ci95": [0.3006, 0.9544],
        "n": 4,
    }


def test_grey_has_no_colour() -> None:
    images = torch.rand(2, 3, 32, 32)
    grey = to_grey(images)
    assert grey.shape == images.shape
    assert torch.equal(grey[:, 0], grey[:, 2])
    pure = torch.zeros(1, 3, 1, 1)
    pure[0, 1] = 1.0
    assert to_grey(pure)[0, 0, 0, 0].item() == pytest.approx(0.587)


def test_a_reader_reads_perfect_scenes() -> None:
    scenes = [
        Scene("rabbit", colour="green"),
        Scene("wolf", count=4, place="in the park"),
        Scene("cat", companion="dog"),
        Scene("dog", activity="riding a bike"),
    ]
    logits = perfect_logits(scenes)
    assert logits.shape == (4, SCENE_OUTPUTS)
    images = torch.zeros(4, 3, 32, 32)
    assert read_scenes(Answers(logits), images, scenes)["all"].all()
    swapped = [Scene("dog", companion="cat") if s.companion else s for s in scenes]
    assert read_scenes(Answers(logits), images, swapped)["all"].all()


def test_a_wrong_part_is_found() -> None:
    images = torch.zeros(1, 3, 32, 32)
    shown = Answers(perfect_logits([Scene("wolf", count=3, place="in the park")]))
    wanted = [Scene("wolf", count=4, place="in the park")]
    right = read_scenes(shown, images, wanted)
    wrong = [part for part, hits in right.items() if not hits.item()]
    assert wrong == ["count", "all"]


def test_a_reader_learns() -> None:
    images, names = plain_renders(12, seed=0)
    few = ALL_ANIMALS[:4]
    keep = [i for i, name in enumerate(names) if name in few]
    labels = torch.tensor([ALL_ANIMALS.index(names[i]) for i in keep])
    reader = train_reader(
        build_reader(len(ALL_ANIMALS), 8, seed=0),
        images[keep],
        labels,
        loss=animal_loss,
        grey=False,
        passes=20,
        batch_size=16,
        learning_rate=3e-3,
        seed=0,
    )
    read = read_animals(reader, images[keep].float() / 255)
    right = [seen == names[i] for seen, i in zip(read, keep, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_the_scene_reader_sees_rare_compositions() -> None:
    _, scenes = scene_renders(300, seed=0)
    assert {describe(scene) for scene in scenes} & set(RARE_COMPOSITIONS)


def test_report_of_a_random_model() -> None:
    settings = BaseModelSettings.model_validate(TINY)
    report = base_model_report(build_pipeline(settings, 0), settings.report)
    json.dumps(report)
    assert report["sampler"]["guidance_scale"] == 2.0
    for kind in ("renders", "reconstructions", "samples"):
        for sight in ("colour", "grey"):
            assert report[kind][sight]["training_animals"]["n"] == 45
            assert report[kind][sight]["unseen_animals"]["n"] == 8
    assert len(report["complex"]) == 4
    assert set(report["rare"]) == set(RARE_COMPOSITIONS)
    assert len(report["samples_by_animal"]) == 53
