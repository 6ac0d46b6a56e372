"""The ways in with DVC, each in a copy of the project with two tiny runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import Workspace
from tests.dvc_project import (
    DATA,
    RUNS,
    DvcProject,
    clone,
    commit,
    copy,
    edit,
    stages_run,
)

pytestmark = pytest.mark.slow

UP_TO_DATE = "Data and pipelines are up to date."
TIMINGS = DATA / "07_model_output" / "timings"
METHODS_FILE = Path("conf", "base", "parameters_methods.yml")
HISTORY = DATA / "07_model_output" / "history" / "ddpo_2" / "aesthetic-mini" / "s0.csv"
DDPO, TDPO_R = RUNS


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project in which ``dvc repro`` has made the study, committed. Don't change it."""
    project = DvcProject(tmp_path_factory.mktemp("dvc") / "project")
    project.last_output = project.dvc("repro").stdout
    project.commit("study")
    return project


def last_line(workspace: Workspace, *arguments: str) -> str:
    """The last line that a ``dvc`` command prints."""
    return workspace.dvc(*arguments).stdout.strip().splitlines()[-1]


def changed(workspace: Workspace) -> set[str]:
    """The files that differ from the last commit."""
    lines = workspace.git("status", "--porcelain").splitlines()
    return {line[3:] for line in lines}


def matched_without_seconds(workspace: Workspace) -> list[str]:
    """The lines on methods at equal reward, queries or KL: what no clock measures."""
    path = workspace.root / DATA / "08_reporting" / "tables" / "matched.csv"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if ",seconds," not in line]
    assert 1 < len(kept) < len(lines)
    return kept


def set_learning_rate(workspace: Workspace, value: str) -> None:
    """Another learning rate for ``ddpo_2``."""
    pattern = r"(\n  ddpo_2:.*?learning_rate: )[\d.e-]+"
    edit(workspace.root / METHODS_FILE, pattern, rf"\g<1>{value}")


def test_repro_makes_the_study_with_the_shipped_models(studied: Workspace) -> None:
    ran = stages_run(studied.last_output)
    assert sorted(ran[:-1]) == sorted(
        [
            "prompts",
            *(f"{kind}@{run}" for run in RUNS for kind in ("train", "evaluate")),
        ]
    )
    assert ran[-1] == "report"
    kept = studied.git("ls-files", str(DATA)).splitlines()
    folders = {Path(*Path(path).parts[2:4]).as_posix() for path in kept}
    assert folders == {
        "05_model_input/evaluation_prompts",
        "05_model_input/train_prompts",
        "07_model_output/diversity",
        "07_model_output/history",
        "07_model_output/image_statistics",
        "07_model_output/metrics",
        "07_model_output/scores",
        "07_model_output/strips",
        "07_model_output/timings",
        "08_reporting/figures",
        "08_reporting/lineage.json",
        "08_reporting/metrics.json",
        "08_reporting/summary.md",
        "08_reporting/tables",
    }
    assert studied.git("status", "--porcelain") == ""


def test_a_second_repro_does_nothing(studied: Workspace) -> None:
    done = studied.dvc("repro").stdout
    assert stages_run(done) == []
    assert done.strip().endswith(UP_TO_DATE)
    assert studied.git("status", "--porcelain") == ""


def test_a_changed_method_reruns_its_own_stages(
    studied: Workspace, tmp_path: Path
) -> None:
    work = copy(studied, tmp_path / "work")
    set_learning_rate(work, "7.7e-4")
    assert stages_run(work.dvc("repro").stdout) == [
        f"train@{DDPO}",
        f"evaluate@{DDPO}",
        "report",
    ]
    # The old value again: what it gave is in the cache, and isn't trained again.
    work.git("checkout", str(METHODS_FILE))
    ran = stages_run(work.dvc("repro").stdout)
    assert ran == [f"evaluate@{DDPO}", "report"]
    # But for the other training's seconds, which DVC doesn't know: they stay, and the
    # report measures by them. With those of then all is as it was.
    report = DATA / "08_reporting"
    assert changed(work) == {
        str(TIMINGS / "ddpo_2" / "aesthetic-mini" / "s0.csv"),
        str(report / "tables" / "matched.csv"),
        "dvc.lock",
    }
    assert matched_without_seconds(work) == matched_without_seconds(studied)
    work.git("checkout", str(TIMINGS))
    work.dvc("repro", "--force", "--single-item", "report")
    assert changed(work) == set()


