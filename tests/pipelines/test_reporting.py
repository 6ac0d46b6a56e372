"""The reporting pipeline: its shape, its nodes, and a whole run on made-up tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from kedro_datasets.partitions import PartitionedDataset
from kedro_datasets.text import TextDataset
from matplotlib.figure import Figure

from tdpo_pipeline import overoptimization
from tdpo_pipeline.config import (
    EvaluationSettings,
    RewardSettings,
    TrainingSettings,
)
from tdpo_pipeline.figures import FigureSettings, Strip
from tdpo_pipeline.grid import Run
from tdpo_pipeline.html_report import provenance
from tdpo_pipeline.overoptimization.image_statistics import STATISTICS
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS
from tdpo_pipeline.pipelines.prompts.nodes import OwnEvaluations
from tdpo_pipeline.pipelines.reporting import create_pipeline, nodes
from tdpo_pipeline.pipelines.reporting.configured import configured_figures
from tests.conftest import parameters_of
from tests.synthetic_tables import synthetic_history, synthetic_scores

RUNS = [
    Run("ddpo_100_timestep_major", "aesthetic-mini", 0),
    Run("tdpo_r", "aesthetic-mini", 0),
    Run("tdpo_r", "aesthetic-mini", 1),
]
# What two core methods are enough for, in the order of the configuration.
FIGURES = [
    *("proxy_vs_gold", "gold_over_distance", "agreement_with_gold"),
    *("sample_efficiency", "cross_reward_seen"),
    *("cross_reward_untrained", "cross_reward_unseen", "cross_reward_complex"),
    *("sample_grid", "samples_after_training", "critic_neurons"),
]
EARLY_STOP = ("alpha", "min_epochs")
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
    table = synthetic_history(*run[:3], gain=2, epochs=8, reset_every=reset_every)
    return table.drop(columns=["run", "method", "reward", "seed"])


def timings(run: Run) -> pd.DataFrame:
    """Ten seconds an epoch; TDPO-R's critic takes five more."""
    seconds = 15.0 if run.method == "tdpo_r" else 10.0
    return pd.DataFrame({"epoch": range(1, 9), "total_s": seconds})


def scores(run: Run) -> pd.DataFrame:
    return synthetic_scores(
        *run[:3],
        gains=GAINS,
        epochs=(0, 4, 8),
        prompts=PROMPTS,
        trained_on=("cat", "dog"),
        images=2,
    )


def image_statistics(run: Run) -> pd.DataFrame:
    """Pictures that grow dark in the last checkpoint."""
    index = scores(run)[list(INDEX_COLUMNS)]
    columns = dict.fromkeys(STATISTICS, 0.1 + 0.01 * index["image"])
    columns["dark_fraction"] = columns["dark_fraction"] + 0.5 * (index["epoch"] == 8)
    return index.assign(**columns)


def diversity(run: Run) -> pd.DataFrame:
    """Images that grow alike."""
    table = scores(run)[list(INDEX_COLUMNS)]
    table = table[table["image"] == 0].reset_index(drop=True)
    share = table["epoch"] / 8
    return table.assign(
        encoder="pick-mini",
        n_images=2,
        pairwise_distance=1 - share,
        vendi_score=2 - share,
    )


def metrics(run: Run) -> dict[str, Any]:
    """What the evaluation says of a run, as ``summarise`` shapes it."""
    outcome = {"base": 0.25, "final": 1.0 + run.seed, "change": 0.75 + run.seed}
    return {"epoch": 8, "seen": {"gold_taste": outcome}}


def strip(run: Run) -> np.ndarray:
    rng = np.random.default_rng(run.seed)
    return rng.integers(0, 256, (3 * 8, len(SHOWN) * 8, 3), dtype=np.uint8)


def run_data(runs: list[Run]) -> dict[str, Any]:
    """Everything that training and evaluation leave of ``runs``, by dataset name."""
    made: dict[str, Any] = {}
    for run in runs:
        made[f"{run.namespace}.history"] = history(run)
        made[f"{run.namespace}.timings"] = timings(run)
        made[f"{run.namespace}.scores"] = scores(run)
        made[f"{run.namespace}.image_statistics"] = image_statistics(run)
        made[f"{run.namespace}.diversity"] = diversity(run)
        made[f"{run.namespace}.metrics"] = metrics(run)
        made[f"{run.namespace}.strip"] = strip(run)
        index = {"epochs": [0, 4, 8], "prompts": SHOWN, "tile": 8}
        made[f"{run.namespace}.strip_index"] = index
    return made


