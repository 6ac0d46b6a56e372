"""dvc.yaml says what Kedro does, and wrong input is a clear error."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.stage.utils import is_valid_name
from dvc.utils.hydra import apply_overrides

from tdpo_pipeline.grid import GridError, runs
from tdpo_pipeline.html_report.provenance import REPORT_CODE
from tests.conftest import ROOT
from tests.dvc_drift import differences
from tests.dvc_project import GRID, DvcProject, edit

PACKAGE = ROOT / "src" / "tdpo_pipeline"


@pytest.fixture
def tiny(tmp_path: Path) -> DvcProject:
    return DvcProject(tmp_path / "project")


def drift(project: DvcProject) -> str:
    shutil.copy(ROOT / "tests" / "dvc_drift.py", project.root / "dvc_drift.py")
    return project.run("dvc_drift").stdout


# ------------------------------------------------------------------ no drift
def test_dvc_yaml_says_what_kedro_does() -> None:
    assert differences(ROOT) == []


def test_drift_is_found(tiny: DvcProject) -> None:
    conf, code = tiny.root / "conf", tiny.root / "src" / "tdpo_pipeline" / "pipelines"
    # A path of the catalog is renamed.
    edit(conf / "base" / "catalog.yml", "07_model_output/metrics/", "07_outcomes/")
    # A node reads a parameter that its stage doesn't track.
    edit(
        code / "training" / "pipeline.py",
        re.escape('f"params:rewards.{run.reward}"'),
        '"params:rewards.pick-mini"',
    )
    # The study's environment overrides a parameter that is only tracked in base.
    with (conf / "study" / "parameters.yml").open("a") as file:
        file.write("evaluation: {seed: 5}\n")
    # A stage runs another pipeline.
    edit(tiny.root / "dvc.yaml", "--pipelines proxy_rewards", "--pipelines base_model")

    found = drift(tiny)
    run, folder = "tdpo_r-aesthetic-mini-s0", "tdpo_r/aesthetic-mini/s0.json"
    metrics = f"data/study/07_model_output/metrics/{folder}"
    for line in (
        f"evaluate@{run}: outs lack data/study/07_outcomes/{folder}, which Kedro's",
        f"evaluate@{run}: outs have {metrics}, which no node uses",
        f"train@{run}: params lack rewards.pick-mini of conf/base/parameters_rewards",
        f"train@{run}: params have rewards.aesthetic-mini of conf/base/parameters_rew",
        f"evaluate@{run}: params lack evaluation of conf/study/parameters.yml",
        "prompts: params lack evaluation of conf/study/parameters.yml",
        "node train_proxy_rewards: in 0 stages, must be in 1",
        "node train_base_model: in 2 stages, must be in 1",
    ):
        assert line in found, found


# ------------------------------------------------------------------ code
def code_of(family: str) -> set[str]:
    """The code that a family of stages depends on, relative to the package."""
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][family]
    prefix = "src/tdpo_pipeline/"
    deps = stage.get("do", stage)["deps"]
    return {dep.removeprefix(prefix) for dep in deps if dep.startswith(prefix)}


def test_training_stages_depend_on_the_code_that_trains() -> None:
    from tdpo_pipeline.trainer.state import TRAINING_CODE

    assert code_of("train") == set(TRAINING_CODE)


def test_the_report_names_the_commit_of_the_code_it_depends_on() -> None:
    assert code_of("report") == {*REPORT_CODE, "pipelines/reporting"}


def imports(path: Path) -> Iterator[Path]:
    """Files of the package that a module imports, or names as ``module:Class``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"([\w.]+):\w+", node.value)
            names = [match[1], f"tdpo_pipeline.rewards.{match[1]}"] if match else []
        else:
            continue
        for name in names:
            file = PACKAGE.parent.joinpath(*name.split("."))
            for found in (file.with_suffix(".py"), file / "__init__.py"):
                if found.is_relative_to(PACKAGE) and found.exists():
                    yield found


def reached(roots: Iterable[str], without: Collection[str]) -> set[str]:
    """Modules that ``roots`` import, and what these import, in turn."""
    todo, seen = list(roots), set()
    while todo:
        name = todo.pop()
        if name not in seen and name not in without:
            seen.add(name)
            found = imports(PACKAGE / name)
            todo += [path.relative_to(PACKAGE).as_posix() for path in found]
    return seen


# What is imported and can't change a result: where things are, what was fetched, and
# what is drawn for a person. The evaluation's and the prompts' values come as parameters and as the
# run's configuration, which config.py only types; trainer/state.py only reads the
# record beside a checkpoint.
NEUTRAL = {"__init__.py", "fetching/manifest.py", "grid.py", "menagerie/__init__.py"}
ELSEWHERE = {"menagerie/contact_sheet.py"}
TYPES = {"config.py"}


@pytest.mark.parametrize(
    ("family", "root", "without"),
    [
        ("train", "trainer/loop.py", ELSEWHERE),
        ("evaluate", "pipelines/evaluation/nodes.py", ELSEWHERE | TYPES),
        ("prompts", "pipelines/prompts/nodes.py", ELSEWHERE | TYPES),
        ("report", "pipelines/reporting/nodes.py", set()),
        ("report", "pipelines/reporting/pipeline.py", set()),
    ],
)
def test_stages_depend_on_the_code_that_they_run(
    family: str, root: str, without: set[str]
) -> None:
    if family == "evaluate":
        without = without | {"trainer/state.py"}
    code = code_of(family)
    stray = [
        name
        for name in reached([root], without | NEUTRAL)
        if name not in code and not any(str(p) in code for p in Path(name).parents)
    ]
    assert not stray


