"""Scores that another trainer wrote, as a score table of this project.

The columns are in docs/own_tables.md. What is missing and can be known is filled in;
what would give a wrong number is refused, with what to do about it.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.intervals import common_epochs
from tdpo_pipeline.overoptimization.tables import (
    IMAGE_KEYS,
    INDEX_COLUMNS,
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    reward_columns,
    with_group,
    words_of,
)

REQUIRED = ("method", "seed", "reward_queries", "prompt")
OPTIONAL = (
    "run",
    "reward",
    "epoch",
    "image",
    "kl_to_base",
    "eta",
    "prompt_set",
    "seen",
    "file",
)
_TEXTS = ("run", "reward", "prompt_set", "file")
"""Optional columns that can't be meant where a column holds numbers."""

_NUMBERS = ("reward_queries", "kl_to_base", "eta", "image")
"""Columns of numbers that pandas reads as text where a cell isn't one."""

_FILLED = ("image", "eta", "prompt_set")
"""Optional columns that have a value in every row, where the table has them."""

_RESERVED = ("group", "scored", "change", "base_sd", "outcome")
"""What tables of results have columns for; no reward can be called so."""

_OWN_GROUPS = {name: f"{name} prompts" for name in ("seen", "untrained", "unseen")}
"""Prompt sets that this project's prompt groups would be mistaken for."""

_SAME_PICTURE = 0.01
"""Scores of one picture differ by no more than that, in standard deviations."""

