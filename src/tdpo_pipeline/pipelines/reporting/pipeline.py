"""The pipeline that reports on a set of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.grid import Run
from tdpo_pipeline.overoptimization import summarise_methods, summarise_runs
from tdpo_pipeline.pipelines.reporting import nodes


def create_pipeline(runs: Sequence[Run]) -> Pipeline:
    """Figures, tables and summary of ``runs``.

    Args:
        runs: Runs of the grid. Their outputs are collected inside a namespace per
            method, so that a collapsed Kedro-Viz shows one box a method.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    collected = sum(
        (_collect(m, [run for run in runs if run.method == m]) for m in methods),
        Pipeline([]),
    )
    across = [*_tables(methods), *_figures(methods), _report()]
    report = Pipeline(
        across,
        namespace="report",  # one box in a collapsed Kedro-Viz
        prefix_datasets_with_namespace=False,
        tags="reporting",
    )
    return collected + report


def _collect(method: str, runs: Sequence[Run]) -> Pipeline:
    """Everything that the runs of one method made, in one dataset of each kind."""
    kinds = ("history", "scores", "strip", "strip_index")
    # Inside the namespace the runs' datasets go by names without dots.
    inner = {kind: {run.key: f"{kind}__{run.key}" for run in runs} for kind in kinds}
    strips = {f"strip {key}": name for key, name in inner["strip"].items()}
    indexes = {f"index {key}": name for key, name in inner["strip_index"].items()}
    return Pipeline(
        [
            Node(
                nodes.collect_history,
                inner["history"],
                "all_history",
                name="collect_history",
            ),
            Node(
                nodes.concatenate,
                list(inner["scores"].values()),
                "all_scores",
                name="collect_scores",
            ),
            Node(
                nodes.collect_strips,
                strips | indexes,
                ["all_strips", "all_strip_rows"],
                name="collect_strips",
            ),
        ],
        namespace=method,
        inputs={
            inner[kind][run.key]: f"{run.namespace}.{kind}"
            for kind in kinds
            for run in runs
        },
        outputs={
            "all_history": f"history_{method}",
            "all_scores": f"scores_{method}",
            "all_strips": f"strips_{method}",
            "all_strip_rows": f"strip_rows_{method}",
        },
        tags=["reporting", method],
    )


def _tables(methods: Sequence[str]) -> list[Node]:
    """Nodes that bring all methods together, and measure them."""
    return [
        Node(
            nodes.concatenate,
            [f"history_{method}" for method in methods],
            "all_history",
            name="concatenate_history",
        ),
        Node(
            nodes.concatenate,
            [f"scores_{method}" for method in methods],
            "all_scores",
            name="concatenate_scores",
        ),
        Node(
            nodes.measure_methods,
            "all_scores",
            "table_curves",
            name="measure_methods",
        ),
        Node(
            nodes.measure_runs,
            "all_scores",
            "table_run_curves",
            name="measure_runs",
        ),
        Node(
            nodes.judge_golds,
            "all_scores",
            "table_golds",
            name="judge_golds",
        ),
        Node(
            summarise_methods,
            "table_curves",
            "table_summary",
            name="summarise_methods",
        ),
        Node(
            summarise_runs,
            ["all_history", "table_run_curves"],
            "table_runs",
            name="summarise_runs",
        ),
    ]


def _figures(methods: Sequence[str]) -> list[Node]:
    """A node per figure, which also keeps the figure's data."""
    strips = [name for m in methods for name in (f"strips_{m}", f"strip_rows_{m}")]
    sources: dict[str, tuple[Callable[..., Any], list[str]]] = {
        "proxy_vs_gold": (nodes.draw_proxy_vs_gold, ["table_curves"]),
        "sample_efficiency": (nodes.draw_sample_efficiency, ["all_history"]),
        "cross_reward_seen": (nodes.draw_cross_reward_seen, ["table_curves"]),
        "cross_reward_untrained": (nodes.draw_cross_reward_untrained, ["table_curves"]),
        "cross_reward_unseen": (nodes.draw_cross_reward_unseen, ["table_curves"]),
        "cross_reward_complex": (nodes.draw_cross_reward_complex, ["table_curves"]),
        "dormant": (nodes.draw_dormant, ["all_history"]),
        "sample_grid": (
            nodes.draw_sample_grid,
            ["table_run_curves", "all_scores", *strips],
        ),
    }
    return [
        Node(function, inputs, [f"figure_{name}", f"table_{name}"], name=f"draw_{name}")
        for name, (function, inputs) in sources.items()
    ]


def _report() -> Node:
    """The last node: it needs every figure's data, so that its words come last."""
    inputs = {
        "summary": "table_summary",
        "golds": "table_golds",
        "folder": "params:reporting.folder",
    }
    drawn = {name: f"table_{name}" for name in nodes.FIGURES}
    return Node(
        nodes.report, inputs | drawn, ["report_text", "report_metrics"], name="report"
    )
