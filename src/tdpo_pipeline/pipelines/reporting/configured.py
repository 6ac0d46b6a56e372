"""The figures that the configuration names: a part of the pipeline's shape."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tdpo_pipeline.figures import FigureSettings
from tdpo_pipeline.grid import CONF, GridError, check_known, mapping, section


def configured_figures(conf: Path = CONF) -> dict[str, FigureSettings]:
    """The figures of ``parameters_reporting.yml``, in the order of the file.

    Like the grid it is read as plain YAML: which figures there are is the same in all
    environments, and only their values may differ.

    Args:
        conf: Folder of the parameter files.

    Raises:
        GridError: If the file is missing or no YAML, an entry is malformed, or a method
            (of ``reporting.references`` too) or a reward is unknown.
    """
    path = conf / "parameters_reporting.yml"
    entries = mapping(section(path, "reporting").get("figures"), "figures", path)
    methods = section(conf / "parameters_methods.yml", "methods")
    rewards = section(conf / "parameters_rewards.yml", "rewards")
    for method in section(path, "reporting").get("references", ()):
        where = f"{path}: reporting.references"
        check_known(method, methods, where, "parameters_methods.yml")
    found = {}
    for name, entry in entries.items():
        where = f"{path}: reporting.figures.{name}"
        try:
            found[name] = figure = FigureSettings.model_validate(entry)
        except ValidationError as error:
            raise GridError(f"{where}: {error}") from error
        for method in (*figure.methods, *figure.needs):
            check_known(method, methods, where, "parameters_methods.yml")
        for reward in figure.rewards:
            check_known(reward, rewards, where, "parameters_rewards.yml")
    return found
