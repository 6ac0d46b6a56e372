"""What rules for stopping early are worth: their regret against the best stop.

A rule looks at a run's history and names the checkpoint to keep. Its *regret* is how much
better, in a judge's eyes, the best checkpoint of the run was. The judge is the trained
reward's own gold where there is one, else any reward that neither the training nor the
rule has seen.

The row of epoch t holds what the policy scored that sampled in that epoch, before its
update: the checkpoint of epoch t - 1. Positions below are those of rows, counted from 0,
so position i is the checkpoint of epoch i; the checkpoint after the last update is not
measured. A rule that stops at the sight of row i keeps position i + 1, if that was
measured: the epoch's update has been made by then.

The best of many noisy means is noisy too and looks better than it is, so every rule's
regret is overstated by the same amount: compare rules, and don't wait for one at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.curves import METHOD, epoch_samples, t_interval
from tdpo_pipeline.overoptimization.histories import (
    check_history,
    run_of,
    was_scored,
)
from tdpo_pipeline.overoptimization.intervals import BOOTSTRAP, FloatArray
from tdpo_pipeline.overoptimization.sequential import Alarm, first_alarm
from tdpo_pipeline.overoptimization.tables import ScoreTableError, gold_of, role_of

Rule = Callable[[pd.DataFrame], int]
"""From a run's history, in the order of its epochs, to the position to keep."""

ALPHA = 0.05
PATIENCE = 5

TUNED = ("fixed epoch", "KL budget")
"""Rules that are set on the judge's scores of the other seeds; the others see none."""


def epoch_means(run: pd.DataFrame, reward: str) -> tuple[FloatArray, FloatArray]:
    """A reward's mean in every epoch, and its standard error.

    The columns ``<reward>_change`` and ``_change_se`` if the history has them: changes
    since the first epoch, prompt by prompt. Else ``_mean``, with ``_std`` over the square
    root of the epoch's samples as error, in which the prompts' differences count as
    chance, so that falls are found later.

    Args:
        run: History of one run.
        reward: A reward that was scored every epoch.

    Raises:
        ScoreTableError: If there is neither, or a number in them is not finite.
    """
    change, change_error = f"{reward}_change", f"{reward}_change_se"
    if {change, change_error} <= set(run.columns):
        check_history(run, [change])
        # The first epoch is what the others change from: it has no error.
        check_history(run[1:], [change_error])
        means, errors = run[[change, change_error]].to_numpy(np.float64).T
        return means, errors
    mean, std = f"{reward}_mean", f"{reward}_std"
    if not {mean, std} <= set(run.columns):
        raise ScoreTableError(
            f"The history of {run_of(run)} has no columns {mean} and {std}. Put "
            f"'{reward}' into training.monitor, and train again."
        )
    check_history(run, [mean, std])
    samples = epoch_samples(run).to_numpy(np.float64)
    error = run[std].to_numpy(np.float64) / np.sqrt(np.maximum(samples, 1))
    return run[mean].to_numpy(np.float64), error


def alarm_of_run(
    run: pd.DataFrame,
    held_out: Sequence[str],
    *,
    trained: str,
    alpha: float = ALPHA,
    min_epochs: int = 5,
    horizon: int | None = None,
) -> Alarm | None:
    """What the test of ``training.early_stop`` would have said of a finished run.

    Args:
        run: History of one run.
        held_out: Rewards to watch; what was trained on is left out.
        trained: The trained reward.
        alpha: Rate of false alarms.
        min_epochs: Epochs before which there is no alarm.
        horizon: Epochs that were planned, more than the run has if it was stopped; by
            default as many as it has.

    Raises:
        ScoreTableError: If an epoch is missing or double, a reward was not scored in
            one, or some epochs explored and others didn't.
    """
    run = checked_run(run)
    watched = [
        epoch_means(run, name) for name in held_out if _is_held_out(name, trained)
    ]
    if not watched:
        raise ScoreTableError(
            f"No reward to watch besides the trained one, '{trained}'."
        )
    return first_alarm(
        epoch_means(run, trained)[0],
        np.stack([means for means, _ in watched], axis=1),
        np.stack([errors for _, errors in watched], axis=1),
        horizon=max(horizon or 0, len(run)),
        alpha=alpha,
        min_epochs=min_epochs,
    )


