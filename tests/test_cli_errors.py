"""Errors that the user can mend end in a message; others keep their traceback."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from click import ClickException
from click.testing import CliRunner
from kedro.framework.cli.utils import find_run_command
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from kedro.validation.parameter_validator import ParameterValidator
from pydantic import ValidationError

from tdpo_pipeline import cli
from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.hooks import PreflightError
from tdpo_pipeline.pipelines.measure.nodes import MeasureSettings
from tdpo_pipeline.rewards.model_files import MissingWeightsError
from tests.conftest import ROOT
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


def test_an_exhausted_gpu_is_a_message() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    message = cli.message_for_user(error)
    assert message is not None
    assert "exhausted (CUDA out of memory)" in message
    assert "evaluation.chunk_size" in message


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


def test_wrong_parameters_are_told_without_pydantics_types() -> None:
    given = {
        "measure": {"train": "x"},
        "training": training().model_dump() | {"epochs": 0, "early_stop": {"alfa": 1}},
    }
    types = {"measure": MeasureSettings, "training": TrainingSettings}
    with pytest.raises(ParameterValidationError) as caught:
        ParameterValidator({})._apply_validation(given, types)
    assert "type=" in str(caught.value)  # what Kedro says
    assert cli.message_for_user(caught.value) == (
        "Parameter validation failed:\n"
        "- measure: unknown key 'train' (did you mean trained?)\n"
        "- training.epochs: Input should be greater than 0\n"
        "- training.early_stop: unknown key 'alfa' (did you mean alpha?)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"env": "sd41"},
            "no environment 'sd41' (did you mean sd15 or sd14?). There are base, ",
        ),
        (
            {"pipeline": "train-eval"},
            "no pipeline 'train-eval' (did you mean train_eval?)",
        ),
        ({"pipelines": ["sample", "x"]}, "no pipeline 'x'. There are all, audit, "),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    names = dict.fromkeys(["train_eval", "sample", "audit", "all", "__default__"])
    monkeypatch.setattr(cli, "pipelines", names)
    told = cli._plainly(lambda **_: pytest.fail("it ran"))
    with pytest.raises(ClickException, match=re.escape(message)) as caught:
        told(**options)
    assert isinstance(caught.value.__cause__, PreflightError)
    assert "__default__" not in str(caught.value)


def test_known_names_run_and_errors_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cli, "pipelines", {"__default__": None})
    logger = logging.getLogger("kedro.pipeline.node")

    def command(**_: object) -> str:
        logger.info("Running node: a")
        logger.error("Node a failed")
        return "ran"

    with caplog.at_level(logging.INFO, logger="kedro.pipeline.node"):
        assert cli._plainly(command)(env="smoke") == "ran"
        logger.error("outside of a run")
    said = [record.message for record in caplog.records]
    assert said == ["Running node: a", "outside of a run"]
    assert (ROOT / "conf" / "smoke").is_dir()
