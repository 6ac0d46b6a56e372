"""What is checked between ``kedro run`` and the first node.

A run may take minutes or days, so that a misspelt parameter, the pipeline of another
environment, a missing checkpoint, weights that were not fetched or a folder that can't be
written to has to be found before it starts. Values within a group of parameters are
checked by their types (see ``config.py``), before this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DatasetError
from kedro.pipeline import Node, Pipeline
from pydantic import ValidationError

from tdpo_pipeline.config import TINY_DECODER, RunConfig
from tdpo_pipeline.fetching.plan import ModelSettings
from tdpo_pipeline.grid import ROOT, SCALES, GridError, runs
from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.rewards.model_files import ModelFile, listed, missing_from, size
from tdpo_pipeline.rewards.repositories import repositories_of

SHIPPED = "data/06_models/menagerie"
SHARED = ("audit", "export", "fetch", "measure", "sample", "score")
"""Pipelines that run in the Stable Diffusion environments besides their own."""


class PreflightError(ValueError):
    """A run that can't succeed."""


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
        problems = list(_of_another_environment(names, env))
        if not problems:
            configs, wrong = _configurations(pipeline, catalog)
            given = run_params["runtime_params"] or {}
            rewards = _rewards_read(pipeline, catalog, configs)
            lacking = _lacking(pipeline, catalog, configs, rewards)
            problems = [
                *_unknown_parameters(given, catalog, registry),
                *wrong,
                *_scaled_away(given, configs),
                *_missing_weights(lacking, _how_to_fetch(rewards, env)),
                *_first_few(
                    _missing_inputs(
                        pipeline.inputs()
                        - {published.dataset for published in lacking},
                        catalog,
                        registry,
                        env,
                    )
                ),
                *_unwritable_outputs(pipeline, catalog),
            ]
        if problems:
            raise PreflightError("The run can't start:\n- " + "\n- ".join(problems))


SHOWN = 8
"""Missing inputs that are told; a report of many runs may lack hundreds."""


def _first_few(lines: Iterable[str]) -> list[str]:
    """The first ``SHOWN`` lines, and how many more there are."""
    first = list(lines)
    rest = len(first) - SHOWN
    more = [f"and {rest} more inputs are missing."] * (rest > 0)
    return [*first[:SHOWN], *more]


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


def check_namespaces(
    wanted: Iterable[str], names: Sequence[str], registry: Mapping[str, Pipeline]
) -> None:
    """Refuse a namespace that no node of the pipelines is in.

    Args:
        wanted: Namespaces: of runs, or of methods.
        names: Names of the pipelines that are to run; those that ``registry`` doesn't
            have are nobody's concern here.
        registry: All pipelines.

    Raises:
        PreflightError: Naming where the runs are listed, and those that are near.
    """
    known = set().union(*(_namespaces(registry[n]) for n in names if n in registry))
    for namespace in wanted:
        if namespace not in known:
            raise PreflightError(_unknown_namespace(namespace, names, known, registry))


def check_parts(
    wanted: Mapping[str, Iterable[str]],
    names: Sequence[str],
    registry: Mapping[str, Pipeline],
) -> None:
    """Refuse a dataset, node or tag that the pipelines don't have.

    Args:
        wanted: Names by the option of ``kedro run`` that gives them.
        names: As for :func:`check_namespaces`.
        registry: Likewise.

    Raises:
        PreflightError: Naming those that are near.
    """
    chosen = [registry[name] for name in names if name in registry]
    if not chosen:
        return
    nodes = [node for pipeline in chosen for node in pipeline.nodes]
    there = {
        "dataset": set().union(*(pipeline.datasets() for pipeline in chosen)),
        "node": {name for node in nodes for name in (node.name, node.short_name)},
        "tag": {tag for node in nodes for tag in node.tags},
    }
    for option, given in wanted.items():
        what = PARTS[option]
        for name in given:
            if name not in there[what]:
                hint = did_you_mean(name, there[what], most=2)
                raise PreflightError(
                    f"the pipeline {', '.join(names)} has no {what} '{name}'{hint}."
                )


