"""``kedro run``: what the user can mend ends in a message, and not in a traceback.

Kedro takes the command from here, for ``kedro run``, ``tdpo-pipeline`` and
``python -m tdpo_pipeline`` alike.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from pydantic import ValidationError

from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.hooks import (
    PARTS,
    PreflightError,
    check_namespaces,
    check_parts,
    problems_of,
)

log = logging.getLogger(__name__)


@click.group()
def cli() -> None:
    """The project's commands, which take precedence over Kedro's."""


def message_for_user(error: BaseException) -> str | None:
    """What to tell the user of an error that is theirs to mend.

    Such are the errors of the project's own classes, wrong parameters, and what datasets
    say themselves; errors of any other class are nobody's intention.

    Returns:
        The message; None if whoever mends the error needs its traceback.
    """
    if isinstance(error, DatasetError) and error.__cause__ is not None:
        return message_for_user(error.__cause__)
    if isinstance(error, ValidationError):
        return "\n- ".join([f"{error.title} can't be right:", *problems_of(error)])
    if isinstance(error, ParameterValidationError):
        return _wrong_parameters(str(error))
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which isn't imported here
        return (
            f"The GPU's memory is exhausted ({str(error).partition('.')[0]}). Free the "
            "GPU and run the same command again: an evaluation goes on where it stopped. "
            "With fewer pictures at once (evaluation.chunk_size, score.chunk_size) it "
            "needs less, and begins anew."
        )
    own = type(error).__module__.startswith("tdpo_pipeline.")
    if own or isinstance(error, DatasetError):
        return str(error)
    return None


_ENTRY = re.compile(
    r"Parameter '(?P<key>[^']+)': .*?\d+ validation errors? for \S+\n(?P<problems>.*)",
    re.DOTALL,
)
_PROBLEM = re.compile(
    r"^(?:(?P<where>\S.*)\n)?  (?P<what>\S.*?)(?: \[type=.*\])?$", re.M
)


def _wrong_parameters(text: str) -> str:
    """Kedro's words on wrong parameters, without pydantic's types and addresses.

    Kedro keeps the text of pydantic's errors alone, and not the errors.
    """
    head, *entries = text.split("\n- ")
    found = []
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            found.append(entry)
            continue
        for problem in _PROBLEM.finditer(match["problems"]):
            where = ".".join(filter(None, [match["key"], problem["where"]]))
            found.append(f"{where}: {problem['what']}")
    return "\n- ".join([head, *found])


def check_names(env: str | None, conf: Path, names: Iterable[str]) -> None:
    """Refuse an environment or a pipeline that isn't there.

    Args:
        env: Environment, or None.
        conf: Folder of the configuration.
        names: Names of pipelines.

    Raises:
        PreflightError: Naming those that are there, and the nearest.
    """
    if env and conf.is_dir() and not (conf / env).is_dir():
        there = sorted(path.name for path in conf.iterdir() if path.is_dir())
        raise PreflightError(_unknown("environment", env, there))
    for name in names:
        if name != "__default__" and name not in pipelines:
            there = sorted(set(pipelines) - {"__default__"})
            raise PreflightError(_unknown("pipeline", name, there))


def _unknown(what: str, name: str, there: list[str]) -> str:
    hint = did_you_mean(name, there, most=2)
    return f"There is no {what} '{name}'{hint}. There are {', '.join(there)}."


# Kedro logs what these raise, and it is printed once more when it ends the run.
_LOGGED_AND_RAISED = ("kedro.pipeline.node", "kedro.validation.parameter_validator")


@contextmanager
def _said_once() -> Iterator[None]:
    """Inside the block errors that end the run are not logged besides."""

    def below_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    loggers = [logging.getLogger(name) for name in _LOGGED_AND_RAISED]
    for logger in loggers:
        logger.addFilter(below_error)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(below_error)


def _plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with errors that the user can mend as click prints them."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            conf = Path(kwargs.get("conf_source") or ROOT / "conf")
            check_names(kwargs.get("env"), conf, _named(kwargs))
            if kwargs.get("namespaces"):
                check_namespaces(kwargs["namespaces"], _named(kwargs), dict(pipelines))
            parts = {option: kwargs[option] for option in PARTS if kwargs.get(option)}
            if parts:
                check_parts(parts, _named(kwargs), dict(pipelines))
            with _said_once():
                return command(*args, **kwargs)
        except Exception as error:
            message = message_for_user(error)
            if message is None:
                raise
            log.debug("The run failed", exc_info=True)
            raise click.ClickException(message) from error

    return told


def _named(options: Mapping[str, Any]) -> list[str]:
    """The pipelines that ``kedro run`` is to run, by its options."""
    names = [options.get("pipeline"), *(options.get("pipelines") or ())]
    return [name for name in names if name] or ["__default__"]


assert kedro_run.callback is not None
run = copy.copy(kedro_run)
run.callback = _plainly(kedro_run.callback)
cli.add_command(run)
