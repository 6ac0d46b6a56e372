from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection

from tdpo_pipeline.figures.reward_audit import reward_audit


def report(gold: str) -> pd.DataFrame:
    probes = [
        ("blur", 0.1, -1.0, "sees it"),
        ("blur", 0.2, 0.5, "fooled"),
        ("mirror", 1.0, 0.0, "agrees"),
    ]
    rows = [
        {
            "reward": "pick-mini",
            "gold": gold,
            "perturbation": name,
            "strength": strength,
            "change": change,
            "low": change - 0.1,
            "high": change + 0.1,
            "gold_change": -change if gold else np.nan,
            "gold_low": -change - 0.1 if gold else np.nan,
            "gold_high": -change + 0.1 if gold else np.nan,
            "verdict": verdict,
            "n_prompts": 5,
            "n_images": 10,
        }
        for name, strength, change, verdict in probes
    ]
    return pd.DataFrame(rows)


def examples(rows: int) -> np.ndarray:
    return np.full((rows * 4, 4, 3), 128, np.uint8)


def test_a_row_a_perturbation_with_its_picture() -> None:
    drawn = reward_audit(report("gold_match"), examples(3))
    axes = drawn.figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["unperturbed", "blur", "mirror"]
    pictures = [ax for ax in axes.child_axes if ax.images]
    assert len(pictures) == 3
    # Reward and gold of three probes.
    assert len([c for c in axes.collections if isinstance(c, LineCollection)]) == 6
    legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert legend == ["fooled", "no warning, or unclear", "its gold"]
    assert drawn.data.equals(report("gold_match"))


def test_without_gold_there_is_the_reward_alone() -> None:
    drawn = reward_audit(report(""), examples(3))
    axes = drawn.figure.axes[0]
    assert len([c for c in axes.collections if isinstance(c, LineCollection)]) == 3
    legend = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert "its gold" not in legend
    assert "gold" not in axes.get_xlabel()


def test_no_interval_draws_no_bar() -> None:
    table = report("").assign(low=np.nan, high=np.nan)
    axes = reward_audit(table, examples(3)).figure.axes[0]
    assert not [c for c in axes.collections if isinstance(c, LineCollection)]
