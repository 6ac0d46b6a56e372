from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kedro.framework import project
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.text import TextDataset

from tdpo_pipeline import hooks
from tdpo_pipeline.config import (
    AlgorithmSettings,
    EvaluationSettings,
    RewardSettings,
    TrainingSettings,
)
from tdpo_pipeline.datasets import DirectoryDataset
from tdpo_pipeline.grid import Run
from tdpo_pipeline.hooks import PreflightError, PreflightHooks
from tdpo_pipeline.pipelines import evaluation, score, training
from tdpo_pipeline.pipelines.evaluation.nodes import DiversitySettings
from tdpo_pipeline.pipelines.score.nodes import ScoreSettings
from tdpo_pipeline.pipelines.training.nodes import RunSettings
from tdpo_pipeline.rewards.model_files import CLIP_L
from tests.conftest import ROOT
from tests.test_environments import merged


def copy(text: str) -> str:
    return text


def scaled(text: str, scale: float) -> str:
    return text * int(scale)


def registered() -> dict[str, Pipeline]:
    """All pipelines of the project."""
    bootstrap_project(ROOT)
    return dict(project.pipelines)


@pytest.fixture
def registry_of_the_project() -> dict[str, Pipeline]:
    return registered()


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
    assert words in str(caught.value)
    assert "is missing" not in str(caught.value)


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


def test_a_missing_model_of_the_repository_is_checked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    shipped = tmp_path / "data" / "06_models" / "menagerie" / "start.txt"
    message = r"git checkout data/06_models/menagerie; or make it first with: .* maker$"
    with pytest.raises(PreflightError, match=message):
        check(shipped, tmp_path / "end.txt")


@pytest.mark.parametrize(
    ("env", "remote", "words"),
    [
        (None, True, "kedro run --pipelines training --namespaces {run}"),
        (
            "study",
            False,
            "kedro run --env study --pipelines training --namespaces {run}",
        ),
        (
            "study",
            True,
            "kedro run --env study --pipelines training --namespaces {run}; or get it "
            "from DVC's remote with: dvc pull train@{key}",
        ),
    ],
)
def test_what_one_run_lacks_is_made_by_that_run_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    env: str | None,
    remote: bool,
    words: str,
) -> None:
    grid = [Run("tdpo_r", "aesthetic-mini", seed) for seed in (0, 1)]
    whole = training.create_pipeline(grid) + evaluation.create_pipeline(grid)
    parts = {"training": training.create_pipeline(grid), "study": whole}
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n"
        + ("    remote = shelf\n['remote \"shelf\"']\n    url = x\n" * remote)
    )
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    run = grid[1]
    found = hooks._how_to_make(f"{run.namespace}.checkpoints", parts, env)
    expected = words.format(run=run.namespace, key=run.key)
    assert found == f"make it first with: {expected}"


def test_what_makes_a_report_does_not_train(
    registry_of_the_project: dict[str, Pipeline],
) -> None:
    found = hooks._how_to_make("paper_scales", registry_of_the_project, "study")
    assert found == "make it first with: kedro run --env study --pipelines reporting"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"to_outputs": ["tdpo_r.aesthetic-mini.s0.metric"]},
            "no dataset 'tdpo_r.aesthetic-mini.s0.metric' (did you mean "
            "tdpo_r.aesthetic-mini.s0.metrics",
        ),
        ({"node_names": ["trian"]}, "no node 'trian' (did you mean train"),
        ({"tags": ["trainig"]}, "no tag 'trainig' (did you mean training"),
    ],
)
def test_parts_that_a_pipeline_has_not(
    registry_of_the_project: dict[str, Pipeline],
    wanted: dict[str, list[str]],
    message: str,
) -> None:
    with pytest.raises(PreflightError, match=re.escape(message)):
        hooks.check_parts(wanted, ["train_eval"], registry_of_the_project)


def test_of_many_missing_inputs_the_first_are_told() -> None:
    lines = [f"'{n}' is missing" for n in range(10)]
    assert hooks._first_few(lines[:8]) == lines[:8]
    assert hooks._first_few(lines) == [*lines[:8], "and 2 more inputs are missing."]