def _is_held_out(reward: str, trained: str) -> bool:
    """Whether a rule may watch a reward: it is neither the trained one nor a part of it."""
    return role_of(reward, trained) not in ("trained", "part")


def checked_run(run: pd.DataFrame) -> pd.DataFrame:
    """A run's history in the order of its epochs.

    Raises:
        ScoreTableError: If the epochs are not 1, 2, 3, ... once each, or if some of them
            explored and others didn't, whose rewards can't be held against each other.
    """
    run = run.sort_values("epoch").reset_index(drop=True)
    if run["epoch"].tolist() != list(range(1, len(run) + 1)) or run.empty:
        raise ScoreTableError(
            f"The history of {run_of(run)} must have the epochs 1, 2, 3, ... once each; "
            f"it has {run['epoch'].tolist()[:20]}."
        )
    if "explored" in run.columns and run["explored"].nunique(dropna=False) > 1:
        raise ScoreTableError(
            f"{run_of(run)} sampled with exploration in some epochs and without in "
            "others: how its rewards changed between them is not the policy's doing alone."
        )
    return run


# ---------------------------------------------------------------- rules
def never(run: pd.DataFrame) -> int:
    """Train to the end."""
    return len(run) - 1


def fixed_epoch(run: pd.DataFrame, epoch: int) -> int:
    """Stop at an epoch that was chosen beforehand."""
    return min(epoch, len(run) - 1)


def kl_budget(run: pd.DataFrame, nats: float) -> int:
    """Keep the last checkpoint before the KL to the base model first exceeds a budget."""
    over = np.flatnonzero(run["kl_to_base"].to_numpy(np.float64) > nats)
    return max(int(over[0]) - 1, 0) if len(over) else len(run) - 1


def proxy_plateau(run: pd.DataFrame, trained: str, patience: int = PATIENCE) -> int:
    """Stop when the trained reward has not risen for some epochs, seeing only it.

    Not risen: not above its best mean so far by a standard error.
    """
    means, errors = epoch_means(run, trained)
    best, waited = -np.inf, 0
    for position, (mean, error) in enumerate(zip(means, errors, strict=True)):
        if mean > best + np.nan_to_num(error):
            best, waited = mean, 0
        else:
            waited += 1
        if waited >= patience:
            return _stopped_at(position, run)
    return len(run) - 1


def onset_stop(run: pd.DataFrame, held_out: Sequence[str], **how: Any) -> int:
    """Stop where the sequential test gives its alarm (``action: stop``)."""
    alarm = alarm_of_run(run, held_out, **how)
    return len(run) - 1 if alarm is None else _stopped_at(alarm.position, run)


def _stopped_at(position: int, run: pd.DataFrame) -> int:
    """What is kept by a rule that stops at the sight of the row at ``position``."""
    return min(position + 1, len(run) - 1)


def onset_rollback(run: pd.DataFrame, held_out: Sequence[str], **how: Any) -> int:
    """Go back to the onset once the test gives its alarm (``action: rollback``).

    As if every epoch's checkpoint were kept.
    """
    alarm = alarm_of_run(run, held_out, **how)
    return len(run) - 1 if alarm is None else alarm.onset