def test_a_fresh_clone_has_nothing_to_do_and_redraws(
    studied: Workspace, tmp_path: Path
) -> None:
    fresh = clone(studied, tmp_path / "fresh")
    done = fresh.dvc("repro", "--allow-missing").stdout
    assert stages_run(done) == []
    assert done.strip().endswith(UP_TO_DATE)
    dry = last_line(fresh, "repro", "--dry", "--allow-missing")
    assert dry == UP_TO_DATE

    redrawn = fresh.dvc("repro", "--force", "--single-item", "report").stdout
    assert stages_run(redrawn) == ["report"]
    assert fresh.git("status", "--porcelain") == ""

    # The cache lacks the checkpoints: that is said, and nothing is lost.
    done = fresh.dvc(
        "repro", "--force", "--single-item", f"evaluate@{DDPO}", check=False
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "checkpoints' is missing" in said
    assert (
        "make it first with: kedro run --env study --pipelines training --namespaces "
        "ddpo_2.aesthetic-mini.s0\n"
    ) in said
    fresh.git("checkout", str(DATA))
    assert last_line(fresh, "repro", "--dry", "--allow-missing") == UP_TO_DATE
    done = fresh.dvc("checkout", check=False)
    assert done.returncode != 0
    assert f"{DATA}/06_models/checkpoints/ddpo_2/aesthetic-mini/s0" in done.stderr


def test_kedro_run_then_commit_leaves_nothing_to_do(
    studied: Workspace, tmp_path: Path
) -> None:
    work = copy(studied, tmp_path / "work")
    set_learning_rate(work, "7.7e-4")
    work.kedro("run", "--env", "study", "--pipelines", "study")
    assert last_line(work, "repro", "--dry") != UP_TO_DATE
    work.dvc("commit", "--force")
    done = work.dvc("repro").stdout
    assert stages_run(done) == []
    assert done.strip().endswith(UP_TO_DATE)

    # The report was drawn before the lock knew the new scores: once more, and it leads
    # to them, and stays as it is.
    work.dvc("repro", "--force", "--single-item", "report")
    assert scores_hashes(work, "lineage.json") == scores_hashes(work, "dvc.lock")
    commit(work, "another learning rate")
    work.dvc("repro", "--force", "--single-item", "report")
    assert changed(work) == set()


def scores_hashes(workspace: Workspace, source: str) -> dict[str, str]:
    """The hash of each run's scores, as the report or as ``dvc.lock`` has it."""
    if source == "lineage.json":
        path = workspace.root / DATA / "08_reporting" / source
        runs = json.loads(path.read_text())["runs"]
        return {run["run"]: run["dvc"]["scores.parquet"] for run in runs}
    stages = yaml.safe_load((workspace.root / source).read_text())["stages"]
    return {
        run: out["md5"]
        for run in RUNS
        for out in stages[f"evaluate@{run}"]["outs"]
        if "/scores/" in out["path"]
    }


def test_a_killed_stage_resumes_its_training(
    studied: Workspace, tmp_path: Path
) -> None:
    work = copy(studied, tmp_path / "work")
    edit(work.root / "conf" / "study" / "parameters.yml", r"epochs: \d+", "epochs: 12")
    stage = ("repro", "--single-item", f"train@{DDPO}")
    states = work.root / DATA / "06_models" / "state" / DDPO / "states"
    output = work.root.with_name("killed.txt")
    with output.open("w") as log:
        killed = subprocess.Popen(
            ["dvc", *stage],
            cwd=work.root,
            env=work.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        history = states.parent / "history.csv"
        # The run of 2 epochs that was here before makes room for the new one.
        while killed.poll() is None and not (
            (states / "epoch_0003.pt").exists() and history.exists()
        ):
            time.sleep(0.02)
        assert killed.poll() is None, output.read_text()[-4000:]
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (states.parent / "finished").exists()

    # With another configuration it is an error, and what is there stays.
    unfinished = sorted(states.iterdir())
    assert unfinished
    set_learning_rate(work, "7.7e-4")
    done = work.dvc(*stage, check=False)
    assert done.returncode != 0
    assert "unfinished run of another configuration" in done.stdout + done.stderr
    assert sorted(states.iterdir()) == unfinished
    work.git("checkout", str(METHODS_FILE))
    # DVC has deleted what the stage was to make anew; git has what was committed.
    assert not (work.root / HISTORY).exists()
    work.git("checkout", str(DATA))
    assert (work.root / HISTORY).read_bytes() == (studied.root / HISTORY).read_bytes()

    resumed = work.dvc(*stage).stdout
    assert "resumed after epoch" in resumed
    interrupted = (work.root / HISTORY).read_bytes()
    lock = (work.root / "dvc.lock").read_text()

    # Without the interruption it ends with the same bits.
    subprocess.run(["rm", "-r", states.parent], check=True)
    again = work.dvc("repro", "--force", "--single-item", f"train@{DDPO}").stdout
    assert "resumed" not in again
    assert (work.root / HISTORY).read_bytes() == interrupted
    assert (work.root / "dvc.lock").read_text() == lock


def test_an_experiment_with_another_learning_rate(
    studied: Workspace, tmp_path: Path
) -> None:
    work = copy(studied, tmp_path / "work")
    value = f"{METHODS_FILE}:methods.ddpo_2.optimizer.learning_rate=0.05"
    done = work.dvc("exp", "run", "--set-param", value).stdout
    assert stages_run(done) == [f"train@{DDPO}", f"evaluate@{DDPO}", "report"]
    changed = json.loads(work.dvc("params", "diff", "--json").stdout)
    methods = changed[str(METHODS_FILE)]
    assert {k: v["new"] for k, v in methods.items() if v["old"] != v["new"]} == {
        "methods.ddpo_2.optimizer.learning_rate": 0.05
    }
    metrics = json.loads(work.dvc("metrics", "diff", "--json").stdout)
    own = f"{DATA}/07_model_output/metrics/ddpo_2/aesthetic-mini/s0.json"
    assert own in metrics
    assert not any("tdpo_r/" in path for path in metrics)
    work.dvc("plots", "diff", "HEAD", "--out", "plots")
    page = (work.root / "plots" / "index.html").read_text()
    assert "history/ddpo_2/aesthetic-mini/s0.csv" in page
    assert list((work.root / "plots").rglob("*proxy_vs_gold.png"))

    # It ran here. Git and DVC give back what was, and the experiment is kept.
    assert work.git("diff", "--name-only", "--", "dvc.lock", str(METHODS_FILE))
    work.git("checkout", ".")
    work.dvc("checkout")
    assert last_line(work, "repro") == UP_TO_DATE
    assert work.git("diff", "--name-only") == ""
    (kept,) = work.dvc("exp", "list", "--name-only").stdout.split()
    work.dvc("exp", "apply", kept)
    assert "learning_rate: 0.05" in (work.root / METHODS_FILE).read_text()


def test_a_folder_as_remote(studied: Workspace, tmp_path: Path) -> None:
    origin = copy(studied, tmp_path / "origin")
    origin.dvc("remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    commit(origin, "remote")
    assert "pushed" in origin.dvc("push").stdout

    other = clone(origin, tmp_path / "other")
    other.dvc("pull")
    checkpoints = other.root / DATA / "06_models" / "checkpoints"
    assert (checkpoints / "ddpo_2" / "aesthetic-mini" / "s0" / "epoch_0002").is_dir()
    assert last_line(other, "repro") == UP_TO_DATE
    # With the checkpoints a run can be evaluated again, to the same bytes.
    other.dvc("repro", "--force", "--single-item", f"evaluate@{TDPO_R}")
    assert other.git("status", "--porcelain") == ""
