from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.trainer import launch
from tdpo_pipeline.trainer.launch import ProcessError, launch_run
from tdpo_pipeline.trainer.state import locked
from tests import tiny
from tests.conftest import ROOT


def config(algorithm: dict[str, Any] = tiny.DDPO, **changes: Any) -> Any:
    values = {"micro_batch_size": 2, "threads": 1, "processes": 2} | changes
    return tiny.run_config(algorithm, **values)


# ------------------------------------------------------------------ configuration
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"processes": 4},
            "4 processes share the 8 samples of an epoch in parts of chunk_size 4, .* "
            "Set chunk_size to 2 or less",
        ),
        (
            {"micro_batch_size": 4},
            "2 processes share the 4 pairs of an update .* Set micro_batch_size to 2",
        ),
        ({"processes": 3, "machines": 2}, "machines 2 must divide processes 3"),
        ({"machines": 2}, "several machines need main_address"),
        ({"main_address": "somewhere"}, "main_address"),
        ({"processes": 0}, "greater than 0"),
    ],
)
def test_processes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_the_number_of_processes_is_not_in_a_runs_identity(tmp_path: Path) -> None:
    from tdpo_pipeline.trainer.state import run_identity

    places = tmp_path / "base", tmp_path / "weights"
    one, two = (
        run_identity(config(processes=count), tiny.PROMPTS, *places) for count in (1, 2)
    )
    assert one == two


def test_fewer_gpus_than_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProcessError, match="takes 2 GPUs of each; this one has 1"):
        launch_run(
            config(device="cuda"),
            prompts=tiny.PROMPTS,
            base_model=tmp_path,
            weights=tmp_path,
            state_dir=tmp_path / "state",
        )
    assert not list(tmp_path.iterdir())
    launch.check_devices(
        config(device="cuda", machines=2, main_address="first:29500").training
    )


def test_the_memory_of_runs_before_is_given_back_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def started(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        done.append("started")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(launch.subprocess, "run", started)
    with pytest.raises(ProcessError, match="died with code 1"):
        launch_run(
            config(),
            prompts=tiny.PROMPTS,
            base_model=tmp_path,
            weights=tmp_path,
            state_dir=tmp_path / "state",
        )
    assert done == ["emptied", "started"]


def test_a_job_that_runs_is_left_alone(tmp_path: Path) -> None:
    job = tmp_path / "state.job.json"
    job.write_text("of the one that runs")
    with (
        locked(job),
        pytest.raises(CheckpointError, match="Another process is training"),
    ):
        launch_run(
            config(),
            prompts=tiny.PROMPTS,
            base_model=tmp_path,
            weights=tmp_path,
            state_dir=tmp_path / "state",
        )
    assert job.read_text() == "of the one that runs"


def test_a_finished_run_starts_no_process(
    train: Any, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(config(processes=1))
    monkeypatch.setattr(launch, "check_devices", None)
    again = launch_run(
        config(),
        prompts=tiny.PROMPTS,
        base_model=base_model,
        weights=tmp_path / "no_weights",
        state_dir=tmp_path / "state",
    )
    pd.testing.assert_frame_equal(again.history, first.history)


# ------------------------------------------------------------------ the command
def test_the_command_of_one_machine() -> None:
    words = launch.command(Path("job.json"), config().training, 0)
    assert words[:4] == [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
    ]
    options = dict(zip(words[4:-3:2], words[5:-3:2], strict=True))
    assert options == {
        "--num_processes": "2",
        "--num_machines": "1",
        "--machine_rank": "0",
        "--gpu_ids": "all",
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
        "--main_process_port": "0",
    }
    assert words[-3:] == ["-m", "tdpo_pipeline.trainer.launch", "job.json"]


def test_the_command_of_another_machine() -> None:
    training = config(machines=2, main_address="first:29500").training
    words = launch.command(Path("job.json"), training, 1)
    options = dict(zip(words[4:-3:2], words[5:-3:2], strict=True))
    assert options["--num_machines"] == "2"
    assert options["--machine_rank"] == "1"
    assert options["--main_process_ip"] == "first"
    assert options["--main_process_port"] == "29500"


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.os, "cpu_count", lambda: 8)
    training = config().training
    found = launch.environment(training, {"PATH": "x"})
    assert found == {"PATH": "x", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "4"}
    assert (
        launch.environment(training, {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"
    )


# ------------------------------------------------------------------ failures
def test_the_first_failure_is_told(tmp_path: Path) -> None:
    lost = "RuntimeError: [pair.cc:547] Connection closed by peer [127.0.0.1]:1"
    # A process may write down that another is gone before that one says why.
    for process, time, error in (
        (0, 0.5, lost),
        (1, 1.0, "ValueError: x"),
        (2, 2.0, "ValueError: y"),
    ):
        facts = {"time": time, "process": process, "error": error, "traceback": ""}
        (tmp_path / f"{process}.json").write_text(json.dumps(facts))
    message = launch._first_error(config(), tmp_path, 1)
    assert message == "ddpo-redness-s0: process 1 of 2 failed: ValueError: x"


def test_a_process_without_a_word(tmp_path: Path) -> None:
    message = launch._first_error(config(), tmp_path, -9)
    assert "died with code -9 and without a word" in message


@pytest.mark.slow
def test_a_crash_of_one_process_fails_the_run_and_the_next_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where the processes find the tests' classes
    tiny.pipeline().save_pretrained(tmp_path / "base_model")
    run = config(tiny.TDPO | {"algorithm": "tests.trainer.crashing:Crashing"}, epochs=3)

    def train(state: str) -> Any:
        return launch_run(
            run,
            prompts=tiny.PROMPTS,
            base_model=tmp_path / "base_model",
            weights=tmp_path / "no_weights",
            state_dir=tmp_path / state,
        )

    def weights(result: Any) -> list[bytes]:
        files = sorted(result.checkpoints.rglob("*.safetensors"))
        return [path.read_bytes() for path in files]

    whole = train("whole")
    assert whole.history["epoch"].tolist() == [1, 2, 3]
    assert len(weights(whole)) == 2  # of the epochs 2 and 3
    monkeypatch.setenv("CRASH", "yes")
    message = "process 1 of 2 failed: MemoryError: out of memory on purpose"
    with pytest.raises(ProcessError, match=message):
        train("crashed")
    states = sorted(path.name for path in (tmp_path / "crashed/states").iterdir())
    assert states == ["epoch_0001.pt"]
    monkeypatch.delenv("CRASH")
    resumed = train("crashed")
    assert weights(resumed) == weights(whole)
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    # Jobs and errors are gone with the need for them; locks stay, and are hidden.
    left = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("."))
    assert left == ["base_model", "crashed", "whole"]
