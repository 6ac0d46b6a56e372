"""Where the numbers of a report come from: code, scores and parameters of each run."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import tdpo_pipeline

_PACKAGE = "src/tdpo_pipeline"
REPORT_CODE = ("figures", "html_report", "overoptimization")
"""Code that can change what a report of given scores says, inside the package; beside it
the pipeline that makes the report."""


def lineage(
    scores: pd.DataFrame,
    parameters: Mapping[str, Any],
    *,
    root: Path,
    folder: str,
    pipeline: str,
) -> dict[str, Any]:
    """What a report stands on.

    Args:
        scores: Score table of all runs.
        parameters: What the runs were configured with, by a title.
        root: Folder of the project.
        folder: Folder of the report, relative to it; the runs' outputs lie beside.
        pipeline: The pipeline that makes it.

    Returns:
        ``version`` and ``commit`` of the code (see ``git_commit``); ``parameters``, and
        ``parameter_hashes`` by the same titles (see ``parameters_hash``); and ``runs``,
        each with run, method, reward, seed, epochs (evaluated checkpoints), images (rows of
        its score table), scores (hash of their content) and dvc (the MD5s by which
        ``dvc.lock`` knows what the run has left, see ``locked_of``).
    """
    locked = locked_outputs(root / "dvc.lock")
    data = Path(folder).parent
    runs = []
    for (run, method, reward, seed), rows in scores.groupby(
        ["run", "method", "reward", "seed"], sort=True
    ):
        runs.append(
            {
                "run": str(run),
                "method": str(method),
                "reward": str(reward),
                "seed": int(str(seed)),
                "epochs": int(rows["epoch"].nunique()),
                "images": len(rows),
                "scores": content_hash(rows),
                "dvc": locked_of(locked, data, f"{method}/{reward}/s{seed}"),
            }
        )
    return {
        "version": tdpo_pipeline.__version__,
        "commit": git_commit(root, pipeline),
        "runs": runs,
        "parameters": dict(parameters),
        "parameter_hashes": {
            title: parameters_hash(block) for title, block in parameters.items()
        },
    }


def parameters_hash(parameters: Any) -> str:
    """SHA-256 of parameters as canonical JSON: keys in order, no spaces, UTF-8.

    Equal parameters have equal hashes, whatever file they were written in and in whatever
    order.
    """
    keyed = json.loads(
        json.dumps(parameters)
    )  # all keys as text, so that they have an order
    text = json.dumps(keyed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def git_commit(root: Path, pipeline: str) -> str | None:
    """The last commit under ``root`` that changed the code of a pipeline's reports.

    Others don't count, so that a report that is drawn again from the same scores stays
    as it is. The code that trained and evaluated a run is what ``dvc.lock`` held when it
    recorded the run's scores: ``git log -S<MD5> -- dvc.lock``.

    Returns:
        The hash, with "+" behind it if that code has been changed since; None if
        ``root`` is no repository or has no such commit, or there is no Git.
    """
    parts = (*REPORT_CODE, f"pipelines/{pipeline}")
    code = [f"{_PACKAGE}/{path}" for path in parts]
    try:
        commit = _git(root, "log", "-1", "--format=%H", "--", *code)
        changed = _git(root, "status", "--porcelain", "--", *code)
    except (OSError, subprocess.CalledProcessError):
        return None
    if not commit:
        return None
    return f"{commit}+" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def content_hash(table: pd.DataFrame) -> str:
    """Hash of a table's values, the same for every file format; 16 hex digits."""
    columns = "\n".join(map(str, table.columns)).encode()
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return hashlib.sha256(columns + rows).hexdigest()[:16]


def locked_outputs(lock: Path) -> dict[str, str]:
    """MD5 of every output that ``dvc.lock`` knows, by path; empty without the file."""
    if not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        out["path"]: out["md5"]
        for stage in stages.values()
        for out in stage.get("outs", [])
    }


def locked_of(locked: Mapping[str, str], data: Path, run: str) -> dict[str, str]:
    """MD5s of what a run has left, such as ``scores.parquet``, ``history.csv``, ``config.yml``.

    Args:
        locked: From ``locked_outputs``.
        data: Folder of the data layers, such as ``data/study``.
        run: Where each kind of output has the run, such as ``tdpo/aesthetic-mini/s0``.
    """
    own = re.compile(
        rf"{re.escape(data.as_posix())}/\w+/(\w+)/{re.escape(run)}(\.\w+)?"
    )
    found = {path: own.fullmatch(path) for path in locked}
    return {f"{m[1]}{m[2] or ''}": locked[path] for path, m in found.items() if m}
