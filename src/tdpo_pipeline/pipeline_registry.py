"""The project's pipelines, named one by one.

``training``, ``evaluation`` and ``reporting`` alone span every run of the grid;
``train_eval`` spans the quick ones. Two spans never meet in one sum, because the report
of both is the same file.
"""

from __future__ import annotations

from kedro.pipeline import Pipeline

from tdpo_pipeline.grid import runs
from tdpo_pipeline.pipelines import (
    base_model,
    evaluation,
    prompts,
    proxy_rewards,
    reporting,
    sample,
    training,
)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name; ``__default__`` is ``train_eval``."""
    quick, every = runs("quick"), runs("all")

    world = base_model.create_pipeline() + proxy_rewards.create_pipeline()
    study = (
        prompts.create_pipeline(every)
        + training.create_pipeline(every)
        + evaluation.create_pipeline(every)
        + reporting.create_pipeline(every)
    )
    train_eval = (
        prompts.create_pipeline(quick)
        + training.create_pipeline(quick)
        + evaluation.create_pipeline(quick)
        + reporting.create_pipeline(quick)
    )
    return {
        "__default__": train_eval,
        "train_eval": train_eval,
        "study": study,
        "all": world + study,
        "base_model": base_model.create_pipeline(),
        "proxy_rewards": proxy_rewards.create_pipeline(),
        "prompts": prompts.create_pipeline(every),
        "training": training.create_pipeline(every),
        "evaluation": evaluation.create_pipeline(every),
        "reporting": reporting.create_pipeline(every),
        "sample": sample.create_pipeline(),
    }