PARTS = {
    "from_inputs": "dataset",
    "to_outputs": "dataset",
    "from_nodes": "node",
    "to_nodes": "node",
    "node_names": "node",
    "tags": "tag",
}
"""What of a pipeline the options of ``kedro run`` name, but for namespaces."""


def _namespaces(pipeline: Pipeline) -> set[str]:
    """All namespaces that nodes are in, the outer ones too."""
    return {prefix for node in pipeline.nodes for prefix in node.namespace_prefixes}


def _unknown_namespace(
    namespace: str,
    names: Sequence[str],
    known: Iterable[str],
    registry: Mapping[str, Pipeline],
) -> str:
    """What is wrong with a namespace, and what to do about it."""
    scale = next((name for name in names if name in SCALES), None)
    grid = f"experiment.{scale or 'runs'} of conf/base/parameters.yml"
    text = f"the pipeline {', '.join(names)} has no run '{namespace}'"
    if scale is None and namespace in _planned():
        return f"{text}, which is only planned: move it up to {grid}."
    others = [name for name in registry if name not in names and _runs_in(name, scale)]
    makers = [name for name in others if namespace in _namespaces(registry[name])]
    if makers:
        return (
            f"{text}; it is in others, to be given by --pipelines: {', '.join(makers)}."
        )
    hint = did_you_mean(namespace, known, most=1)
    return (
        f"{text}{hint}. Its runs are entries of {grid}, each in the namespace "
        "<method>.<reward>.s<seed>."
    )


def _planned() -> set[str]:
    """The namespaces of the runs that the study is still to grow by, if there are any."""
    with suppress(GridError):
        return {run.namespace for run in runs("planned")}
    return set()


def _runs_in(name: str, env: str | None) -> bool:
    """Whether the pipeline ``name`` may run in an environment."""
    return name in SHARED or not any(_of_another_environment([name], env))


def _unknown_parameters(
    given: Mapping[str, Any], catalog: Iterable[str], registry: Mapping[str, Pipeline]
) -> Iterator[str]:
    """A line for every parameter, of files or of ``--params``, that nothing reads.

    The report and ``fetch`` look through whole groups of which runs read members: that is
    no use of a member that no run reads.
    """
    nodes = {node for pipeline in registry.values() for node in pipeline.nodes}
    read = _parameters_of(nodes)
    by_runs = _parameters_of(node for node in nodes if "reporting" not in node.tags)
    groups = {name.split(".")[0] for name in read}
    configured = {
        name.removeprefix("params:").split(".")[0]
        for name in catalog
        if name.startswith("params:")
    }
    for name in sorted(configured - groups):
        yield _nothing_reads(name, groups)
    used = {
        key for key in read if not any(name.startswith(f"{key}.") for name in by_runs)
    }
    for name in _leaves(given):
        below = any(name == key or name.startswith(f"{key}.") for key in used)
        if name.split(".")[0] in groups and not below:
            yield _nothing_reads(name, used)


def _parameters_of(nodes: Iterable[Node]) -> set[str]:
    """The dotted names of what nodes read of the parameters."""
    names = {name for node in nodes for name in node.inputs}
    return {n.removeprefix("params:") for n in names if n.startswith("params:")}


def _nothing_reads(name: str, known: Iterable[str]) -> str:
    return f"nothing reads the parameter '{name}'{did_you_mean(name, known)}."


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values in a nested mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _configurations(
    pipeline: Pipeline, catalog: Any
) -> tuple[dict[str, Any], list[str]]:
    """The configurations of runs that a pipeline will put together.

    Returns:
        Them, by the names of their datasets; and a line for every run whose method,
        reward and scale don't fit together.
    """
    from tdpo_pipeline.pipelines.training.nodes import build_config

    configs: dict[str, Any] = {}
    wrong: list[str] = []
    for node in pipeline.nodes:
        if node.func is build_config:
            try:
                configs[node.outputs[0]] = node.func(*map(catalog.load, node.inputs))
            except ValidationError as error:
                problems = "; ".join(problems_of(error))
                wrong.append(f"the run {node.namespace} can't be right: {problems}")
    return configs, wrong


