"""A reward and an algorithm of one's own, outside the package, through `train_eval`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import yaml

from tests.conftest import Project, Workspace

RUN = "nudge/greenness/s0"

EXTENSION = '''
"""A reward and an algorithm that the package doesn't know."""

import torch

from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.config import AlgorithmSettings
from tdpo_pipeline.diffusion.trajectory import replay
from tdpo_pipeline.rewards.base import Reward, Scores


class Greenness(Reward):
    name = "greenness"
    value_range = (0.0, 1.0)

    def score(self, images, prompts):
        return Scores(images[:, 1].mean((1, 2)))


class NudgeSettings(AlgorithmSettings):
    step_size: float


class Nudge(Algorithm):
    """One step of plain gradient ascent an epoch."""

    Settings = NudgeSettings

    def update(self, epoch, trajectory, rewards):
        optimizer = torch.optim.SGD(self.policy.parameters(), self.settings.step_size)
        pairs = trajectory.pairs()
        _, log_probs = replay(self.policy, trajectory, pairs)
        advantages = (rewards - rewards.mean())[pairs[:, 0]]
        loss = -(advantages * log_probs).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": float(loss.detach())}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
'''


def changed(path: Path, **groups: dict) -> None:
    """Add entries to the groups of a parameter file."""
    values = yaml.safe_load(path.read_text())
    for group, entries in groups.items():
        values[group] |= entries
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def test_ones_own_reward_and_algorithm(
    smoke_project: Workspace, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    models = "data/smoke/06_models"
    for name in ("base_model", "proxy_rewards"):
        shutil.copytree(
            smoke_project.root / models / name, project.root / models / name
        )
    (project.root / "extension.py").write_text(EXTENSION)
    base = project.root / "conf" / "base"
    changed(
        base / "parameters_methods.yml",
        methods={"nudge": {"algorithm": "extension:Nudge", "step_size": 0.1}},
    )
    task = {"scorer": "extension:Greenness", "train_prompts": "quick_animals"}
    changed(base / "parameters_rewards.yml", rewards={"greenness": task})
    run = {"method": "nudge", "reward": "greenness", "seed": 0}
    key = "nudge-greenness-s0"
    changed(base / "parameters.yml", experiment={"quick": [key], "runs": {key: run}})
    project.kedro("run", "--env", "smoke", "--pipelines", "train_eval")
    output = project.root / "data" / "smoke" / "07_model_output"
    history = pd.read_csv(output / "history" / f"{RUN}.csv")
    assert history["greenness_mean"].between(0, 1).all()
    assert history["loss"].notna().all()
    assert history["kl_to_base"].iloc[1] > 0
    scores = pd.read_parquet(output / "scores" / f"{RUN}.parquet")
    assert scores["greenness"].between(0, 1).all()
