"""What the tests share: the project's registry and catalog, and a copy to run in."""

from __future__ import annotations

import copy
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from pydantic import BaseModel

# Kedro is imported where it is needed: what computes is tested without it too.
if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[1]

# Tests compute next to nothing, and threads that share busy cores only wait.
os.environ["OMP_NUM_THREADS"] = "1"


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Cases of a test, of which all but the quick ones are marked ``slow``."""
    kept = set(quick)
    assert kept <= set(cases)
    return [
        case
        if case in kept
        else pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow
        )
        for case in cases
    ]


class Workspace:
    """A folder where the project's commands run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.last_output = ""

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m <command>`` in the folder, on one thread."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert not check or done.returncode == 0, output[-8000:]
        return done

    def kedro(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``kedro`` command in the folder."""
        return self.run("kedro", *arguments, check=check)

    def dvc(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a ``dvc`` command in the folder."""
        return self.run("dvc", *arguments, check=check)

    def git(self, *arguments: str) -> str:
        """What a ``git`` command prints in the folder."""
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def environment(self) -> dict[str, str]:
        """What commands see: the folder's own code, and this Python's commands."""
        commands = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": os.pathsep.join([commands, os.environ["PATH"]]),
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "TQDM_DISABLE": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.root.with_name(f"{self.root.name}-dvc")),
        }


class Project(Workspace):
    """A copy of the project in a folder of its own, without data."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for folder in ("src", "conf", "notebooks"):
            shutil.copytree(
                ROOT / folder,
                root / folder,
                # A process beside this one may be writing x.pyc as x.pyc.<number>.
                ignore=shutil.ignore_patterns("*.egg-info", "local", "*.pyc.*"),
            )
        (root / "conf" / "local").mkdir()
        for name in ("pyproject.toml", ".telemetry"):
            shutil.copy(ROOT / name, root / name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of the project, without data."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def smoke_project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the project in which the smoke environment's main job has run.

    The processes of pytest-xdist share one, so that its models are made once. The tests
    of one file alone may write there, which one process runs (``--dist=loadfile``).
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    output = shared / "smoke.txt"
    with FileLock(shared / "smoke.lock"):
        if not output.exists():
            shutil.rmtree(shared / "smoke", ignore_errors=True)  # of one that failed
            project = Project(shared / "smoke")
            project.kedro(
                "run", "--env", "smoke", "--pipelines", "base_model,proxy_rewards"
            )
            # The spelling that is deprecated, and that people type.
            done = project.kedro("run", "--env", "smoke", "--pipeline", "train_eval")
            output.write_text(done.stdout + done.stderr)
    workspace = Workspace(shared / "smoke")
    workspace.last_output = output.read_text()
    return workspace


@pytest.fixture(scope="session")
def registry() -> dict[str, Pipeline]:
    """The registered pipelines by name."""
    from kedro.framework.project import pipelines
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(ROOT)
    return dict(pipelines)


@pytest.fixture(scope="session")
def catalog() -> DataCatalog:
    """The catalog of the base environment."""
    return catalog_of("base")


def context_of(env: str) -> KedroContext:
    """Kedro's view of an environment."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(ROOT)
    with KedroSession.create(project_path=ROOT, env=env) as session:
        return session.load_context()


def catalog_of(env: str) -> DataCatalog:
    """The catalog of an environment."""
    return context_of(env).catalog


def parameters_of(env: str) -> dict[str, Any]:
    """The parameters of an environment, as plain values; a copy for each test."""
    return copy.deepcopy(_parameters(env))


@functools.cache
def _parameters(env: str) -> dict[str, Any]:
    # Not the context: a catalog made later would have the newest session's globals.
    return plain(context_of(env).params)


def plain(value: Any) -> Any:
    """Nested parameters, typed by Kedro or not, as plain values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pipeline of random weights."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("base_model")
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def train(base_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train a run on the tiny pipeline; its state goes to a folder of the test's."""
    from tdpo_pipeline.trainer.loop import train_run
    from tests import tiny

    def run(config: Any, state: str = "state", prompts: Any = tiny.PROMPTS) -> Any:
        return train_run(
            config,
            prompts=prompts,
            base_model=base_model,
            weights=tmp_path / "no_weights",
            state_dir=tmp_path / state,
        )

    return run