_UNIT = ["method", "reward", "seed"]


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of CSV or Parquet.

    Returns:
        The table; ``attrs["csv"]`` is where it lies, if a row is a line there.

    Raises:
        ScoreTableError: If there is no such file, or it is of another kind, or broken.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ScoreTableError(f"{path}: tables are read from .csv and .parquet.")
    if not path.is_file():
        raise ScoreTableError(f"There is no file {path}.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise, all of it
        advice = (
            "A CSV file has a heading, is encoded as UTF-8, and has quotes around cells "
            "with commas in them."
            if path.suffix == ".csv"
            else "Write it again."
        )
        raise ScoreTableError(
            f"{path} can't be read: {str(error).strip()}. {advice}"
        ) from error
    table.attrs["csv"] = str(path)
    return table


def own_scores(
    table: pd.DataFrame, *, trained: str | None = None, rewards: Sequence[str] = ()
) -> pd.DataFrame:
    """Bring a table from elsewhere into this project's form.

    Args:
        table: One row per scored image (see docs/own_tables.md).
        trained: The reward that was trained on; None if the column ``reward`` says it.
        rewards: Reward columns; by default all that aren't of another meaning.

    Returns:
        A score table. Rows without a method, which are of a base model that all runs
        share, are there once for every run. ``attrs["checkpoint"]`` says what its
        epochs are: the table's own, or checkpoints in order; ``attrs["sampler_known"]``
        whether it had a column ``eta``.

    Raises:
        ScoreTableError: If the table can't be used.
    """
    _check_columns(table)
    numbered, sampler_known = "epoch" in table, "eta" in table
    table = _with_trained(_in_types(table), trained)
    scored = _reward_columns(table, rewards)
    _check_cells(table)
    _check_rows(table, scored)
    table = _with_epochs(_with_defaults(_share_base(table)))
    missing = sorted(set(table["reward"]) - set(scored))
    if missing:
        raise ScoreTableError(
            f"The trained rewards {missing}{_hint(missing, scored)} are no columns of "
            f"the table; its rewards are {scored}."
        )
    runs = table[_UNIT].astype(str)
    table = table.assign(
        run=runs["method"] + "-" + runs["reward"] + "-s" + runs["seed"]
    )
    made = table[[*INDEX_COLUMNS, *scored]].reset_index(drop=True)
    check_scores(made)
    _check_pictures(made, scored)
    _check_checkpoints(made)
    made.attrs = {
        "checkpoint": "epoch" if numbered else "checkpoint",
        "sampler_known": sampler_known,
    }
    return made


def _check_columns(table: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in table.columns]
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(table.columns) == 1 and mark in str(table.columns[0]):
            raise ScoreTableError(
                f"The cells of the table are separated by {called}. Write it with commas "
                "between cells, and with points in numbers."
            )
    if missing:
        raise ScoreTableError(
            f"The table lacks the columns {missing}{_hint(missing, table.columns)}; it "
            f"has {list(table.columns)}. It needs {list(REQUIRED)} and a column for each reward "
            "(docs/own_tables.md)."
        )
    if table.empty:
        raise ScoreTableError("The table has no rows.")
    there = [name for name in _FILLED if name in table]
    for name in ("reward_queries", "prompt", *there):
        if empty := empty_cells(table, name):
            raise ScoreTableError(empty)


def empty_cells(table: pd.DataFrame, column: str) -> str:
    """What to say of a column's empty cells; nothing if there are none."""
    empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
    if not empty.any():
        return ""
    return (
        f"The column '{column}' is empty in {int(empty.sum())} rows; the first is "
        f"{_first(table, empty)}."
    )


def _first(table: pd.DataFrame, rows: pd.Series) -> str:
    """Where the first of some rows stands, as an editor shows it.

    Args:
        table: A table, whose rows are in the order of the file that it was read from.
        rows: Whether each row is one of them.
    """
    position = int(rows.to_numpy().argmax())
    if "csv" not in table.attrs:
        return f"row {position + 1}, counted from 1"
    return f"line {_line(Path(table.attrs['csv']), position)} of the file"


def _line(path: Path, position: int) -> int:
    """The line of a CSV file at which a row begins; line 1 is the heading.

    Args:
        path: The file.
        position: Of the row, from 0, as pandas counts: blank lines are none.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        starts, last = [], 0
        for cells in reader:  # a quoted cell may take several lines
            if len(cells) > 1 or "".join(cells).strip():
                starts.append(last + 1)
            last = reader.line_num
    return starts[position + 1]


def _in_types(table: pd.DataFrame) -> pd.DataFrame:
    """Methods, prompts and their sets as text, and numbers as numbers."""
    made: dict[str, pd.Series] = {}
    for name in ("method", "prompt", "prompt_set"):
        if name in table:
            text = _as_text(table[name])
            made[name] = text.where(table[name].notna() & (text.str.strip() != ""))
    for name in (name for name in _NUMBERS if name in table):
        _refuse(table, name, _no_numbers(table[name]), _NUMBER)
        made[name] = pd.to_numeric(table[name])
    _refuse(table, "reward_queries", made["reward_queries"] < 0, "no negative numbers")
    return table.assign(**made)


def _no_numbers(column: pd.Series) -> pd.Series:
    """Whether each cell holds something, and no number."""
    return pd.to_numeric(column, errors="coerce").isna() & column.notna()


_NUMBER = "numbers, written plainly (10000)"


def _refuse(table: pd.DataFrame, name: str, wrong: pd.Series, what: str) -> None:
    """Raise ScoreTableError if a column holds a cell that it can't.

    Args:
        table: A table, whose rows are in the order of the file that it was read from.
        name: The column.
        wrong: Whether each row is wrong.
        what: What the column must hold.
    """
    if wrong.any():
        raise ScoreTableError(
            f"The column '{name}' must hold {what}; it holds "
            f"{table[name][wrong].iloc[0]!r} in {_first(table, wrong)}."
        )


def _check_cells(table: pd.DataFrame) -> None:
    """Refuse what is no whole number and no truth value, where an editor shows it."""
    if "seen" in table:
        wrong = ~table["seen"].isin([True, False])
        # One cell that is neither makes texts of all: point at that one.
        neither = wrong & ~table["seen"].astype(str).str.lower().isin(["true", "false"])
        first = neither if neither.any() else wrong
        _refuse(table, "seen", first, "true or false in every row")
    # Rows without a method are of a base model that no seed has trained.
    of_method = table["method"].notna()
    for name in ("seed", "epoch") if "epoch" in table else ("seed",):
        fraction = pd.to_numeric(table[name], errors="coerce") % 1 != 0
        wrong = fraction & of_method if name == "seed" else fraction
        _refuse(table, name, wrong, "a whole number in every row")


def _check_rows(table: pd.DataFrame, rewards: Sequence[str]) -> None:
    """Refuse images that are there twice or lack a score, where an editor shows it.

    A reward that a method wasn't scored by at all is fine (``check_scores``).
    """
    keys = [*_UNIT, "reward_queries", "epoch", "eta", "prompt_set", "prompt", "image"]
    own = [name for name in keys if name in table]
    if (twice := table.duplicated(own)).any():
        alike = table.groupby(own, dropna=False).ngroup()
        first = alike == alike[twice.to_numpy()].iloc[0]
        raise ScoreTableError(
            f"{int(twice.sum())} rows are of an image that is there before; the first is "
            f"{_first(table, twice)}, again after {_first(table, first)}. Several images "
            "of a prompt are told apart by the column 'image'; or were tables put "
            "together twice?"
        )
    shared = table["method"].isna()
    for name in rewards:
        values = table[name].astype("float64")
        method = [table["method"], table["reward"]]
        scored = values.notna().groupby(method, dropna=False).transform("any")
        meant = scored | (shared & bool(values.notna().any()))
        bad = meant & (values.isna() | values.isin([np.inf, -np.inf]))
        if bad.any():
            raise ScoreTableError(
                f"The reward '{name}' is NaN or infinite in {int(bad.sum())} rows; the "
                f"first is {_first(table, bad)}. A mean over the others would compare "
                "other images at each checkpoint. Score them again, or leave the reward "
                "out."
            )


def _as_text(column: pd.Series) -> pd.Series:
    """A column as text; whole numbers without the point that empty cells give them."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype(str)


def _with_trained(table: pd.DataFrame, trained: str | None) -> pd.DataFrame:
    """The column ``reward``: in each row of a method, what it was trained on."""
    known = table["reward"].dropna() if "reward" in table else pd.Series(dtype=object)
    if not known.empty and pd.api.types.is_numeric_dtype(known):
        raise ScoreTableError(
            "The column 'reward' names the reward that a run was trained on; here it "
            "holds numbers. If they are scores, call the column by another name."
        )
    if trained is not None:
        others = sorted({str(name) for name in known if str(name).strip()} - {trained})
        if others:
            raise ScoreTableError(
                f"measure.trained names '{trained}', and the column 'reward' says {others} "
                "of some rows. Leave one of the two out."
            )
        return table.assign(reward=trained)
    if "reward" not in table:
        raise ScoreTableError(
            "The table doesn't say which reward was trained on. Give it a column "
            "'reward', or name one: --params measure.trained=<column>."
        )
    shared = table["method"].isna()
    if empty := empty_cells(
        table.assign(reward=table["reward"].astype(object).mask(shared, "-")), "reward"
    ):
        raise ScoreTableError(empty)
    return table


def _reward_columns(table: pd.DataFrame, rewards: Sequence[str]) -> list[str]:
    """The columns that hold scores; all of them numbers."""
    known = {*REQUIRED, *OPTIONAL}
    names = list(rewards)
    if not names:
        names = [str(name) for name in table.columns if name not in known]
        _check_strays(table, names)
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise ScoreTableError(
            f"measure.rewards names {absent}{_hint(absent, table.columns)}, which aren't "
            f"among the table's columns {list(table.columns)}."
        )
    reserved = [name for name in names if name in _RESERVED]
    if reserved:
        raise ScoreTableError(
            f"The columns {reserved} would count as rewards, and none can have these names, "
            "which tables of results use. Rename them, or name the reward columns: "
            "measure.rewards."
        )
    if not names:
        raise ScoreTableError("The table has no reward column.")
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(table[name])]
    if texts:
        wrong = _no_numbers(table[texts[0]])
        example = table[texts[0]][wrong].iloc[0] if wrong.any() else ""
        where = f" ({example!r} in {_first(table, wrong)})" if wrong.any() else ""
        raise ScoreTableError(
            f"The columns {texts} hold something else than numbers{where}, so they can't "
            "be rewards. Mend them, or name the reward columns: measure.rewards."
        )
    return names


