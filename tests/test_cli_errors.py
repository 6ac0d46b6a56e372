"""Errors that the user can mend end in a message; others keep their traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from kedro.framework.cli.utils import find_run_command
from kedro.io import DatasetError
from pydantic import ValidationError

from tdpo_pipeline import cli
from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.rewards.model_files import MissingWeightsError
from tests.tiny import training


def test_both_commands_are_the_same() -> None:
    assert find_run_command("tdpo_pipeline") is cli.run
    assert cli.cli.commands["run"] is cli.run
    assert {"env", "pipelines", "params"} <= {option.name for option in cli.run.params}


@pytest.mark.parametrize(
    "error",
    [CheckpointError("a.b is missing"), MissingWeightsError("a.b is missing")],
)
def test_own_errors_are_messages(error: Exception) -> None:
    assert cli.message_for_user(error) == "a.b is missing"
    wrapped = DatasetError("Failed while loading")
    wrapped.__cause__ = error
    assert cli.message_for_user(wrapped) == "a.b is missing"
    assert cli.message_for_user(DatasetError("The folder x is missing")) is not None


def test_wrong_settings_are_listed() -> None:
    with pytest.raises(ValidationError) as caught:
        training(epochs=0, samples_per_epoch="four")
    assert cli.message_for_user(caught.value) == (
        "TrainingSettings can't be right:\n"
        "- epochs: Input should be greater than 0\n"
        "- samples_per_epoch: Input should be a valid integer, unable to parse string "
        "as an integer"
    )


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = DatasetError("Failed while saving")
    wrapped.__cause__ = TypeError("int64 is not JSON serializable")
    assert cli.message_for_user(wrapped) is None

    def broken(**_: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(cli.run, "callback", cli._plainly(broken))
    done = CliRunner().invoke(cli.run, [])
    assert isinstance(done.exception, KeyError)


def test_a_message_is_all_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**_: object) -> None:
        raise CheckpointError("There are no checkpoints in x.")

    monkeypatch.setattr(cli.run, "callback", cli._plainly(stopped))
    done = CliRunner().invoke(cli.run, [])
    assert done.exit_code == 1
    assert done.output == "Error: There are no checkpoints in x.\n"
