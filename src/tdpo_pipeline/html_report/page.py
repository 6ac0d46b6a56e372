"""The page: what its template and its script are given.

The page is one file without a network: text and tables are made here, with Jinja, and
can be read without JavaScript; the curves, whose axes, prompts and methods a reader
picks, and the table of prompts are drawn by a short script (``templates/report.js``)
from data that is inside the page. Plotly, which would draw the curves too, is more than
4 MB in every such file, and Git keeps each version of the study's; the script is some
hundred lines. Equal tables give equal bytes: there is no date in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from math import inf, isfinite
from typing import Any, NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tdpo_pipeline.figures import style
from tdpo_pipeline.figures.strips import Strip
from tdpo_pipeline.html_report import measures, pictures
from tdpo_pipeline.html_report.cells import (
    RUN_COLUMNS,
    SEEDS_COLUMN,
    Block,
    in_base_sd,
    interval,
    number,
    ordered,
    run_name,
)
from tdpo_pipeline.overoptimization.report import ROLE_MARKS, onset_text
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ROLES,
    checkpoint_word,
    group_label,
    ordered_groups,
)
from tdpo_pipeline.overoptimization.verdicts import CORRECTED, one_seed_mark

MOST_SHOWN = 7
"""So many methods are in the curves at first; the reader may add others."""

_DASHES = {"-": "", "--": "7 4", ":": "2 3", "-.": "8 3 2 3"}
_TITLE = "What fine-tuning did"
_LOCKED = {"Scores": "scores.parquet", "History": "history.csv"}


class Tables(NamedTuple):
    """What a page shows.

    Attributes:
        curves: From ``reward_curves`` by method.
        summary: From ``summarise_methods``.
        golds: From ``gold_report``.
        onsets: From ``find_onsets`` by method, on the prompts trained on.
        agreement: From ``pairwise_agreement`` by method.
        prompts: From ``prompt_changes``.
        matched: From ``matched_report``.
        costs: From ``cost_report``.
        compared: From ``compare_report``.
        hypervolumes: From ``hypervolume_report``.
        goodhart: From ``goodhart_report``.
        joint: The rates of ``joint_report``.
        regrets: From ``summarise_regrets``; None without histories of training.
        alarms: From ``count_alarms``; likewise.
    """

    curves: pd.DataFrame
    summary: pd.DataFrame
    golds: pd.DataFrame
    onsets: pd.DataFrame
    agreement: pd.DataFrame
    prompts: pd.DataFrame
    matched: pd.DataFrame
    costs: pd.DataFrame
    compared: pd.DataFrame
    hypervolumes: pd.DataFrame
    goodhart: pd.DataFrame
    joint: pd.DataFrame
    regrets: pd.DataFrame | None = None
    alarms: pd.DataFrame | None = None


def html_report(
    tables: Tables,
    *,
    lineage: Mapping[str, Any],
    strips: Mapping[str, Strip] | None = None,
    about: Sequence[str] = (),
    title: str = _TITLE,
) -> str:
    """The report as one HTML file.

    Args:
        tables: What it shows.
        lineage: From ``lineage``.
        strips: Samples of runs, by run key ``<method>-<reward>-s<seed>``; of each method
            and reward the first seed is shown.
        about: What to know of a table that others wrote, a sentence each.
        title: Title of the page.

    Returns:
        The page; it refers to no other file.
    """
    curves = tables.curves[tables.curves["eta"] == MAIN_ETA]
    summary = tables.summary[tables.summary["eta"] == MAIN_ETA]
    golds, onsets = tables.golds, tables.onsets
    regrets, alarms = tables.regrets, tables.alarms
    methods = style.sort_methods(curves["method"])
    environment = Environment(
        loader=PackageLoader("tdpo_pipeline.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["label"] = style.method_label
    return environment.get_template("report.html.jinja").render(
        title=title,
        checkpoint=checkpoint_word(),
        scope=scope(summary),
        about=about,
        sampler=style.sampler_text("with ancestral sampling (DDIM, eta 1)").strip(),
        verdicts=verdicts(golds),
        rows=summary_rows(summary, golds, onsets),
        golds=gold_block(golds),
        onsets=onset_block(onsets),
        agreement=measures.agreement_block(tables.agreement),
        equal=measures.equal_blocks(tables.matched),
        costs=measures.cost_block(tables.costs),
        compared_verdicts=measures.compared_verdicts(tables.compared),
        correction=CORRECTED,
        compared=measures.compared_block(tables.compared),
        hypervolumes=measures.hypervolume_block(tables.hypervolumes),
        peak_verdicts=measures.peak_verdicts(tables.goodhart),
        peaks=measures.peak_block(tables.goodhart),
        joint_verdicts=measures.joint_verdicts(tables.joint),
        joint=measures.joint_block(tables.joint),
        stopping=None if regrets is None else measures.stopping_block(regrets),
        alarms=None if alarms is None else measures.alarm_block(alarms),
        strips=strip_blocks(strips or {}, lineage["runs"], marked_onsets(onsets)),
        lineage=lineage,
        locked=_LOCKED if any(run["dvc"] for run in lineage["runs"]) else {},
        parameters={
            name: yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
            for name, value in lineage["parameters"].items()
        },
        data=script_data(curves, tables.prompts, methods),
    )


# ------------------------------------------------------------------ the summary
def scope(summary: pd.DataFrame) -> str:
    """How much the report rests on, in a sentence."""
    pairs = summary.drop_duplicates(["method", "reward"])
    seeds = pairs["n_seeds"]
    parts = [
        _count(pairs["method"].nunique(), "method"),
        _count(pairs["reward"].nunique(), "trained reward"),
        _count(summary["scored"].nunique(), "scored reward"),
    ]
    span = (
        _count(seeds.min(), "training seed")
        if seeds.min() == seeds.max()
        else f"{seeds.min()} to {seeds.max()} training seeds"
    )
    return f"{', '.join(parts)}; {span} for each method and reward."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def verdicts(golds: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Which methods' golds fell on the prompts trained on, by what can be said.

    Args:
        golds: From ``gold_report``.

    Returns:
        Statements, each with the "method on reward" that it holds for.
    """
    seen = golds[golds["group"] == "seen"]
    peak = seen["peak_verdict"]
    found = {
        "The gold fell below the base model": seen["verdict"] == "fell",
        "The gold fell below its best checkpoint, but was not shown to fall below the "
        "base model": ((peak == "fell") & (seen["verdict"] != "fell")),
        "The gold rose and has not been seen to fall": (
            (seen["verdict"] == "rose") & (peak != "fell")
        ),
        "Cannot tell": (seen["verdict"] == "cannot tell") & (peak != "fell"),
    }
    return [
        (
            statement,
            [
                run_name(row) + one_seed_mark(row)
                for row in seen[holds].to_dict("records")
            ],
        )
        for statement, holds in found.items()
        if holds.any()
    ]


