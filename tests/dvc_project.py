"""A copy of the project whose study is two tiny runs, under git and DVC."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.conftest import ROOT, Project, Workspace

METHODS = ("ddpo_2", "tdpo_r")
RUNS = tuple(f"{method}-aesthetic-mini-s0" for method in METHODS)
DATA = Path("data", "study")

GRID = """experiment:
  quick: [ddpo_2-aesthetic-mini-s0]
  runs:
    ddpo_2-aesthetic-mini-s0: {method: ddpo_2, reward: aesthetic-mini, seed: 0}
    tdpo_r-aesthetic-mini-s0: {method: tdpo_r, reward: aesthetic-mini, seed: 0}
  sd14: {ddpo_2-aesthetic-s0: {method: ddpo_2, reward: aesthetic, seed: 0}}
  sd15: {ddpo_2-aesthetic-s0: {method: ddpo_2, reward: aesthetic, seed: 0}}
  sdxl: {ddpo_2-aesthetic-s0: {method: ddpo_2, reward: aesthetic, seed: 0}}
"""

STUDY = """training:
  epochs: 2
  samples_per_epoch: 8
  num_inference_steps: 2
  chunk_size: 4
  micro_batch_size: 4
  lora: {rank: 2, target_modules: [to_q, to_k, to_v, to_out.0]}
  checkpoint_every: 1
  kl_samples: 2
"""


class DvcProject(Project):
    """The project with a tiny grid and tiny runs, and the shipped models, in git."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".gitattributes"):
            shutil.copy(ROOT / name, root / name)
        (root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
        models = Path("data", "06_models", "menagerie")
        shutil.copytree(ROOT / models, root / models)
        (root / "conf" / "local" / ".gitkeep").touch()
        (root / "conf" / "base" / "parameters.yml").write_text(GRID)
        (root / "conf" / "study" / "parameters.yml").write_text(STUDY)
        edit(
            root / "conf" / "base" / "parameters_evaluation.yml",
            r"images_per_prompt: \d+",
            "images_per_prompt: 1",
        )
        self.git("init", "--quiet")
        self.commit("start")

    def commit(self, message: str) -> None:
        """Commit everything that git doesn't ignore."""
        commit(self, message)


def commit(workspace: Workspace, message: str) -> None:
    """Commit everything in a workspace that git doesn't ignore."""
    workspace.git("config", "user.name", "Test")
    workspace.git("config", "user.email", "test@example.org")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", message)


def clone(workspace: Workspace, root: Path) -> Workspace:
    """A fresh clone of a workspace's repository: without DVC's cache."""
    workspace.git("clone", "--quiet", str(workspace.root), str(root))
    return Workspace(root)


def copy(workspace: Workspace, root: Path) -> Workspace:
    """A copy of a workspace with everything, DVC's cache and resume states too."""
    shutil.copytree(workspace.root, root)
    return Workspace(root)


def edit(path: Path, pattern: str, new: str) -> None:
    """Replace the first match of a regular expression in a file, which must be there."""
    text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.DOTALL)
    assert count == 1, f"{pattern} is not in {path}"
    path.write_text(text)


def stages_run(output: str) -> list[str]:
    """The stages whose commands ``dvc repro`` ran, in order."""
    return re.findall(r"^Running stage '(\S+)':$", output, flags=re.MULTILINE)
