"""The outcome in words and numbers: for the screen, as Markdown, as metrics."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import floor, isfinite, isnan, log10
from typing import Any, NamedTuple

import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD
from tdpo_pipeline.overoptimization.efficiency import furthest_costs
from tdpo_pipeline.overoptimization.intervals import significant
from tdpo_pipeline.overoptimization.matched import furthest_levels
from tdpo_pipeline.overoptimization.stopping import TUNED
from tdpo_pipeline.overoptimization.tables import (
    ASKED,
    MAIN_ETA,
    ROLES,
    checkpoint_word,
    group_label,
    ordered_groups,
    run_text,
)
from tdpo_pipeline.overoptimization.verdicts import (
    CORRECTED,
    comparison_verdict,
    cost_verdict,
    joint_verdict,
    judged_rows,
    last_joint,
    matched_verdict,
    one_seed_mark,
    peak_verdict,
    telling_pairs,
    with_comparable,
)

ROLE_MARKS = {
    "trained": ", trained",
    "part": ", a part of it",
    "gold": ", its gold",
    "cross": "",
    "size": "",
}
"""What stands behind a scored reward, by its role."""

_SHORT = {"seen": "trained on", "untrained": "other animals", "unseen": "unseen"}
_SCREEN = 100  # columns
_SCREEN_GROUPS = 3
_FULL_BLOCKS = 4  # more methods than that, and the screen shows no held-out rewards


def screen_text(
    summary: pd.DataFrame,
    golds: pd.DataFrame,
    figures: Mapping[str, str],
    folder: str,
    *,
    findings: Iterable[Finding] = (),
    page: str = "curves and samples",
) -> str:
    """A short summary, at most 100 columns wide.

    Args:
        summary: From ``summarise_methods``.
        golds: From ``gold_report``.
        figures: Name and title of each figure.
        folder: Folder that holds ``figures/``, ``tables/`` and ``summary.md``.
        findings: Measures that are told on the screen too.
        page: What ``report.html`` has besides.
    """
    at_eta = summary[summary["eta"] == MAIN_ETA]
    lines = [
        "What fine-tuning did: trained minus base, on the same prompts and noise, with 95 %",
        "intervals over prompts and, unless there is one seed, over training seeds.",
    ]
    units = at_eta.groupby(list(METHOD), sort=True)
    if units.ngroups > _FULL_BLOCKS:
        at_eta = at_eta[at_eta["role"].isin(ASKED)]
        lines.append("Held-out rewards are in the whole summary.")
    for (method, reward), rows in at_eta.groupby(list(METHOD), sort=True):
        own = golds[(golds["method"] == method) & (golds["reward"] == reward)]
        lines += ["", *_screen_block(f"{method} trained on {reward}", rows, own)]
    for finding in findings:
        lines += ["", *_on_screen(finding)]
    lines += ["", f"Figures are in {folder}/figures, their data in {folder}/tables:"]
    lines += [f"  {name + '.png':28} {title}" for name, title in figures.items()]
    lines.append(f"The whole summary is in {folder}/summary.md; with {page},")
    lines.append(f"for a browser, in {folder}/report.html")
    return "\n".join(lines)


def _screen_block(title: str, rows: pd.DataFrame, golds: pd.DataFrame) -> list[str]:
    """What one method did to every reward, and the verdicts."""
    groups = [name for name in ordered_groups(rows["group"]) if name != "untrained"]
    groups = groups[:_SCREEN_GROUPS]
    sizes = rows.drop_duplicates("group").set_index("group")["n_prompts"]
    heads = [f"{_SHORT.get(name, name)} ({sizes[name]} prompts)" for name in groups]
    lines = [
        title,
        f"  {_effort(rows.iloc[0])}",
        f"  {'in base SD':24}" + "".join(f"{h:>24}" for h in heads),
    ]
    for scored, row in _by_reward(rows):
        cells = [_interval(row, name, base_sd=True) for name in groups]
        lines.append(f"  {scored + _mark(row):24}" + "".join(f"{c:>24}" for c in cells))
        if row["role"].iloc[0] in ASKED:
            cells = [_interval(row, name, base_sd=False) for name in groups]
            lines.append(
                f"    {'in its own units':22}"
                + "".join(f"{' ' + c:>24}" for c in cells)
            )
    return lines + [f"  {sentence}" for sentence in gold_sentences(golds, ["seen"])]


def _by_reward(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The rows of each scored reward by group, in the order of ``ROLES``."""
    names = rows.drop_duplicates("scored")
    names = names.sort_values("role", key=lambda r: r.map(ROLES.index), kind="stable")
    for scored in names["scored"]:
        yield str(scored), rows[rows["scored"] == scored].set_index("group")


