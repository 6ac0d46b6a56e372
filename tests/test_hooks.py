from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro_datasets.text import TextDataset

from tdpo_pipeline import hooks
from tdpo_pipeline.hooks import PreflightError, PreflightHooks


def copy(text: str) -> str:
    return text


def scaled(text: str, scale: float) -> str:
    return text * int(scale)


PIPELINE = Pipeline(
    [Node(scaled, ["start", "params:group.deep.scale"], "end", name="scale")]
)
LARGER = PIPELINE + Pipeline([Node(copy, "origin", "start", name="begin")])


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Pipeline([Node(copy, "origin", "start", name="begin")])
    monkeypatch.setattr(hooks, "pipelines", {"everything": LARGER, "maker": maker})


def check(
    start: Path,
    end: Path,
    given: dict[str, Any] | None = None,
    *groups: str,
    env: str | None = None,
    name: str = "everything",
) -> None:
    catalog = DataCatalog(
        {"start": TextDataset(filepath=start), "end": TextDataset(filepath=end)}
    )
    for group in ("group", "group.deep", "group.deep.scale", *groups):
        catalog[f"params:{group}"] = 1
    PreflightHooks().before_pipeline_run(
        run_params={"runtime_params": given, "env": env, "pipeline_names": [name]},
        pipeline=PIPELINE,
        catalog=catalog,
    )


def test_a_run_that_can_succeed_passes(tmp_path: Path) -> None:
    (tmp_path / "start.txt").write_text("x")
    check(tmp_path / "start.txt", tmp_path / "new" / "end.txt")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("env", "name", "words"),
    [
        (
            None,
            "sd14",
            "of the environment sd14: kedro run --env sd14 --pipelines sd14",
        ),
        ("sd15", "sd14", "of the environment sd14: kedro run --env sd14"),
        ("sd14", "__default__", "isn't of the environment sd14, whose runs are: kedro"),
        ("sdxl", "base_model", "isn't of the environment sdxl"),
    ],
)
def test_a_pipeline_of_another_environment(
    tmp_path: Path, env: str | None, name: str, words: str
) -> None:
    # Nothing else is checked, so the missing input isn't named.
    with pytest.raises(PreflightError) as caught:
        check(tmp_path / "start.txt", tmp_path / "end.txt", env=env, name=name)
    assert words in caught.value.message
    assert "is missing" not in caught.value.message


@pytest.mark.parametrize(
    ("env", "name"),
    [("sd14", "sd14"), ("sd15", "sample"), ("sdxl", "fetch"), ("study", "study")],
)
def test_pipelines_in_their_environments(tmp_path: Path, env: str, name: str) -> None:
    (tmp_path / "start.txt").write_text("x")
    check(tmp_path / "start.txt", tmp_path / "end.txt", env=env, name=name)


def test_in_an_environment_only_its_pipelines_can_make_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "pipelines", {"prompts": LARGER, "sd14": LARGER})
    message = "kedro run --env sd14 --pipelines sd14 --to-outputs start$"
    with pytest.raises(PreflightError, match=message):
        check(tmp_path / "start.txt", tmp_path / "end.txt", env="sd14", name="sd14")


def test_a_missing_input_names_the_smallest_pipeline_that_makes_it(
    tmp_path: Path,
) -> None:
    message = r"'start' is missing \(.*start\.txt\); make it first with: .* maker$"
    with pytest.raises(PreflightError, match=message):
        check(tmp_path / "start.txt", tmp_path / "end.txt")


def test_a_file_in_the_way_of_an_output(tmp_path: Path) -> None:
    (tmp_path / "start.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PreflightError, match="file, which is a file and not a folder"):
        check(tmp_path / "start.txt", tmp_path / "file" / "end.txt")


def test_an_unwritable_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "start.txt").write_text("x")
    # Permissions don't bind a superuser, who may be running the tests.
    monkeypatch.setattr(hooks.os, "access", lambda *_: False)
    with pytest.raises(PreflightError, match="can't be written to"):
        check(tmp_path / "start.txt", tmp_path / "end.txt")


def test_a_parameter_that_something_reads_passes(tmp_path: Path) -> None:
    (tmp_path / "start.txt").write_text("x")
    given = {"group": {"deep": {"scale": 2}}}
    check(tmp_path / "start.txt", tmp_path / "end.txt", given)


@pytest.mark.parametrize(
    ("given", "groups", "message"),
    [
        (None, ["gruop"], r"reads the parameter 'gruop' \(did you mean group\?\)"),
        ({"gruop": {"x": 1}}, ["gruop", "gruop.x"], "reads the parameter 'gruop'"),
        ({"group": {"deep": {"scael": 1}}}, [], "group.deep.scael.*did you mean"),
        ({"group": {"shallow": 1}}, [], "nothing reads the parameter 'group.shallow'"),
    ],
)
def test_a_parameter_that_nothing_reads(
    tmp_path: Path, given: dict[str, Any] | None, groups: list[str], message: str
) -> None:
    (tmp_path / "start.txt").write_text("x")
    with pytest.raises(PreflightError, match=message):
        check(tmp_path / "start.txt", tmp_path / "end.txt", given, *groups)
