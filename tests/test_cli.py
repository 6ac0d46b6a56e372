"""The project through its command line, as a user types it, in a copy of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, Project, Workspace

RUNS = ("ddpo_100_timestep_major/aesthetic-mini/s0", "tdpo_r/aesthetic-mini/s0")


def outputs(project: Workspace) -> Path:
    return project.root / "data" / "smoke" / "07_model_output"


def test_train_eval_leaves_every_result(smoke_project: Workspace) -> None:
    kinds = {
        "history": ".csv",
        "timings": ".csv",
        "scores": ".parquet",
        "metrics": ".json",
        "strips": ".png",
    }
    for run in RUNS:
        for kind, suffix in kinds.items():
            path = outputs(smoke_project) / kind / f"{run}{suffix}"
            assert path.stat().st_size > 0, path
    figures = smoke_project.root / "data" / "smoke" / "08_reporting"
    assert len(list(figures.rglob("*.p[dn][fg]"))) >= 5


def test_a_history_has_a_row_an_epoch(smoke_project: Workspace) -> None:
    for run in RUNS:
        history = pd.read_csv(outputs(smoke_project) / "history" / f"{run}.csv")
        assert history["epoch"].tolist() == [1, 2]
        assert history["reward_queries"].tolist() == [8, 16]
        assert (history["ratio_error"] == 0).all()
        assert history["kl_to_base"].iloc[0] == 0


def test_scores_cover_checkpoints_prompts_and_rewards(smoke_project: Workspace) -> None:
    scores = pd.read_parquet(outputs(smoke_project) / "scores" / f"{RUNS[1]}.parquet")
    counts = scores.groupby(["epoch", "eta", "prompt_set"]).size().unstack()
    # The second sampler draws from the base model and the last checkpoint alone.
    of = {1.0: (0, 1, 2), 0.0: (0, 2)}
    expected = sorted((epoch, eta) for eta in of for epoch in of[eta])
    assert counts.index.tolist() == expected
    per_prompt = {"simple_animals": 45, "unseen_animals": 8, "complex": 4}
    for name, prompts in per_prompt.items():
        assert (counts[name] == prompts).all()
    rewards = yaml.safe_load((ROOT / "conf/base/parameters_evaluation.yml").read_text())
    for reward in rewards["evaluation"]["rewards"]:
        assert scores[reward].notna().all()


def test_both_runs_start_from_the_same_pictures(smoke_project: Workspace) -> None:
    first, second = (
        pd.read_parquet(outputs(smoke_project) / "scores" / f"{run}.parquet")
        .query("epoch == 0")
        .set_index(["prompt_set", "prompt", "image", "eta"])
        for run in RUNS
    )
    pd.testing.assert_series_equal(first["gold_match"], second["gold_match"])


def test_the_run_ends_with_a_summary(smoke_project: Workspace) -> None:
    assert "gold" in smoke_project.last_output
    assert "08_reporting" in smoke_project.last_output


def test_one_node_run_again_gives_the_same(smoke_project: Workspace) -> None:
    run = "tdpo_r.aesthetic-mini.s0"
    path = outputs(smoke_project) / "metrics" / f"{run.replace('.', '/')}.json"
    before = path.read_text()
    path.unlink()
    smoke_project.kedro(
        *("run", "--env", "smoke", "--pipeline", "train_eval"),
        *("--nodes", f"{run}.summarise"),
    )
    assert json.loads(path.read_text()) == json.loads(before)


def test_a_run_in_one_environment_leaves_the_others_alone(
    smoke_project: Workspace,
) -> None:
    data = smoke_project.root / "data"
    assert [path.name for path in data.iterdir()] == ["smoke"]


def test_sample_draws_ones_own_prompt(smoke_project: Workspace) -> None:
    checkpoint = f"data/smoke/06_models/checkpoints/{RUNS[1]}/epoch_0002"
    smoke_project.kedro(
        *("run", "--env", "smoke", "--pipelines", "sample", "--params"),
        f"sample.prompts=a dog on the moon,sample.checkpoint={checkpoint}",
    )
    reporting = smoke_project.root / "data" / "smoke" / "08_reporting"
    index = json.loads((reporting / "samples.json").read_text())
    assert index["prompts"] == ["a dog on the moon"]
    assert (reporting / "samples.png").stat().st_size > 0


def test_score_values_ones_own_pictures(smoke_project: Workspace) -> None:
    folder = smoke_project.root / "pictures"
    folder.mkdir()
    Image.effect_noise((32, 32), 80).save(folder / "noise.png")
    table = {"file": ["noise.png", "noise.png"], "prompt": ["a cat", "a dog"]}
    pd.DataFrame(table).to_csv(folder / "images.csv", index=False)
    smoke_project.kedro(
        *("run", "--env", "smoke", "--pipelines", "score", "--params"),
        "score.images=pictures/images.csv,score.rewards=aesthetic-mini pick-mini",
    )
    own = smoke_project.root / "data" / "smoke" / "08_reporting" / "own"
    scores = pd.read_csv(own / "scored_images.csv")
    assert list(scores) == ["file", "prompt", "aesthetic-mini", "pick-mini"]
    # The aesthetic reward sees the picture alone, the other one the prompt too.
    assert scores["aesthetic-mini"].nunique() == 1
    assert scores["pick-mini"].nunique() == 2


@pytest.mark.parametrize("name", ["quickstart", "overoptimization"])
def test_the_notebooks_run_on_the_results(smoke_project: Workspace, name: str) -> None:
    smoke_project.run(
        *("nbconvert", "--to", "notebook", "--execute"),
        *("--output-dir", str(smoke_project.root), f"notebooks/{name}.ipynb"),
        KEDRO_ENV="smoke",
    )
    executed = json.loads((smoke_project.root / f"{name}.ipynb").read_text())
    mimes = [
        mime
        for cell in executed["cells"]
        for output in cell.get("outputs", [])
        for mime in output.get("data", {})
    ]
    assert mimes.count("image/png") == 2


def test_the_page_of_the_main_job(smoke_project: Workspace) -> None:
    folder = smoke_project.root / "data" / "smoke" / "08_reporting"
    page = (folder / "report.html").read_text(encoding="utf-8")
    for run in RUNS:
        assert f"Samples of {run.replace('/', '-')} at epoch 2" in page
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["parameters"]["training"]["epochs"] == 2
    assert "report.html" in smoke_project.last_output


def refused(project: Project, *arguments: str) -> str:
    """Output of a run that fails before its first node."""
    done = project.kedro("run", "--env", "smoke", *arguments, check=False)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Running node" not in output
    return " ".join(output.split())


def test_an_unknown_method_in_the_grid(project: Project) -> None:
    path = project.root / "conf" / "base" / "parameters.yml"
    path.write_text(path.read_text().replace("{method: tdpo,", "{method: tdpoo,", 1))
    output = refused(project, "--pipelines", "train_eval")
    assert "unknown name 'tdpoo' (did you mean tdpo" in output
    assert "conf/base/parameters.yml: experiment.runs.tdpo-aesthetic-mini-s0" in output
