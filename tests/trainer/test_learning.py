"""Whether a method learns in Menagerie, on the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.trainer.loop import train_run

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "data" / "06_models" / "menagerie"


def parameters(group: str) -> dict:
    path = ROOT / "conf" / "base" / f"parameters_{group}.yml"
    return yaml.safe_load(path.read_text())[group]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddpo_100_timestep_major", "tdpo_r"])
def test_the_trained_reward_rises(method, tmp_path):
    config = RunConfig.model_validate(
        {
            "method": method,
            "reward": "aesthetic-mini",
            "seed": 0,
            "training": parameters("training") | {"epochs": 6},
            "algorithm": parameters("methods")[method],
            "task": parameters("rewards")["aesthetic-mini"],
        }
    )
    history = train_run(
        config,
        prompts=prompt_set(config.task.train_prompts),
        base_model=MODELS / "base_model",
        weights=MODELS / "proxy_rewards",
        state_dir=tmp_path / "state",
    ).history
    rewards = history["aesthetic-mini_mean"]
    assert rewards[-2:].mean() > rewards[:2].mean() + 0.03
    assert history["ratio_error"].eq(0).all()
    assert history["kl_to_base"].iloc[-1] > 10
