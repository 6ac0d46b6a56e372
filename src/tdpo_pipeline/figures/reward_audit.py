"""What a reward does when its pictures are changed on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization.reward_audit import NEGLIGIBLE, audit_caption

_COLORS: Mapping[str, str] = {
    "fooled": style.VERMILLION,
    "blind": style.ORANGE,
    "wrong way": style.PURPLE,
    "raised": style.SKY,
}
"""Verdicts that are warnings; all others are grey."""

_ROW = 0.5
_STEP = 0.26


def reward_audit(
    report: pd.DataFrame, examples: np.ndarray, *, negligible: float = NEGLIGIBLE
) -> style.Drawn:
    """The change of a reward, and of its gold, under every perturbation.

    A row per perturbation, with a picture of its greatest strength; within it a line
    per strength, the greatest lowest. Filled is the reward, in the colour of its
    verdict; hollow its gold.

    Args:
        report: From ``overoptimization.reward_audit.audit_report``, of one reward.
        examples: The first picture clean and under each perturbation in the report's
            order, one below the other, uint8 (rows x H, W, 3).
        negligible: Change that counts as none, drawn as a band.

    Returns:
        The figure and its data, the report itself.
    """
    names = list(dict.fromkeys(report["perturbation"]))
    reward, gold = report["reward"].iloc[0], report["gold"].iloc[0]
    legend = _legend(report)
    caption = (
        f"{audit_caption(report)} Within a row the strength grows downwards; the picture "
        f"shows the greatest. Grey band: changes of less than {negligible:g} base SD "
        "count as none."
    )
    height = _ROW * (len(names) + 1) + 0.6
    figure, axes = style.page(1, 1, panel=(8.6, height), legend=legend, caption=caption)
    ax = axes[0][0]
    ax.axvspan(-negligible, negligible, color=style.FAINT, alpha=0.5, linewidth=0)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    for position, name in enumerate(names, start=1):
        _row(ax, position, report[report["perturbation"] == name])
    _name_rows(ax, names, examples)
    against = f", and of its gold, {gold}" if gold else ""
    style.label(ax, x=f"change of {reward}{against}, in base SD")
    style.frame(
        figure,
        title=f"Audit of {reward}: pictures changed on purpose",
        caption=caption,
        legend=legend,
    )
    return style.Drawn(figure, report)


def _row(ax: Axes, position: int, rows: pd.DataFrame) -> None:
    """Reward and gold under one perturbation, a line a strength."""
    rows = rows.sort_values("strength")
    lines = (np.arange(len(rows)) - (len(rows) - 1) / 2) * _STEP
    for line, row in zip(position + lines, rows.to_dict("records"), strict=True):
        color = _COLORS.get(row["verdict"], style.GREY)
        if row["gold"]:
            _bar(ax, line + 0.08, row, "gold_", color=style.INK, mfc="white")
        _bar(ax, line - 0.04, row, "", color=color, mfc=color)


def _bar(
    ax: Axes, y: float, row: Mapping[Any, Any], prefix: str, *, color: str, mfc: str
) -> None:
    """A mean with its interval, if it has one."""
    mean, low, high = (row[f"{prefix}{name}"] for name in ("change", "low", "high"))
    reach = None if np.isnan(low) else [[mean - low], [high - mean]]
    look: dict[str, Any] = {"marker": "o", "markersize": 4.0, "elinewidth": 1.1}
    ax.errorbar([mean], [y], xerr=reach, color=color, mfc=mfc, mew=0.9, **look)


def _name_rows(ax: Axes, names: list[str], examples: np.ndarray) -> None:
    """Names and example pictures along the left side, the clean one on top."""
    tiles = np.split(examples, len(names) + 1)
    ax.set_ylim(len(names) + 0.6, -0.6)
    ax.set_yticks(
        range(len(tiles)), ["unperturbed", *(n.replace("_", " ") for n in names)]
    )
    ax.tick_params(axis="y", length=0, pad=40)
    ax.grid(False, axis="y")
    rows = len(tiles) + 0.2
    for position, tile in enumerate(tiles):
        # In parts of the axes, so that a picture is as wide as it is high on paper.
        top = (position + 0.6 + 0.46) / rows
        inset = ax.inset_axes((-0.066, 1 - top, 0.06, 0.92 / rows))
        inset.imshow(tile, interpolation="nearest")
        inset.axis("off")
    for line in range(len(names)):
        ax.axhline(line + 0.5, color=style.FAINT, linewidth=0.6)


def _legend(report: pd.DataFrame) -> list[Artist]:
    """Verdicts that occur, all others together, and the gold."""
    common: dict[str, Any] = {"marker": "o", "markersize": 5.0, "linestyle": "-"}
    found = [name for name in _COLORS if name in set(report["verdict"])]
    entries: list[Artist] = [
        Line2D([], [], color=_COLORS[name], label=name, **common) for name in found
    ]
    if len(set(report["verdict"]) - set(found)):
        entries.append(
            Line2D([], [], color=style.GREY, label="no warning, or unclear", **common)
        )
    if report["gold"].iloc[0]:
        entries.append(
            Line2D([], [], color=style.INK, mfc="white", label="its gold", **common)
        )
    return entries
