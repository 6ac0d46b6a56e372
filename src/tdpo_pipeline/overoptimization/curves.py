"""Rewards over training: means with intervals, as tidy tables.

Two sources, two kinds of curve:

- the *history* (one row per epoch) holds means over the epoch's own training samples:
  dense, but on training prompts, with new noise each epoch;
- the *scores* (one row per image) hold evaluated checkpoints: few, but on every
  prompt group, with every reward, on the same noise as the base model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tdpo_pipeline.overoptimization.histories import check_history
from tdpo_pipeline.overoptimization.intervals import (
    BOOTSTRAP,
    Bootstrap,
    Estimate,
    at_epoch,
    by_epoch,
    cell_means,
    estimates,
    normal_quantile,
    subtract,
    t_quantile,
)
from tdpo_pipeline.overoptimization.tables import (
    ScoreTableError,
    check_scores,
    checkpoint_word,
    group_label,
    located,
    ordered_groups,
    reward_columns,
    role_of,
    with_group,
    words_of,
)

METHOD = ("method", "reward")
RUN = ("run", "method", "reward", "seed")


def reward_curves(
    scores: pd.DataFrame,
    *,
    by: Sequence[str] = METHOD,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """Every reward at every evaluated checkpoint, on every prompt group.

    The interval is that of the change since the base model, paired by prompt and
    noise, over prompts and training seeds. (The interval of the mean itself would
    mostly say that some prompts score higher than others.)

    Args:
        scores: Score table of any number of runs.
        by: What a curve is of: ``METHOD`` puts all seeds of a method together,
            ``RUN`` keeps every run by itself.
        bootstrap: How the intervals are made.

    Returns:
        One row per curve, eta, group, epoch and scored reward: the columns ``by``,
        eta, group, epoch, reward_queries, kl_to_base (nats, mean over seeds), scored,
        role (of ``ROLES``), base_mean, base_sd (over the base model's images
        of the prompts trained on), mean, difference (mean - base_mean), low and high
        (interval of the difference), n_seeds, n_prompts, n_images (over all seeds).

    Raises:
        ScoreTableError: If a column, the base model or an image's partner is missing,
            an image is there twice, or a score is not finite.
    """
    check_scores(scores)
    rewards = reward_columns(scores)
    scores = with_group(scores)
    rows: list[dict[str, object]] = []
    for keys, unit in scores.groupby([*by, "eta"], sort=True):
        names = dict(zip([*by, "eta"], keys, strict=True))
        # Other runs may have trained on a reward that these were not scored by.
        known = [name for name in rewards if unit[name].notna().any()]
        ruler = base_sd(unit, known)
        for group in ordered_groups(unit["group"]):
            images = unit[unit["group"] == group]
            with located(f"{words_of(names)}, {group_label(group)}"):
                found = list(checkpoint_rows(images, known, bootstrap))
            for row in found:
                scored = str(row["scored"])
                role = role_of(scored, str(names["reward"]))
                head = {**names, "group": group}
                rows.append(
                    {**head, **row, "role": role, "base_sd": float(ruler[scored])}
                )
    return pd.DataFrame(rows)[_columns(by)]


def _columns(by: Sequence[str]) -> list[str]:
    where = ["eta", "group", "epoch", "reward_queries", "kl_to_base"]
    what = ["scored", "role", "base_mean", "base_sd", "mean", "difference"]
    return [*by, *where, *what, "low", "high", "n_seeds", "n_prompts", "n_images"]


def checkpoint_rows(
    images: pd.DataFrame, rewards: Sequence[str], bootstrap: Bootstrap = BOOTSTRAP
) -> Iterator[dict[str, object]]:
    """Rows of one curve: every checkpoint, every reward.

    Args:
        images: Score table of one method trained on one reward, restricted to the
            prompts and the eta in question.
        rewards: Reward columns.
        bootstrap: How the intervals are made.

    Yields:
        The columns of ``reward_curves`` from epoch on, without role and base_sd.
    """
    base = at_epoch(images, 0, rewards)
    steps = images.groupby(["epoch", "seed"])[["reward_queries", "kl_to_base"]].first()
    for epoch, trained in by_epoch(images, rewards).items():
        with located(f"{checkpoint_word()} {epoch}"):
            means = cell_means(trained).values.mean(axis=(0, 1))
            differences = estimates(cell_means(subtract(trained, base)), bootstrap)
        where = {
            "epoch": epoch,
            "reward_queries": steps["reward_queries"].loc[epoch].mean(),
            "kl_to_base": steps["kl_to_base"].loc[epoch].mean(),
        }
        for scored, mean, change in zip(rewards, means, differences, strict=True):
            yield {**where, "scored": scored, "mean": mean, **_change(mean, change)}


def _change(mean: float, change: Estimate) -> dict[str, float]:
    """The columns that a paired difference fills."""
    columns = change._asdict()
    difference = columns.pop("mean")
    return {**columns, "difference": difference, "base_mean": mean - difference}


def base_sd(scores: pd.DataFrame, rewards: Sequence[str]) -> pd.Series:
    """One base standard deviation of each reward, the ruler of figures and texts.

    It is the standard deviation (n - 1) over the untouched model's images for the
    prompts trained on. Each counts once, however many runs started from it.

    Args:
        scores: Score table with the column ``group``.
        rewards: Reward columns.

    Raises:
        ScoreTableError: If the base model was not evaluated on prompts trained on.
    """
    base = scores[(scores["epoch"] == 0) & (scores["group"] == "seen")]
    if base.empty:
        raise ScoreTableError(
            "The score table has no image of epoch 0 (the untouched base model) for a "
            "prompt trained on, so that changes have nothing to be measured by. "
            "Evaluate epoch 0, on prompt sets that hold the training prompts."
        )
    images = base.drop_duplicates(["prompt_set", "prompt", "image", "eta"])
    return images[list(rewards)].astype(np.float64).std()


def in_base_sd(curves: pd.DataFrame) -> pd.DataFrame:
    """Add ``difference_sd``, ``low_sd`` and ``high_sd``: in base standard deviations.

    The ruler is taken as known: its own uncertainty is not in the interval. A reward
    that does not vary on the base model has no ruler, and NaN here.
    """
    ruler = curves["base_sd"].where(curves["base_sd"] > 0)
    columns = ("difference", "low", "high")
    return curves.assign(**{f"{name}_sd": curves[name] / ruler for name in columns})


def training_curves(
    history: pd.DataFrame, *, confidence: float = BOOTSTRAP.confidence
) -> pd.DataFrame:
    """The trained reward over the epochs, on each epoch's own training samples.

    With several seeds the interval is the t interval over seeds; NaN where only one of
    them has trained so far. With one seed it is that of the mean of the epoch's samples
    (drawn independently, prompts too), which says nothing about other seeds.

    Args:
        history: History table with the columns run, method, reward and seed.
        confidence: Coverage of the intervals.

    Returns:
        One row per method, reward and epoch: method, reward, epoch, reward_queries,
        mean, low, high, n_seeds, n_samples (images of the epoch, over all seeds).

    Raises:
        ScoreTableError: If an epoch of a seed is there twice, or its reward queries, or
            its own reward's mean or standard deviation, are missing or not finite.
    """
    check_history(history, ["reward_queries"])
    rows = pd.concat(
        [_trained_reward(run) for _, run in history.groupby("run", sort=True)]
    )
    rows["alone"] = rows.groupby(list(METHOD))["seed"].transform("nunique") == 1
    keys = [*METHOD, "epoch"]
    return pd.DataFrame(
        [
            dict(zip(keys, names, strict=True)) | _epoch_mean(epoch, confidence)
            for names, epoch in rows.groupby(keys, sort=True)
        ]
    )


def _trained_reward(run: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of samples of a run's own reward."""
    mean, std = (f"{run['reward'].iloc[0]}_{what}" for what in ("mean", "std"))
    check_history(run, [mean, std])
    run = run.sort_values("epoch")
    return run[[*RUN, "epoch", "reward_queries"]].assign(
        mean=run[mean], std=run[std], samples=epoch_samples(run)
    )


