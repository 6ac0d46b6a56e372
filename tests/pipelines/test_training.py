from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tdpo_pipeline.config import (
    AlgorithmSettings,
    RewardSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.grid import ROOT, Run, runs
from tdpo_pipeline.pipelines.training import create_pipeline, nodes
from tdpo_pipeline.pipelines.training.nodes import RunSettings, build_config, train
from tests.conftest import ROOT as TREE

BASE = TREE / "conf" / "base"


def parameters(name: str) -> Any:
    return yaml.safe_load((BASE / f"parameters_{name}.yml").read_text())[name]


def config(run: Run, **training: Any) -> dict[str, Any]:
    return build_config(
        RunSettings(method=run.method, reward=run.reward, seed=run.seed),
        TrainingSettings.model_validate(parameters("training") | training),
        AlgorithmSettings.model_validate(parameters("methods")[run.method]),
        RewardSettings.model_validate(parameters("rewards")[run.reward]),
    )


@pytest.mark.parametrize("run", {run[:2]: run for run in runs("all")}.values())
def test_every_method_and_reward_of_the_grid_fits(run: Run) -> None:
    built = RunConfig.model_validate(config(run))
    assert built.key == run.key
    assert built.task.scorer == run.reward


def test_a_config_survives_yaml(tmp_path: Path) -> None:
    built = config(Run("tdpo_r", "aesthetic-mini", 1))
    read = yaml.safe_load(yaml.safe_dump(built))
    assert read == built
    assert RunConfig.model_validate(read) == RunConfig.model_validate(built)
    assert read["algorithm"]["neurons"]["reset"] == "active"


def test_hundred_means_two_updates_a_timestep() -> None:
    built = RunConfig.model_validate(config(Run("tdpo_r", "aesthetic-mini", 0)))
    # 2T updates of the N x T = 128 x 10 pairs: 20 updates of 64 pairs.
    assert "20 updates an epoch of 64 pairs" in built.summary()
    two = RunConfig.model_validate(config(Run("ddpo_2", "aesthetic-mini", 0)))
    assert "2 updates an epoch of 640 pairs" in two.summary()


def test_tdpo_r_is_tdpo_but_for_the_resets() -> None:
    methods = parameters("methods")
    assert {k: v for k, v in methods["tdpo_r"].items() if k != "neurons"} == {
        k: v for k, v in methods["tdpo"].items() if k != "neurons"
    }


def test_batch_sizes_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValidationError, match="micro_batch_size 24 must divide the 64"):
        config(Run("tdpo_r", "aesthetic-mini", 0), micro_batch_size=24)
    with pytest.raises(ValidationError, match="chunk_size 48 must divide"):
        config(Run("tdpo_r", "aesthetic-mini", 0), chunk_size=48)


def test_a_reward_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValidationError, match="Unknown reward 'gold'"):
        config(Run("tdpo_r", "aesthetic-mini", 0), monitor=["gold"])


def test_a_critic_on_file_size_borrows_an_encoder() -> None:
    built = config(Run("tdpo", "jpeg_compressibility", 0))
    assert built["task"]["critic_encoder"] == "aesthetic-mini"
    parts = (
        RunSettings(method="tdpo", reward="jpeg_compressibility", seed=0),
        TrainingSettings.model_validate(parameters("training")),
        AlgorithmSettings.model_validate(parameters("methods")["tdpo"]),
    )
    jpeg = {"scorer": "jpeg_compressibility", "train_prompts": "complex"}
    with pytest.raises(ValidationError, match="has no image encoder"):
        build_config(*parts, RewardSettings.model_validate(jpeg))


def test_train_calls_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    from tdpo_pipeline.export import card
    from tdpo_pipeline.trainer import launch, loop

    calls: dict[str, Any] = {}
    cards: list[object] = []

    def launch_run(run: RunConfig, **given: Any) -> loop.TrainingResult:
        calls.update(given, run=run)
        return loop.TrainingResult("checkpoints", "history", "timings")  # type: ignore[arg-type]

    monkeypatch.setattr(launch, "launch_run", launch_run)
    monkeypatch.setattr(card, "write_cards", lambda *given: cards.extend(given))
    built = config(Run("tdpo", "pick-mini", 2))
    outputs = train(built, "cat\na dog on the moon\n", Path("b"), Path("w"), "data/s")
    assert outputs == ("checkpoints", "history", "timings")
    assert calls["run"].key == "tdpo-pick-mini-s2"
    assert cards == ["checkpoints", calls["run"], "history", Path("b")]
    assert calls["prompts"] == ["cat", "a dog on the moon"]
    assert calls["state_dir"] == ROOT / "data" / "s" / "tdpo-pick-mini-s2"
    assert (calls["base_model"], calls["weights"]) == (Path("b"), Path("w"))


def test_type_hints_are_readable_at_run_time() -> None:
    """Kedro skips the validation of a node whose hints it can't resolve."""
    from typing import get_type_hints

    for function in (nodes.build_config, nodes.train):
        assert "return" in get_type_hints(function)


def test_names_and_tags_of_a_run() -> None:
    pipeline = create_pipeline([Run("tdpo", "pick-mini", 2)])
    assert [node.name for node in pipeline.nodes] == [
        "tdpo.pick-mini.s2.build_config",
        "tdpo.pick-mini.s2.train",
    ]
    assert pipeline.outputs() == {
        f"tdpo.pick-mini.s2.{name}" for name in ("checkpoints", "history", "timings")
    }
    assert pipeline.nodes[1].tags == {"training", "tdpo", "pick-mini"}
