"""Wrong parameters stop a run before its first node, whatever they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.validation.exceptions import ParameterValidationError

from tdpo_pipeline.hooks import PreflightError
from tests.conftest import ROOT


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A copy of the configuration whose smoke data lie in a temporary folder."""
    folder = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", folder)
    roots = {name: str(tmp_path / name) for name in ("data", "models", "weights")}
    (folder / "smoke" / "globals.yml").write_text(yaml.safe_dump(roots))
    return folder


def refuse(conf: Path, pipeline: str = "train_eval", **given: Any) -> str:
    """The words with which a run is refused."""
    bootstrap_project(ROOT)
    with KedroSession.create(
        project_path=ROOT, conf_source=str(conf), env="smoke", runtime_params=given
    ) as session:
        with pytest.raises((ParameterValidationError, PreflightError)) as caught:
            session.run(pipeline_names=[pipeline])
    assert not list(conf.parent.glob("data/*"))
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": {"epochs": 0}}, "Input should be greater than 0"),
        ({"training": {"epochs": "four"}}, "Input should be a valid integer"),
        ({"training": {"samples_per_epoch": -8}}, "Input should be greater than 0"),
        ({"training": {"epohcs": 3}}, "unknown key 'epohcs' (did you mean epochs?)"),
        ({"training": {"chunk_size": 3}}, "chunk_size 3 must divide samples_per_epoch"),
        (
            {"training": {"lora": {"rang": 2}}},
            "lora unknown key 'rang' (did you mean rank?)",
        ),
        ({"methods": {"tdpo_r": {"algorithm": "tdpoo"}}}, "unknown algorithm 'tdpoo'"),
        (
            {"methods": {"tdpo_r": {"critic": {"depth": 2}}}},
            "critic unknown key 'depth'",
        ),
        ({"rewards": {"aesthetic-mini": {"prompts": "x"}}}, "unknown key 'prompts'"),
        ({"evaluation": {"images_per_prompt": -1}}, "Input should be greater than 0"),
        ({"evaluation": {"rewards": ["gold_mach"]}}, "did you mean gold_match"),
        ({"prompts": {"vocabulary": "any"}}, "Input should be 'menagerie' or 'open'"),
    ],
)
def test_a_value_that_its_type_refuses(
    conf: Path, given: dict[str, Any], message: str
) -> None:
    assert message in refuse(conf, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"traning": {"epochs": 2}}, "'traning' (did you mean training?)"),
        ({"methods": {"tdpo_x": {"loop": 1}}}, "parameter 'methods.tdpo_x.loop'"),
        ({"experiment": {"quick": []}}, "parameter 'experiment.quick'"),
    ],
)
def test_a_name_that_nothing_reads(
    conf: Path, given: dict[str, Any], message: str
) -> None:
    assert message in refuse(conf, **given)


def test_an_environment_is_checked_too(conf: Path) -> None:
    path = conf / "smoke" / "parameters.yml"
    path.write_text(path.read_text() + "\nevalution: {chunk_size: 2}\n")
    assert "'evalution' (did you mean evaluation or own_evaluation?)" in refuse(conf)


def test_an_environment_states_only_what_differs(conf: Path) -> None:
    bootstrap_project(ROOT)
    with KedroSession.create(
        project_path=ROOT, conf_source=str(conf), env="smoke"
    ) as session:
        training = session.load_context().params["training"]
    assert training.epochs == 2
    assert training.guidance_scale == 2.0


def test_an_output_folder_that_cannot_be_made(conf: Path) -> None:
    path = conf / "smoke" / "globals.yml"
    (conf.parent / "file").write_text("in the way")
    roots = {"data": str(conf.parent / "file" / "data"), "models": str(conf.parent)}
    path.write_text(yaml.safe_dump(roots))
    assert "file, which is a file and not a folder" in refuse(conf, "prompts")


def test_missing_weights_name_the_command_that_makes_them(conf: Path) -> None:
    words = refuse(conf)
    assert "'base_model' is missing" in words
    assert "kedro run --env smoke --pipelines base_model" in words
    assert "kedro run --env smoke --pipelines proxy_rewards" in words
