"""The pipeline that audits a reward."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from tdpo_pipeline.pipelines.audit.nodes import probe, report


def create_pipeline() -> Pipeline:
    """Two nodes: ``kedro run --pipelines audit --params audit.reward=pick-mini``."""
    return Pipeline(
        [
            Node(
                probe,
                [
                    "params:audit",
                    "params:training",
                    "params:rewards",
                    "params:prompts",
                    "base_model",
                    "reward_weights",
                ],
                ["audit_scores", "audit_examples"],
                name="probe",
            ),
            Node(
                report,
                ["params:audit", "audit_scores", "audit_examples"],
                ["audit_tables", "audit_figures", "audit_texts"],
                name="report_audit",
            ),
        ],
        tags=["audit"],
    )
