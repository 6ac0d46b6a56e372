"""Blocks of the page on equal terms, comparisons, fronts, peaks, joint outcomes, stops."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pandas as pd

from tdpo_pipeline.figures import style
from tdpo_pipeline.html_report.cells import (
    MINUS,
    RUN_COLUMNS,
    SEEDS_COLUMN,
    Block,
    Columns,
    in_base_sd,
    interval,
    number,
    ordered,
    run_name,
    seeds_note,
    seeds_text,
)
from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.efficiency import COSTS, furthest_costs
from tdpo_pipeline.overoptimization.goodhart import preferred_first
from tdpo_pipeline.overoptimization.matched import furthest_levels, levels_beyond
from tdpo_pipeline.overoptimization.paths import AXES
from tdpo_pipeline.overoptimization.report import ROLE_MARKS, by_statement, rate_text
from tdpo_pipeline.overoptimization.tables import (
    ROLES,
    checkpoint_word,
    group_label,
    ordered_groups,
)
from tdpo_pipeline.overoptimization.verdicts import (
    comparison_verdict,
    joint_verdict,
    judged_rows,
    last_joint,
    one_seed_mark,
    peak_verdict,
    telling_pairs,
    text_or_empty,
    with_comparable,
)

Verdicts = list[tuple[str, list[str]]]
"""Statements, each with the runs that it holds for."""


def _by_statement(said: Iterable[tuple[str, str]]) -> Verdicts:
    """What is said of each run, as the runs of each statement."""
    return by_statement((style.sentence(statement), run) for statement, run in said)


# ------------------------------------------------------------------ pairs of pictures
def agreement_block(agreement: pd.DataFrame) -> Block:
    """How often the trained reward prefers what its gold does, first and last.

    Args:
        agreement: From ``pairwise_agreement``.
    """
    told = telling_pairs(agreement)
    trained = told[told["epoch"] > 0]
    last = trained.drop_duplicates([*METHOD, "scored"], keep="last")
    base = told[told["epoch"] == 0].set_index([*METHOD, "scored"]).to_dict("index")
    rows = [
        {
            "reward": row["reward"],
            "method": row["method"],
            "scored": row["scored"],
            "base": rate_text(
                base[row["method"], row["reward"], row["scored"]], "agreement"
            ),
            "last": rate_text(row, "agreement"),
            "change": interval(row["change"], row["change_low"], row["change_high"]),
            "prompts": str(row["n_prompts"]),
            "seeds": str(row["n_seeds"]),
        }
        for row in ordered(last, "group", ["seen"])
    ]
    columns = [
        *RUN_COLUMNS,
        ("scored", "And", ""),
        ("base", "Base model", "number"),
        ("last", f"Last {checkpoint_word()}", "number"),
        ("change", "Change", "number"),
        ("prompts", "Prompts", "number"),
        SEEDS_COLUMN,
    ]
    title = "How often two rewards prefer the same of two pictures"
    return Block(title, columns, rows)


# ------------------------------------------------------------------ on equal terms
_EQUAL = {
    "training_reward": "training reward",
    "reward_queries": "reward queries",
    "kl": "KL to the base model",
    "seconds": "seconds of training",
}
_LEVELS = {
    "training_reward": "{:+.3g} base SD",
    "reward_queries": "{:,.0f} queries",
    "kl": "{} nats",
    "seconds": "{:,.0f} s",
}


def equal_blocks(matched: pd.DataFrame) -> list[Block]:
    """A block for each axis, and one for the prompts that were not trained on.

    Args:
        matched: From ``matched_report``.
    """
    table = furthest_levels(matched)
    beyond = _beyond(matched)
    seen = table["group"] == "seen"
    blocks = [
        Block(
            f"At equal {_EQUAL[along]}",
            _equal_columns(along != "training_reward", groups=False),
            _equal_rows(table[seen & (table["along"] == along)], beyond),
        )
        for along in AXES
    ]
    if (~seen).any():
        columns = _equal_columns(trained=True, groups=True)
        title = "At equal training reward, on prompts not trained on"
        blocks.append(Block(title, columns, _equal_rows(table[~seen], beyond)))
    return blocks


def _equal_columns(trained: bool, groups: bool) -> Columns:
    """Headings; at equal training reward there is no difference in it."""
    return [
        *RUN_COLUMNS,
        ("reference", "Minus", ""),
        *([("group", "Prompts", "")] if groups else []),
        ("level", "At", "number"),
        *([("trained", "Trained reward", "number")] if trained else []),
        ("gold", "Its gold", "number"),
        ("higher", "Held-out rewards higher", ""),
        ("lower", "Held-out rewards lower", ""),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]


def _beyond(matched: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """What is known of the last level of a comparison where it has no interval."""
    rows = levels_beyond(matched).to_dict("records")
    units = groupby(rows, key=_comparison)
    return {unit: _beyond_text(list(own)) for unit, own in units}


def _comparison(row: dict[Any, Any]) -> tuple[str, ...]:
    """What tells a comparison from others."""
    return tuple(row[name] for name in (*METHOD, "group", "along"))


def _beyond_text(rows: list[dict[Any, Any]]) -> str:
    """The means at a level without intervals: the gold's, or else of what was held out."""
    golds = [row for row in rows if row["role"] == "gold"]
    told = golds or [row for row in rows if row["role"] == "cross"]
    means = [
        f"{row['scored']} {_signed(row['mean'] / row['base_sd'])} base SD"
        for row in told
        if row["base_sd"] > 0
    ]
    first = rows[0]
    return (
        f"the last level that both reached, {_level(first)}, is {first['gap']}; there: "
        f"{', '.join(means) or 'nothing else that varies was scored'}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _level(row: dict[Any, Any]) -> str:
    level = number(row["level"]) if row["along"] == "kl" else row["level"]
    return _LEVELS[row["along"]].format(level).replace("-", MINUS)


def _equal_rows(
    table: pd.DataFrame, beyond: dict[tuple[str, ...], str]
) -> list[dict[str, str]]:
    """One row a comparison."""
    records = ordered(table, "group", ordered_groups(table["group"]))
    comparisons = groupby(records, key=lambda r: [r[k] for k in (*METHOD, "group")])
    return [_equal_row(list(rows), beyond) for _, rows in comparisons]


def _equal_row(
    rows: list[dict[Any, Any]], beyond: dict[tuple[str, ...], str]
) -> dict[str, str]:
    first = rows[0]
    found = {
        "reward": first["reward"],
        "method": first["method"],
        "reference": style.method_label(first["reference"]),
        "group": group_label(first["group"]),
        "note": style.sentence(text_or_empty(first["gap"])),
        **dict.fromkeys(("level", "trained", "gold", "higher", "lower", "seeds"), ""),
    }
    if pd.isna(first["level"]):
        return found
    of_role = {row["role"]: in_base_sd(row, "mean") for row in rows}
    others = [row for row in rows if row["role"] == "cross"]
    higher = [row["scored"] for row in others if row["low"] > 0]
    lower = [row["scored"] for row in others if row["high"] < 0]
    seeds = (first["n_seeds"], first["n_reference_seeds"])
    notes = [
        text_or_empty(first["gap"]),
        beyond.get(_comparison(first), ""),
        seeds_note(*seeds),
    ]
    return found | {
        "level": _level(first),
        "trained": of_role.get("trained", "not scored"),
        "gold": of_role.get("gold", "none known"),
        "higher": _of(higher, len(others)),
        "lower": _of(lower, len(others)),
        "seeds": seeds_text(*seeds),
        "note": "; ".join(note for note in notes if note),
    }


def cost_block(costs: pd.DataFrame) -> Block:
    """A row a comparison and cost: what equal training reward takes.

    Args:
        costs: From ``cost_report``.
    """
    records = ordered(furthest_costs(costs), "cost", list(COSTS))
    columns = [
        *RUN_COLUMNS,
        ("reference", "Over", ""),
        ("cost", "Of", ""),
        ("level", "At", "number"),
        ("spent", "Spent", "number"),
        ("reference_spent", "By the reference", "number"),
        ("ratio", "Ratio", "number"),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    rows = [_cost_row(row) for row in records]
    return Block("What equal training reward costs", columns, rows)


def _cost_row(row: dict[Any, Any]) -> dict[str, str]:
    seeds = (row["n_seeds"], row["n_reference_seeds"])
    known = pd.notna(row["level"])
    notes = [text_or_empty(row["gap"]), seeds_note(*seeds) if known else ""]
    return {
        "reward": row["reward"],
        "method": row["method"],
        "reference": style.method_label(row["reference"]),
        "cost": COSTS[row["cost"]],
        "level": _level({**row, "along": "training_reward"}) if known else "",
        "spent": number(row["spent"]),
        "reference_spent": number(row["reference_spent"]),
        "ratio": interval(row["ratio"], row["low"], row["high"], signed=False),
        "seeds": seeds_text(*seeds),
        "note": style.sentence("; ".join(note for note in notes if note)),
    }


def _of(names: list[str], count: int) -> str:
    """Such as "1 of 3: pick-mini"."""
    text = f"{len(names)} of {count}" if count else "none scored"
    return f"{text}: {', '.join(names)}" if names else text


# ------------------------------------------------------------------ comparisons
def compared_verdicts(compared: pd.DataFrame) -> Verdicts:
    """Which methods are better than the reference, by the gold where there is one.

    Args:
        compared: From ``compare_report``.
    """
    records = ordered(judged_rows(compared), "group", ["seen"])
    return _by_statement((comparison_verdict(row), _pair_name(row)) for row in records)


def _pair_name(row: dict[Any, Any]) -> str:
    """What a comparison is of, such as "TDPO-R minus DDPO-2 on pick-mini: gold_match"."""
    if pd.isna(row["difference"]):
        return run_name(row)
    method, reference = (style.method_label(row[k]) for k in ("method", "reference"))
    return f"{method} minus {reference} on {row['reward']}: {row['scored']}"


def compared_block(compared: pd.DataFrame) -> Block:
    """A row a comparison and scored reward."""
    roles = compared["role"].astype(object).fillna("trained")
    rows = [
        _compared_row(row)
        for row in ordered(compared.assign(role=roles), "role", ROLES)
    ]
    columns = [
        *RUN_COLUMNS,
        ("reference", "Minus", ""),
        ("scored", "Reward", ""),
        ("difference", "Difference, base SD", "number"),
        ("improvement", "Probability of improvement", "number"),
        ("p", "Corrected p", "number"),
        ("verdict", "It is", ""),
        ("needed", "Seeds needed", "number"),
        ("epoch", style.sentence(checkpoint_word()), "number"),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    return Block(f"At equal {checkpoint_word()}s, all rewards", columns, rows)


def _compared_row(row: dict[Any, Any]) -> dict[str, str]:
    seeds = (row["n_seeds"], row["n_reference_seeds"])
    head = {
        "reward": row["reward"],
        "method": row["method"],
        "reference": style.method_label(row["reference"]),
        "seeds": seeds_text(*seeds),
    }
    if pd.isna(row["difference"]):
        others = ("scored", "difference", "improvement", "p", "verdict", "needed")
        note = style.sentence(text_or_empty(row["note"]))
        return head | dict.fromkeys((*others, "epoch"), "") | {"note": note}
    single = min(seeds) == 1
    needed = row["seeds_needed"]
    return head | {
        "scored": row["scored"] + ROLE_MARKS[row["role"]],
        "difference": in_base_sd(row, "difference"),
        "improvement": rate_text(row, "p_improvement"),
        # With one seed the test is one of prompts alone, and not of the method.
        "p": "\N{EN DASH}" if single else _p_value(row["p_holm"]),
        "verdict": "" if single else comparison_verdict(row),
        "needed": "\N{EN DASH}" if pd.isna(needed) else f"{needed:.0f}",
        "epoch": f"{row['epoch']:.0f}",
        "note": seeds_note(*seeds) or text_or_empty(row["note"]),
    }


def _p_value(p: float) -> str:
    if pd.isna(p):
        return "\N{EN DASH}"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


# ------------------------------------------------------------------ fronts
def hypervolume_block(volumes: pd.DataFrame) -> Block:
    """The hypervolume of each method.

    Args:
        volumes: From ``hypervolume_report``.
    """
    rows = [
        _volume_row(row) for row in ordered(with_comparable(volumes), "group", ["seen"])
    ]
    columns = [
        *RUN_COLUMNS,
        ("rewards", "Rewards", ""),
        ("volume", "Hypervolume", "number"),
        ("checkpoints", "Checkpoints", "number"),
        ("prompts", "Prompts", "number"),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    return Block("Hypervolume of each method", columns, rows)


def _volume_row(row: dict[Any, Any]) -> dict[str, str]:
    known = pd.notna(row["hypervolume"])
    notes = [
        style.sentence(text_or_empty(row["note"])),
        ""
        if row["comparable"]
        else "fewer checkpoints, seeds or images than another method: not comparable",
        seeds_note(row["n_seeds"]) if known else "",
    ]
    ends = (row[name] for name in ("hypervolume", "low", "high"))
    return {
        "reward": row["reward"],
        "method": row["method"],
        "rewards": text_or_empty(row["rewards"]),
        "volume": interval(*ends, signed=False),
        "checkpoints": f"{row['n_checkpoints']:.0f}",
        "prompts": f"{row['n_prompts']:.0f}",
        "seeds": f"{row['n_seeds']:.0f}",
        "note": "; ".join(note for note in notes if note),
    }


# ------------------------------------------------------------------ peaks
def peak_verdicts(goodhart: pd.DataFrame) -> Verdicts:
    """What the forms say of each method.

    Args:
        goodhart: From ``goodhart_report``.
    """
    said = []
    for fits in _fits(goodhart):
        statement = peak_verdict(fit["statement"] for fit in fits)
        scored = text_or_empty(fits[0]["scored"])
        run = run_name(fits[0]) + one_seed_mark(fits[0])
        said.append((statement, f"{run}: {scored}" if scored else run))
    return _by_statement(said)


def _fits(goodhart: pd.DataFrame) -> list[list[dict[Any, Any]]]:
    """The forms of each method and scored reward, the preferred one first."""
    scored = goodhart["scored"].fillna("")
    table = preferred_first(goodhart.assign(scored=scored))
    records = ordered(table, "scored", sorted(set(scored)))
    fits = groupby(records, key=lambda row: [row[k] for k in (*METHOD, "scored")])
    return [list(forms) for _, forms in fits]


def peak_block(goodhart: pd.DataFrame) -> Block:
    """The fit of the preferred form, and what the other one says."""
    rows = []
    for fit, *others in _fits(goodhart):
        names = ("peak_distance", "peak_distance_low", "peak_distance_high")
        values = ("peak_value", "peak_value_low", "peak_value_high")
        rows.append(
            {
                "reward": fit["reward"],
                "method": fit["method"],
                "scored": text_or_empty(fit["scored"])
                + ROLE_MARKS.get(fit["role"], ""),
                "form": text_or_empty(fit["form"]) if pd.notna(fit["rmse"]) else "",
                "distance": _within(*(fit[name] for name in names)),
                "value": interval(*(fit[name] for name in values)),
                "furthest": number(fit["max_distance"]),
                "rmse": number(fit["rmse"]),
                "statement": fit["statement"],
                "note": seeds_note(fit["n_seeds"]),
                "other": others[0]["statement"]
                if others and pd.notna(fit["rmse"])
                else "",
                "seeds": f"{fit['n_seeds']:.0f}",
            }
        )
    columns = [
        *RUN_COLUMNS,
        ("scored", "Reward", ""),
        ("form", "Form", ""),
        ("distance", "Peak at distance", "number"),
        ("value", "Change at the peak", "number"),
        ("furthest", "Furthest evaluated", "number"),
        ("rmse", "Error of the fit", "number"),
        ("statement", "It says", ""),
        ("other", "The other form says", ""),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    return Block("Fits against the distance from the base model", columns, rows)


def _within(at: float, low: float, high: float) -> str:
    """A peak's distance; what lies beyond the data is not known."""
    if pd.isna(low):
        return number(at) + ("" if pd.isna(at) else ", no interval")
    ends = [number(low), "beyond" if pd.isna(high) else number(high)]
    return f"{'beyond' if pd.isna(at) else number(at)} [{', '.join(ends)}]"


# ------------------------------------------------------------------ joint outcomes
def joint_verdicts(joint: pd.DataFrame) -> Verdicts:
    """What all held-out rewards did together, by method."""
    records = ordered(last_joint(joint), "group", ["seen"])
    return _by_statement(
        (joint_verdict(row), run_name(row) + one_seed_mark(row)) for row in records
    )


def joint_block(joint: pd.DataFrame) -> Block:
    """The last checkpoint of each method.

    Args:
        joint: The rates of ``joint_report``.
    """
    rows = []
    for row in ordered(last_joint(joint), "group", ["seen"]):
        judged = pd.notna(row["dominated"])
        rows.append(
            {
                "reward": row["reward"],
                "method": row["method"],
                "rewards": text_or_empty(row["rewards"]),
                "rose": rate_text(row, "dominated"),
                "fell": rate_text(row, "collapsed"),
                "net": rate_text(row, "net").replace("-", MINUS),
                "epoch": f"{row['epoch']:.0f}" if judged else "",
                "prompts": f"{row['n_prompts']:.0f}",
                "seeds": f"{row['n_seeds']:.0f}",
                "note": text_or_empty(row["note"]) or seeds_note(row["n_seeds"]),
            }
        )
    columns = [
        *RUN_COLUMNS,
        ("rewards", "Held-out rewards", ""),
        ("rose", "All rose", "number"),
        ("fell", "All fell", "number"),
        ("net", "Rose minus fell", "number"),
        ("epoch", style.sentence(checkpoint_word()), "number"),
        ("prompts", "Prompts", "number"),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    return Block("Part of the prompts, at the last checkpoint", columns, rows)


# ------------------------------------------------------------------ stopping rules
def stopping_block(regrets: pd.DataFrame) -> Block:
    """Mean regret of each rule, a row a method.

    Args:
        regrets: From ``summarise_regrets``.
    """
    named = regrets["rule"].dropna()
    rules = [rule for rule in dict.fromkeys(named) if rule != "best"]
    rows = []
    units = regrets.assign(rule=regrets["rule"].astype(object).fillna(""))
    records = ordered(units, "rule", ["", "best", *rules])
    for _, unit in groupby(records, key=lambda row: [row[k] for k in METHOD]):
        unit_rows = list(unit)
        of_rule = {row["rule"]: row for row in unit_rows}
        first = unit_rows[0]
        notes = dict.fromkeys(text_or_empty(row["note"]) for row in unit_rows)
        rows.append(
            {
                "reward": first["reward"],
                "method": first["method"],
                "judge": text_or_empty(first["judge"]),
                "seeds": f"{first['n_seeds']:.0f}",
                "note": "; ".join(note for note in notes if note),
                **{
                    rule: interval(
                        *(of_rule[rule][k] for k in ("regret", "low", "high")),
                        signed=False,
                    )
                    if rule in of_rule
                    else ""
                    for rule in rules
                },
            }
        )
    columns = [
        *RUN_COLUMNS,
        ("judge", "Judged by", ""),
        *((rule, style.sentence(rule), "number") for rule in rules),
        SEEDS_COLUMN,
        ("note", "Note", ""),
    ]
    return Block("Mean regret of each rule", columns, rows)


def alarm_block(counts: pd.DataFrame) -> Block:
    """The onset test's alarms against what became of the gold.

    Args:
        counts: From ``count_alarms``.
    """
    rows = [_alarm_row(row) for row in counts.to_dict("records")]
    columns: Columns = [
        ("reward", "Trained reward", ""),
        ("judge", "Judged by", ""),
        ("when", "Had it fallen", ""),
        ("alarm_fell", "Alarm, fell", "number"),
        ("alarm_not", "Alarm, no fall shown", "number"),
        ("silent_fell", "No alarm, fell", "number"),
        ("silent_not", "No alarm, no fall shown", "number"),
        ("found", "Falls found", "number"),
        ("false", "False alarms", "number"),
        ("right", "Alarms that were right", "number"),
        ("note", "Note", ""),
    ]
    return Block("The onset test's alarms against the gold", columns, rows)


def _alarm_row(row: dict[Any, Any]) -> dict[str, str]:
    counts = ("alarm_fell", "alarm_not", "silent_fell", "silent_not")
    judged = row["n_runs"] > 0
    return {
        "reward": row["reward"],
        "judge": text_or_empty(row["judge"]),
        "when": text_or_empty(row["when"]),
        **{name: str(row[name]) if judged else "" for name in counts},
        **{
            name: rate_text(row, name) if judged else ""
            for name in ("found", "false", "right")
        },
        "note": text_or_empty(row["note"]),
    }
