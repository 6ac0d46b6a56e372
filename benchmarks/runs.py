"""Training runs for the benchmarks, each in a process of its own, and never twice.

A run's history is kept under data/06_models/benchmarks, in a folder named by what
was trained (configuration, base model, reward weights, prompts); a run that is there is
not trained again, and one that was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
from common import BASE_MODEL, PROXY_REWARDS, ROOT, context

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.trainer.state import fingerprint

STATES = ROOT / "data" / "06_models" / "benchmarks"
STOPPED = "stopped.txt"
COMMIT = "commit.txt"


def digest(config: RunConfig) -> str:
    """A short name for what is trained.

    Settings that have their default are left out, so that a log outlives new ones.
    """
    identity = {
        "config": config.model_dump(mode="json", exclude_defaults=True),
        "prompts": prompt_set(config.task.train_prompts),
        "base model": fingerprint([BASE_MODEL]),
        "reward weights": fingerprint([PROXY_REWARDS]),
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder(config: RunConfig) -> Path:
    """Where a run is kept."""
    return STATES / f"{config.key}-{digest(config)}"


def train_all(
    configs: Sequence[RunConfig], workers: int
) -> Iterator[tuple[RunConfig, pd.DataFrame, str]]:
    """Train runs, ``workers`` at a time on a thread each.

    Yields:
        Each run as it finishes, its history, and why it stopped early ("" if it
        didn't: collapse, or weights that are not finite).
    """
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_train_in_process, config): config for config in configs}
        for job in as_completed(jobs):
            yield jobs[job], *job.result()


def not_logged(configs: Iterable[RunConfig], log: Path) -> list[RunConfig]:
    """The runs whose digest is not in a log's column ``digest``."""
    done = set(pd.read_csv(log)["digest"]) if log.exists() else set()
    return [config for config in configs if digest(config) not in done]


def logged_epochs(
    asked_for: Iterable[RunConfig],
    everything: Iterable[RunConfig],
    log: Path,
    columns: Sequence[str],
    *,
    workers: int,
) -> pd.DataFrame:
    """Train the runs that are asked for and missing, and read what is logged.

    Args:
        asked_for: Runs to train where the log doesn't have them.
        everything: Runs whose lines are read.
        log: Log of epochs; each run is appended as it finishes.
        columns: As for :func:`append_epochs`.
        workers: Runs trained at a time; 0 trains none.
    """
    missing = not_logged(asked_for, log) if workers else []
    for config, history, stopped in train_all(missing, max(1, workers)):
        append_epochs(config, history, stopped, log, columns)
        print(f"{config.key}: done", flush=True)
    table = pd.read_csv(log)
    return table[table["digest"].isin([digest(config) for config in everything])]


def append_epochs(
    config: RunConfig,
    history: pd.DataFrame,
    stopped: str,
    log: Path,
    columns: Sequence[str],
) -> None:
    """Add a line for each epoch of a run to a log.

    Beside ``columns`` of its history (empty where it has none) a line has method,
    learning_rate, reward, seed, ``trained_mean`` and ``trained_std`` of the epoch's samples, ``stopped``,
    ``digest`` and ``commit`` (of the code that trained).
    """
    kept = history.reindex(columns=list(columns))
    for column in ("mean", "std"):
        kept[f"trained_{column}"] = history[f"{config.reward}_{column}"]
    run = {
        "method": config.method,
        "learning_rate": config.algorithm.optimizer.learning_rate,
        "reward": config.reward,
        "seed": config.seed,
    }
    commit = (folder(config) / COMMIT).read_text()
    made = {"stopped": stopped, "digest": digest(config), "commit": commit}
    kept = kept.assign(**run, **made)
    rest = [column for column in kept if column not in run]
    append(kept[[*run, *rest]], log)


def append(lines: pd.DataFrame, log: Path) -> None:
    """Add lines to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    head = not log.exists()
    lines.to_csv(log, mode="a", header=head, index=False, float_format="%.6g")


def _train_in_process(config: RunConfig) -> tuple[pd.DataFrame, str]:
    where = folder(config)
    history, stopped = where / "history.csv", where / STOPPED
    if not (where / "done").exists():
        where.mkdir(parents=True, exist_ok=True)
        (where / "config.json").write_text(config.model_dump_json())
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(where)]
        subprocess.run(command, check=True, env=environment)
    reason = stopped.read_text() if stopped.exists() else ""
    return pd.read_csv(history), reason


def _train(where: Path) -> None:
    """Train the run whose configuration is in a folder."""
    import torch

    from tdpo_pipeline.trainer.loop import TrainingStoppedError, train_run

    torch.set_num_threads(1)
    config = RunConfig.model_validate(json.loads((where / "config.json").read_text()))
    try:
        train_run(
            config,
            prompts=prompt_set(config.task.train_prompts),
            base_model=BASE_MODEL,
            weights=PROXY_REWARDS,
            state_dir=where,
        )
    except TrainingStoppedError as error:
        (where / STOPPED).write_text(str(error).replace(f"{ROOT}/", ""))
    (where / COMMIT).write_text(context()["commit"])
    (where / "done").touch()


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