# ---------------------------------------------------------------- regrets
def stopping_regrets(
    history: pd.DataFrame,
    *,
    held_out: Sequence[str],
    judge: str | None = None,
    alpha: float = ALPHA,
    min_epochs: int = 5,
    horizon: int | None = None,
    patience: int = PATIENCE,
) -> pd.DataFrame:
    """How far each rule falls short of the best stop, run by run.

    The fixed epoch and the KL budget are those with the best mean value over the *other*
    seeds of the method: they have been tuned with the judge's help, which the rules that
    watch held-out rewards or the proxy never get.

    Args:
        history: Histories of any number of runs, with the columns run, method, reward
            and seed.
        held_out: Rewards that the onset rules watch: of each run those that it was scored
            by; what was trained on and the judge are left out.
        judge: Who says what a checkpoint is worth; by default each trained reward's own
            gold. Methods whose judge was not scored are left out.
        alpha: Rate of false alarms of the onset rules.
        min_epochs: Epochs before which they give no alarm.
        horizon: As for ``alarm_of_run``.
        patience: Epochs of ``proxy_plateau``.

    Returns:
        One row per run and rule: run, method, reward, seed, judge, rule ("best", "never",
        "fixed epoch", "KL budget", "proxy plateau", "onset, stop", "onset, rollback"),
        position, epochs (rows of the history), value (change since the first epoch in
        the judge's base standard deviations), regret (the same unit, at least 0; NaN if
        the rule can't be tuned or has nothing to watch, the run's judge was not scored,
        or it has one epoch), note.

    Raises:
        ScoreTableError: If a history is not what it should be, or no run has a judge.
    """
    rows = []
    for (_, trained), unit in history.groupby(["method", "reward"], sort=True):
        runs = [checked_run(run) for _, run in unit.groupby("run", sort=True)]
        name = judge or gold_of(str(trained))
        if name is None or not was_scored(unit, name):
            continue
        judged = [run for run in runs if not _why_unjudged(run, name)]
        for run in judged:
            check_history(run, [f"{name}_mean"])
            check_history(run[:1], [f"{name}_std"])  # the ruler
        how: dict[str, Any] = {
            "trained": str(trained),
            "alpha": alpha,
            "min_epochs": min_epochs,
            "horizon": horizon,
        }
        plateau = partial(proxy_plateau, trained=str(trained), patience=patience)
        for run in runs:
            watched = [w for w in held_out if w != name and was_scored(run, w)]
            onset: dict[str, Rule | None] = {
                "onset, stop": partial(onset_stop, held_out=watched, **how),
                "onset, rollback": partial(onset_rollback, held_out=watched, **how),
            }
            if not any(_is_held_out(w, str(trained)) for w in watched):
                onset = dict.fromkeys(onset)
            rules = {"never": never, "proxy plateau": plateau, **onset}
            others = [other for other in judged if other is not run]
            rows += list(_regrets(run, others, name, rules))
    if not rows:
        raise ScoreTableError(
            "No run has a judge: pass a reward that every run was scored by and none "
            "was trained on, in the history's columns <judge>_mean and <judge>_std."
        )
    return pd.DataFrame(rows)