def test_parts_that_a_pipeline_has(
    registry_of_the_project: dict[str, Pipeline],
) -> None:
    there = {
        "to_outputs": ["tdpo_r.aesthetic-mini.s0.metrics"],
        "from_nodes": ["tdpo_r.aesthetic-mini.s0.train", "report.report"],
        "tags": ["reporting"],
    }
    hooks.check_parts(there, ["train_eval"], registry_of_the_project)
    hooks.check_parts({"tags": ["x"]}, ["unknown"], registry_of_the_project)


@pytest.mark.parametrize(
    ("namespace", "names", "words"),
    [
        (
            "tdpo_r.aesthetic-mini.s90",
            ["training"],
            "the pipeline training has no run 'tdpo_r.aesthetic-mini.s90' (did you mean "
            "tdpo_r.aesthetic-mini.s0",
        ),
        (
            "tdpo_r.aesthetic-mini.s90",
            ["sd14"],
            "of experiment.sd14 of conf/base/param",
        ),
        (
            "nothing_like_it",
            ["study"],
            "'nothing_like_it'. Its runs are entries of exp",
        ),
        (
            "tdpo.aesthetic-mini.s0",
            ["__default__"],
            "it is in others, to be given by --pipelines: study, all, training, eval",
        ),
    ],
)
def test_a_namespace_that_is_no_runs(
    namespace: str, names: list[str], words: str
) -> None:
    with pytest.raises(PreflightError) as caught:
        hooks.check_namespaces([namespace], names, registered())
    assert words in str(caught.value)


def test_a_namespace_that_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("tdpo_r", "aesthetic-mini", 90)
    monkeypatch.setattr(hooks, "runs", lambda subset: [run] * (subset == "planned"))
    with pytest.raises(PreflightError, match="only planned: move it up to experiment"):
        hooks.check_namespaces([run.namespace], ["training"], registered())


@pytest.mark.parametrize("namespace", ["tdpo_r", "tdpo_r.aesthetic-mini.s0"])
def test_a_namespace_of_a_run_or_a_method_passes(namespace: str) -> None:
    hooks.check_namespaces([namespace], ["study", "unknown"], registered())


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


@pytest.mark.parametrize(
    "name",
    [
        *("training.epochs", "training.preset", "training.monitor"),
        *("training.lora.rank", "training.early_stop.alpha", "evaluation.seed"),
        *("methods.tdpo_r.gamma", "rewards.aesthetic-mini.train_prompts"),
        "reporting.held_out",
    ],
)
def test_what_runs_and_reports_read_can_be_given(
    registry_of_the_project: dict[str, Pipeline], name: str
) -> None:
    value: Any = 1
    for key in reversed(name.split(".")):
        value = {key: value}
    assert not list(hooks._unknown_parameters(value, [], registry_of_the_project))


def test_a_scale_that_a_method_has_of_its_own_is_told() -> None:
    own = {
        "method": "ddpo_is",
        "algorithm": {"scale": {"epochs": 200, "finetune": None}},
    }
    plain = {"method": "tdpo", "algorithm": {"scale": {"epochs": None}}}
    configs = {"a": own, "b": own, "c": plain}
    given = {"training": {"epochs": 2, "finetune": "lora"}}
    (line,) = hooks._scaled_away(given, configs)
    assert "training.epochs=2 doesn't reach ddpo_is" in line
    assert "methods.ddpo_is.scale.epochs" in line
    assert not list(hooks._scaled_away({"training": {"epochs": 200}}, configs))
    assert not list(hooks._scaled_away({}, configs))


def test_a_member_that_only_the_report_sees_is_read_by_nothing(
    registry_of_the_project: dict[str, Pipeline],
) -> None:
    given = {"methods": {"tdpo_rr": {"gamma": 1}}}
    (line,) = hooks._unknown_parameters(given, [], registry_of_the_project)
    assert "methods.tdpo_rr.gamma" in line


# ------------------------------------------------------------------ published files
MODELS: dict[str, Any] = {
    "experiment": RunSettings,
    "training": TrainingSettings,
    "methods": AlgorithmSettings,
    "rewards": RewardSettings,
    "evaluation": EvaluationSettings,
    "diversity": DiversitySettings,
    "score": ScoreSettings,
}


def problems_of_a_run(folder: Path, run: Run, *nodes: str) -> str:
    """With what words `kedro run --env sd14` refuses a run, or some nodes of it."""
    pipeline = training.create_pipeline([run]) + evaluation.create_pipeline([run])
    if nodes:
        pipeline = pipeline.only_nodes(*(f"{run.namespace}.{node}" for node in nodes))
    parameters = merged("sd14")
    parameters["experiment"][run.grid][run.key] = {
        "method": run.method,
        "reward": run.reward,
        "seed": run.seed,
    }
    return problems(folder, pipeline, parameters)


