"""Wall time, peak memory and outcome of the main job.

    python benchmarks/main_job.py

Runs ``kedro run --pipeline train_eval`` as a user would, and reads its metrics.
"""

from __future__ import annotations

import argparse
import json

from common import ROOT, output_argument, run_kedro, write


def main() -> None:
    """Run, watch, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="base")
    output_argument(parser, "main_job.json")
    options = parser.parse_args()
    seconds, peak = run_kedro("--pipeline", "train_eval", "--env", options.env)
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