def parameters(folder: str) -> dict[str, MemoryDataset]:
    """The parameters of the report, typed as Kedro types them."""
    figures = configured_figures()
    entries: dict[str, Any] = {
        f"reporting.figures.{name}": settings for name, settings in figures.items()
    }
    entries |= {"reporting.folder": folder, "reporting.figures": figures}
    configured = parameters_of("base")
    for name in ("references", "held_out"):
        entries[f"reporting.{name}"] = configured["reporting"][name]
    for name in EARLY_STOP:
        entries[f"training.early_stop.{name}"] = configured["training"]["early_stop"][
            name
        ]
    entries["training.epochs"] = configured["training"]["epochs"]
    entries |= {
        "methods": configured["methods"],
        "rewards": configured["rewards"],
        "training": TrainingSettings.model_validate(configured["training"]),
        "evaluation": EvaluationSettings.model_validate(configured["evaluation"]),
        "own_evaluation": OwnEvaluations.model_validate(configured["own_evaluation"]),
    }
    return {
        f"params:{name}": MemoryDataset(value, copy_mode="assign")
        for name, value in entries.items()
    }


def drawn_figures(pipeline: Pipeline) -> list[str]:
    """Names of the figures of a pipeline, in the order of the configuration."""
    outputs = pipeline.all_outputs()
    return [name for name in configured_figures() if f"figure_{name}" in outputs]


def collection(folder: Path) -> PartitionedDataset:
    """The tables of one method, in files as in the catalog."""
    return PartitionedDataset(
        path=str(folder), dataset=ParquetDataset, filename_suffix=".parquet"
    )


def report_on(runs: list[Run], folder: Path) -> DataCatalog:
    """Run the whole pipeline; figures, tables and metrics go through files."""
    pipeline = create_pipeline(runs)
    data = {name: MemoryDataset(value) for name, value in run_data(runs).items()}
    data |= parameters(str(folder))
    for name in pipeline.all_outputs():
        path = str(folder / name)
        if name.startswith("figure_"):
            metadata = {"metadata": {"Software": None}}
            data[name] = MatplotlibDataset(filepath=f"{path}.png", save_args=metadata)
        elif name.startswith("table_"):
            arguments = {"index": False, "float_format": "%.6g"}
            data[name] = CSVDataset(filepath=f"{path}.csv", save_args=arguments)
        elif name in ("report_metrics", "lineage"):
            data[name] = JSONDataset(filepath=f"{path}.json")
        elif name.startswith("collected_"):
            data[name] = collection(folder / name)
        elif name == "report_page":
            data[name] = TextDataset(filepath=f"{path}.html")
        else:
            data[name] = MemoryDataset()
    catalog = DataCatalog(data)
    SequentialRunner().run(pipeline, catalog)
    return catalog


def test_inputs_are_what_runs_leave_and_the_reports_parameters(
    pipeline: Pipeline,
) -> None:
    figures = {f"params:reporting.figures.{name}" for name in FIGURES}
    assert pipeline.inputs() == {
        *run_data(RUNS),
        *("params:reporting.folder", "params:reporting.figures"),
        *("params:reporting.references", "params:reporting.held_out"),
        *(f"params:training.early_stop.{name}" for name in EARLY_STOP),
        "params:training.epochs",
        *("params:methods", "params:rewards", "params:training"),
        *("params:evaluation", "params:own_evaluation"),
        *figures,
    }


@pytest.mark.parametrize(
    ("runs", "more"),
    [
        ([], []),
        # Both methods of a comparison, and not on one reward: nothing to compare.
        (
            [
                Run("tdpo", "hps-mini", 0),
                Run("tdpo_misaligned_encoder", "pick-mini", 0),
            ],
            [],
        ),
        (
            [Run("tdpo", "hps-mini", 0), Run("tdpo_misaligned_encoder", "hps-mini", 0)],
            ["encoder_alignment"],
        ),
        (
            [
                Run(method, "jpeg_compressibility", 0)
                for method in ("ddpo_sf", "ddpo_is", "rwr", "rwr_sparse")
            ],
            ["ddpo_and_rwr", "ddpo_progress", "ddpo_samples", "ddpo_generalisation"],
        ),
    ],
)
def test_figures_are_drawn_of_the_runs_that_there_are(
    runs: list[Run], more: list[str]
) -> None:
    assert drawn_figures(create_pipeline(RUNS + runs)) == FIGURES + more


