"""Verdicts of an audit on made-up scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import ScoreTableError
from tdpo_pipeline.overoptimization.reward_audit import (
    audit_caption,
    audit_markdown,
    audit_report,
    audit_sentences,
    direction,
    verdict,
)

PROMPTS = [f"animal {i}" for i in range(20)]


def scores(
    changes: dict[tuple[str, str, float], tuple[float, float]], *, spread: float = 0.1
) -> pd.DataFrame:
    """Scores with these mean changes of reward and gold, whose base SD is about 1."""
    rng = np.random.default_rng(0)
    clean = pd.DataFrame(
        [(prompt, image) for prompt in PROMPTS for image in range(4)],
        columns=["prompt", "image"],
    )
    base = rng.normal(size=(len(clean), 2))
    base /= base.std(axis=0, ddof=1)
    tables = [
        clean.assign(
            perturbation="clean", kind="clean", strength=0.0, r=base[:, 0], g=base[:, 1]
        )
    ]
    for (name, kind, strength), means in changes.items():
        moved = (
            base + means + rng.normal(0, spread, base.shape) * (np.array(means) != 0)
        )
        head = {"perturbation": name, "kind": kind, "strength": strength}
        tables.append(clean.assign(**head, r=moved[:, 0], g=moved[:, 1]))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.3, "rises"),
        (-0.3, -0.1, "falls"),
        (0.05, 0.15, "stays"),  # surely above 0, and surely too little to matter
        (-0.1, 0.3, "unclear"),
        (np.nan, np.nan, "unclear"),
    ],
)
def test_directions_by_hand(low: float, high: float, expected: str) -> None:
    assert direction(low, high, 0.2) == expected


def test_verdicts() -> None:
    assert verdict("falls", "rises") == "fooled"
    assert verdict("falls", "stays") == "blind"
    assert verdict("rises", "falls") == "wrong way"
    assert verdict("stays", "unclear") == "cannot tell"
    assert verdict("unclear", "unclear") == "cannot tell"


def test_each_verdict_is_reached() -> None:
    table = scores(
        {
            ("blur", "damage", 0.1): (0.5, -1.0),
            ("blur", "damage", 0.2): (0.0, -1.0),
            ("noise", "damage", 0.1): (-0.5, -1.0),
            ("warm", "style", 0.1): (0.5, 0.5),
            ("cool", "style", 0.1): (-0.5, 0.5),
            ("mirror", "neutral", 1.0): (0.0, 0.0),
            ("swap_prompt", "prompt", 1.0): (0.0, -2.0),
        }
    )
    report = audit_report(table, "r", "g")
    assert report["verdict"].tolist() == [
        *("fooled", "blind", "sees it", "agrees", "wrong way", "agrees", "blind"),
    ]
    assert report["change"].tolist() == pytest.approx(
        [0.5, 0, -0.5, 0.5, -0.5, 0, 0], abs=0.05
    )
    assert report["gold_change"].iloc[0] == pytest.approx(-1, abs=0.05)
    assert (report["low"] <= report["change"]).all()
    assert (report["high"] >= report["change"]).all()
    assert report["share_up"].iloc[0] > 0.95
    assert report["n_prompts"].unique().tolist() == [20]
    assert report["n_images"].unique().tolist() == [80]

    lines = audit_sentences(report)
    assert lines[0].startswith("Fooled: the score rises while the picture gets worse: ")
    assert "blur 0.1 (+0.4" in lines[0] and "blur 0.2" not in lines[0]
    assert any(line.startswith("Wrong way") and "cool 0.1" in line for line in lines)
    assert any("doesn't read the prompt" in line for line in lines)
    text = audit_markdown(report)
    assert text.startswith("# Audit of r\n")
    assert "80 pictures of 20 prompts" in audit_caption(report)
    assert text.count("\n|") == 1 + 1 + 7


def test_without_gold_the_kind_judges() -> None:
    table = scores(
        {
            ("blur", "damage", 0.1): (0.5, 0.0),
            ("warm", "style", 0.1): (0.5, 0.0),
            ("mirror", "neutral", 1.0): (-0.5, 0.0),
            ("swap_prompt", "prompt", 1.0): (-2.0, 0.0),
        }
    )
    report = audit_report(table, "r")
    assert report["verdict"].tolist() == ["fooled", "raised", "lowered", "sees it"]
    assert report["gold_change"].isna().all()
    assert report["gold"].unique().tolist() == [""]
    text = audit_markdown(report)
    assert "No gold is known" in text
    assert "nan" not in text
    assert "doesn't read" not in text


def test_units_are_base_deviations() -> None:
    table = scores({("warm", "style", 0.1): (0.5, 0.0)})
    ten = table.assign(r=10 * table["r"] + 3)
    pd.testing.assert_frame_equal(audit_report(table, "r"), audit_report(ten, "r"))


def test_noise_is_no_finding() -> None:
    # Twenty probes that change nothing in the mean: not one may rise or fall.
    probes = {("noise", "damage", float(i)): (1e-9, 0.0) for i in range(1, 21)}
    report = audit_report(scores(probes, spread=1.5), "r")
    assert not set(report["direction"]) & {"rises", "falls"}


def test_nothing_found_is_said() -> None:
    report = audit_report(scores({("blur", "damage", 0.1): (-1.0, 0.0)}), "r")
    assert audit_sentences(report) == [
        "Nothing that was tried was shown to fool it: to raise its mean score while the picture got worse."
    ]


def test_nothing_is_said_of_fooling_where_no_picture_got_worse() -> None:
    report = audit_report(scores({("warm", "style", 0.1): (0.0, 0.0)}), "r")
    assert audit_sentences(report) == []


def test_one_prompt_has_no_interval_and_no_verdict() -> None:
    table = scores({("blur", "damage", 0.1): (0.5, -1.0)})
    report = audit_report(table[table["prompt"] == PROMPTS[0]], "r", "g")
    assert report["low"].isna().all()
    assert report["verdict"].tolist() == ["cannot tell"]
    assert "no interval" in audit_markdown(report)


def test_bad_tables_are_errors() -> None:
    table = scores({("blur", "damage", 0.1): (0.5, -1.0)})
    with pytest.raises(ScoreTableError, match="lacks the columns \\['x'\\]"):
        audit_report(table, "x")
    with pytest.raises(ScoreTableError, match="NaN or infinite"):
        audit_report(table.assign(r=np.nan), "r")
    with pytest.raises(ScoreTableError, match="scores all 80 clean pictures the same"):
        audit_report(table.assign(r=1.0), "r")
    with pytest.raises(ScoreTableError, match="no 'clean' pictures"):
        audit_report(table[table["perturbation"] != "clean"], "r")
    with pytest.raises(ScoreTableError, match="not the clean ones"):
        audit_report(table.iloc[:-1], "r")
    with pytest.raises(ScoreTableError, match="not the clean ones"):
        audit_report(pd.concat([table, table.iloc[-1:]]), "r")
