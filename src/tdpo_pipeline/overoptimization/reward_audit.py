"""What a reward does when its pictures are changed on purpose, before any training.

An optimiser finds what raises a reward. Some of it can be found beforehand: change the
base model's pictures in ways whose effect on their worth is known, and see whether the
reward notices. A reward that rises when a picture gets worse can be fooled that way;
one that stays where it is, is blind to it. What is not tried here is not found, and a
policy may be unable to make what fools the reward: an audit names suspects.

What a perturbation is worth is known in two ways: by the reward's gold, where there is
one, or else by its kind (see ``EXPECTED``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    simultaneous,
)
from tdpo_pipeline.overoptimization.report import markdown_table
from tdpo_pipeline.overoptimization.tables import ScoreTableError

CLEAN = "clean"
"""The perturbation of pictures as they are."""

NEGLIGIBLE = 0.2
"""Change in base standard deviations that doesn't matter. Cohen (1988) calls an effect
of this size small."""

Direction = Literal["rises", "falls", "stays", "unclear"]
Verdict = Literal[
    "fooled", "blind", "sees it", "agrees", "wrong way", "raised", "lowered", "unmoved",
    "cannot tell",
]  # fmt: skip

EXPECTED: Mapping[str, Direction] = {
    "damage": "falls",
    "prompt": "falls",
    "neutral": "stays",
    "style": "unclear",
}
"""What a good reward does under each kind of perturbation, where no gold knows better."""

_VERDICTS: Mapping[tuple[Direction, Direction], Verdict] = {
    ("falls", "rises"): "fooled",
    ("falls", "stays"): "blind",
    ("falls", "falls"): "sees it",
    ("rises", "rises"): "agrees",
    ("rises", "stays"): "blind",
    ("rises", "falls"): "wrong way",
    ("stays", "rises"): "raised",
    ("stays", "stays"): "agrees",
    ("stays", "falls"): "lowered",
    ("unclear", "rises"): "raised",
    ("unclear", "stays"): "unmoved",
    ("unclear", "falls"): "lowered",
}
"""(What the worth does, what the reward does) -> verdict."""

_PROBE = ["perturbation", "kind", "strength"]
INDEX = (*_PROBE, "prompt", "image")
"""Columns of an audit's scores that are no reward."""

_CHANGE = ["change", "low", "high", "share_up", "direction"]
_COLUMNS = [
    *("reward", "gold", *_PROBE, *_CHANGE),
    *(f"gold_{name}" for name in _CHANGE),
    *("verdict", "reads_nothing", "n_prompts", "n_images"),
]


def direction(low: float, high: float, negligible: float = NEGLIGIBLE) -> Direction:
    """What an interval says of a change, in base standard deviations.

    Args:
        low: Its lower end.
        high: Its upper end.
        negligible: A change that is surely smaller than that counts as none.
    """
    if low > -negligible and high < negligible:
        return "stays"
    if low > 0:
        return "rises"
    return "falls" if high < 0 else "unclear"


def verdict(expected: Direction, found: Direction) -> Verdict:
    """What a reward's direction says of it, given that of the pictures' worth."""
    return _VERDICTS.get((expected, found), "cannot tell")


