"""A reward whose faults are known, audited from the pictures to the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdpo_pipeline.auditing.perturbations import AuditError
from tdpo_pipeline.auditing.probe import examples, score_perturbed
from tdpo_pipeline.overoptimization.reward_audit import (
    audit_markdown,
    audit_report,
    audit_sentences,
)
from tdpo_pipeline.rewards.base import Reward, RewardError, Scores
from tests.tiny import Brightness, NanReward

PROMPTS = ["cat", "cat", "dog", "dog", "cow", "cow", "bat", "bat"]
STRENGTHS = {"darken": [0.2, 0.5], "brighten": [0.3], "mirror": [1], "swap_prompt": [1]}


class Letters(Reward):
    """The number of letters of the prompt, and how bright the picture is."""

    name = "letters"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores of any size."""
        lengths = torch.tensor([float(prompt.count("a")) for prompt in prompts])
        return Scores(images.mean((1, 2, 3)) + lengths)


def images() -> Tensor:
    light = torch.tensor([0.2, 0.5, 0.3, 0.6, 0.4, 0.7, 0.3, 0.5])
    noise = torch.rand(8, 3, 8, 8, generator=torch.manual_seed(0))
    return 0.1 * noise + light.view(8, 1, 1, 1)


def probe(*rewards: Reward, chunk_size: int = 3, **changes: Any) -> Any:
    strengths = changes.pop("strengths", STRENGTHS)
    return score_perturbed(
        rewards, images(), PROMPTS, strengths, seed=1, chunk_size=chunk_size
    )


def test_every_picture_is_scored_under_every_probe() -> None:
    scores = probe(Brightness(), Letters())
    assert len(scores) == 8 * (1 + 5)
    assert scores.columns.tolist() == [
        *("perturbation", "kind", "strength", "prompt", "image"),
        *("brightness", "letters"),
    ]
    clean = scores[scores["perturbation"] == "clean"]
    assert clean["prompt"].tolist() == PROMPTS
    assert clean["image"].tolist() == [0, 1] * 4
    np.testing.assert_allclose(clean["brightness"], images().mean((1, 2, 3)), rtol=1e-6)
    half = scores[(scores["perturbation"] == "darken") & (scores["strength"] == 0.5)]
    np.testing.assert_allclose(
        half["brightness"], 0.5 * clean["brightness"].to_numpy(), rtol=1e-5
    )
    # The wrong prompt is scored, and the picture's own one is noted.
    swapped = scores[scores["perturbation"] == "swap_prompt"]
    assert swapped["prompt"].tolist() == PROMPTS
    # cat, cat, dog, dog, cow, cow, bat, bat -> dog, cow, cow, bat, bat, cat, cat, dog
    found = (swapped["letters"] - swapped["brightness"]).round().tolist()
    assert found == [0, 0, 0, 1, 1, 1, 1, 0]


def test_chunks_do_not_matter() -> None:
    noisy = {"noise": [0.1], "text": [0.3]}
    tables = [
        probe(Brightness(), chunk_size=size, strengths=noisy) for size in (1, 3, 100)
    ]
    for table in tables[1:]:
        np.testing.assert_allclose(
            table["brightness"], tables[0]["brightness"], atol=1e-6
        )


def test_known_faults_are_found() -> None:
    report = audit_report(probe(Brightness()), "brightness")
    report = report.set_index(["perturbation", "strength"])
    # Brightness is not style's business to judge, so that it can merely be raised.
    assert report.loc[("brighten", 0.3), "verdict"] == "raised"
    assert report.loc[("darken", 0.5), "verdict"] == "lowered"
    assert report.loc[("mirror", 1.0), "verdict"] == "agrees"
    assert report.loc[("swap_prompt", 1.0), "verdict"] == "blind"
    assert report.loc[("swap_prompt", 1.0), "reads_nothing"]
    lines = "\n".join(audit_sentences(report.reset_index()))
    assert "doesn't read the prompt" in lines


def test_gold_judges_where_there_is_one() -> None:
    # Measured by a gold that likes the dark, brightness is fooled by light.
    scores = probe(Brightness())
    scores["darkness"] = -scores["brightness"]
    report = audit_report(scores, "brightness", "darkness")
    report = report.set_index(["perturbation", "strength"])
    assert report.loc[("brighten", 0.3), "verdict"] == "fooled"
    assert report.loc[("darken", 0.5), "verdict"] == "wrong way"
    assert report.loc[("swap_prompt", 1.0), "verdict"] == "agrees"
    text = audit_markdown(report.reset_index())
    assert "Fooled: the score rises while the picture gets worse: brighten 0.3" in text


def test_examples_are_the_first_picture() -> None:
    shown = examples(images(), PROMPTS, STRENGTHS, seed=1)
    assert shown.shape == (5 * 8, 8, 3)
    assert shown.dtype == np.uint8
    clean, darkest = shown[:8], shown[8:16]
    pixels = (images()[0] * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(clean, pixels)
    # The greatest strength, 0.5, is shown.
    np.testing.assert_allclose(darkest, pixels / 2, atol=1)


def test_bad_input_is_an_error() -> None:
    with pytest.raises(AuditError, match="did you mean darken"):
        probe(Brightness(), strengths={"darkn": [0.1]})
    with pytest.raises(RewardError, match="NaN"):
        probe(NanReward())
