"""The experiment grids: one YAML file, read by Kedro, by DVC and by the report.

``conf/base/parameters.yml`` names every run of the study under ``experiment.runs``,
keyed ``<method>-<reward>-s<seed>``, those that it is to grow by under
``experiment.planned``, those of the quick job under ``experiment.quick``, and those of
each Stable Diffusion environment under a grid of its name. The file is
read as plain YAML: a second Kedro configuration loader would take over the resolvers of
the first, and with them the data folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tdpo_pipeline.hints import did_you_mean

ROOT = Path(__file__).resolve().parents[2]
"""The project's root folder, that of ``pyproject.toml``."""

CONF = ROOT / "conf" / "base"

SCALES = ("sd14", "sd15", "sdxl")
"""Environments of larger base models. Each has a grid and a pipeline of its name."""

Subset = Literal["quick", "all", "planned", "sd14", "sd15", "sdxl"]


class GridError(ValueError):
    """The experiment grid is wrong; the message names the file and the key."""


class Run(NamedTuple):
    """One run of a grid.

    Attributes:
        method: Key in ``parameters_methods.yml``, such as ``tdpo_r``.
        reward: Key in ``parameters_rewards.yml``, such as ``aesthetic-mini``.
        seed: Training seed, at least 0.
        grid: Key under ``experiment`` of the grid that it is in.
    """

    method: str
    reward: str
    seed: int
    grid: str = "runs"

    @property
    def key(self) -> str:
        """Key in the grid, ``<method>-<reward>-s<seed>``."""
        return f"{self.method}-{self.reward}-s{self.seed}"

    @property
    def namespace(self) -> str:
        """Kedro namespace, ``<method>.<reward>.s<seed>``."""
        return f"{self.method}.{self.reward}.s{self.seed}"

    @property
    def parameter(self) -> str:
        """Name of the parameter that is its entry, ``experiment.<grid>.<key>``."""
        return f"experiment.{self.grid}.{self.key}"


def runs(subset: Subset = "all", conf: Path = CONF) -> list[Run]:
    """The runs of a grid, in the order of the file.

    Args:
        subset: ``all`` for every run of the study, ``planned`` for those still to be
            added to it, ``quick`` for those of the quick job, or the name of an
            environment with a grid of its own.
        conf: Folder of the parameter files.

    Raises:
        GridError: If a file is missing or not YAML, an entry is malformed, a key is
            given twice or isn't that of its entry, or a method, a reward or a key of
            ``quick`` is unknown.
    """
    path = conf / "parameters.yml"
    experiment = section(path, "experiment")
    grid = subset if subset in (*SCALES, "planned") else "runs"
    entries = mapping(experiment.get(grid), f"experiment.{grid}", path)
    methods = section(conf / "parameters_methods.yml", "methods")
    rewards = section(conf / "parameters_rewards.yml", "rewards")
    found = {
        key: _run(grid, key, entry, methods, rewards, path)
        for key, entry in entries.items()
    }
    if subset != "quick":
        return list(found.values())
    return [found[key] for key in _quick_keys(experiment.get("quick"), found, path)]


def _run(
    grid: str,
    key: str,
    entry: Any,
    methods: Iterable[str],
    rewards: Iterable[str],
    path: Path,
) -> Run:
    """The run that the entry of ``key`` describes, held against the contract."""
    where = f"{path}: experiment.{grid}.{key}"
    if not isinstance(entry, Mapping) or set(entry) != {"method", "reward", "seed"}:
        raise GridError(
            f"{where}: write exactly {{method: ..., reward: ..., seed: ...}}; "
            f"got {entry!r}."
        )
    check_known(entry["method"], methods, f"{where}.method", "parameters_methods.yml")
    check_known(entry["reward"], rewards, f"{where}.reward", "parameters_rewards.yml")
    seed = entry["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise GridError(f"{where}.seed: a whole number from 0 up; got {seed!r}.")
    run = Run(entry["method"], entry["reward"], seed, grid)
    if key != run.key:
        raise GridError(
            f"{where}: the key must be <method>-<reward>-s<seed> of its entry, which "
            f"is '{run.key}'."
        )
    return run


def _quick_keys(quick: Any, known: Mapping[str, Run], path: Path) -> list[str]:
    """The keys of the quick subset: known ones, each once."""
    where = f"{path}: experiment.quick"
    if not isinstance(quick, list) or not quick:
        raise GridError(f"{where}: a list of keys of experiment.runs; got {quick!r}.")
    for key in quick:
        check_known(key, known, where, "experiment.runs")
    twice = sorted({key for key in quick if quick.count(key) > 1})
    if twice:
        raise GridError(f"{where}: given twice: {', '.join(twice)}.")
    return quick


def check_known(name: Any, known: Iterable[str], where: str, source: str) -> None:
    """Raise a GridError with near matches unless ``name`` is a usable, known name."""
    names = list(known)
    if name not in names:
        raise GridError(
            f"{where}: unknown name {name!r}{did_you_mean(name, names)}; {source} has "
            f"{', '.join(map(str, names)) or 'none'}."
        )
    if not re.fullmatch(r"[\w-]+", str(name)):
        raise GridError(
            f"{where}: {name!r} would be part of folders and namespaces; use letters, "
            "digits, '_' and '-' only."
        )


def section(path: Path, name: str) -> dict[str, Any]:
    """The mapping under the key ``name`` of a YAML file."""
    try:
        content = _parsed(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise GridError(f"The parameter file {path} is missing.") from error
    except (OmegaConfBaseException, YAMLError) as error:
        raise GridError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise GridError(f"{path}: must be a mapping with the key '{name}'.")
    return mapping(content.get(name), name, path)


@lru_cache(maxsize=16)
def _parsed(path: Path, _modified: int) -> Any:
    """A YAML file's content, which nobody may change: every pipeline asks for it."""
    return OmegaConf.to_container(OmegaConf.load(path))


def mapping(value: Any, name: str, path: Path) -> dict[str, Any]:
    """``value`` if it is a mapping that isn't empty."""
    if not isinstance(value, dict) or not value:
        raise GridError(f"{path}: the key '{name}' must hold a mapping; got {value!r}.")
    return value
