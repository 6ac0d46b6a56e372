"""A report names its code, its data and its parameters."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import yaml

from tdpo_pipeline.html_report.provenance import (
    content_hash,
    git_commit,
    lineage,
    parameters_hash,
)
from tests.html_report.made_up import made_up_scores


def test_runs_and_their_hashes(tmp_path: Path) -> None:
    scores = made_up_scores(seeds=1)
    file = "data/study/07_model_output/scores/tdpo_r/aesthetic-mini/s0.parquet"
    elsewhere = "data/07_model_output/scores/ddpo_2/aesthetic-mini/s0.parquet"
    others = {
        "data/study/07_model_output/history/tdpo_r/aesthetic-mini/s0.csv": "1",
        "data/study/06_models/checkpoints/tdpo_r/aesthetic-mini/s0": "2.dir",
        "data/study/07_model_output/history/tdpo_r/aesthetic-mini/s01.csv": "another's",
    }
    outs = [{"path": path, "md5": md5} for path, md5 in others.items()]
    outs += [{"path": file, "md5": "abc"}, {"path": elsewhere, "md5": "def"}]
    lock = {"schema": "2.0", "stages": {"evaluate@x": {"outs": outs}, "plain": {}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    found = lineage(
        scores,
        {},
        root=tmp_path,
        folder="data/study/08_reporting",
        pipeline="reporting",
    )
    by_run = {run["run"]: run for run in found["runs"]}
    # 3 checkpoints of 5 prompts, 2 images each.
    assert by_run["tdpo_r-aesthetic-mini-s0"]["images"] == 30
    assert by_run["tdpo_r-aesthetic-mini-s0"]["epochs"] == 3
    assert by_run["tdpo_r-aesthetic-mini-s0"]["dvc"] == {
        "scores.parquet": "abc",
        "history.csv": "1",
        "checkpoints": "2.dir",
    }
    # The file of another environment is not this run's.
    assert by_run["ddpo_2-aesthetic-mini-s0"]["dvc"] == {}


def test_a_content_hash_is_of_values_and_names() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert content_hash(table) == content_hash(table.set_axis([5, 6]))
    others = (
        table.assign(a=[1.0, 2.5]),
        table.rename(columns={"b": "c"}),
        table.iloc[::-1],
        table.iloc[:1],
    )
    assert content_hash(table) not in {content_hash(other) for other in others}


def test_parameters_have_the_hash_of_their_canonical_json(tmp_path: Path) -> None:
    blocks = {
        "method a": {"clip": 1e-4, "name": "é", "n": [1, None]},
        "training": {"epochs": 40},
    }
    found = lineage(
        made_up_scores(seeds=1), blocks, root=tmp_path, folder="x", pipeline="reporting"
    )["parameter_hashes"]
    # sha256sum of {"epochs":40}, without a newline.
    assert found["training"] == (
        "b38691fa2590111f6d9e852c0cdd6d3bd30f37ec297cc1a5c444ea3f1de65a8b"
    )
    # Neither the order of the keys nor a way through a JSON file matters; values do.
    turned = json.loads(json.dumps(dict(reversed(blocks["method a"].items()))))
    assert parameters_hash(turned) == found["method a"]
    assert parameters_hash(turned | {"clip": 2e-4}) != found["method a"]


def git(root: Path, *arguments: str) -> None:
    names = ("AUTHOR", "COMMITTER")
    who = {f"GIT_{n}_{k}": "x@x" for n in names for k in ("NAME", "EMAIL")}
    subprocess.run(
        ["git", "-C", str(root), *arguments],
        check=True,
        capture_output=True,
        env=os.environ | who,
    )


def test_the_commit_is_that_of_the_code_of_reports(tmp_path: Path) -> None:
    assert git_commit(tmp_path, "reporting") is None
    figures = tmp_path / "src" / "tdpo_pipeline" / "figures"
    figures.mkdir(parents=True)
    (figures / "a.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-m", "one")
    commit = git_commit(tmp_path, "reporting")
    assert commit is not None
    assert len(commit) == 40
    # What cannot change a report leaves it as it is, committed or not.
    (figures.parent / "trainer.py").write_text("a")
    assert git_commit(tmp_path, "reporting") == commit
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-m", "two")
    assert git_commit(tmp_path, "reporting") == commit
    (figures / "a.py").write_text("2")
    assert git_commit(tmp_path, "reporting") == f"{commit}+"