def test_a_grid_takes_the_strips_of_its_methods_alone() -> None:
    others = [Run(method, "aesthetic-mini", 0) for method in ("ddpo_is", "ddpo_2")]
    nodes_ = {node.name: node for node in create_pipeline(RUNS + others).nodes}

    def strips(name: str) -> list[str]:
        taken = nodes_[f"report.draw_{name}"].inputs
        return [data for data in taken if data.startswith("collected_")]

    assert strips("ddpo_progress") == ["collected_ddpo_is"]
    core = ["ddpo_100_timestep_major", "ddpo_2", "tdpo_r"]
    assert strips("sample_grid") == [f"collected_{method}" for method in core]


def test_outputs_have_no_namespace_and_no_dot(pipeline: Pipeline) -> None:
    outputs = pipeline.all_outputs()
    assert not [name for name in outputs if "." in name]
    for name in FIGURES:
        assert {f"figure_{name}", f"table_{name}"} <= outputs
    assert {f"collected_{run.method}" for run in RUNS} <= outputs


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


def test_type_hints_are_readable_at_run_time() -> None:
    """Kedro skips the validation of a node whose hints it can't resolve."""
    for function in (nodes.draw, nodes.draw_samples):
        hints = get_type_hints(function)
        assert hints["return"] == tuple[Figure, pd.DataFrame]
        assert hints["figure"] is FigureSettings
    assert get_type_hints(nodes.report)["folder"] is str


