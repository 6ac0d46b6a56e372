"""Cells of the page's tables: numbers and intervals in words, rows in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tdpo_pipeline.figures import style
from tdpo_pipeline.overoptimization import report
from tdpo_pipeline.overoptimization.intervals import significant

Columns = list[tuple[str, str, str]]
"""Key, heading and kind of each column: "row" for a method that names its row, "number",
or nothing."""

RUN_COLUMNS: Columns = [("reward", "Trained reward", ""), ("method", "Method", "row")]
SEEDS_COLUMN = ("seeds", "Seeds", "number")


class Block(NamedTuple):
    """A table of the page.

    Attributes:
        title: What it shows.
        columns: Its columns.
        rows: The text of each cell, by the column's key.
    """

    title: str
    columns: Columns
    rows: list[dict[str, str]]


MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; a true minus, and a dash for none."""
    if pd.isna(value):
        return "\N{EN DASH}"
    return significant(value, digits).replace("-", MINUS)


def interval(mean: float, low: float, high: float, *, signed: bool = True) -> str:
    """Mean and interval with a true minus; a dash if there is no mean."""
    if pd.isna(mean):
        return "\N{EN DASH}"
    # "no interval" has no minus in it.
    return report.interval_text(mean, low, high, signed=signed).replace("-", MINUS)


def in_base_sd(row: Mapping[Any, Any], mean: str = "difference") -> str:
    """Mean and interval of a row in base standard deviations.

    Args:
        row: With ``low``, ``high`` and ``base_sd``, all in the reward's own units.
        mean: Name of the mean.
    """
    return report.base_sd_text(row, interval, mean)


def seeds_text(*seeds: float) -> str:
    """How many seeds each method of a comparison has, such as "3 and 5"."""
    return " and ".join(f"{count:.0f}" for count in seeds)


def seeds_note(*seeds: float) -> str:
    """What an interval doesn't cover where some method has one seed."""
    return "one seed: nothing is known of others" if min(seeds) == 1 else ""


def run_name(row: Mapping[Any, Any]) -> str:
    """What a row is of, such as "TDPO-R on pick-mini"."""
    return f"{style.method_label(row['method'])} on {row['reward']}"


def ordered(
    table: pd.DataFrame, column: str, values: Sequence[str]
) -> list[dict[Any, Any]]:
    """Rows by trained reward, method, and the place of ``column`` in ``values``."""
    methods = style.sort_methods(table["method"])
    return sorted(
        table.to_dict("records"),
        key=lambda row: (
            row["reward"],
            methods.index(row["method"]),
            values.index(row[column]),
        ),
    )
