from __future__ import annotations

import math

import pandas as pd
import pytest

from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.export.strengths import (
    frontier,
    measure_strengths,
    recommended_strength,
)
from tests import tiny


def scores(held_out: dict[float, list[float]]) -> pd.DataFrame:
    """Two prompts of one image each; the trained reward is the strength."""
    rows = [
        (strength, prompt, 0, strength, value)
        for strength, values in held_out.items()
        for prompt, value in zip(("cat", "dog"), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["strength", "prompt", "image", "r", "gold"])


def test_the_frontier_by_hand() -> None:
    # Changes at strength 1: 0.5 - 0 and 0.7 - 0.4, mean 0.4, standard deviation
    # sqrt(2) * 0.1; the t interval with one degree of freedom is 12.7062 * 0.1.
    table = frontier(scores({0.0: [0.0, 0.4], 1.0: [0.5, 0.7]}), "r", "gold")
    assert table["strength"].tolist() == [0.0, 1.0]
    assert table["held_out"].tolist() == pytest.approx([0.2, 0.6])
    assert table["trained"].tolist() == [0.0, 1.0]
    assert table["change"].tolist() == pytest.approx([0.0, 0.4])
    assert table["high"].iloc[1] - 0.4 == pytest.approx(1.27062, abs=1e-5)
    assert 0.4 - table["low"].iloc[1] == pytest.approx(1.27062, abs=1e-5)


def test_images_of_a_prompt_are_averaged_first() -> None:
    rows = [(0.0, "cat", 0, 0.0, 1.0), (0.0, "cat", 1, 0.0, 3.0)]
    rows += [(0.0, "dog", 0, 0.0, 8.0)]
    table = pd.DataFrame(rows, columns=["strength", "prompt", "image", "r", "gold"])
    # (2 + 8) / 2, and not (1 + 3 + 8) / 3.
    assert frontier(table, "r", "gold")["held_out"].tolist() == [5.0]


def test_one_prompt_has_no_interval() -> None:
    table = scores({0.0: [0.0, 0.0]}).query("prompt == 'cat'")
    assert math.isnan(frontier(table, "r", "gold")["low"].iloc[0])


def test_the_base_model_must_be_measured() -> None:
    with pytest.raises(ValueError, match="Strength 0"):
        frontier(scores({0.5: [1.0, 1.0]}), "r", "gold")


@pytest.mark.parametrize(
    ("change", "best"),
    [
        ({0.5: 0.1, 1.0: 0.0, 1.5: -0.1}, 1.0),  # not below: 0 will do
        ({0.5: 0.2, 1.0: 0.3}, 1.0),
        ({0.5: -0.1, 1.0: -0.2}, None),
        ({0.5: -0.1, 1.0: 0.1}, 1.0),
    ],
)
def test_the_recommendation(change: dict[float, float], best: float | None) -> None:
    table = scores({0.0: [0, 0], **{s: [c, c] for s, c in change.items()}})
    assert recommended_strength(frontier(table, "r", "gold")) == best


def test_strengths_are_measured_on_the_same_noise() -> None:
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=tiny.LORA)
    policy.load_state_dict({k: v + 0.2 for k, v in policy.state_dict().items()})
    rewards = {"redness": tiny.Redness(), "brightness": tiny.Brightness()}
    table = measure_strengths(
        policy,
        rewards,
        tiny.PROMPTS,
        tiny.training(num_inference_steps=2),
        strengths=(0.0, 0.0, 1.0),
        images_per_prompt=3,
        seed=0,
    )
    first, again, trained = (table.iloc[i : i + 6] for i in (0, 6, 12))
    assert first["prompt"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert first["image"].tolist() == [0, 1, 2] * 2
    assert first["redness"].tolist() == again["redness"].tolist()
    assert (first["redness"].to_numpy() != trained["redness"].to_numpy()).all()
    assert first["redness"].nunique() == 6
