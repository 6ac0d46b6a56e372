"""Wall time, peak memory and outcome of the main job.

    python benchmarks/main_job.py

Runs ``kedro run --pipeline train_eval`` as a user would, and reads its metrics.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time

import psutil
from common import ROOT, output_argument, write


def resident_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children, in MB."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def main() -> None:
    """Run, watch, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="base")
    output_argument(parser, "main_job.json")
    options = parser.parse_args()
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "train_eval"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--env", options.env], cwd=ROOT)
    peak = 0.0
    watch = psutil.Process(process.pid)
    waiter = threading.Thread(target=process.wait)
    waiter.start()
    while waiter.is_alive():
        try:
            peak = max(peak, resident_mb(watch))
        except psutil.NoSuchProcess:
            break
        waiter.join(0.5)
    waiter.join()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.returncode)
    summary = ROOT / "data" / "08_reporting" / "tables" / "summary.json"
    write(
        options.output,
        {
            "command": "kedro run --pipeline train_eval",
            "wall_s": round(seconds, 1),
            "peak_resident_mb": round(peak),
            "summary": json.loads(summary.read_text()),
        },
    )


if __name__ == "__main__":
    main()