def epoch_samples(run: pd.DataFrame) -> pd.Series:
    """How many samples each epoch's mean is over.

    The column ``samples``; where a history has none, the epoch's reward queries, which
    are as many unless a method scores a sample more than once.

    Args:
        run: History of one run, in the order of its epochs.
    """
    queries = run["reward_queries"]
    added = queries.diff().fillna(queries)
    return run["samples"].fillna(added) if "samples" in run.columns else added


def _epoch_mean(epoch: pd.DataFrame, confidence: float) -> dict[str, float]:
    """Mean over seeds of one epoch, with its interval."""
    if not epoch["alone"].iloc[0]:
        low, high = t_interval(epoch["mean"], confidence)
    else:
        error = epoch["std"].iloc[0] / np.sqrt(epoch["samples"].iloc[0])
        reach = normal_quantile(confidence) * error
        low, high = epoch["mean"].iloc[0] - reach, epoch["mean"].iloc[0] + reach
    return {
        "reward_queries": epoch["reward_queries"].mean(),
        "mean": epoch["mean"].mean(),
        "low": low,
        "high": high,
        "n_seeds": len(epoch),
        "n_samples": int(epoch["samples"].sum()),
    }


def t_interval(values: pd.Series, confidence: float) -> tuple[float, float]:
    """Interval of the mean of independent values; NaN if there is only one."""
    if len(values) < 2:
        return np.nan, np.nan
    error = values.std() / np.sqrt(len(values))
    reach = t_quantile(len(values) - 1, confidence) * error
    return values.mean() - reach, values.mean() + reach