def _scaled_away(given: Mapping[str, Any], configs: Mapping[str, Any]) -> Iterator[str]:
    """A line for every ``training.x`` of ``--params`` that a method's scale replaces."""
    wanted = given.get("training")
    for name, value in wanted.items() if isinstance(wanted, Mapping) else ():
        methods = {
            config["method"]
            for config in configs.values()
            if config["algorithm"]["scale"].get(name) not in (None, value)
        }
        for method in sorted(methods):
            yield (
                f"training.{name}={value} doesn't reach {method}, which has its own "
                f"scale: give methods.{method}.scale.{name} too."
            )


def problems_of(error: ValidationError) -> list[str]:
    """What is wrong, and before it where; a text for each problem."""
    return [
        f"{'.'.join(map(str, problem['loc']))}: "
        f"{problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        for problem in error.errors()
    ]


class _Published(NamedTuple):
    """Published files that a run starts from.

    Attributes:
        dataset: The dataset that they are of.
        repository: Where they are published.
        folder: Where they go to.
        files: The files.
    """

    dataset: str
    repository: str
    folder: Path
    files: tuple[ModelFile, ...]


def _lacking(
    pipeline: Pipeline,
    catalog: Any,
    configs: Mapping[str, Any],
    rewards: Iterable[str],
) -> list[_Published]:
    """The published files that a pipeline needs and that aren't there."""
    starts = pipeline.inputs()
    wanted = [
        *(_published_models(catalog, configs) if "base_model" in starts else ()),
        *(_published_rewards(catalog, rewards) if "reward_weights" in starts else ()),
    ]
    missing = [
        published._replace(files=tuple(missing_from(published.folder, published.files)))
        for published in wanted
    ]
    return [published for published in missing if published.files]


def _missing_weights(lacking: Sequence[_Published], fetch: str) -> Iterator[str]:
    """One text on all of them, with the command that fetches them."""
    if not lacking:
        return
    sizes = [file.size or 0 for published in lacking for file in published.files]
    yield "\n    ".join(
        [
            f"{len(sizes)} published files are missing, {size(sum(sizes))} or more. "
            f"Fetch them with: {fetch}",
            *(
                f"{published.repository} in {published.folder}: "
                f"{listed(published.files)}"
                for published in lacking
            ),
        ]
    )


def _published_models(catalog: Any, configs: Mapping[str, Any]) -> Iterator[_Published]:
    """What the base model consists of, and the tiny decoder if a critic sees by it."""
    models = ModelSettings.model_validate(catalog.load("params:models"))
    folder = catalog["base_model"]._filepath
    if models.base_model is not None:
        repository = models.base_model.repository
        yield _Published("base_model", repository.id, folder, repository.files)
    runs = map(RunConfig.model_validate, configs.values())
    if models.tiny_decoder is not None and any(
        run.algorithm.needs_tiny_decoder for run in runs
    ):
        repository = models.tiny_decoder.repository
        folder = folder / TINY_DECODER
        yield _Published("base_model", repository.id, folder, repository.files)


def _published_rewards(catalog: Any, names: Iterable[str]) -> Iterator[_Published]:
    """What rewards are loaded from."""
    weights = catalog["reward_weights"]._filepath
    for repository in repositories_of(names):
        folder = repository.folder(weights)
        yield _Published("reward_weights", repository.id, folder, repository.files)


def _rewards_read(
    pipeline: Pipeline, catalog: Any, configs: Mapping[str, Any]
) -> list[str]:
    """The rewards that the nodes of a pipeline load; without those of unknown runs."""
    if "reward_weights" not in pipeline.inputs():
        return []
    from tdpo_pipeline.pipelines.audit.nodes import audited_rewards, probe
    from tdpo_pipeline.pipelines.evaluation.nodes import evaluate, evaluated_rewards
    from tdpo_pipeline.pipelines.export.nodes import export, exported_rewards
    from tdpo_pipeline.pipelines.score.nodes import score, scoring_rewards
    from tdpo_pipeline.pipelines.training.nodes import train, trained_rewards

    readers: dict[Any, Callable[..., Iterable[str]]] = {
        train: trained_rewards,
        evaluate: evaluated_rewards,
        probe: audited_rewards,
        export: exported_rewards,
        score: scoring_rewards,
    }
    names: dict[str, None] = {}
    for node in (node for node in pipeline.nodes if node.func in readers):
        reader, inputs = readers[node.func], signature(node.func).bind(*node.inputs)
        datasets = [inputs.arguments[name] for name in signature(reader).parameters]
        with suppress(DatasetError):
            given = [configs.get(name) or catalog.load(name) for name in datasets]
            names |= dict.fromkeys(reader(*given))
    return list(names)


