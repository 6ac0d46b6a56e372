from __future__ import annotations

from pathlib import Path

import pytest

from tdpo_pipeline.grid import CONF, GridError, Run, runs

GRID = """
experiment:
  quick: [tdpo_r-aesthetic-mini-s0]
  runs:
    tdpo_r-aesthetic-mini-s0: {method: tdpo_r, reward: aesthetic-mini, seed: 0}
    ddpo_2-pick-mini-s12: {method: ddpo_2, reward: pick-mini, seed: 12}
  sd14:
    tdpo_r-pick-mini-s4: {method: tdpo_r, reward: pick-mini, seed: 4}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "parameters.yml").write_text(GRID)
    (tmp_path / "parameters_methods.yml").write_text("methods: {ddpo_2: 1, tdpo_r: 1}")
    (tmp_path / "parameters_rewards.yml").write_text(
        "rewards: {aesthetic-mini: 1, pick-mini: 1}"
    )
    return tmp_path


def edit(conf: Path, old: str, new: str) -> None:
    path = conf / "parameters.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_run_knows_its_key_and_namespace() -> None:
    run = Run("tdpo_r", "aesthetic-mini", 3)
    assert run.key == "tdpo_r-aesthetic-mini-s3"
    assert run.namespace == "tdpo_r.aesthetic-mini.s3"


def test_an_environment_has_a_grid_of_its_own(conf: Path) -> None:
    (run,) = runs("sd14", conf)
    assert run == Run("tdpo_r", "pick-mini", 4, grid="sd14")
    assert run.parameter == "experiment.sd14.tdpo_r-pick-mini-s4"
    assert runs("all", conf)[0].parameter == "experiment.runs.tdpo_r-aesthetic-mini-s0"
    edit(conf, "tdpo_r-pick-mini-s4:", "tdpo_r-pick-mini-s5:")
    with pytest.raises(
        GridError, match=r"experiment\.sd14\.tdpo_r-pick-mini-s5: the key"
    ):
        runs("sd14", conf)
    with pytest.raises(GridError, match=r"'experiment\.sdxl' must hold a mapping"):
        runs("sdxl", conf)


def test_all_runs_in_the_order_of_the_file(conf: Path) -> None:
    assert runs("all", conf) == [
        Run("tdpo_r", "aesthetic-mini", 0),
        Run("ddpo_2", "pick-mini", 12),
    ]


def test_quick_runs(conf: Path) -> None:
    assert runs("quick", conf) == [Run("tdpo_r", "aesthetic-mini", 0)]


def test_the_committed_grid() -> None:
    methods = ("ddpo_2", "ddpo_100", "ddpo_100_timestep_major", "tdpo", "tdpo_r")
    seeds = {"aesthetic-mini": 5, "pick-mini": 3, "hps-mini": 3}
    core = {
        Run(method, reward, seed)
        for method in (*methods, "alignprop_2023")
        for reward, count in seeds.items()
        for seed in range(count)
    }
    trained, planned = runs("all", CONF), runs("planned", CONF)
    keys = [run.key for run in (*trained, *planned)]
    assert len(set(keys)) == len(keys)
    assert {run.key for run in core} <= set(keys)
    assert runs("quick", CONF) == [
        Run("ddpo_100_timestep_major", "aesthetic-mini", 0),
        Run("tdpo_r", "aesthetic-mini", 0),
    ]


def test_the_committed_grids_of_the_environments() -> None:
    compared = {
        (method, reward)
        for method in ("ddpo_2", "ddpo_100", "tdpo", "tdpo_r")
        for reward in ("aesthetic", "pickscore", "hpsv2")
    }
    sd14 = runs("sd14", CONF)
    for method, reward in compared:
        seeds = {run.seed for run in sd14 if run[:2] == (method, reward)}
        assert seeds == {0, 1, 2}
    explored = {run.method for run in runs("sdxl", CONF)}
    assert explored == {"alignprop_trl", "alignprop_diffexp"}
    assert explored < {run.method for run in runs("sd15", CONF)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[tdpo_r-aes",
            "[tdpo-aes",
            r"quick: unknown .*did you mean tdpo_r-aesthetic",
        ),
        ("quick: [", "quick: [ddpo_2-pick-mini-s12, ddpo_2-pick-mini-s12, ", "twice"),
        ("[tdpo_r-aesthetic-mini-s0]", "[]", r"experiment\.quick: a list"),
        ("seed: 12", "seed: 13", "which is 'ddpo_2-pick-mini-s13'"),
        ("seed: 12", "seed: -1", "whole number from 0 up; got -1"),
        ("seed: 12", "seed: one", "whole number from 0 up; got 'one'"),
        ("seed: 12", "seed: true", "whole number from 0 up; got True"),
        (
            "method: ddpo_2",
            "method: ddpo2",
            "unknown name 'ddpo2' .did you mean ddpo_2",
        ),
        ("reward: pick-mini", "reward: pickmini", "did you mean pick-mini"),
        (", seed: 12", "", "write exactly"),
        (", seed: 12", ", seed: 12, epochs: 3", "write exactly"),
        ("ddpo_2-pick-mini-s12:", "tdpo_r-aesthetic-mini-s0:", "duplicate key"),
        ("experiment:", "experiments:", "key 'experiment' must hold a mapping"),
    ],
)
def test_a_wrong_grid_is_a_clear_error(
    conf: Path, old: str, new: str, message: str
) -> None:
    edit(conf, old, new)
    with pytest.raises(GridError, match=message) as caught:
        runs("quick", conf)
    assert str(conf / "parameters.yml") in str(caught.value)


def test_a_missing_file_is_named(conf: Path) -> None:
    (conf / "parameters_rewards.yml").unlink()
    with pytest.raises(GridError, match=r"parameters_rewards\.yml is missing"):
        runs("all", conf)


def test_names_that_would_break_folders_are_refused(conf: Path) -> None:
    (conf / "parameters_methods.yml").write_text("methods: {ddpo.2: 1, tdpo_r: 1}")
    edit(
        conf,
        "ddpo_2-pick-mini-s12: {method: ddpo_2",
        "ddpo.2-pick-mini-s12: {method: ddpo.2",
    )
    with pytest.raises(GridError, match="letters, digits"):
        runs("all", conf)
