"""What is checked between ``kedro run`` and the first node.

A run may take minutes or days, so that a misspelt parameter, the pipeline of another
environment, a missing checkpoint or a folder that can't be written to has to be found
before it starts. Values within a group of parameters are checked by their types (see
``config.py``), before this.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from click import ClickException
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline

from tdpo_pipeline.grid import SCALES

SHARED = ("audit", "export", "fetch", "measure", "sample")
"""Pipelines that run in the Stable Diffusion environments besides their own."""


class PreflightError(ClickException):
    """A run that can't succeed; on the command line the message alone is shown."""


class PreflightHooks:
    """Refuse a run whose environment, parameters, inputs or outputs can't be right."""

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Any
    ) -> None:
        """Check environment and parameters, and what ``pipeline`` starts from and makes.

        Raises:
            PreflightError: Naming each problem, and what to do about it.
        """
        registry = dict(pipelines)
        env = run_params.get("env")
        names = run_params.get("pipeline_names") or ["__default__"]
        problems = list(_of_another_environment(names, env)) or [
            *_unknown_parameters(run_params["runtime_params"] or {}, catalog, registry),
            *_missing_inputs(pipeline, catalog, registry, env),
            *_unwritable_outputs(pipeline, catalog),
        ]
        if problems:
            raise PreflightError("The run can't start:\n- " + "\n- ".join(problems))


def _of_another_environment(names: Iterable[str], env: str | None) -> Iterator[str]:
    """A line for every pipeline that another environment's parameters belong to."""
    for name in names:
        if name in SCALES and name != env:
            yield (
                f"the pipeline '{name}' has the runs of the environment {name}: "
                f"kedro run --env {name} --pipelines {name}"
            )
        elif env in SCALES and name not in (env, *SHARED):
            yield (
                f"the pipeline '{name}' isn't of the environment {env}, whose runs are: "
                f"kedro run --env {env} --pipelines {env}"
            )


def _runs_in(name: str, env: str | None) -> bool:
    """Whether the pipeline ``name`` may run in an environment."""
    return name in SHARED or not any(_of_another_environment([name], env))


def _unknown_parameters(
    given: Mapping[str, Any], catalog: Iterable[str], registry: Mapping[str, Pipeline]
) -> Iterator[str]:
    """A line for every parameter, of files or of ``--params``, that nothing reads.

    The report reads some groups whole, to tell what runs were configured with; that is
    no use of their members, which others read one by one.
    """
    read = {
        name.removeprefix("params:")
        for pipeline in registry.values()
        for name in pipeline.inputs()
        if name.startswith("params:")
    }
    groups = {name.split(".")[0] for name in read}
    configured = {
        name.removeprefix("params:").split(".")[0]
        for name in catalog
        if name.startswith("params:")
    }
    for name in sorted(configured - groups):
        yield _nothing_reads(name, groups)
    used = {key for key in read if not any(name.startswith(f"{key}.") for name in read)}
    for name in _leaves(given):
        below = any(name == key or name.startswith(f"{key}.") for key in used)
        if name.split(".")[0] in groups and not below:
            yield _nothing_reads(name, used)


def _nothing_reads(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"nothing reads the parameter '{name}'{hint}."


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values in a nested mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _missing_inputs(
    pipeline: Pipeline,
    catalog: Any,
    registry: Mapping[str, Pipeline],
    env: str | None,
) -> Iterator[str]:
    """A line for every dataset that must exist before the run, and doesn't."""
    for name in sorted(pipeline.inputs()):
        if name == "parameters" or name.startswith("params:") or catalog.exists(name):
            continue
        path = getattr(catalog[name], "_filepath", "no file")
        yield f"'{name}' is missing ({path}); {_how_to_make(name, registry, env)}"


def _how_to_make(name: str, registry: Mapping[str, Pipeline], env: str | None) -> str:
    """The command that makes the dataset: of the pipelines that do, the smallest."""
    makers = [
        key
        for key, value in registry.items()
        if name in value.all_outputs() and _runs_in(key, env)
    ]
    if not makers:
        return "no pipeline makes it: put it there."
    smallest = min(makers, key=lambda key: len(registry[key].nodes))
    where = f"--env {env} " if env else ""
    # A pipeline of a whole grid makes much more than what is missing.
    only = f" --to-outputs {name}" if smallest in SCALES else ""
    return f"make it first with: kedro run {where}--pipelines {smallest}{only}"


def _unwritable_outputs(pipeline: Pipeline, catalog: Any) -> Iterator[str]:
    """A line for every folder that an output is to go to, and can't."""
    paths = {
        Path(path)
        for name in pipeline.all_outputs()
        if (path := getattr(catalog[name], "_filepath", None)) is not None
    }
    for folder in sorted({_nearest_existing(path.parent) for path in paths}):
        if not folder.is_dir():
            yield f"outputs go under {folder}, which is a file and not a folder."
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield f"outputs go under {folder}, which can't be written to."


def _nearest_existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