def collected(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """The tables that ``collect`` makes of runs."""
    made = run_data(runs)
    keys = {run.namespace: run.key for run in runs}
    parts = {name: name.rpartition(".") for name in made}
    return nodes.collect(
        **{
            f"{kind} {keys[namespace]}": made[name]
            for name, (namespace, _, kind) in parts.items()
        }
    )


def test_what_has_no_columns_of_its_run_gets_them() -> None:
    tables = collected([Run("tdpo_r", "aesthetic-mini", 0), Run("my-own", "a-b", 12)])
    found = tables["history"]
    assert list(found.columns[:5]) == ["run", "method", "reward", "seed", "epoch"]
    assert found["method"].tolist() == ["tdpo_r"] * 8 + ["my-own"] * 8
    assert found["reward"].tolist() == ["aesthetic-mini"] * 8 + ["a-b"] * 8
    assert found["seed"].tolist() == [0] * 8 + [12] * 8
    assert found.index.tolist() == list(range(16))
    assert tables["timings"]["run"].unique().tolist() == [
        *("tdpo_r-aesthetic-mini-s0", "my-own-a-b-s12")
    ]
    names = ["run", "epoch", "group", "scored", "base", "final", "change"]
    assert tables["metrics"][names].to_numpy().tolist() == [
        ["tdpo_r-aesthetic-mini-s0", 8, "seen", "gold_taste", 0.25, 1.0, 0.75],
        ["my-own-a-b-s12", 8, "seen", "gold_taste", 0.25, 13.0, 12.75],
    ]


def test_papers_scales_of_all_runs_are_kept(tmp_path: Path) -> None:
    scale = {"factor": 100.0, "offset": 0.0}
    one, other, none = (scores(run) for run in RUNS)
    one.attrs["paper_scale"] = {"hpsv2": scale}
    other.attrs["paper_scale"] = {"hpsv2": scale, "pickscore": scale}
    whole = nodes.concatenate(one, nodes.concatenate(other, none))
    whole.to_parquet(tmp_path / "scores.parquet")
    again = pd.read_parquet(tmp_path / "scores.parquet")
    assert nodes.read_scales(again) == {"hpsv2": scale, "pickscore": scale}
    assert nodes.read_scales(nodes.concatenate(none, none)) == {}
    assert nodes.concatenate(none, none).attrs == {}


def test_scores_of_another_run_are_an_error() -> None:
    mistaken = {f"scores {RUNS[2].key}": scores(RUNS[1])}
    with pytest.raises(ValueError, match=r"run 'tdpo_r-.*-s1' are those of '.*-s0'"):
        nodes.collect(**mistaken)


def test_tables_of_all_methods_come_under_each_other(tmp_path: Path) -> None:
    folders = [collection(tmp_path / str(number)) for number in range(2)]
    folders[0].save(collected(RUNS[:1]))
    folders[1].save(collected(RUNS[1:]))
    found = nodes.gather(*(folder.load() for folder in folders))
    names = ("history", "timings", "scores", "image_statistics", "diversity")
    assert len(found) == len(names)
    for name, table in zip(names, found, strict=True):
        assert table["run"].unique().tolist() == [run.key for run in RUNS], name
    expected = pd.concat(map(scores, RUNS), ignore_index=True)
    pd.testing.assert_frame_equal(found[2], expected)


def test_strips_survive_being_collected(tmp_path: Path) -> None:
    folder = collection(tmp_path / "collected")
    folder.save(collected(RUNS[1:]))
    found = nodes.strips_of([folder.load()])
    assert list(found) == [run.key for run in RUNS[1:]]
    for run in RUNS[1:]:
        expected = Strip.from_picture(strip(run), [0, 4, 8], SHOWN)
        assert found[run.key].prompts == tuple(SHOWN)
        assert list(found[run.key].images) == [0, 4, 8]
        for epoch, tiles in expected.images.items():
            np.testing.assert_array_equal(found[run.key].images[epoch], tiles)


@pytest.fixture(scope="module", autouse=True)
def one_commit() -> Iterator[None]:
    """A commit that stays the same, however long the tests take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "git_commit", lambda root, pipeline: "0123abcd")
        yield


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
    for name in FIGURES:
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
    assert all(f"{name}.png" in words for name in FIGURES)


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
    assert all(f"(figures/{name}.png)" in text for name in FIGURES)


def test_the_page_has_the_samples_and_what_it_stands_on(
    reported: tuple[Path, DataCatalog, str],
) -> None:
    catalog = reported[1]
    page = catalog["report_page"].load()
    for run in RUNS[:2]:  # the first seed of each method
        assert f"Samples of {run.key} at epoch 8" in page
    assert f"Samples of {RUNS[2].key}" not in page
    lineage = catalog["lineage"].load()
    assert [run["run"] for run in lineage["runs"]] == [run.key for run in RUNS]
    configured = parameters_of("base")
    found = lineage["parameters"]
    assert found["method tdpo_r"] == configured["methods"]["tdpo_r"]
    assert found["training"]["epochs"] == configured["training"]["epochs"]
    assert all(run["scores"] in page for run in lineage["runs"])


def test_equal_runs_give_equal_files(
    reported: tuple[Path, DataCatalog, str], tmp_path: Path
) -> None:
    report_on(RUNS, tmp_path)

    def files(folder: Path) -> dict[str, bytes]:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    once, again = files(reported[0]), files(tmp_path)
    assert list(once) == list(again)
    assert [name for name in once if once[name] != again[name]] == []


def test_methods_are_compared_on_all_terms(
    reported: tuple[Path, DataCatalog, str],
) -> None:
    catalog = reported[1]
    table = catalog["table_matched"].load()
    assert set(table["reference"]) == {"ddpo_100_timestep_major"}
    seconds = table[table["along"] == "seconds"]
    assert seconds["level"].max() == 80  # eight epochs of the faster one
    assert set(table["along"]) == set(overoptimization.AXES)
    assert set(catalog["table_joint_prompts"].load()["prompt"]) == {"cat", "dog"}
    text = catalog["report_text"].load()
    for name in (
        *("agreement", "matched", "costs", "compared", "hypervolumes"),
        *("goodhart", "joint", "regrets", "alarms"),
    ):
        assert f"`tables/{name}.csv`" in text
        assert len(catalog[f"table_{name}"].load()) > 0


def test_curves_in_git_are_of_the_trained_sampler_and_the_summary_of_both(
    pipeline: Pipeline,
) -> None:
    """So that a grid of 48 methods and rewards stays below what git keeps."""
    both = [scores(RUNS[0]).assign(eta=eta) for eta in (0.0, 1.0)]
    given = {"all_scores": pd.concat(both), "params:rewards": {}}
    wanted = ("table_curves", "table_summary")
    data = {name: MemoryDataset(value) for name, value in given.items()}
    catalog = DataCatalog(data | {name: MemoryDataset() for name in wanted})
    SequentialRunner().run(
        pipeline.from_inputs("all_scores").to_outputs(*wanted), catalog
    )
    kept, last = (catalog[name].load() for name in wanted)
    assert set(kept["eta"]) == {1.0}
    assert set(last["eta"]) == {0.0, 1.0}
    # Three checkpoints of as many groups and rewards.
    assert len(kept) == 3 * (last["eta"] == 1).sum()


def test_one_method_without_critic_gold_or_seconds_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "timings", lambda run: pd.DataFrame())
    whole = scores
    monkeypatch.setitem(
        globals(), "scores", lambda run: whole(run).drop(columns="gold_taste")
    )
    catalog = report_on(RUNS[:1], tmp_path)
    text = catalog["report_text"].load()
    assert "  - no common level, or no method to compare: " in text
    assert "no gold was scored in training" in text
    assert catalog["table_alarms"].load()["n_runs"].tolist() == [0]
    assert len(catalog["table_alarm_runs"].load()) == 1
    assert "critic_neurons.png" not in catalog["report_text"].load()
    assert not (tmp_path / "figure_critic_neurons.png").exists()


def test_what_needs_no_reward_is_reported() -> None:
    whole = nodes.concatenate(*(image_statistics(run) for run in RUNS))
    wires = nodes.watch_statistics(whole)
    assert set(wires.loc[wires["place"] == "above", "statistic"]) == {"dark_fraction"}
    assert set(wires.loc[wires["place"] == "above", "epoch"]) == {8}
    table = nodes.measure_diversity(
        nodes.concatenate(*(scores(run) for run in RUNS)),
        nodes.concatenate(*(diversity(run) for run in RUNS)),
    )
    assert set(table["scored"]) == {"pairwise_distance", "vendi_score"}
    last = table[(table["epoch"] == 8) & (table["group"] == "seen")]
    np.testing.assert_allclose(last["difference"], -1)


def test_diversity_is_compared_at_equal_training_reward() -> None:
    whole = nodes.concatenate(*(scores(run) for run in RUNS))
    seen = nodes.concatenate(*(diversity(run) for run in RUNS))
    # DDPO loses half as much as TDPO-R.
    lost = np.where(seen["method"] == "tdpo_r", 1, 0.5) * seen["epoch"] / 8
    seen = seen.assign(vendi_score=2 - lost)
    table = nodes.match_diversity(whole, seen, ["ddpo_100_timestep_major"])
    assert set(table["along"]) == {"training_reward", "reward_queries", "kl"}
    assert set(table["scored"].dropna()) == {"pairwise_distance", "vendi_score"}
    end = table[
        (table["along"] == "reward_queries") & (table["scored"] == "vendi_score")
    ]
    assert end["mean"].iloc[-1] == pytest.approx(-0.5)


@pytest.mark.parametrize("typed", [False, True])
def test_parts_of_a_trained_ensemble_are_not_held_out(typed: bool) -> None:
    tasks = parameters_of("base")["rewards"]
    if typed:  # as Kedro gives them beside nodes that type them
        tasks = {n: RewardSettings.model_validate(task) for n, task in tasks.items()}
    parts = {"hps-mini", "aesthetic-mini", "pick-mini"}
    table = scores(Run("tdpo", "ensemble-mini", 0)).assign(**{"ensemble-mini": 0.0})
    curves = nodes.measure_methods(table, tasks)
    assert set(curves.loc[curves["role"] == "part", "scored"]) == parts
    held_out = [*parts, "imagereward-mini", "gold_match"]
    rates, _ = nodes.join_rewards(table, held_out, tasks)
    assert set(rates["rewards"]) == {"imagereward-mini, gold_match"}
    assert not parts & set(nodes.fit_peaks(table, tasks)["scored"])
    onsets = nodes.find_onsets(table, tasks)
    assert set(onsets.loc[onsets["role"] == "part", "scored"]) == parts


def test_an_ensemble_of_proxies_of_one_gold_has_that_gold() -> None:
    tasks = parameters_of("base")["rewards"]
    # A run on each: one of one proxy, and one of proxies of two golds.
    for reward, gold in (("activities-mini", "gold_match"), ("ensemble-mini", None)):
        table = scores(Run("tdpo", reward, 0)).assign(**{reward: 0.0})
        golds = nodes.judge_golds(table, tasks)
        assert golds["gold"].dropna().unique().tolist() == ([gold] if gold else [])
        curves = nodes.measure_methods(table, tasks)
        assert set(curves.loc[curves["role"] == "gold", "scored"]) == set(
            [gold] if gold else []
        )


def test_a_part_of_ones_own_is_known_by_its_own_name() -> None:
    tasks = {"both": {"scorer": "both", "ensemble": {"tests.tiny:Redness": {}}}}
    table = scores(Run("tdpo", "both", 0)).assign(both=0.0, redness=0.0)
    curves = nodes.measure_methods(table, tasks)
    assert set(curves.loc[curves["role"] == "part", "scored"]) == {"redness"}


def test_a_single_image_has_no_distance_to_report() -> None:
    alone = diversity(RUNS[0]).assign(pairwise_distance=np.nan, n_images=1)
    table = nodes.measure_diversity(scores(RUNS[0]), alone)
    assert set(table["scored"]) == {"vendi_score"}