def _check_strays(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse columns of the table that are no rewards by their names."""
    unnamed = [name for name in names if name.startswith("Unnamed:")]
    if unnamed:
        raise ScoreTableError(
            f"The columns {unnamed} have no heading; such is the index that pandas writes "
            "into a CSV file. Write the table with to_csv(..., index=False)."
        )
    absent = [name for name in OPTIONAL if name not in table.columns]
    numbers = [name for name in absent if name not in _TEXTS]
    for name in names:
        among = numbers if pd.api.types.is_numeric_dtype(table[name]) else absent
        near = difflib.get_close_matches(name.lower(), among, n=1, cutoff=0.75)
        if near:
            raise ScoreTableError(
                f"The column '{name}' would count as a reward; did you mean '{near[0]}'? "
                "Rename it, or name the reward columns: measure.rewards."
            )


def _hint(names: Iterable[str], known: Iterable[object]) -> str:
    """The known names that misspelt ones are near to, in brackets, if there are any."""
    there = [str(name) for name in known]
    near = [m for n in names for m in difflib.get_close_matches(n, there, n=1)]
    return f" (did you mean {' and '.join(map(repr, near))}?)" if near else ""


def _share_base(table: pd.DataFrame) -> pd.DataFrame:
    """Give every run the rows without a method, which are of the base model."""
    shared, own = table[table["method"].isna()], table[table["method"].notna()]
    if shared.empty:
        return table
    more = table["method"].isna() & (table["reward_queries"] != 0)
    if more.any():
        raise ScoreTableError(
            "Rows without a method are of the base model that all runs share, and have "
            f"0 reward queries; {_first(table, more)} has more. A method that is called "
            "None, NA or null needs another name."
        )
    if own.empty:
        raise ScoreTableError("The table has no row of a method.")
    runs = own[_UNIT].drop_duplicates()
    return pd.concat(
        [shared.drop(columns=_UNIT).merge(runs, how="cross"), own], ignore_index=True
    )


def _with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """Fill in the optional columns that the table doesn't have."""
    defaults: dict[str, Any] = {
        "image": 0,
        "kl_to_base": float("nan"),
        "eta": MAIN_ETA,
        "prompt_set": "prompts",
        "seen": True,
    }
    absent = {name: value for name, value in defaults.items() if name not in table}
    table = table.assign(**absent)
    for name in ("seed", "epoch") if "epoch" in table else ("seed",):
        table = table.astype({name: float}).astype({name: int})
    sets = table["prompt_set"].map(lambda name: _OWN_GROUPS.get(name, name))
    # The base model's own KL is 0, and may have been left empty.
    kl = table["kl_to_base"]
    if kl.notna().any():
        kl = kl.mask(table["reward_queries"] == 0, 0.0)
    table = table.assign(prompt_set=sets, kl_to_base=kl)
    return table.astype({"seen": bool, "eta": float})


def _with_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Number the checkpoints by their reward queries, 0 the base model.

    The same number of queries is the same checkpoint for all methods and seeds, since
    methods are compared at equal checkpoints.
    """
    if "epoch" in table:
        return table
    ranks = table.groupby("reward")["reward_queries"].rank(method="dense")
    return table.assign(epoch=ranks.astype(int) - 1)


def _check_pictures(scores: pd.DataFrame, rewards: Sequence[str]) -> None:
    """A prompt with the same number is the same picture, in whatever prompt set it is."""
    keys = [name for name in IMAGE_KEYS if name != "prompt_set"]
    several = scores[scores.duplicated(keys, keep=False)]
    if several.empty:
        return
    found = several.groupby(keys, sort=False)[list(rewards)]
    apart = (found.max() - found.min()) > _SAME_PICTURE * scores[list(rewards)].std()
    if apart.any(axis=None):
        first = apart.index[apart.any(axis=1)][0]
        raise ScoreTableError(
            f"The picture {words_of(dict(zip(keys, first, strict=True)))} is in several "
            "prompt sets, with different scores. Equal prompt and number mean one "
            "picture: number the pictures of a prompt on from set to set."
        )


def _check_checkpoints(scores: pd.DataFrame) -> None:
    """Every run has the base model, which is before all queries, and something else."""
    for (run, eta), rows in scores.groupby(["run", "eta"], sort=True):
        what = f"The run {run}" if eta == MAIN_ETA else f"The run {run}, eta {eta},"
        queries = rows.groupby("epoch")["reward_queries"].agg(["min", "max"])
        if queries.index[0] != 0 or queries["max"].iloc[0] != 0:
            raise ScoreTableError(
                f"{what} has no row of the untouched base model (0 reward "
                "queries; epoch 0). Score its images with the same prompts and noise, "
                "once for every run, or once for all in rows without a method."
            )
        if len(queries) < 2:
            raise ScoreTableError(
                f"{what} has only the base model. Score a trained checkpoint."
            )
        if (queries["min"] != queries["max"]).any():
            raise ScoreTableError(
                f"{what} has several numbers of reward queries at one epoch."
            )
        if not queries["min"].is_monotonic_increasing:
            raise ScoreTableError(
                f"{what} has fewer reward queries at a later epoch than at an earlier "
                "one; they count from the beginning of training."
            )


def counted(scores: pd.DataFrame) -> str:
    """Which columns count as rewards, in a sentence.

    Args:
        scores: From ``own_scores``.
    """
    return f"Counted as rewards: {', '.join(reward_columns(scores))}."


def remarks(scores: pd.DataFrame) -> list[str]:
    """What a reader must know of a table's limits, a sentence each.

    Args:
        scores: From ``own_scores``.
    """
    found = []
    for (method, reward), rows in scores.groupby(["method", "reward"], sort=True):
        name = f"{method} on {reward}"
        last, common = rows.groupby("seed")["epoch"].max(), common_epochs(rows)
        if len(last) == 1:
            found.append(
                f"{name} has one seed: its intervals say nothing about other seeds."
            )
        if common == [0]:
            found.append(
                f"The seeds of {name} have no checkpoint besides the base model in common: "
                "of what they came to together nothing can be told."
            )
        elif last.nunique() > 1:
            found.append(
                f"The seeds of {name} end at different checkpoints, {last.min()} to "
                f"{last.max()}; the last that all have counts."
            )
        prompts = with_group(rows).groupby("group")["prompt"]
        if prompts.nunique().min() == 1 and len(last) == 1:
            found.append(
                f"{name} has one seed, and one prompt of some group: no interval can be "
                "given there."
            )
    if scores["seen"].all() and scores["prompt_set"].nunique() > 1:
        sets = ", ".join(sorted(scores["prompt_set"].unique()))
        found.append(
            f"The prompts of all sets ({sets}) count as trained on; the column 'seen' "
            "says of each whether it was."
        )
    found += _apart(scores)
    flat = _flat_columns(scores)
    if flat:
        found.append(
            f"Equal for all images of each checkpoint, and so hardly a score of images: "
            f"{', '.join(flat)}. To leave columns out, name the others: measure.rewards."
        )
    return found


def _apart(scores: pd.DataFrame) -> Iterator[str]:
    """A sentence for each trained reward of whose methods two have no checkpoint in common."""
    trained = scores[scores["epoch"] > 0]
    for reward, rows in trained.groupby("reward", sort=True):
        epochs = {str(name): set(own["epoch"]) for name, own in rows.groupby("method")}
        apart = [
            f"{one} and {other}"
            for one, other in combinations(sorted(epochs), 2)
            if epochs[one].isdisjoint(epochs[other])
        ]
        if apart:
            yield (
                f"Trained on {reward}, {', '.join(apart)} have no checkpoint besides the "
                "base model in common, so that they are compared at equal training reward, "
                "queries and KL alone."
            )


def _flat_columns(scores: pd.DataFrame) -> list[str]:
    """Rewards that are the same for all images of a checkpoint, wherever it has several."""
    checkpoints = scores.groupby(["run", "epoch", "eta"])
    if checkpoints.size().max() == 1:
        return []
    different = checkpoints[reward_columns(scores)].nunique()
    return [str(name) for name in different if different[name].max() <= 1]