def problems(folder: Path, pipeline: Pipeline, parameters: dict[str, Any]) -> str:
    """With what words a pipeline of sd14 is refused where no published file is there."""
    catalog = DataCatalog(
        {name: MemoryDataset() for name in pipeline.datasets() if ":" not in name}
        | {
            name: DirectoryDataset(filepath=folder / name)
            for name in ("base_model", "reward_weights")
        }
    )
    for name in [*pipeline.inputs(), "params:models"]:
        if name.startswith("params:"):
            group, *keys = name.removeprefix("params:").split(".", 2)
            value = parameters[group]
            for key in keys:
                value = value[key]
            model = MODELS.get(group)
            catalog[name] = MemoryDataset(
                model.model_validate(value) if model else value
            )
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(PreflightError) as caught,
    ):
        patch.setattr(hooks, "pipelines", {"sd14": pipeline})
        PreflightHooks().before_pipeline_run(
            run_params={
                "runtime_params": None,
                "env": "sd14",
                "pipeline_names": ["sd14"],
            },
            pipeline=pipeline,
            catalog=catalog,
        )
    return str(caught.value)


def test_all_published_files_that_a_run_lacks_are_told_at_once(tmp_path: Path) -> None:
    rewards = tmp_path / "reward_weights"
    (CLIP_L.folder(rewards)).mkdir(parents=True)
    (CLIP_L.folder(rewards) / "config.json").touch()
    run = Run("tdpo_constrained", "aesthetic", 0, "sd14")
    words = problems_of_a_run(tmp_path, run)
    for line in (
        f"CompVis/stable-diffusion-v1-4 in {tmp_path}/base_model: model_index.json, ",
        "unet/diffusion_pytorch_model.safetensors (3.44 GB)",
        f"openai/clip-vit-large-patch14 in {CLIP_L.folder(rewards)}: model.safetensors "
        "(1.71 GB)\n",
        "sac+logos+ava1-l14-linearMSE.pth (3.71 MB)",
        "HPS_v2_compressed.pt (1.97 GB)",
        "ImageReward.pt (1.79 GB)",
        "kedro run --env sd14 --pipelines fetch --params "
        '"fetch.rewards=aesthetic imagereward pickscore hpsv2"',
        # 4.267 GB of the base model; 1.711, 0.004, 3.94, 1.97 and 1.79 of the rewards.
        "13.7 GB or more",
    ):
        assert line in words
    assert "llava" not in words
    assert "make it first" not in words


def test_nodes_that_read_no_reward_lack_none(tmp_path: Path) -> None:
    words = problems_of_a_run(
        tmp_path, Run("ddpo_2", "aesthetic", 0, "sd14"), "summarise"
    )
    assert "published" not in words


@pytest.mark.parametrize(
    ("named", "lacking", "unneeded"),
    [
        # Those of sd14's evaluation, unless they are named.
        ([], ["PickScore_v1", "HPS_v2_compressed.pt"], "llava"),
        (["aesthetic"], ["sac+logos+ava1-l14-linearMSE.pth"], "HPS_v2_compressed.pt"),
    ],
)
def test_weights_that_scoring_lacks(
    tmp_path: Path, named: list[str], lacking: list[str], unneeded: str
) -> None:
    parameters = merged("sd14")
    parameters["score"] |= {"images": "images.csv", "rewards": named}
    (tmp_path / "reward_weights").mkdir()
    words = problems(tmp_path, score.create_pipeline(), parameters)
    for name in lacking:
        assert name in words
    assert unneeded not in words
    assert "kedro run --env sd14 --pipelines fetch" in words


def test_an_ensemble_that_was_not_measured(tmp_path: Path) -> None:
    run = Run("alignprop_diffexp", "ensemble", 0, "sd14")
    words = problems_of_a_run(tmp_path, run, "build_config")
    assert "the run alignprop_diffexp.ensemble.s0 can't be right" in words
    assert "no mean and std of hpsv2, aesthetic, pickscore" in words
    assert "benchmarks/reward_statistics.py --env <env> --task ensemble" in words
