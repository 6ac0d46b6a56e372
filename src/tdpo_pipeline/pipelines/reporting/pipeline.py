"""The pipeline that reports on a set of runs."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.figures import FORMS, FigureSettings, Pair
from tdpo_pipeline.grid import Run
from tdpo_pipeline.html_report import Tables
from tdpo_pipeline.html_report.prompts import prompt_changes
from tdpo_pipeline.overoptimization import summarise_methods, summarise_runs
from tdpo_pipeline.overoptimization.report import FINDINGS
from tdpo_pipeline.pipelines.reporting import nodes
from tdpo_pipeline.pipelines.reporting.configured import configured_figures


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """Figures, tables and summary of ``runs``.

    Args:
        runs: Runs of the grid. Their outputs are collected inside a namespace per
            method, so that a collapsed Kedro-Viz shows one box a method. Of the
            configured figures those are drawn that the runs are enough for.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    collected = sum(
        (_collect(m, [run for run in runs if run.method == m]) for m in methods),
        Pipeline([]),
    )
    pairs = [(run.method, run.reward) for run in runs]
    figures = {
        name: figure
        for name, figure in configured_figures().items()
        if figure.pairs(pairs)
    }
    across = [
        *_tables(methods),
        *(_figure(name, figure, pairs) for name, figure in figures.items()),
        *_page(methods),
        _report(list(figures)),
    ]
    report = Pipeline(
        across,
        namespace="report",  # one box in a collapsed Kedro-Viz
        prefix_datasets_with_namespace=False,
        tags="reporting",
    )
    return collected + report


def _collect(method: str, runs: Sequence[Run]) -> Pipeline:
    """Everything that the runs of one method made, in one dataset."""
    # Inside the namespace the runs' datasets go by names without dots.
    inner = {
        f"{kind} {run.key}": f"{kind}__{run.key}"
        for kind in (*nodes.PER_EPOCH, *nodes.PER_IMAGE, *nodes.PER_RUN)
        for run in runs
    }
    outer = {run.key: run.namespace for run in runs}
    return Pipeline(
        [Node(nodes.collect, inner, "collected", name="collect")],
        namespace=method,
        inputs={
            name: f"{outer[key]}.{kind}"
            for (kind, key), name in ((part.split(" "), inner[part]) for part in inner)
        },
        outputs={"collected": f"collected_{method}"},
        tags=["reporting", method],
    )


