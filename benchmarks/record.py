"""Where the benchmarks write their results, and what they say of how these were made.

Needs nothing but Python, so that a benchmark can be taken to a machine without Kedro.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def context() -> dict[str, Any]:
    """Command, date, machine and commit that a measurement belongs to."""
    return {
        "command": _command(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _command() -> str:
    """The command line, from the project's folder."""
    script = os.path.relpath(Path(sys.argv[0]).resolve(), ROOT)
    return shlex.join(["python", script, *sys.argv[1:]])


def _commit() -> str | None:
    """The commit, and whether something besides results differs from it."""
    commit = printed("git", "describe", "--always")
    rest = ("--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{commit}-dirty" if printed("git", "status", "--short", *rest) else commit


def printed(*command: str) -> str | None:
    """What a command prints in the project's folder; None where it can't say."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()
    return None


def output_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--output``, by default the committed result file ``name``."""
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / name
    )


def write(path: Path, result: dict[str, Any]) -> None:
    """Save a result with its context, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(context() | result, indent=2)
    path.write_text(text + "\n")
    print(text)