# ------------------------------------------------------------------ what git keeps
# Bytes of a file at most. A run of the study leaves about 480 kB in git, half of it the
# strip, and one that is evaluated on more prompts up to 830 kB; the report is written
# over, and what a run adds to its tables comes on top. A figure of samples takes 400 kB
# for each trained reward.
LARGEST = {
    "07_model_output/diversity": 55_000,
    "07_model_output/history": 40_000,
    "07_model_output/image_statistics": 115_000,
    "07_model_output/metrics": 9_000,
    "07_model_output/scores": 300_000,
    "07_model_output/strips": 400_000,
    "07_model_output/timings": 8_000,
    "08_reporting/figures": 1_500_000,
    "08_reporting/tables": 2_000_000,
}


def test_what_git_keeps_of_the_study_is_small() -> None:
    study = ROOT / "data" / "study"
    folders = {
        path.relative_to(study).as_posix()
        for stem in ("07_model_output", "08_reporting")
        for path in (study / stem).iterdir()
        if path.is_dir() and path.name not in ("collected", "audit")
    }
    assert folders == set(LARGEST)
    sizes = {
        path.relative_to(study).as_posix(): path.stat().st_size
        for folder in LARGEST
        for path in (study / folder).rglob("*.*")
    }
    assert len(sizes) > 60
    large = {
        name: size
        for name, size in sizes.items()
        if size > LARGEST["/".join(name.split("/")[:2])]
    }
    assert not large


# ------------------------------------------------------------------ bad input
def test_every_run_can_be_a_stage() -> None:
    assert all(is_valid_name(run.key) for run in runs("all"))


@pytest.mark.parametrize("name", ["ddpo.2", "ddpo/2", "ddpo@2", "ddpo 2", "ddpo:2"])
def test_the_grid_refuses_what_can_be_no_stage(tmp_path: Path, name: str) -> None:
    assert not is_valid_name(name) or " " in name
    for file in ("parameters_methods.yml", "parameters_rewards.yml"):
        shutil.copy(ROOT / "conf" / "base" / file, tmp_path / file)
    edit(tmp_path / "parameters_methods.yml", r"\n  ddpo_2:", f'\n  "{name}":')
    grid = GRID.replace("ddpo_2-aesthetic-mini-s0:", f'"{name}-aesthetic-mini-s0":')
    grid = grid.replace("method: ddpo_2", f'method: "{name}"')
    (tmp_path / "parameters.yml").write_text(grid)
    with pytest.raises(GridError, match=f"{name}' would be part of folders"):
        runs("all", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tdpo_r-aesthetic-mini-s0: ", "ddpo_2-aesthetic-mini-s0: ", "duplicate key"),
        ("  runs:", "  run:", r"stages\.train\.foreach.*experiment\.runs"),
        ("seed: 0", "sed: 0", r"item\.seed"),
    ],
)
def test_a_wrong_grid_stops_dvc(
    tiny: DvcProject, old: str, new: str, message: str
) -> None:
    edit(tiny.root / "conf" / "base" / "parameters.yml", old, new)
    done = tiny.dvc("status", check=False)
    assert done.returncode != 0
    assert re.search(message, done.stderr, flags=re.DOTALL), done.stderr


def test_a_run_outside_the_grid(tiny: DvcProject) -> None:
    done = tiny.dvc("repro", "train@tdpo_r-aesthetic-mini-s9", check=False)
    assert done.returncode != 0
    assert "train@tdpo_r-aesthetic-mini-s9' not found" in done.stderr
    options = ("--pipelines", "training", "--namespaces", "tdpo_r.aesthetic-mini.s9")
    done = tiny.kedro("run", "--env", "study", *options, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "Error: the pipeline training has no run 'tdpo_r.aesthetic-mini.s9' (did you "
        "mean tdpo_r.aesthetic-mini.s0?). Its runs are entries of experiment.runs of "
        "conf/base/parameters.yml, each in the namespace <method>.<reward>.s<seed>."
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_method_of_the_grid(tiny: DvcProject) -> None:
    conf = tiny.root / "conf" / "base" / "parameters.yml"
    conf.write_text(conf.read_text().replace("tdpo_r", "tdpo_x"))
    done = tiny.dvc("repro", "train@tdpo_x-aesthetic-mini-s0", check=False)
    assert done.returncode != 0
    words = " ".join((done.stdout + done.stderr).split())
    assert "unknown name 'tdpo_x' (did you mean tdpo" in words, words[-4000:]
    assert not (tiny.root / "data" / "study" / "06_models").exists()


def test_an_experiment_changes_the_method_it_names(tmp_path: Path) -> None:
    # What `dvc exp run -S` does to the file.
    path = tmp_path / "methods.yml"
    shutil.copy(ROOT / "conf" / "base" / "parameters_methods.yml", path)
    before = yaml.safe_load(path.read_text())["methods"]
    apply_overrides(path, ["methods.ddpo_2.optimizer.learning_rate=0.5"])
    after = yaml.safe_load(path.read_text())["methods"]
    assert [name for name in before if before[name] != after[name]] == ["ddpo_2"]
    assert after["ddpo_2"]["optimizer"]["learning_rate"] == 0.5
