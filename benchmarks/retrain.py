"""Wall time of retraining Menagerie's base model and proxies from nothing.

    python benchmarks/retrain.py

Replaces the shipped weights by those that it trains.
"""

from __future__ import annotations

import argparse

from common import output_argument, run_kedro, write


def main() -> None:
    """Retrain, one pipeline after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="base")
    output_argument(parser, "retrain.json")
    options = parser.parse_args()
    result: dict[str, object] = {}
    for pipeline in ("base_model", "proxy_rewards"):
        seconds, peak = run_kedro("--pipelines", pipeline, "--env", options.env)
        result[pipeline] = {
            "wall_s": round(seconds, 1),
            "peak_resident_mb": round(peak),
        }
    write(options.output, result)


if __name__ == "__main__":
    main()
