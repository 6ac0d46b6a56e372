from __future__ import annotations

import json
from typing import get_type_hints

import pandas as pd
import pytest

from tdpo_pipeline.config import EvaluationSettings
from tdpo_pipeline.grid import ROOT, Run
from tdpo_pipeline.pipelines.evaluation import create_pipeline, nodes
from tdpo_pipeline.pipelines.evaluation.nodes import summarise
from tests.conftest import parameters_of


def scores() -> pd.DataFrame:
    columns = ["epoch", "eta", "prompt_set", "prompt", "seen", "pick-mini"]
    rows = [
        (0, 1.0, "simple_animals", "cat", True, 1.0),
        (0, 1.0, "simple_animals", "cat", True, 2.0),
        (0, 1.0, "simple_animals", "dog", False, 4.0),
        (2, 1.0, "simple_animals", "cat", True, 8.0),
        (4, 1.0, "simple_animals", "cat", True, 3.0),
        (4, 1.0, "simple_animals", "cat", True, 5.0),
        (4, 1.0, "simple_animals", "dog", False, 3.5),
        (4, 0.0, "simple_animals", "cat", True, 99.0),
    ]
    return pd.DataFrame(rows, columns=columns).assign(
        run="tdpo-pick-mini-s0",
        method="tdpo",
        reward="pick-mini",
        seed=0,
        reward_queries=0,
        kl_to_base=0.0,
        image=[0, 1, 0, 0, 0, 1, 0, 0],
    )


def test_metrics_by_hand() -> None:
    metrics = summarise(scores())
    # Epoch 4 is the last; eta 0 and epoch 2 don't count.
    assert metrics == {
        "epoch": 4,
        "seen": {"pick-mini": {"base": 1.5, "final": 4.0, "change": 2.5}},
        "untrained": {"pick-mini": {"base": 4.0, "final": 3.5, "change": -0.5}},
    }
    assert json.loads(json.dumps(metrics)) == metrics


def test_type_hints_are_readable_at_run_time() -> None:
    """Kedro skips the validation of a node whose hints it can't resolve."""
    assert "return" in get_type_hints(nodes.evaluate)


def test_a_run_is_evaluated_where_it_was_trained() -> None:
    run = Run("tdpo", "pick-mini", 2)
    pipeline = create_pipeline([run])
    assert pipeline.inputs() == {
        f"{run.namespace}.config",
        f"{run.namespace}.checkpoints",
        "train_prompts_pick-mini",
        "evaluation_prompts_pick-mini",
        "base_model",
        "reward_weights",
        "params:evaluation",
        "params:diversity",
        "params:state",
    }
    made = ("scores", "image_statistics", "diversity", "metrics")
    made += ("strip", "strip_index")
    assert pipeline.all_outputs() == {f"{run.namespace}.{name}" for name in made}


def test_evaluate_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from tdpo_pipeline import evaluation
    from tests.tiny import run_config

    settings = EvaluationSettings.model_validate(parameters_of("base")["evaluation"])
    calls = {}

    def evaluate_run(config, settings, **given):  # type: ignore[no-untyped-def]
        calls.update(given, config=config, settings=settings)
        tables = ("scores", "statistics", "diversity")
        return evaluation.EvaluationResult(*tables, "strip", {"tile": 8})  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "evaluate_run", evaluate_run)
    config, paths = run_config(), (Path("b"), Path("w"))
    sets, strip = {"complex": ["A cat and a dog"]}, ["A cat and a dog"]
    outputs = nodes.evaluate(
        config.model_dump(mode="json"),
        Path("c"),
        "cat\ndog\n",
        {"prompt_sets": sets, "strip_prompts": strip},
        *paths,
        settings,
        nodes.DiversitySettings(encoders=("hps-mini", "pick-mini")),
        "data/state",
    )
    tables = ("scores", "statistics", "diversity")
    assert outputs == (*tables, "strip", {"tile": 8})
    assert calls["diversity_encoders"] == ("hps-mini", "pick-mini")
    assert calls["config"] == config
    assert calls["state_dir"] == ROOT / "data/state" / f"{config.key}.evaluation"
    assert calls["train_prompts"] == ["cat", "dog"]
    assert calls["prompt_sets"] == sets
    own = {"prompt_sets": tuple(sets), "strip_prompts": tuple(strip)}
    assert calls["settings"] == settings.model_copy(update=own)
    assert (calls["base_model"], calls["weights"]) == paths
