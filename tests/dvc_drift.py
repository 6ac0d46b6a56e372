"""Holds ``dvc.yaml`` against Kedro's registry, catalog and parameters.

Prints every difference, in the folder of a project:

    python -m tests.dvc_drift
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import Stage
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Pipeline

ENV = "study"

NOT_HASHED = {"params:state", "timings"}
"""What a stage may use and DVC doesn't follow: it changes no result, but for what the
report says of seconds."""

OVER_THE_GRID = {"prompts": {"experiment.runs"}, "reporting": {"experiment.runs"}}
"""Pipelines of all runs, whose shape is read from the grid; they go by whole folders
and groups of parameters, so that a new run changes nothing in ``dvc.yaml``."""


def differences(root: Path) -> list[str]:
    """Where ``dvc.yaml`` and Kedro disagree, a line each."""
    bootstrap_project(root)
    from kedro.framework.project import pipelines

    registry = dict(pipelines)
    with KedroSession.create(project_path=root, env=ENV) as session:
        catalog = session.load_context().catalog
    with Repo(str(root)) as repo:
        stages = list(repo.index.stages)
    parameters = _parameter_files(root)
    return [
        *_nodes_without_a_stage(stages, registry),
        *(
            line
            for stage in stages
            for line in _stage_differences(stage, registry, catalog, parameters, root)
        ),
    ]


def options(stage: Stage) -> dict[str, str]:
    """The options of a stage's command, ``kedro run --option value ...``."""
    words = shlex.split(stage.cmd)
    assert words[:2] == ["kedro", "run"], stage.cmd
    return dict(zip(words[2::2], words[3::2], strict=True))


def pipeline_of(stage: Stage, registry: Mapping[str, Pipeline]) -> Pipeline:
    """The nodes that a stage's command runs."""
    given = options(stage)
    assert set(given) <= {"--env", "--pipelines", "--namespaces"}, stage.cmd
    assert given["--env"] == ENV, stage.cmd
    pipeline = registry[given["--pipelines"]]
    if "--namespaces" in given:
        return pipeline.only_nodes_with_namespaces([given["--namespaces"]])
    return pipeline


def _nodes_without_a_stage(
    stages: Iterable[Stage], registry: Mapping[str, Pipeline]
) -> Iterator[str]:
    """Nodes of the pipeline ``all`` that aren't in exactly one stage."""
    counts = Counter(
        node.name for stage in stages for node in pipeline_of(stage, registry).nodes
    )
    names = {node.name for node in registry["all"].nodes}
    for name in sorted(names | set(counts)):
        if counts[name] != 1 or name not in names:
            yield f"node {name}: in {counts[name]} stages, must be in 1"


def _stage_differences(
    stage: Stage,
    registry: Mapping[str, Pipeline],
    catalog: DataCatalog,
    parameters: Mapping[str, Any],
    root: Path,
) -> Iterator[str]:
    """Where a stage and its pipeline disagree."""
    pipeline = pipeline_of(stage, registry)
    shape = OVER_THE_GRID.get(options(stage)["--pipelines"])

    def paths(names: Iterable[str]) -> set[Path]:
        files = (path_of(catalog[name]) for name in names if hashed(name))
        return {(root / file).relative_to(root) for file in files}

    inputs = {name for name in pipeline.inputs() if not name.startswith("params:")}
    deps = {
        Path(dep.def_path)
        for dep in stage.deps
        if not isinstance(dep, ParamsDependency)
        and not Path(dep.def_path).is_relative_to("src")
    }
    outs = {Path(out.def_path) for out in stage.outs}
    found = [
        *_compare("deps", paths(inputs), deps, shape is not None),
        *_compare("outs", paths(pipeline.all_outputs()), outs, shape is not None),
        *_compare_parameters(stage, pipeline, shape, parameters),
    ]
    yield from (f"{stage.name}: {line}" for line in found)


def path_of(dataset: AbstractDataset) -> Path:
    """Where a dataset is: its file, or the folder of its partitions."""
    return Path(str(getattr(dataset, "_filepath", None) or dataset._path))


def hashed(name: str) -> bool:
    """Whether DVC has to follow what Kedro calls ``name``."""
    return name not in NOT_HASHED and name.rpartition(".")[2] not in NOT_HASHED


def _compare(
    kind: str, kedro: set[Path], dvc: set[Path], folders: bool
) -> Iterator[str]:
    """Paths that one side has and the other hasn't; a folder may stand for files."""
    for path in sorted(kedro):
        if path not in dvc and not (folders and dvc.intersection(path.parents)):
            yield f"{kind} lack {path}, which Kedro's nodes use"
    for path in sorted(dvc):
        if path not in kedro and not (
            folders and any(path in k.parents for k in kedro)
        ):
            yield f"{kind} have {path}, which no node uses"


def _compare_parameters(
    stage: Stage,
    pipeline: Pipeline,
    shape: set[str] | None,
    parameters: Mapping[str, Any],
) -> Iterator[str]:
    """Parameters that are read and not tracked, in any file, and the other way."""
    names = {n for n in pipeline.inputs() if n.startswith("params:") and hashed(n)}
    read = {name.removeprefix("params:") for name in names} | (shape or set())
    tracked = {
        (dep.def_path, key)
        for dep in stage.deps
        if isinstance(dep, ParamsDependency)
        for key in dep.params
    }
    for file, content in parameters.items():
        for key in sorted(read):
            if _defines(content, key) and not any(
                (file, whole) in tracked for whole in _groups(key, shape is not None)
            ):
                yield f"params lack {key} of {file}, which Kedro's nodes read"
    wanted = {group for key in read for group in _groups(key, shape is not None)}
    for file, key in sorted(tracked):
        if key not in wanted:
            yield f"params have {key} of {file}, which no node reads"


def _groups(key: str, larger: bool) -> list[str]:
    """``key``, and the larger groups of parameters that it's in."""
    parts = key.split(".")
    counts = range(1, len(parts) + 1) if larger else [len(parts)]
    return [".".join(parts[:count]) for count in counts]


def _parameter_files(root: Path) -> dict[str, dict[str, Any]]:
    """Parameters of base and of the study, by file."""
    files = [
        path
        for env in ("base", ENV)
        for path in sorted((root / "conf" / env).rglob("parameters*.yml"))
    ]
    return {
        path.relative_to(root).as_posix(): yaml.safe_load(path.read_text())
        for path in files
    }


def _defines(content: Any, key: str) -> bool:
    """Whether a file gives the parameter ``key``, or a group that it's in."""
    for part in key.split("."):
        if not isinstance(content, Mapping):
            return True
        if part not in content:
            return False
        content = content[part]
    return True


if __name__ == "__main__":
    print("\n".join(differences(Path.cwd())))