def summary_rows(
    summary: pd.DataFrame, golds: pd.DataFrame, onsets: pd.DataFrame
) -> list[dict[str, Any]]:
    """One row per method and trained reward, on the prompts trained on."""
    onset_words = {
        (row["reward"], row["method"]): _onset(row)
        for row in onsets[onsets["role"] == "gold"].to_dict("records")
    }
    seen = summary[summary["group"] == "seen"]
    judged = {
        (row["reward"], row["method"]): row
        for row in golds[golds["group"] == "seen"].to_dict("records")
    }
    units = {
        (str(reward), str(method)): unit
        for (reward, method), unit in seen.groupby(["reward", "method"])
    }
    order = style.sort_methods(seen["method"])
    rows = []
    for key in sorted(units, key=lambda key: (key[0], order.index(key[1]))):
        unit, own = units[key], judged.get(key, {})
        roles = {role: part for role, part in unit.groupby("role")}
        first = unit.iloc[0]
        rows.append(
            {
                "method": first["method"],
                "reward": first["reward"],
                "trained": in_base_sd(roles["trained"].iloc[0].to_dict()),
                "gold": in_base_sd(roles["gold"].iloc[0].to_dict())
                if "gold" in roles
                else "none known",
                "verdict": own.get("verdict", ""),
                "peak": own.get("peak_verdict", ""),
                "onset": onset_words.get(key, ""),
                "fell": _fallen(roles.get("cross", unit.iloc[:0])),
                "epoch": int(first["epoch"]),
                "queries": f"{first['reward_queries']:,.0f}",
                "kl": number(first["kl_to_base"]),
                "seeds": int(first["n_seeds"]),
            }
        )
    return rows