def _how_to_fetch(rewards: Iterable[str], env: str | None) -> str:
    """The command that fetches the base model and the weights of these rewards."""
    where = f"--env {env} " if env else ""
    published = " ".join(name for name in rewards if repositories_of([name]))
    what = (
        f'--params "fetch.rewards={published}"'
        if published
        else "--nodes fetch_base_model"
    )
    return f"kedro run {where}--pipelines fetch {what}"


def _missing_inputs(
    inputs: Iterable[str],
    catalog: Any,
    registry: Mapping[str, Pipeline],
    env: str | None,
) -> Iterator[str]:
    """A line for every dataset that must exist before the run, and doesn't."""
    for name in sorted(inputs):
        if name == "parameters" or name.startswith("params:") or catalog.exists(name):
            continue
        path = _place(catalog[name])
        ways = _how_to_make(name, registry, env)
        if path is not None and (ROOT / SHIPPED) in Path(path).parents:
            ways = f"it came with the repository: git checkout {SHIPPED}; or {ways}"
        yield f"'{name}' is missing ({path or 'no file'}); {ways}"


def _place(dataset: Any) -> Any:
    """Where a dataset is: its file or folder, or that of its partitions; or None."""
    return getattr(dataset, "_filepath", None) or getattr(dataset, "_path", None)


def _how_to_make(name: str, registry: Mapping[str, Pipeline], env: str | None) -> str:
    """The command that makes the dataset: of the pipelines that do, the smallest.

    One that trains is taken only if all of them do.
    """
    makers = [
        key
        for key, value in registry.items()
        if name in value.all_outputs() and _runs_in(key, env)
    ]
    if not makers:
        return "no pipeline makes it: put it there."
    smallest = min(
        makers, key=lambda key: (_trains(registry[key]), len(registry[key].nodes))
    )
    where = f"--env {env} " if env else ""
    run = name.rpartition(".")[0]
    # A pipeline of a whole grid makes much more than what is missing.
    if smallest in SCALES:
        only = f" --to-outputs {name}"
    else:
        only = f" --namespaces {run}" if run else ""
    ways = [f"make it first with: kedro run {where}--pipelines {smallest}{only}"]
    if run and env == "study" and smallest == "training" and _has_remote(ROOT):
        stage = f"train@{run.replace('.', '-')}"
        ways.append(f"get it from DVC's remote with: dvc pull {stage}")
    return "; or ".join(ways)


def _trains(pipeline: Pipeline) -> bool:
    return any("training" in node.tags for node in pipeline.nodes)


def _has_remote(root: Path) -> bool:
    """Whether ``dvc pull`` has somewhere to pull from, by the project's configuration."""
    files = [root / ".dvc" / name for name in ("config", "config.local")]
    configuration = ConfigParser(interpolation=None)
    configuration.read(files, encoding="utf-8")
    return configuration.has_option("core", "remote")


def _unwritable_outputs(pipeline: Pipeline, catalog: Any) -> Iterator[str]:
    """A line for every folder that an output is to go to, and can't."""
    paths = {
        Path(path)
        for name in pipeline.all_outputs()
        if (path := _place(catalog[name])) is not None
    }
    for folder in sorted({_nearest_existing(path.parent) for path in paths}):
        if not folder.is_dir():
            yield f"outputs go under {folder}, which is a file and not a folder."
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield f"outputs go under {folder}, which can't be written to."


def _nearest_existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
