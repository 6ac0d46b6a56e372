"""When a run ends before its last epoch, and at which checkpoint.

The decision is a function of the history alone, so a resumed run decides as the
uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tdpo_pipeline.config import EarlyStopSettings
from tdpo_pipeline.overoptimization.sequential import Alarm, Baseline, first_alarm


def reward_columns(
    baselines: dict[str, Baseline], prompts: Sequence[str], scores: Mapping[str, Tensor]
) -> dict[str, float]:
    """The history's columns on an epoch's rewards.

    Args:
        baselines: Baseline of each reward, from the run's first epoch; rewards that it
            lacks get theirs from this epoch, which is then the first.
        prompts: The epoch's prompts (N,).
        scores: Each reward's scores (N,) of the epoch's images.

    Returns:
        For every reward: ``_mean`` and ``_std`` (population) over the samples, and
        ``_change``, the mean change since the first epoch, prompt by prompt, with its
        standard error ``_change_se`` (0 and NaN in the first epoch).
    """
    row = {}
    for name, tensor in scores.items():
        values = tensor.double().cpu().numpy()
        row[f"{name}_mean"] = float(tensor.mean())
        row[f"{name}_std"] = float(tensor.std(correction=0))
        if name in baselines:
            change, error = baselines[name].change(prompts, values)
        else:
            baselines[name] = Baseline.of(prompts, values)
            change, error = 0.0, float("nan")
        row |= {f"{name}_change": change, f"{name}_change_se": error}
    return row


def onset_alarm(
    history: Sequence[Mapping[str, Any]],
    settings: EarlyStopSettings,
    *,
    trained: str,
    held_out: Sequence[str],
    epochs: int,
) -> Alarm | None:
    """Whether the held-out rewards have begun to fall while the trained one rises.

    Args:
        history: The run's history so far.
        settings: Error rate and earliest epoch; no alarm unless its rule is "onset".
        trained: The trained reward.
        held_out: Rewards that are watched.
        epochs: Epochs that are planned.
    """
    if settings.rule == "none" or not history:
        return None
    return first_alarm(
        [row[f"{trained}_change"] for row in history],
        np.array([[row[f"{name}_change"] for name in held_out] for row in history]),
        np.array([[row[f"{name}_change_se"] for name in held_out] for row in history]),
        horizon=epochs,
        alpha=settings.alpha,
        min_epochs=settings.min_epochs,
    )


def last_checkpoint(
    alarm: Alarm, settings: EarlyStopSettings, *, epoch: int, kept: Collection[int]
) -> int:
    """The epoch whose checkpoint is to be the run's last.

    An epoch's samples come from the policy before its update. So the policy that the
    ``alarm.onset``-th row (from 0) measured is the checkpoint of the epoch of that number.

    Args:
        alarm: The alarm.
        settings: Whether to stop where the run is, or to roll back.
        epoch: Where the run is.
        kept: Epochs whose checkpoints are kept.

    Returns:
        With ``stop``: ``epoch``. With ``rollback``: the last kept epoch up to the onset;
        if there is none, the first kept one, if it has been reached, else ``epoch``.
    """
    if settings.action == "stop":
        return epoch
    reached = [e for e in kept if e <= epoch]
    before = [e for e in reached if e <= alarm.onset]
    return max(before, default=min(reached, default=epoch))