def stopping_report(
    history: pd.DataFrame,
    *,
    held_out: Sequence[str],
    alpha: float = ALPHA,
    min_epochs: int = 5,
    horizons: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """The regrets of all runs whose trained reward's gold was scored in training.

    Args:
        history: As for ``stopping_regrets``.
        held_out: As there.
        alpha: As there.
        min_epochs: As there.
        horizons: The horizon there, by method.

    Returns:
        The columns of ``stopping_regrets``. A method whose runs can't be judged has one
        row without a run and a rule, whose note says why.
    """
    blocks = []
    for (method, trained), runs in history.groupby(list(METHOD), sort=True):
        gold = gold_of(str(trained))
        try:
            if gold is None or not was_scored(runs, gold):
                raise ScoreTableError(
                    "no gold was scored in training: nobody knows the best epoch"
                )
            found = stopping_regrets(
                runs,
                held_out=held_out,
                alpha=alpha,
                min_epochs=min_epochs,
                horizon=(horizons or {}).get(str(method)),
            )
        except ScoreTableError as error:
            row = {"method": method, "reward": trained, "note": str(error)}
            found = pd.DataFrame([row])
        blocks.append(found.reindex(columns=_REGRET_COLUMNS))
    return pd.concat(blocks, ignore_index=True)


_REGRET_COLUMNS = [
    *("run", "method", "reward", "seed", "judge", "rule"),
    *("position", "epochs", "value", "regret", "note"),
]


def _regrets(
    run: pd.DataFrame,
    others: list[pd.DataFrame],
    judge: str,
    rules: Mapping[str, Rule | None],
) -> Iterator[dict[str, object]]:
    """The rows of one run; a rule that is None has nothing to watch."""
    tuned = dict(zip(TUNED, (_best_epoch, _best_budget), strict=True))
    chosen: dict[str, int | None] = dict.fromkeys(("best", *rules, *tuned))
    why = _why_unjudged(run, judge)
    if not why:
        values = _values(run, judge)
        chosen["best"] = int(values.argmax())
        notes = {name: _untuned(name, [run, *others]) for name in tuned}
        for name, rule in rules.items():
            if rule is None:
                notes[name] = (
                    f"no reward that it could watch was scored in {run_of(run)}"
                )
            else:
                chosen[name] = rule(run)
        chosen |= {
            name: tune(others, judge)(run)
            for name, tune in tuned.items()
            if not notes[name]
        }
    else:
        values = np.full(len(run), np.nan)
        notes = dict.fromkeys(chosen, why)
    for name, position in chosen.items():
        known = position is not None
        value = values[position] if known else np.nan
        yield {
            **{key: run[key].iloc[0] for key in ("run", "method", "reward", "seed")},
            "judge": judge,
            "rule": name,
            "position": position if known else np.nan,
            "epochs": len(run),
            "value": value,
            "regret": values.max() - value,
            "note": notes.get(name, ""),
        }


def _why_unjudged(run: pd.DataFrame, judge: str) -> str:
    """Why nobody can say where a run should have stopped; empty if a judge can."""
    if not was_scored(run, judge):
        return f"'{judge}' was not scored in {run_of(run)}"
    if len(run) == 1:
        return f"{run_of(run)} has one epoch: there is nothing to stop"
    return ""


def _untuned(rule: str, runs: Sequence[pd.DataFrame]) -> str:
    """Why a rule can't be tuned on all runs but the first; empty if it can."""
    if len(runs) == 1:
        return "no other seed that can be judged, to tune it on"
    if rule == "KL budget" and any(
        "kl_to_base" not in run or run["kl_to_base"].isna().any() for run in runs
    ):
        return "the KL to the base model was not recorded for every epoch"
    return ""


def _values(run: pd.DataFrame, judge: str) -> FloatArray:
    """The judge's change since the base model, in base standard deviations."""
    ruler = float(run[f"{judge}_std"].iloc[0])
    if not ruler > 0:
        raise ScoreTableError(
            f"'{judge}' does not vary over the base model's samples in {run_of(run)}."
        )
    values = run[f"{judge}_mean"].to_numpy(np.float64)
    return (values - values[0]) / ruler


def _mean_value(runs: Sequence[pd.DataFrame], judge: str, rule: Rule) -> float:
    return float(np.mean([_values(run, judge)[rule(run)] for run in runs]))


def _best_epoch(runs: Sequence[pd.DataFrame], judge: str) -> Rule:
    """The fixed epoch with the best mean value over runs."""
    rules = [partial(fixed_epoch, epoch=e) for e in range(max(map(len, runs)))]
    return max(rules, key=partial(_mean_value, runs, judge))


def _best_budget(runs: Sequence[pd.DataFrame], judge: str) -> Rule:
    """The KL budget with the best mean value over runs, of all KLs that were seen."""
    seen = np.unique(np.concatenate([run["kl_to_base"] for run in runs]))
    rules = [partial(kl_budget, nats=nats) for nats in seen]
    return max(rules, key=partial(_mean_value, runs, judge))


def summarise_regrets(
    regrets: pd.DataFrame, *, confidence: float = BOOTSTRAP.confidence
) -> pd.DataFrame:
    """Mean regret of every rule, over the seeds of each method.

    Args:
        regrets: From ``stopping_regrets``.
        confidence: Coverage of the intervals.

    Returns:
        One row per method, trained reward, judge and rule: method, reward, judge, rule,
        position (mean), regret (mean), low, high (t interval over seeds; NaN with one);
        saved, saved_low, saved_high (what the rule saves against never stopping: the
        difference of the regrets, run by run); n_seeds, note.
    """
    keys = ["method", "reward", "judge", "rule"]
    never = regrets[regrets["rule"] == "never"].set_index(["run", "judge"])["regret"]
    regrets = regrets.join(never.rename("never"), on=["run", "judge"])
    regrets = regrets.assign(saved=regrets["never"] - regrets["regret"])
    rows = []
    for names, unit in regrets.groupby(keys, sort=False, dropna=False):
        known = unit.dropna(subset=["regret"])
        low, high = t_interval(known["regret"], confidence)
        saved_low, saved_high = t_interval(known["saved"], confidence)
        rows.append(
            dict(zip(keys, names, strict=True))
            | {"position": known["position"].mean(), "regret": known["regret"].mean()}
            | {"low": low, "high": high, "saved": known["saved"].mean()}
            | {"saved_low": saved_low, "saved_high": saved_high, "n_seeds": len(known)}
            | {"note": "; ".join(unit["note"].replace("", np.nan).dropna().unique())}
        )
    return pd.DataFrame(rows)