def _fallen(cross: pd.DataFrame) -> str:
    """Which held-out rewards fell, of how many; a difference is judged by itself."""
    if cross.empty:
        return "none scored"
    fell = cross.loc[cross["high"] < 0, "scored"].tolist()
    return f"{len(fell)} of {len(cross)}" + (f": {', '.join(fell)}" if fell else "")


def gold_block(golds: pd.DataFrame) -> Block:
    """The gold of each method, reward and prompt group, in its own units."""
    rows = [
        {
            "method": row["method"],
            "reward": row["reward"],
            "gold": row["gold"],
            "group": group_label(row["group"]),
            "change": interval(row["change"], row["low"], row["high"]),
            "verdict": row["verdict"],
            "peak_epoch": str(row["peak_epoch"]),
            "peak": ""
            if row["peak_verdict"] == "is at its peak"
            else interval(row["peak_change"], row["peak_low"], row["peak_high"]),
            "peak_verdict": row["peak_verdict"],
            "seeds": f"{row['n_seeds']:.0f}",
        }
        for row in ordered(golds, "group", ordered_groups(golds["group"]))
    ]
    columns = [
        *RUN_COLUMNS,
        ("gold", "Gold", ""),
        ("group", "Prompts", ""),
        ("change", "Last minus base", "number"),
        ("verdict", "Against base", ""),
        ("peak_epoch", f"Best {checkpoint_word()}", "number"),
        ("peak", "Last minus best", "number"),
        ("peak_verdict", "Against its best", ""),
        SEEDS_COLUMN,
    ]
    return Block("The gold on every prompt group", columns, rows)


def _onset(row: Mapping[Any, Any]) -> str:
    """When a reward began to fall, with the interval; or that no fall was shown."""
    if pd.isna(row["high_epoch"]):
        return "no fall shown"
    return onset_text(row)


def onset_block(onsets: pd.DataFrame) -> Block:
    """Every reward that was shown to fall, and since when; golds come first."""
    fallen = onsets[onsets["high_epoch"].notna()]
    rows = [
        {
            "method": row["method"],
            "reward": row["reward"],
            "scored": row["scored"] + ROLE_MARKS[row["role"]],
            "onset": _onset(row),
            "queries": f"{row['onset_queries']:,.0f}",
            "fall": interval(row["fall"], row["fall_low"], row["fall_high"]),
            "rise": interval(
                row["trained_rise"], row["trained_rise_low"], row["trained_rise_high"]
            ),
            "seeds": f"{row['n_seeds']:.0f}",
        }
        for row in ordered(fallen, "role", ROLES)
    ]
    columns = [
        *RUN_COLUMNS,
        ("scored", "Reward", ""),
        ("onset", "Onset", ""),
        ("queries", "Reward queries", "number"),
        ("fall", "Fall since", "number"),
        ("rise", "Trained reward since", "number"),
        SEEDS_COLUMN,
    ]
    return Block("Since when rewards have been falling", columns, rows)


class Onset(NamedTuple):
    """Where samples are marked.

    Attributes:
        epoch: Last checkpoint before a reward's fall.
        scored: That reward.
    """

    epoch: float
    scored: str


def marked_onsets(onsets: pd.DataFrame) -> dict[tuple[str, str], Onset]:
    """The onset that samples are marked with, by (reward, method), where there is one.

    That of the gold, if it was shown to fall. Where none was scored, the earliest of a
    held-out reward that was shown to fall while the trained one surely rose.

    Args:
        onsets: From ``find_onsets``.
    """
    found = {}
    for (reward, method), rows in onsets.groupby(["reward", "method"], sort=True):
        golds = rows[rows["role"] == "gold"]
        hints = rows[(rows["role"] == "cross") & (rows["trained_rise_low"] > 0)]
        told = hints if golds.empty else golds
        fallen = told[told["high_epoch"].notna()].sort_values(
            "onset_epoch", kind="stable"
        )
        for row in fallen[:1].to_dict("records"):
            onset = Onset(float(row["onset_epoch"]), str(row["scored"]))
            found[str(reward), str(method)] = onset
    return found


