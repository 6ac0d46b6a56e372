"""Wall time, peak memory and outcome of the main job.

    python benchmarks/main_job.py

Runs ``kedro run --pipeline train_eval`` as a user would, and reads its metrics.
"""

from __future__ import annotations

import argparse
import json
import shutil

from common import ROOT, output_argument, run_kedro, write


def main() -> None:
    """Run, watch, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    output_argument(parser, "main_job.json")
    options = parser.parse_args()
    # What is finished isn't trained again, and the main job is to be timed from nothing.
    shutil.rmtree(ROOT / "data" / "06_models" / "state", ignore_errors=True)
    seconds, peak = run_kedro("--pipeline", "train_eval")
    metrics = ROOT / "data" / "08_reporting" / "metrics.json"
    write(
        options.output,
        {
            "command": "kedro run --pipeline train_eval",
            "wall_s": round(seconds, 1),
            "peak_resident_mb": round(peak),
            "metrics": json.loads(metrics.read_text()),
        },
    )


if __name__ == "__main__":
    main()
