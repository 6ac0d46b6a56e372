from __future__ import annotations

import pytest
from kedro.pipeline import Pipeline

from tdpo_pipeline.grid import SCALES, Run, runs
from tests.conftest import Project

SINGLE = {
    "prompts",
    "base_model",
    "proxy_rewards",
    "training",
    "evaluation",
    "reporting",
    "sample",
    "export",
    "measure",
    "fetch",
    "audit",
    "score",
}


def names(pipeline: Pipeline) -> set[str]:
    return {node.name for node in pipeline.nodes}


def namespaces(pipeline: Pipeline) -> set[str]:
    return {
        node.namespace
        for node in pipeline.nodes
        if node.name.endswith((".train", ".evaluate"))
    }


def test_names(registry: dict[str, Pipeline]) -> None:
    spans = {"train_eval", "study", "all", "__default__", *SCALES}
    assert set(registry) == SINGLE | spans


def test_default_is_train_eval(registry: dict[str, Pipeline]) -> None:
    assert names(registry["__default__"]) == names(registry["train_eval"])


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("train_eval", "quick"),
        ("study", "all"),
        ("all", "all"),
        ("training", "all"),
        ("evaluation", "all"),
        ("sd14", "sd14"),
        ("sd15", "sd15"),
        ("sdxl", "sdxl"),
    ],
)
def test_spans(registry: dict[str, Pipeline], name: str, subset: str) -> None:
    expected = {run.namespace for run in runs(subset)}  # type: ignore[arg-type]
    assert namespaces(registry[name]) == expected


def test_each_run_is_configured_trained_and_evaluated(
    registry: dict[str, Pipeline],
) -> None:
    run = Run("tdpo", "aesthetic-mini", 0)
    study = registry["study"].only_nodes_with_namespaces([run.namespace])
    assert names(study) == {
        f"{run.namespace}.{name}"
        for name in ("build_config", "train", "evaluate", "summarise")
    }
    assert f"params:experiment.runs.{run.key}" in study.inputs()
    assert "params:methods.tdpo" in study.inputs()
    assert "params:rewards.aesthetic-mini" in study.inputs()
    assert "train_prompts_aesthetic-mini" in study.inputs()


@pytest.mark.parametrize("env", SCALES)
def test_a_pipeline_of_an_environment_has_its_own_entries(
    registry: dict[str, Pipeline], env: str
) -> None:
    entries = {
        name.split(".")[1]
        for name in registry[env].inputs()
        if name.startswith("params:experiment.")
    }
    assert entries == {env}
    free = {n for n in registry[env].inputs() if not n.startswith("params:")}
    assert free <= {"parameters", "base_model", "reward_weights", "prompt_files"}


@pytest.mark.parametrize(
    ("name", "run"),
    [("sd14", "tdpo_r.aesthetic.s0"), ("study", "tdpo_r.aesthetic-mini.s0")],
)
def test_one_run_starts_from_what_is_fetched(
    registry: dict[str, Pipeline], name: str, run: str
) -> None:
    one = registry[name].to_outputs(f"{run}.metrics")
    free = {name for name in one.inputs() if not name.startswith("params:")}
    assert free <= {"parameters", "base_model", "reward_weights", "prompt_files"}
    trained = [node.name for node in one.nodes if node.name.endswith(".train")]
    assert trained == [f"{run}.train"]


def test_all_starts_from_parameters_alone(registry: dict[str, Pipeline]) -> None:
    free = {name for name in registry["all"].inputs() if not name.startswith("params:")}
    assert free <= {"parameters"}


def test_train_eval_starts_from_the_shipped_models(
    registry: dict[str, Pipeline],
) -> None:
    free = {
        name
        for name in registry["train_eval"].inputs()
        if not name.startswith("params:")
    }
    assert free <= {"parameters", "base_model", "reward_weights"}


def test_all_is_the_sum_of_what_it_says(registry: dict[str, Pipeline]) -> None:
    parts = ("study", "base_model", "proxy_rewards")
    assert names(registry["all"]) == set().union(
        *(names(registry[part]) for part in parts)
    )


def test_reports_read_what_their_runs_make(registry: dict[str, Pipeline]) -> None:
    def seen(name: str) -> set[str]:
        inputs = registry[name].inputs() | registry[name].all_outputs()
        return {data.rpartition(".")[0] for data in inputs if data.endswith(".scores")}

    assert seen("reporting") == {run.namespace for run in runs("all")}
    assert seen("train_eval") == {run.namespace for run in runs("quick")}


@pytest.mark.parametrize(
    ("name", "subset"), [("train_eval", "quick"), ("study", "all")]
)
def test_a_first_view_is_small(
    registry: dict[str, Pipeline], name: str, subset: str
) -> None:
    """A box a method and one for the report, and a dataset between them for each method.

    Kedro-Viz shows, with all namespaces collapsed, what goes into and out of each: were
    it one dataset a run, or seven a method, nobody could read the study's picture.
    """
    pipeline = registry[name]
    boxes = {node.namespace.split(".")[0] for node in pipeline.nodes if node.namespace}
    grid = runs(subset)  # type: ignore[arg-type]
    methods = {run.method for run in grid}
    assert boxes == methods | {"report"}
    shown: set[str] = set()
    for box in boxes:
        inside = pipeline.only_nodes_with_namespaces([box])
        outside = pipeline - inside
        taken = inside.all_outputs() & outside.inputs()
        shown |= inside.inputs() | inside.outputs() | taken
    shown = {data for data in shown if not data.startswith("params:")}
    uses = ("train_prompts", "evaluation_prompts")
    prompts = {f"{use}_{run.reward}" for use in uses for run in grid}
    shared = {*prompts, "base_model", "reward_weights"}
    collected = {f"collected_{method}" for method in methods}
    assert shared | collected <= shown
    results = shown - shared - collected
    assert results <= registry["reporting"].outputs()
    assert not any("." in data for data in results)
    # What grows with the study are its figures.
    assert len([data for data in results if not data.startswith("figure_")]) <= 26


def test_listing_needs_no_torch_and_is_fast(project: Project) -> None:
    """Fast beside what Kedro itself takes to start: 3 to 4 times as long."""
    script = (
        "import sys, time; start = time.process_time();"
        "from pathlib import Path;"
        "from kedro.framework.startup import bootstrap_project;"
        "bootstrap_project(Path.cwd()); kedro = time.process_time() - start;"
        "from kedro.framework.project import pipelines;"
        "count = len(dict(pipelines)); times = (time.process_time() - start) / kedro;"
        "assert count >= 11, count;"
        "heavy = {'torch', 'diffusers', 'transformers', 'open_clip'} & set(sys.modules);"
        "assert not heavy, heavy; assert times < 5, times"
    )
    (project.root / "listing.py").write_text(script)
    project.run("listing")
    listed = project.kedro("registry", "list").stdout
    assert "- train_eval" in listed
