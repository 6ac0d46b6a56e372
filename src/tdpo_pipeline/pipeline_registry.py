"""The project's pipelines, named one by one.

``training``, ``evaluation`` and ``reporting`` alone span every run of the study;
``train_eval`` spans the quick ones, and ``sd14``, ``sd15`` and ``sdxl`` those of the
environments of these names. Two spans never meet in one sum, because the report of both
is the same file.
"""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Pipeline

from tdpo_pipeline.grid import Run, runs
from tdpo_pipeline.pipelines import (
    audit,
    base_model,
    evaluation,
    export,
    fetch,
    measure,
    prompts,
    proxy_rewards,
    reporting,
    sample,
    score,
    training,
)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name; ``__default__`` is ``train_eval``."""
    world = base_model.create_pipeline() + proxy_rewards.create_pipeline()
    every, train_eval = _parts(runs("all")), _span(runs("quick"))
    study = sum(every.values(), Pipeline([]))
    return {
        "__default__": train_eval,
        "train_eval": train_eval,
        "study": study,
        "all": world + study,
        "base_model": base_model.create_pipeline(),
        "proxy_rewards": proxy_rewards.create_pipeline(),
        **every,
        "export": export.create_pipeline(),
        "fetch": fetch.create_pipeline(),
        "sample": sample.create_pipeline(),
        "score": score.create_pipeline(),
        "measure": measure.create_pipeline(),
        "audit": audit.create_pipeline(),
        "sd14": _span(runs("sd14")),
        "sd15": _span(runs("sd15")),
        "sdxl": _span(runs("sdxl")),
    }


def _parts(grid: Sequence[Run]) -> dict[str, Pipeline]:
    """What a set of runs goes through, from the prompts to the report."""
    return {
        "prompts": prompts.create_pipeline(grid),
        "training": training.create_pipeline(grid),
        "evaluation": evaluation.create_pipeline(grid),
        "reporting": reporting.create_pipeline(grid),
    }


def _span(grid: Sequence[Run]) -> Pipeline:
    """All of these in one."""
    return sum(_parts(grid).values(), Pipeline([]))