def _mark(row: pd.DataFrame) -> str:
    return ROLE_MARKS[row["role"].iloc[0]]


def _effort(row: pd.Series) -> str:
    """Epoch, queries, KL and seeds of the checkpoint, in words."""
    seeds = "one seed" if row["n_seeds"] == 1 else f"{row['n_seeds']} seeds"
    # KL between deterministic samplers (eta 0) does not exist.
    known = pd.notna(row["kl_to_base"])
    kl = f"KL {significant(row['kl_to_base'])} nats, " if known else ""
    queries = f"{row['reward_queries']:,.0f} reward queries"
    return f"{checkpoint_word()} {row['epoch']:.0f}, {queries}, {kl}{seeds}"


def _interval(rows: pd.DataFrame, group: str, *, base_sd: bool) -> str:
    """Difference and interval of a group, such as ``+0.21 [+0.17, +0.26]``.

    Args:
        rows: Rows of one scored reward, indexed by group.
        group: The prompt group.
        base_sd: Whether in base standard deviations or in the reward's own units.
    """
    row = rows.to_dict("index")[group]
    if base_sd:
        return base_sd_text(row, partial(interval_text, decimals=2))
    return interval_text(row["difference"], row["low"], row["high"])


def base_sd_text(
    row: Mapping[Any, Any], write: Callable[..., str], mean: str = "difference"
) -> str:
    """Mean and interval of a row in base standard deviations.

    A reward that was equal on all images of the base model has none to be counted in.

    Args:
        row: With ``low``, ``high`` and ``base_sd``, all in the reward's own units.
        write: What to make of mean, low and high.
        mean: Name of the mean.
    """
    if not row["base_sd"] > 0:
        return "the base did not vary"
    return write(*(row[name] / row["base_sd"] for name in (mean, "low", "high")))


def interval_text(
    mean: float,
    low: float,
    high: float,
    decimals: int | None = None,
    *,
    signed: bool = True,
) -> str:
    """Mean and interval; by default the largest number gets three digits.

    Where that takes more than six decimals, each number has a power of ten. Differences
    have their sign; ``signed=False`` is for quantities that aren't.
    """
    if isnan(mean):
        return "unknown"
    if decimals is None:
        sizes = [abs(value) for value in (mean, low, high) if value]
        largest = max((size for size in sizes if isfinite(size)), default=1.0)
        decimals = max(0, 2 - floor(log10(largest)))
    form = ("+" if signed else "") + (f".{decimals}f" if decimals <= 6 else ".2e")
    if isnan(low):
        return f"{mean:{form}}, no interval"
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def gold_sentences(golds: pd.DataFrame, groups: Iterable[str]) -> list[str]:
    """Whether the gold fell: a question and two answers per prompt group.

    Args:
        golds: Rows of ``gold_report``.
        groups: Prompt groups to speak of.
    """
    if golds.empty:
        return [
            "No gold of this reward was scored: nobody knows if it is overoptimized."
        ]
    lines = []
    for row in golds[golds["group"].isin(list(groups))].to_dict("records"):
        where = group_label(str(row["group"]))
        base = interval_text(row["change"], row["low"], row["high"])
        lines += [
            f"Did the true reward, {row['gold']}, fall on {where}?",
            f"  below the base model: {_ANSWERS[row['verdict']]}, {base}",
            f"  below its best checkpoint ({checkpoint_word()} {row['peak_epoch']}): "
            f"{_at_best(row)}",
        ]
    return lines


