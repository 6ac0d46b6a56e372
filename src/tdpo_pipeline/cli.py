"""``kedro run``: what the user can mend ends in a message, and not in a traceback.

Kedro takes the command from here, for ``kedro run``, ``tdpo-pipeline`` and
``python -m tdpo_pipeline`` alike.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from pydantic import ValidationError

from tdpo_pipeline.hooks import check_namespaces, problems_of

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
    own = type(error).__module__.startswith("tdpo_pipeline.")
    if own or isinstance(error, (DatasetError, ParameterValidationError)):
        return str(error)
    return None


def _plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with errors that the user can mend as click prints them."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs.get("namespaces"):
                check_namespaces(kwargs["namespaces"], _named(kwargs), dict(pipelines))
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