def _tables(methods: Sequence[str]) -> list[Node]:
    """Nodes that bring all methods together, and measure them."""
    return [
        Node(
            nodes.gather,
            [f"collected_{method}" for method in methods],
            [f"all_{kind}" for kind in (*nodes.PER_EPOCH, *nodes.PER_IMAGE)],
            name="gather",
        ),
        Node(nodes.read_scales, "all_scores", "paper_scales", name="read_scales"),
        Node(
            nodes.measure_methods,
            ["all_scores", "params:rewards"],
            "method_curves",
            name="measure_methods",
        ),
        Node(
            nodes.of_main_eta,
            "method_curves",
            "table_curves",
            name="pick_sampler",
        ),
        Node(
            nodes.measure_runs,
            ["all_scores", "params:rewards"],
            "run_curves",
            name="measure_runs",
        ),
        Node(
            nodes.measure_agreement,
            ["all_scores", "params:rewards"],
            "table_agreement",
            name="measure_agreement",
        ),
        Node(
            nodes.judge_golds,
            ["all_scores", "params:rewards"],
            "table_golds",
            name="judge_golds",
        ),
        Node(
            nodes.measure_diversity,
            ["all_scores", "all_diversity"],
            "table_diversity",
            name="measure_diversity",
        ),
        Node(
            nodes.match_diversity,
            ["all_scores", "all_diversity", "params:reporting.references"],
            "table_matched_diversity",
            name="match_diversity",
        ),
        Node(
            nodes.watch_statistics,
            "all_image_statistics",
            "table_tripwires",
            name="watch_statistics",
        ),
        Node(
            summarise_methods,
            "method_curves",
            "table_summary",
            name="summarise_methods",
        ),
        Node(
            summarise_runs,
            ["all_history", "run_curves"],
            "table_runs",
            name="summarise_runs",
        ),
        Node(
            nodes.find_onsets,
            ["all_scores", "params:rewards"],
            "table_onsets",
            name="find_onsets",
        ),
        Node(
            prompt_changes,
            "all_scores",
            "table_prompts",
            name="measure_prompts",
        ),
        Node(
            nodes.match_methods,
            [
                *("all_scores", "all_timings"),
                *("params:reporting.references", "params:rewards"),
            ],
            "table_matched",
            name="match_methods",
        ),
        Node(
            nodes.measure_costs,
            ["all_scores", "params:reporting.references", "params:rewards"],
            "table_costs",
            name="measure_costs",
        ),
        Node(
            nodes.compare_methods,
            [
                *("all_scores", "params:reporting.references"),
                *("params:reporting.held_out", "params:rewards"),
            ],
            "table_compared",
            name="compare_methods",
        ),
        Node(
            nodes.measure_fronts,
            ["all_scores", "params:reporting.held_out", "params:rewards"],
            "table_hypervolumes",
            name="measure_fronts",
        ),
        Node(
            nodes.fit_peaks,
            ["all_scores", "params:rewards"],
            "table_goodhart",
            name="fit_peaks",
        ),
        Node(
            nodes.join_rewards,
            ["all_scores", "params:reporting.held_out", "params:rewards"],
            ["table_joint", "table_joint_prompts"],
            name="join_rewards",
        ),
        Node(
            nodes.judge_stops,
            [
                "all_history",
                "params:reporting.held_out",
                "params:training.early_stop.alpha",
                "params:training.early_stop.min_epochs",
                "params:training.epochs",
                "params:methods",
                "params:rewards",
            ],
            ["table_stops", "table_regrets", "table_alarm_runs", "table_alarms"],
            name="judge_stops",
        ),
    ]


_TABLES = {
    "agreement": "table_agreement",
    "history": "all_history",
    "scores": "all_scores",
    "curves": "table_curves",
    "run_curves": "run_curves",
}
"""The dataset of each table that a figure is drawn from."""


def _figure(name: str, figure: FigureSettings, pairs: Sequence[Pair]) -> Node:
    """The node of a figure of such runs, which also keeps the figure's data."""
    inputs = [f"params:reporting.figures.{name}", _TABLES[FORMS[figure.draws].table]]
    outputs = [f"figure_{name}", f"table_{name}"]
    if figure.draws != "sample_grid":
        inputs += ["paper_scales", "params:rewards"]
        return Node(nodes.draw, inputs, outputs, name=f"draw_{name}")
    shown = sorted({method for method, _ in figure.pairs(pairs)})
    inputs += ["all_scores", *(f"collected_{method}" for method in shown)]
    return Node(nodes.draw_samples, inputs, outputs, name=f"draw_{name}")


def _page(methods: Sequence[str]) -> list[Node]:
    """The nodes of the HTML page: what it stands on, and the page."""
    traced = {
        "scores": "all_scores",
        "folder": "params:reporting.folder",
        **{
            name: f"params:{name}"
            for name in (
                *("methods", "rewards", "training"),
                *("evaluation", "own_evaluation"),
            )
        },
    }
    shown = {name: f"table_{name}" for name in Tables._fields} | {"lineage": "lineage"}
    collected = {f"collected {method}": f"collected_{method}" for method in methods}
    return [
        Node(nodes.trace, traced, "lineage", name="trace"),
        Node(nodes.draw_page, shown | collected, "report_page", name="draw_page"),
    ]


def _report(drawn: Sequence[str]) -> Node:
    """The last node: it needs every figure's data, so that its words come last."""
    inputs = {
        "folder": "params:reporting.folder",
        "configured": "params:reporting.figures",
        "wires": "table_tripwires",
        "page": "report_page",
    }
    tables = {n: f"table_{n}" for n in ("summary", "golds", *FINDINGS, *drawn)}
    return Node(
        nodes.report, inputs | tables, ["report_text", "report_metrics"], name="report"
    )
