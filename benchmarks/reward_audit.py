"""What each of Menagerie's rewards can be fooled by, before anything is trained on it.

    python benchmarks/reward_audit.py

Audits the proxies, each beside its gold, and the golds alone, as `kedro run --pipelines
audit` does with the parameters of conf/base/parameters_audit.yml. The table of all probes
goes to benchmarks/results/reward_audit.csv, what was found in words to
reward_audit.json; `--figures` names a folder for the figures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from common import BASE_MODEL, PROXY_REWARDS, output_argument, parameters, plain, write

from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.figures import save_png
from tdpo_pipeline.overoptimization.reward_audit import audit_sentences
from tdpo_pipeline.pipelines.audit.nodes import AuditSettings, probe, report
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings

REWARDS = [
    *("aesthetic-mini", "pick-mini", "hps-mini", "imagereward-mini"),
    *("gold_taste", "gold_match"),
]


def main() -> None:
    """Audit, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewards", nargs="+", default=REWARDS)
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    output_argument(parser, "reward_audit.json")
    options = parser.parse_args()
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
    params = parameters("base")
    configured = plain(params["audit"])
    sampler = TrainingSettings.model_validate(plain(params["training"]))
    allowed = PromptSettings.model_validate(plain(params["prompts"]))
    tables, found, start = [], {}, time.perf_counter()
    for name in options.rewards:
        settings = AuditSettings.model_validate(configured | {"reward": name})
        given = (params["rewards"], allowed, BASE_MODEL, PROXY_REWARDS)
        scores, examples = probe(settings, sampler, *given)
        drawn = report(
            settings,
            {key: lambda table=table: table for key, table in scores.items()},
            {key: lambda tile=tile: tile for key, tile in examples.items()},
        )
        table, figure, _ = (part[settings.key] for part in drawn)
        tables.append(table)
        found[name] = audit_sentences(table)
        if options.figures:
            save_png(figure, options.figures / f"{name}.png")
    everything = pd.concat(tables, ignore_index=True)
    everything.to_csv(
        options.output.with_suffix(".csv"), index=False, float_format="%.4g"
    )
    write(
        options.output,
        {
            "prompts": configured["prompts"],
            "n_prompts": int(everything["n_prompts"].iloc[0]),
            "n_images": int(everything["n_images"].iloc[0]),
            "seed": configured["seed"],
            "seconds": round(time.perf_counter() - start),
            "found": found,
        },
    )


if __name__ == "__main__":
    main()