_ANSWERS = {"rose": "no, it rose", "fell": "yes", "cannot tell": "cannot tell"}


def _at_best(row: Mapping[Any, Any]) -> str:
    """How the gold stands to its best checkpoint."""
    if row["peak_verdict"] == "is at its peak":
        return "no, the last one is its best"
    change = interval_text(row["peak_change"], row["peak_low"], row["peak_high"])
    return f"{_ANSWERS[row['peak_verdict']]}, {change}"


def markdown(
    summary: pd.DataFrame,
    golds: pd.DataFrame,
    figures: Mapping[str, str],
    tripwires: str = "",
    findings: Iterable[Finding] = (),
    table: Iterable[str] = (),
) -> str:
    """The whole summary.

    Args:
        summary: As for ``screen_text``.
        golds: As for ``screen_text``.
        figures: As for ``screen_text``; they are in ``figures/``.
        tripwires: What became of the image statistics, in words.
        findings: What further measures say.
        table: What to know of a table that others wrote, a sentence each.
    """
    parts = [
        "# What fine-tuning did",
        "Differences are trained minus base model, on the same prompts and noise. "
        "Intervals are 95 % bootstrap intervals over prompts and, where there are "
        "several, training seeds, unless something else is said; with one seed they say "
        "nothing about other seeds. "
        "One base SD is the standard deviation over the base model's images for the "
        "prompts trained on. Several rewards and prompt groups are shown at once and "
        "their intervals are not corrected for that; the question asked beforehand is "
        "that of the trained reward and its gold on the prompts trained on.",
    ]
    about = [f"- {sentence}" for sentence in table]
    if about:
        parts += ["## The table", "\n".join(about)]
    parts += ["## Did the true reward fall?", _gold_table(golds)]
    if tripwires:
        parts += ["## Did the pictures leave the base model's range?", tripwires]
    bullets = [_as_bullets(finding) for finding in findings]
    if bullets:
        parts += ["## What else was measured", "\n".join(bullets)]
    # Other samplers than the main one draw from the last checkpoint of each run alone,
    # which seeds that ended at different ones don't share.
    shared = summary[(summary["eta"] == MAIN_ETA) | (summary["epoch"] > 0)]
    ordered = shared.sort_values(
        [*METHOD, "eta"], ascending=[True, True, False], kind="stable"
    )
    for (method, reward, eta), rows in ordered.groupby([*METHOD, "eta"], sort=False):
        title = f"{method} trained on {reward}, eta {eta}"
        parts += _markdown_block(title, rows)
    parts.append("## Figures")
    parts += [f"![{title}](figures/{name}.png)" for name, title in figures.items()]
    return "\n\n".join(parts) + "\n"


class Finding(NamedTuple):
    """What one of the report's measures says.

    Attributes:
        asked: What was measured.
        said: Statements, each with what it holds for.
        note: What else its table holds.
        table: The table, in the report's folder.
    """

    asked: str
    said: list[tuple[str, list[str]]]
    note: str
    table: str