NEURON_QUANTITIES = {
    "critic_dormant_pct": "neurons_reset",
    "critic_overlap_pct": "neurons_reset",
    "lora_dormant_pct_t0": "policy_neurons_reset",
    "lora_dormant_pct_t01": "policy_neurons_reset",
}
"""What the history says of neurons, and where it counts their resets: the temporal
critic's, and those of the policy's LoRA layers at the thresholds 0 and 0.1."""


def neuron_curves(
    history: pd.DataFrame,
    *,
    quantities: Sequence[str] = tuple(NEURON_QUANTITIES),
    confidence: float = BOOTSTRAP.confidence,
) -> pd.DataFrame:
    """Dormant and overlap percentages of neurons over the epochs.

    All neurons of a run are counted, so a single seed has no interval.

    Args:
        history: History table with the columns run, method, reward and seed.
        quantities: Which of ``NEURON_QUANTITIES``.
        confidence: Coverage of the intervals over seeds.

    Returns:
        One row per method, reward, quantity and epoch at which it was measured:
        method, reward, quantity, epoch, mean (percent), low, high (t interval over
        seeds, cut at 0 and 100; NaN with one), neurons_reset (mean over seeds), n_seeds.
        No row where nothing was measured, as for methods without a critic.

    Raises:
        ScoreTableError: If an epoch of a seed is there twice, or a percentage infinite.
    """
    check_history(history)
    keys = ["method", "reward", "epoch"]
    rows = []
    for quantity in quantities:
        resets = NEURON_QUANTITIES[quantity]
        if quantity not in history.columns:
            continue
        measured = history[history[quantity].notna()]
        check_history(measured, [quantity])
        for names, epoch in measured.groupby(keys, sort=True):
            low, high = np.clip(t_interval(epoch[quantity], confidence), 0, 100)
            reset = epoch.get(resets, pd.Series(dtype=float)).fillna(0).sum()
            rows.append(
                dict(zip(keys, names, strict=True))
                | {"quantity": quantity, "mean": epoch[quantity].mean()}
                | {"low": low, "high": high, "neurons_reset": reset / len(epoch)}
                | {"n_seeds": len(epoch)}
            )
    columns = ["method", "reward", "quantity", "epoch", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "neurons_reset", "n_seeds"])