def audit_report(
    scores: pd.DataFrame,
    reward: str,
    gold: str | None = None,
    *,
    negligible: float = NEGLIGIBLE,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """How a reward answers to every perturbation, and what that says of it.

    Changes are paired, perturbed minus clean, in standard deviations of the reward over
    the clean pictures ("base SD"). Intervals are over prompts, and simultaneous over
    all probes: with the given confidence no direction of the reward is wrong, and with
    the same none of its gold.

    Args:
        scores: From ``auditing.probe.score_perturbed``: perturbation, kind, strength,
            prompt, image, and a column a reward.
        reward: The reward that is audited.
        gold: What it should be like; None where nobody knows.
        negligible: See ``direction``.
        bootstrap: How intervals are made.

    Returns:
        One row a probe, in the table's order: reward, gold, perturbation, kind,
        strength; change, low, high, share_up (of the pictures whose score rose) and
        direction; the same of the gold (NaN and "" without one); verdict;
        reads_nothing (no picture's score changed at all); n_prompts, n_images.

    Raises:
        ScoreTableError: If the clean pictures are missing or all score the same, or a
            picture has no partner, is there twice or has no finite score.
    """
    clean, probed = _paired(scores, [reward] if gold is None else [reward, gold])
    own = _answers(clean[reward], probed[reward], negligible, bootstrap)
    table = own.assign(reward=reward, gold=gold or "")
    kinds = scores.drop_duplicates(_PROBE).set_index(["perturbation", "strength"])
    table["kind"] = kinds["kind"].loc[list(own.index)].to_numpy()
    if gold is None:
        nothing = dict.fromkeys(_CHANGE, np.nan) | {"direction": ""}
        table = table.assign(**{f"gold_{name}": v for name, v in nothing.items()})
        expected = table["kind"].map(EXPECTED)
    else:
        true = _answers(clean[gold], probed[gold], negligible, bootstrap)
        table = table.join(true[_CHANGE].add_prefix("gold_"))
        expected = table["gold_direction"]
    pairs = zip(expected, table["direction"], strict=True)
    table["verdict"] = [verdict(worth, found) for worth, found in pairs]
    return table.reset_index()[_COLUMNS]


def _paired(
    scores: pd.DataFrame, rewards: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean scores by (prompt, image), and the others by that and by probe.

    Raises:
        ScoreTableError: See ``audit_report``.
    """
    missing = [name for name in [*INDEX, *rewards] if name not in scores.columns]
    if missing:
        raise ScoreTableError(
            f"The table of the audit lacks the columns {missing}; it has "
            f"{list(scores.columns)}. Audit the reward again."
        )
    if not np.isfinite(scores[rewards]).all(axis=None):
        raise ScoreTableError("A score of the audit is NaN or infinite.")
    where, picture = ["perturbation", "strength"], ["prompt", "image"]
    table = scores.set_index([*where, *picture])[rewards].astype(np.float64)
    if CLEAN not in table.index.unique("perturbation"):
        raise ScoreTableError(f"The audit has no '{CLEAN}' pictures to compare with.")
    clean = table.xs(CLEAN, level="perturbation").droplevel("strength")
    assert isinstance(clean, pd.DataFrame)
    probed = table.drop(CLEAN, level="perturbation")
    constant = [name for name in rewards if clean[name].nunique() < 2]
    if constant:
        raise ScoreTableError(
            f"{', '.join(constant)} scores all {len(clean)} clean pictures the same: "
            "there is no base standard deviation to measure changes in, and nothing "
            "to learn from such a reward. Audit on other prompts or more images."
        )
    for probe, part in probed.groupby(level=where, sort=False):
        own = part.reset_index(where).index
        if own.has_duplicates or not own.sort_values().equals(
            clean.index.sort_values()
        ):
            raise ScoreTableError(
                f"The pictures of {probe} are not the clean ones, each once. Audit the "
                "reward again."
            )
    return clean, probed


def _answers(
    clean: pd.Series, probed: pd.Series, negligible: float, bootstrap: Bootstrap
) -> pd.DataFrame:
    """Change, interval, share and direction of each probe, indexed by probe."""
    probe = ["perturbation", "strength"]
    order = probed.reset_index(["prompt", "image"]).index.unique()
    wide = probed.unstack(probe)[order]
    changes = wide.sub(clean, axis=0)
    by_prompt = changes.groupby(level="prompt").mean().to_numpy()
    means, reach = simultaneous(by_prompt[None] / clean.std(), bootstrap)
    return pd.DataFrame(
        {
            "change": means,
            "low": means - reach,
            "high": means + reach,
            "share_up": (changes > 0).mean().to_numpy(),
            "direction": [
                direction(low, high, negligible)
                for low, high in zip(means - reach, means + reach, strict=True)
            ],
            "reads_nothing": (changes == 0).all().to_numpy(),
            "n_prompts": len(by_prompt),
            "n_images": len(clean),
        },
        index=order,
    )


_SAYINGS: Mapping[Verdict, tuple[str, str]] = {
    "fooled": (
        "Fooled: the score rises while the picture gets worse",
        "Nothing that was tried was shown to fool it: to raise its mean score while the "
        "picture got worse",
    ),
    "wrong way": ("Wrong way: the score falls while the picture gets better", ""),
    "blind": ("Blind: the score stays while what the picture is worth changes", ""),
    "raised": ("Raised, and nothing says that the picture is better", ""),
}
"""What is said of the probes of a verdict, and of none."""


def audit_sentences(report: pd.DataFrame) -> list[str]:
    """What an audit found, in plain words, a line each.

    Args:
        report: From ``audit_report``.
    """
    lines = []
    told = report["gold_direction"] != ""
    worth = report["gold_direction"].where(told, report["kind"].map(EXPECTED))
    for name, (some, none) in _SAYINGS.items():
        rows = report[report["verdict"] == name]
        if not rows.empty:
            lines.append(f"{some}: {_probes(rows)}.")
        elif none and (worth == "falls").any():
            lines.append(f"{none}.")
    swapped = report[report["kind"] == "prompt"]
    if not swapped.empty and swapped["reads_nothing"].all():
        lines.append("It doesn't read the prompt: with wrong prompts no score changed.")
    unclear = report[report["verdict"] == "cannot tell"]
    if not unclear.empty:
        lines.append(f"Cannot tell: {_names(unclear)}.")
    return lines


def _probes(rows: pd.DataFrame) -> str:
    """Probes with their changes, the largest rise of the score first."""
    cells = [
        f"{row['perturbation']} {row['strength']:g} ({_interval(row)})"
        for row in rows.sort_values("change", ascending=False).to_dict("records")
    ]
    return ", ".join(cells)


def _names(rows: pd.DataFrame) -> str:
    """Probes by perturbation, such as "blur 0.1 and 0.2, text 0.3"."""
    groups = rows.groupby("perturbation", sort=False)["strength"]
    return ", ".join(
        f"{name} {' and '.join(f'{value:g}' for value in own)}" for name, own in groups
    )


def _interval(row: Mapping[Any, Any], prefix: str = "") -> str:
    change, low, high = (row[f"{prefix}{name}"] for name in ("change", "low", "high"))
    if np.isnan(low):
        return f"{change:+.2f}, no interval"
    return f"{change:+.2f} [{low:+.2f}, {high:+.2f}]"


def audit_caption(report: pd.DataFrame) -> str:
    """Sample sizes, units and what the intervals are."""
    first = report.iloc[0]
    return (
        f"{first['n_images']} pictures of {first['n_prompts']} prompts by the base "
        "model, each perturbed and paired with itself. One base SD: standard deviation "
        "over the unperturbed pictures. Intervals: 95 %, over prompts, simultaneous "
        f"over all {len(report)} probes."
    )


def audit_markdown(report: pd.DataFrame) -> str:
    """The whole audit: sentences, and a table of all probes.

    Args:
        report: From ``audit_report``.
    """
    first = report.iloc[0]
    judge = (
        f"What a perturbed picture is worth is told by the gold, {first['gold']}."
        if first["gold"]
        else "No gold is known, so that what a perturbed picture is worth is told by "
        "the kind of perturbation: damage makes it worse, a wrong prompt too, neutral "
        "changes leave it as it is, and of style nobody knows."
    )
    head = ["perturbation", "kind", "strength", "change in base SD", "scores that rose"]
    head += [f"{first['gold']}'s change"] * bool(first["gold"]) + ["verdict"]
    rows = []
    for row in report.to_dict("records"):
        cells = [row["perturbation"], row["kind"], f"{row['strength']:g}"]
        cells += [_interval(row), f"{row['share_up']:.0%}"]
        cells += [_interval(row, "gold_")] * bool(first["gold"]) + [row["verdict"]]
        rows.append(cells)
    sentences = "\n".join(f"- {line}" for line in audit_sentences(report))
    parts = [f"# Audit of {first['reward']}", f"{audit_caption(report)} {judge}"]
    return "\n\n".join([*parts, sentences, markdown_table(head, rows)]) + "\n"