def by_statement(said: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """What is said of each run, as the runs of each statement."""
    found: dict[str, list[str]] = {}
    for statement, run in said:
        found.setdefault(statement, []).append(run)
    return list(found.items())


def _statements(finding: Finding) -> list[str]:
    """The statements, each with what it holds for."""
    lines = [f"{said}: {'; '.join(runs)}" for said, runs in finding.said]
    return lines or ["nothing to compare"]


def _on_screen(finding: Finding) -> list[str]:
    """A finding as lines for the screen."""
    told = [f"{finding.asked}:", *(f"- {line}" for line in _statements(finding))]
    return [
        line
        for text in told
        for line in textwrap.wrap(text, _SCREEN, subsequent_indent="  ")
    ]


def _as_bullets(finding: Finding) -> str:
    """A finding as Markdown: a bullet, and one below it for each statement."""
    head = f"- {finding.asked}. {finding.note}: `{finding.table}`."
    return "\n".join([head, *(f"  - {line}" for line in _statements(finding))])


def agreement_finding(agreement: pd.DataFrame) -> Finding:
    """How often the trained reward ranks two pictures of a prompt as its gold does.

    Args:
        agreement: From ``pairwise_agreement``.
    """
    said = []
    for (reward, scored), pairs in telling_pairs(agreement).groupby(
        ["reward", "scored"]
    ):
        base = pairs[pairs["epoch"] == 0].iloc[0].to_dict()
        trained = pairs[pairs["epoch"] > 0]
        last = trained.drop_duplicates("method", keep="last").to_dict("records")
        told = [f"base model {rate_text(base, 'agreement')}"]
        told += [f"{row['method']} {rate_text(row, 'agreement')}" for row in last]
        said.append((f"{reward} and {scored}", told))
    asked = (
        "Of two pictures of a prompt, how often the trained reward and its gold (the "
        f"held-out rewards where none was scored) prefer the same, at the last "
        f"{checkpoint_word()}; by chance 50%"
    )
    if agreement.empty:
        said.append(("nothing to compare", ["it takes two images of a prompt"]))
    note = f"Other rewards, prompts and {checkpoint_word()}s"
    return Finding(asked, said, note, "tables/agreement.csv")


def onset_finding(onsets: pd.DataFrame) -> Finding:
    """Which rewards that weren't trained on have been falling, and since when.

    Args:
        onsets: From ``find_onsets``.
    """
    said = []
    for (method, reward), rows in onsets.groupby(list(METHOD), sort=True):
        fallen = rows[rows["high_epoch"].notna()].to_dict("records")
        told = [_fall_text(row) for row in fallen] or ["none was shown to fall"]
        mark = one_seed_mark(rows.iloc[0].to_dict())
        said.append((f"{method} on {reward}{mark}", told))
    asked = "Which rewards fall below their best checkpoint, on the prompts trained on"
    return Finding(asked, said, "With intervals", "tables/onsets.csv")


def onset_text(row: Mapping[Any, Any]) -> str:
    """When a reward began to fall, such as "epoch 4 (2 to 8)".

    Args:
        row: Of ``find_onsets``, of a reward that was shown to fall.
    """
    span = f"({row['low_epoch']:.0f} to {row['high_epoch']:.0f})"
    return f"{checkpoint_word()} {row['onset_epoch']:.0f} {span}"


def _fall_text(row: Mapping[Any, Any]) -> str:
    """Such as "hps since epoch 4 (2 to 8), while the trained reward rises"."""
    meanwhile = ""
    if row["trained_rise_low"] > 0:
        meanwhile = ", while the trained reward rises"
    elif row["trained_rise_high"] < 0:
        meanwhile = ", and so does the trained reward"
    mark = ROLE_MARKS[row["role"]]
    name = f"{row['scored']}{mark}," if mark else row["scored"]
    return f"{name} since {onset_text(row)}{meanwhile}"


def matched_finding(matched: pd.DataFrame) -> Finding:
    """How the golds compare at equal training reward.

    Args:
        matched: From ``matched_report``.
    """
    rows = furthest_levels(matched)
    rows = rows[(rows["along"] == "training_reward") & (rows["group"] == "seen")]
    said = []
    for _, unit in rows.groupby(list(METHOD), sort=True):
        first = unit.iloc[0].to_dict()
        golds = unit[unit["role"] == "gold"]
        if pd.isna(first["level"]):
            said.append(("no common level, or no method to compare", run_text(first)))
        elif golds.empty:
            said.append(("no gold to compare", _against(first)))
        else:
            verdict = matched_verdict(golds.iloc[0].to_dict())
            said.append((verdict, _against(first)))
    asked = "At equal training reward, the gold against a reference method's"
    note = "Other rewards, and equal queries, KL and seconds"
    return Finding(asked, by_statement(said), note, "tables/matched.csv")


def _against(row: Mapping[Any, Any], how: str = "minus") -> str:
    """Such as "tdpo_r minus ddpo_2 on pick-mini"."""
    return f"{row['method']} {how} {row['reference']} on {row['reward']}"


def cost_finding(costs: pd.DataFrame) -> Finding:
    """How many reward queries methods take for an equal training reward.

    Args:
        costs: From ``cost_report``.
    """
    said = []
    for row in furthest_costs(costs).to_dict("records"):
        if row["cost"] != "reward_queries":
            continue
        told = run_text(row)
        if pd.notna(row["ratio"]):
            ratio = interval_text(row["ratio"], row["low"], row["high"], signed=False)
            told = f"{_against(row, 'over')}, {ratio} at {row['level']:+.2f} base SD"
        said.append((cost_verdict(row), told))
    asked = (
        "Reward queries that equal training reward takes, over a reference method's, at "
        "the highest level with an interval"
    )
    note = "Lower levels, and KL"
    return Finding(asked, by_statement(said), note, "tables/costs.csv")


def comparison_finding(compared: pd.DataFrame) -> Finding:
    """How the methods compare with a reference at equal epochs.

    Args:
        compared: From ``compare_report``.
    """
    judged = judged_rows(compared).to_dict("records")
    said = [(comparison_verdict(row), _compared_text(row)) for row in judged]
    asked = (
        f"At equal {checkpoint_word()}s, the gold (the trained reward where none was "
        f"scored) against a reference method's, {CORRECTED}"
    )
    note = "All rewards, with the number of seeds that it takes"
    return Finding(asked, by_statement(said), note, "tables/compared.csv")


def _compared_text(row: Mapping[Any, Any]) -> str:
    """What is compared, and by how much it differs, in base standard deviations."""
    if pd.isna(row["difference"]):
        return run_text(row)
    write = partial(interval_text, decimals=2)
    text = base_sd_text(row, lambda *ends: f"{write(*ends)} base SD")
    return f"{_against(row)}, {row['scored']} {text}"


def hypervolume_finding(volumes: pd.DataFrame) -> Finding:
    """Which method offers the most of both, by trained reward.

    A method is named alone if its interval lies above those of all others.

    Args:
        volumes: From ``hypervolume_report``.
    """
    table = with_comparable(volumes)
    known = table[table["hypervolume"].notna()]
    ranked = known.sort_values("hypervolume", ascending=False, kind="stable")
    said = []
    for reward, own in ranked.groupby("reward", sort=True):
        rows = own[own["comparable"]]
        if rows.empty:
            said.append((f"on {reward}", ["no method has the most of all three"]))
            continue
        largest = rows.iloc[0].to_dict()
        ends = (largest[name] for name in ("hypervolume", "low", "high"))
        size = interval_text(*ends, signed=False)
        text = f"{largest['method']}, {size} ({largest['rewards']})"
        clear = (rows["high"].iloc[1:] < largest["low"]).all()
        if len(rows) == 1:
            text = f"nothing to compare with {text}"
        elif largest["n_seeds"] == 1:
            text = f"cannot tell from one seed; the highest mean is that of {text}"
        elif not clear:
            text = f"cannot tell; the highest mean is that of {text}"
        said.append((f"on {reward}", [text]))
    asked = (
        "Largest hypervolume over the base model, by trained reward, among methods with "
        "equally many checkpoints, seeds and images"
    )
    return Finding(asked, said, "With intervals", "tables/hypervolumes.csv")


def goodhart_finding(goodhart: pd.DataFrame) -> Finding:
    """What both fits say.

    Args:
        goodhart: From ``goodhart_report``.
    """
    said = [
        (peak_verdict(fits["statement"]), _fit_text(fits.iloc[0].to_dict()))
        for _, fits in goodhart.groupby([*METHOD, "scored"], sort=True, dropna=False)
    ]
    asked = (
        "Held-out rewards, the gold where there is one, against the distance from the "
        "base model"
    )
    return Finding(asked, by_statement(said), "Peaks", "tables/goodhart.csv")


def _fit_text(row: Mapping[Any, Any]) -> str:
    """Such as "tdpo_r on pick-mini (one seed), gold_match"."""
    run = run_text(row) + one_seed_mark(row)
    return f"{run}, {row['scored']}" if isinstance(row["scored"], str) else run


def joint_finding(joint: pd.DataFrame) -> Finding:
    """What all held-out rewards did together.

    Args:
        joint: The rates of ``joint_report``.
    """
    last = last_joint(joint).to_dict("records")
    said = by_statement(
        (joint_verdict(row), run_text(row) + one_seed_mark(row)) for row in last
    )
    asked = (
        "All held-out rewards at once: did all rise, or all fall, on the same prompts"
    )
    note = "Prompts: `tables/joint_prompts.csv`. Rates"
    return Finding(asked, said, note, "tables/joint.csv")


def stopping_finding(regrets: pd.DataFrame) -> Finding:
    """Which rules had the lowest regret, ties counted for each.

    Args:
        regrets: From ``summarise_regrets`` of ``stopping_report``.
    """
    said = []
    for _, own in regrets.groupby(list(METHOD), sort=True):
        run = run_text(own.iloc[0].to_dict())
        rules = own[own["regret"].notna() & (own["rule"] != "best")]
        if rules.empty:
            said.append((str(own["note"].iloc[0]), run))
        # Where a rule could do nothing in some seeds, the others' mean is of other runs.
        whole = rules[rules["n_seeds"] == rules["n_seeds"].max()]
        best = whole[whole["regret"] == whole["regret"].min()]
        for row in best.to_dict("records"):
            ends = (row[name] for name in ("regret", "low", "high"))
            how = " (set on the gold of other seeds)" if row["rule"] in TUNED else ""
            told = f"{run}, {interval_text(*ends, signed=False)}"
            said.append((row["rule"] + how, told))
    asked = (
        "Rules for stopping early: the lowest mean regret, with its interval over seeds, "
        "ties counted for each"
    )
    return Finding(
        asked, by_statement(sorted(said)), "With intervals", "tables/regrets.csv"
    )


def alarm_finding(counts: pd.DataFrame) -> Finding:
    """How often the onset test's alarms and falls of the gold went together.

    Args:
        counts: From ``count_alarms``.
    """
    said = []
    for row in counts.drop_duplicates("reward").to_dict("records"):
        alarms, runs = row["alarm_fell"] + row["alarm_not"], row["n_runs"]
        told = [
            f"an alarm in {alarms} of {runs} runs",
            f"the gold was shown to fall in {row['alarm_fell']} of these and "
            f"{row['silent_fell']} of the others",
            f"falls found {rate_text(row, 'found')}",
            f"false alarms {rate_text(row, 'false')}",
        ]
        said.append((f"on {row['reward']}", told if runs else [str(row["note"])]))
    asked = (
        "Alarms of the onset test, which sees no gold, and what became of the gold by the "
        "end of each run, with intervals over runs"
    )
    note = "Run by run: `tables/alarm_runs.csv`. Counts"
    return Finding(asked, said, note, "tables/alarms.csv")


FINDINGS: dict[str, Callable[[pd.DataFrame], Finding]] = {
    "agreement": agreement_finding,
    "onsets": onset_finding,
    "matched": matched_finding,
    "costs": cost_finding,
    "compared": comparison_finding,
    "hypervolumes": hypervolume_finding,
    "goodhart": goodhart_finding,
    "joint": joint_finding,
    "regrets": stopping_finding,
    "alarms": alarm_finding,
}
"""What is said of each table, in the order of the report."""


def findings(tables: Mapping[str, pd.DataFrame]) -> dict[str, Finding]:
    """What is said of those of the tables that ``FINDINGS`` names, by table."""
    return {name: say(tables[name]) for name, say in FINDINGS.items() if name in tables}


def rate_text(row: Mapping[Any, Any], name: str) -> str:
    """A part in percent with its interval, such as "89% [52%, 100%]".

    Args:
        row: With the columns ``name``, and with ``_low`` and ``_high`` behind it.
        name: Name of the part; a dash stands for one that is NaN.
    """
    part, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(part):
        return "\N{EN DASH}"
    if pd.isna(low):
        return f"{part:.0%}, no interval"
    return f"{part:.0%} [{low:.0%}, {high:.0%}]"


def _markdown_block(title: str, rows: pd.DataFrame) -> list[str]:
    """Heading and two tables of one method, reward and sampler."""
    groups = ordered_groups(rows["group"])
    sizes = rows.drop_duplicates("group").set_index("group")
    each = sizes["n_images"] / sizes["n_seeds"] / sizes["n_prompts"]
    counts = {
        group: f"{n} x {images:g} images"
        for group, n, images in zip(sizes.index, sizes["n_prompts"], each, strict=True)
    }
    heads = [f"{group_label(group)} ({counts[group]})" for group in groups]
    return [
        f"## {title}",
        f"At {_effort(rows.iloc[0])}.",
        markdown_table(["in base SD", *heads], _body(rows, groups, base_sd=True)),
        markdown_table(
            ["in the reward's own units", *heads], _body(rows, groups, base_sd=False)
        ),
    ]


def _body(rows: pd.DataFrame, groups: list[str], *, base_sd: bool) -> list[list[str]]:
    return [
        [
            scored + _mark(row),
            *(_interval(row, group, base_sd=base_sd) for group in groups),
        ]
        for scored, row in _by_reward(rows)
    ]


def _gold_table(golds: pd.DataFrame) -> str:
    if golds.empty:
        return "No trained reward has a gold that was scored."
    head = [
        "method",
        "trained on",
        "gold",
        "prompts",
        "last minus base",
        "against base",
    ]
    head += [
        f"best {checkpoint_word()}",
        "last minus best",
        "against its best",
        "seeds",
    ]
    body = []
    for row in golds.to_dict("records"):
        base = interval_text(row["change"], row["low"], row["high"])
        best = interval_text(row["peak_change"], row["peak_low"], row["peak_high"])
        at_peak = row["peak_verdict"] == "is at its peak"
        cells = [row["method"], row["reward"], row["gold"], group_label(row["group"])]
        cells += [base, row["verdict"], row["peak_epoch"], "" if at_peak else best]
        body.append([str(c) for c in (*cells, row["peak_verdict"], row["n_seeds"])])
    note = (
        "The best checkpoint was picked for being the best, so its difference "
        "overstates the fall; the interval covers all checkpoints at once and minds that."
    )
    return markdown_table(head, body) + "\n\n" + note


def markdown_table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; each row has a cell for each of the heads."""
    top, *body = (f"| {' | '.join(line)} |" for line in (head, *rows))
    return "\n".join([top, f"|{'---|' * len(head)}", *body])


def metrics(summary: pd.DataFrame, golds: pd.DataFrame) -> dict[str, Any]:
    """Numbers for ``dvc metrics``, nested by method, reward, group and scored reward.

    Returns:
        At eta 1 ``difference``, ``low``, ``high`` and ``difference_sd`` of each scored
        reward, and under ``gold_verdict`` of each group the two verdicts. None where a
        number does not exist.
    """
    result: dict[str, Any] = {}
    for row in summary[summary["eta"] == MAIN_ETA].to_dict("records"):
        names = ("difference", "low", "high", "difference_sd")
        group = _node(result, row["method"], row["reward"], row["group"])
        group[row["scored"]] = {name: _number(row[name]) for name in names}
    for row in golds.to_dict("records"):
        group = _node(result, row["method"], row["reward"], row["group"])
        verdicts = {"from_base": row["verdict"], "from_best": row["peak_verdict"]}
        group["gold_verdict"] = verdicts
    return result


def _node(tree: dict[str, Any], *path: str) -> dict[str, Any]:
    """The inner dictionary at ``path``, made if it is not there."""
    for name in path:
        tree = tree.setdefault(name, {})
    return tree


def _number(value: float) -> float | None:
    """Six significant digits; JSON has no NaN."""
    return None if pd.isna(value) else float(f"{value:.6g}")
