"""The pipeline that measures scores which another trainer wrote."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.measure import nodes

_TABLES = {name: f"own_table_{name}" for name in nodes.TABLES}


def create_pipeline() -> Pipeline:
    """``kedro run --pipelines measure --params measure.scores=my_scores.csv``."""
    return Pipeline(
        [
            Node(nodes.read, "params:measure", "own_scores", name="read"),
            Node(
                nodes.measure,
                ["own_scores", "params:measure"],
                _TABLES | {"joint_prompts": "own_table_joint_prompts"},
                name="measure",
            ),
            Node(
                nodes.draw,
                ["own_table_curves", "own_scores", "params:measure"],
                ["own_figures", *(f"own_table_{name}" for name in nodes.FIGURES)],
                name="draw_own",
            ),
            Node(
                nodes.report,
                {
                    "scores": "own_scores",
                    "settings": "params:measure",
                    **_TABLES,
                    **{name: f"own_table_{name}" for name in nodes.FIGURES},
                },
                ["own_page", "own_text"],
                name="report_own",
            ),
        ],
        tags=["measure"],
    )