# ------------------------------------------------------------------ the samples
def strip_blocks(
    strips: Mapping[str, Strip],
    runs: Iterable[Mapping[str, Any]],
    onsets: Mapping[tuple[str, str], Onset],
) -> list[dict[str, Any]]:
    """Samples of the first seed of each method and reward that has any."""
    nothing = Onset(inf, "")  # no checkpoint is after it
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in runs:
        key = (run["reward"], run["method"])
        if run["run"] in strips and (
            key not in first or run["seed"] < first[key]["seed"]
        ):
            first[key] = run
    order = style.sort_methods(method for _, method in first)
    return [
        {
            **run,
            "prompts": pictures.shown_prompts(strips[run["run"]]),
            "onset_of": onsets.get(key, nothing).scored,
            "checkpoints": pictures.checkpoints(
                strips[run["run"]], onsets.get(key, nothing).epoch
            ),
        }
        for key, run in sorted(
            first.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]


# ------------------------------------------------------------------ the script's data
def script_data(curves: pd.DataFrame, prompts: pd.DataFrame, methods: list[str]) -> str:
    """What the script draws, as JSON that can stand inside a page.

    Args:
        curves: From ``reward_curves`` by method, of one sampler.
        prompts: From ``prompt_changes``.
        methods: Methods in the order of the legend.

    Returns:
        An object with ``methods``, ``groups``, ``rewards`` (trained; the page opens on
        the first, which most methods have), ``checkpoint`` (what it is called), ``curves``
        and ``prompts``; numbers have five digits, and null where there is none.
    """
    looks = distinct_looks(methods)
    n_methods = curves.groupby("reward")["method"].nunique()
    rewards = sorted(n_methods.index, key=lambda reward: (-n_methods[reward], reward))
    data = {
        "methods": [
            {
                "name": name,
                "label": style.method_label(name),
                "color": looks[name].color,
                "dash": _DASHES[looks[name].line],
                "marker": looks[name].marker,
                "shown": position < MOST_SHOWN,
            }
            for position, name in enumerate(methods)
        ],
        "groups": [
            {"name": name, "label": group_label(name)}
            for name in ordered_groups(curves["group"])
        ],
        "rewards": rewards,
        "checkpoint": checkpoint_word(),
        "curves": [
            _curve(rows)
            for _, rows in curves.groupby(
                ["reward", "method", "group", "scored"], sort=True
            )
        ],
        "prompts": [
            _prompt_table(rows)
            for _, rows in prompts.groupby(["reward", "method", "group"], sort=True)
        ],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # Nothing in it may end the script element that it stands in.
    return text.replace("<", "\\u003c")


def _curve(rows: pd.DataFrame) -> dict[str, Any]:
    """One curve: its names, and a list per quantity."""
    rows = rows.sort_values("epoch")
    first = rows.iloc[0]
    names = ("method", "reward", "group", "scored", "role")
    lists = {
        "epoch": "epoch",
        "queries": "reward_queries",
        "kl": "kl_to_base",
        "change": "difference",
        "low": "low",
        "high": "high",
        "seeds": "n_seeds",
        "prompts": "n_prompts",
        "images": "n_images",
    }
    return {
        **{name: str(first[name]) for name in names},
        "base_sd": _short(first["base_sd"]),
        **{name: [_short(v) for v in rows[column]] for name, column in lists.items()},
    }


def _prompt_table(rows: pd.DataFrame) -> dict[str, Any]:
    """Changes by prompt of one method, reward and group, in base standard deviations."""
    first = rows.iloc[0]
    ruler = rows["base_sd"].where(rows["base_sd"] > 0)
    table = rows.assign(change=rows["change"] / ruler).pivot(
        index="prompt", columns="scored", values="change"
    )
    return {
        **{name: str(first[name]) for name in ("method", "reward", "group")},
        "prompts": table.index.tolist(),
        "changes": {name: [_short(v) for v in table[name]] for name in table.columns},
    }


def _short(value: float) -> float | None:
    """Five significant digits; JSON has no NaN."""
    return float(f"{value:.5g}") if isfinite(value) else None


def distinct_looks(methods: Iterable[str]) -> dict[str, style.MethodStyle]:
    """A look for each method, no two alike: its own in the figures where that is free.

    Figures show few methods each and use some looks twice; the page may show all.
    """
    own = {name: style.method_style(name) for name in methods}
    colors = dict.fromkeys(look.color for look in own.values())
    spare = (
        style.MethodStyle(color, marker, line)
        for line, marker, color in product(_DASHES, "oDs^vPX", colors)
    )
    looks: dict[str, style.MethodStyle] = {}
    taken: set[tuple[str, str, str]] = set()
    for name, usual in own.items():
        free = (look for look in chain([usual], spare) if look[:3] not in taken)
        looks[name] = next(free)
        taken.add(looks[name][:3])
    return looks
