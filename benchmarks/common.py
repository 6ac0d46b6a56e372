"""What the benchmarks share: the project's own configuration, beside :mod:`record`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import Any

import pandas as pd
import psutil
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from omegaconf import OmegaConf
from pydantic import BaseModel
from record import ROOT, context, output_argument, write  # noqa: F401

from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.overoptimization.curves import t_interval
from tdpo_pipeline.overoptimization.tables import ScoreTableError

MODELS = ROOT / "data" / "06_models" / "menagerie"
BASE_MODEL, PROXY_REWARDS = MODELS / "base_model", MODELS / "proxy_rewards"


STUDY = ROOT / "data" / "study" / "07_model_output"
"""What the study's runs have left, by kind."""
ADD_RUNS = (
    "Move their lines from experiment.planned to experiment.runs in "
    "conf/base/parameters.yml, and give `dvc repro --allow-missing`."
)
"""What to do about runs of the study that a benchmark reads and that aren't there."""


def left_by(kind: str, method: str, reward: str) -> list[pd.DataFrame]:
    """What the study's runs of a method have left of a kind, seed by seed.

    Raises:
        ScoreTableError: If there is none.
    """
    files = sorted((STUDY / kind / method / reward).glob("s*.*"))
    if not files:
        raise ScoreTableError(
            f"No run of {method} on {reward} in {STUDY / kind}. {ADD_RUNS}"
        )
    load = pd.read_parquet if kind == "scores" else pd.read_csv
    return [load(file) for file in files]


def parameters(env: str) -> dict[str, Any]:
    """All parameters of an environment, as Kedro merges them."""
    bootstrap_project(ROOT)
    with KedroSession.create(project_path=ROOT, env=env) as session:
        return session.load_context().params


def run_config(
    params: dict[str, Any],
    method: str,
    reward: str,
    seed: int,
    *,
    training: dict[str, Any] | None = None,
    algorithm: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
) -> RunConfig:
    """A run of the project's configuration, with changes to its parts."""
    settings = plain(params["methods"][method]) | (algorithm or {})
    settings["optimizer"] |= optimizer or {}
    return RunConfig.model_validate(
        {
            "method": method,
            "reward": reward,
            "seed": seed,
            "training": plain(params["training"]) | (training or {}),
            "algorithm": AlgorithmSettings.model_validate(settings),
            "task": plain(params["rewards"][reward]),
        }
    )


def plain(value: Any) -> dict[str, Any]:
    """A parameter group as plain values, whether Kedro has typed it or not."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return OmegaConf.to_container(OmegaConf.create(value))


def interval(values: pd.Series) -> dict[str, float | int]:
    """Mean and 95 % t interval of a value per seed; n is how many seeds have one."""
    values = values.dropna()
    if values.empty:
        return {"n": 0}
    mean = float(values.mean())
    found: dict[str, float | int] = {"n": len(values), "mean": round(mean, 4)}
    if len(values) > 1:
        low, high = t_interval(values, 0.95)
        found |= {"low": round(low, 4), "high": round(high, 4)}
    return found


def told(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of a table says: its values but NaN and empty texts, which JSON has not."""
    return {
        name: value for name, value in row.items() if pd.notna(value) and value != ""
    }


def resident_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children, in MB."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    return total / 1e6


def run_kedro(*arguments: str) -> tuple[float, float]:
    """Run ``kedro run`` with these arguments, as a user would.

    Returns:
        Wall-clock seconds, and the peak of resident memory in MB.
    """
    command = [sys.executable, "-m", "kedro", "run", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    peak, watched = 0.0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, resident_mb(watched))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start, peak
