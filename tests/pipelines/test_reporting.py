"""The reporting pipeline: its shape, its nodes, and a whole run on made-up tables."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.pandas import CSVDataset
from matplotlib.figure import Figure

from tdpo_pipeline.figures import Strip, pack_strips
from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.reporting import create_pipeline, nodes
from tests.synthetic_tables import synthetic_history, synthetic_scores

RUNS = [
    Run("ddpo_100_timestep_major", "aesthetic-mini", 0),
    Run("tdpo_r", "aesthetic-mini", 0),
    Run("tdpo_r", "aesthetic-mini", 1),
]
PROMPTS = {
    "simple_animals": ["cat", "dog", "fox"],
    "unseen_animals": ["snail"],
    "complex": ["A cat and a dog"],
}
SHOWN = ["cat", "snail", "A cat and a dog"]
GAINS = {"aesthetic-mini": [0, 1.0, 2.0], "gold_taste": [0, 1.0, -1.5]}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return create_pipeline(RUNS)


def history(run: Run) -> pd.DataFrame:
    """A history as the trainer writes it: without the run's own columns."""
    reset_every = 2 if run.method == "tdpo_r" else 0
    table = synthetic_history(*run, gain=2, epochs=8, reset_every=reset_every)
    return table.drop(columns=["run", "method", "reward", "seed"])


def scores(run: Run) -> pd.DataFrame:
    return synthetic_scores(
        *run,
        gains=GAINS,
        epochs=(0, 4, 8),
        prompts=PROMPTS,
        trained_on=("cat", "dog"),
        images=2,
    )


def strip(run: Run) -> np.ndarray:
    rng = np.random.default_rng(run.seed)
    return rng.integers(0, 256, (3 * 8, len(SHOWN) * 8, 3), dtype=np.uint8)


def run_data(runs: list[Run]) -> dict[str, Any]:
    """Everything that training and evaluation leave of ``runs``, by dataset name."""
    made: dict[str, Any] = {}
    for run in runs:
        made[f"{run.namespace}.history"] = history(run)
        made[f"{run.namespace}.scores"] = scores(run)
        made[f"{run.namespace}.strip"] = strip(run)
        index = {"epochs": [0, 4, 8], "prompts": SHOWN, "tile": 8}
        made[f"{run.namespace}.strip_index"] = index
    return made


def report_on(runs: list[Run], folder: Path) -> DataCatalog:
    """Run the whole pipeline; figures, tables and metrics go through files."""
    pipeline = create_pipeline(runs)
    data = {name: MemoryDataset(value) for name, value in run_data(runs).items()}
    data["params:reporting.folder"] = MemoryDataset(str(folder))
    for name in pipeline.all_outputs():
        path = str(folder / name)
        if name.startswith("figure_"):
            metadata = {"metadata": {"Software": None}}
            data[name] = MatplotlibDataset(filepath=f"{path}.png", save_args=metadata)
        elif name.startswith("table_"):
            arguments = {"index": False, "float_format": "%.6g"}
            data[name] = CSVDataset(filepath=f"{path}.csv", save_args=arguments)
        elif name == "report_metrics":
            data[name] = JSONDataset(filepath=f"{path}.json")
        else:
            data[name] = MemoryDataset()
    catalog = DataCatalog(data)
    SequentialRunner().run(pipeline, catalog)
    return catalog


def test_inputs_are_what_runs_leave_and_one_parameter(pipeline: Pipeline) -> None:
    assert pipeline.inputs() == {*run_data(RUNS), "params:reporting.folder"}


def test_outputs_have_no_namespace_and_no_dot(pipeline: Pipeline) -> None:
    outputs = pipeline.all_outputs()
    assert not [name for name in outputs if "." in name]
    for name in nodes.FIGURES:
        assert {f"figure_{name}", f"table_{name}"} <= outputs
    kinds = ("history", "scores", "strips", "strip_rows")
    collected = {
        f"{kind}_{method}" for kind in kinds for method in {r.method for r in RUNS}
    }
    assert collected <= outputs


def test_runs_are_collected_inside_a_namespace_per_method(pipeline: Pipeline) -> None:
    """So that a collapsed Kedro-Viz draws one box a method, and no loose edges."""
    of_runs = set(run_data(RUNS))
    for node in pipeline.nodes:
        taken = of_runs & set(node.inputs)
        methods = {name.split(".")[0] for name in taken}
        assert methods == ({node.namespace} if taken else set())


def test_the_report_comes_last(pipeline: Pipeline) -> None:
    assert pipeline.nodes[-1].name == "report.report"


def test_every_node_is_tagged(pipeline: Pipeline) -> None:
    assert all("reporting" in node.tags for node in pipeline.nodes)
    assert pipeline.only_nodes_with_tags("tdpo_r").nodes


@pytest.mark.parametrize(
    "function",
    [value for name, value in vars(nodes).items() if name.startswith("draw_")],
)
def test_type_hints_are_readable_at_run_time(function: Any) -> None:
    """Kedro skips the validation of a node whose hints it can't resolve."""
    assert get_type_hints(function)["return"] == tuple[Figure, pd.DataFrame]
    assert get_type_hints(nodes.report)["folder"] is str


def test_histories_get_the_columns_of_their_run() -> None:
    table = pd.DataFrame({"epoch": [1, 2], "reward_queries": [10, 20]})
    found = nodes.collect_history(
        **{"tdpo_r-aesthetic-mini-s0": table, "tdpo_r-pick-mini-s12": table}
    )
    assert list(found.columns) == [
        *("run", "method", "reward", "seed", "epoch", "reward_queries"),
    ]
    assert found["reward"].tolist() == ["aesthetic-mini"] * 2 + ["pick-mini"] * 2
    assert found["seed"].tolist() == [0, 0, 12, 12]
    assert found.index.tolist() == [0, 1, 2, 3]


def test_what_is_no_run_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="'tdpo_r' is no run key"):
        nodes.collect_history(tdpo_r=pd.DataFrame({"epoch": [1]}))


def test_strips_keep_their_runs_apart() -> None:
    parts: dict[str, Any] = {}
    for run in RUNS[1:]:
        parts[f"strip {run.key}"] = strip(run)
        parts[f"index {run.key}"] = {"epochs": [0, 4, 8], "prompts": SHOWN}
    picture, index = nodes.collect_strips(**parts)
    expected = {
        run.key: Strip.from_picture(strip(run), [0, 4, 8], SHOWN) for run in RUNS[1:]
    }
    assert (picture == pack_strips(expected)[0]).all()
    assert [row["run"] for row in index["rows"]] == [
        run.key for run in RUNS[1:] for _ in range(3)
    ]
    json.dumps(index)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataCatalog, str]:
    """Folder, catalog and printed words of a run of the whole pipeline."""
    folder = tmp_path_factory.mktemp("report")
    words: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: words.append(record.getMessage())  # type: ignore[method-assign]
    nodes.logger.addHandler(handler)
    before, nodes.logger.level = nodes.logger.level, logging.INFO
    try:
        catalog = report_on(RUNS, folder)
    finally:
        nodes.logger.removeHandler(handler)
        nodes.logger.level = before
    assert len(words) == 1
    return folder, catalog, words[0]


def test_all_figures_and_tables_are_written(
    reported: tuple[Path, DataCatalog, str],
) -> None:
    folder, _, _ = reported
    for name in nodes.FIGURES:
        picture = (folder / f"figure_{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert b"Software" not in picture
        assert len(pd.read_csv(folder / f"table_{name}.csv")) > 0


def test_words_on_the_screen(reported: tuple[Path, DataCatalog, str]) -> None:
    folder, _, words = reported
    assert f"Figures are in {folder}/figures" in words
    lines = [line for line in words.splitlines() if str(folder) not in line]
    assert max(map(len, lines)) <= 100
    assert "tdpo_r trained on aesthetic-mini" in words
    assert "one seed" in words
    assert "2 seeds" in words
    assert "Did the true reward, gold_taste, fall on prompts trained on?" in words
    assert all(f"{name}.png" in words for name in nodes.FIGURES)


def test_numbers_agree_from_table_to_metrics(
    reported: tuple[Path, DataCatalog, str],
) -> None:
    _, catalog, _ = reported
    metrics = catalog["report_metrics"].load()
    summary = catalog["table_summary"].load()
    table = pd.concat([scores(run) for run in RUNS if run.method == "tdpo_r"])
    seen = table[table["seen"]].set_index(["seed", "prompt", "image"])
    for reward in ("aesthetic-mini", "gold_taste"):
        last, base = (seen.loc[seen["epoch"] == epoch, reward] for epoch in (8, 0))
        expected = (last - base).mean()
        row = summary.query(
            f"method == 'tdpo_r' and group == 'seen' and scored == '{reward}'"
        )
        assert row["difference"].item() == pytest.approx(expected, rel=1e-5)
        found = metrics["tdpo_r"]["aesthetic-mini"]["seen"][reward]["difference"]
        assert found == pytest.approx(expected, rel=1e-5)
    assert catalog["table_golds"].load()["gold"].unique().tolist() == ["gold_taste"]


def test_summary_shows_the_figures_that_show_something(
    reported: tuple[Path, DataCatalog, str],
) -> None:
    text = reported[1]["report_text"].load()
    assert all(f"(figures/{name}.png)" in text for name in nodes.FIGURES)


def test_equal_runs_give_equal_files(
    reported: tuple[Path, DataCatalog, str], tmp_path: Path
) -> None:
    report_on(RUNS, tmp_path)
    files = sorted(path.name for path in reported[0].iterdir())
    assert files == sorted(path.name for path in tmp_path.iterdir())
    for name in files:
        assert (tmp_path / name).read_bytes() == (reported[0] / name).read_bytes(), name


def test_one_method_without_critic_is_reported(tmp_path: Path) -> None:
    catalog = report_on(RUNS[:1], tmp_path)
    assert "dormant.png" not in catalog["report_text"].load()
    assert pd.read_csv(tmp_path / "table_dormant.csv").empty
    assert (tmp_path / "figure_dormant.png").exists()
