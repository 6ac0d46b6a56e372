"""The report as one HTML file that needs no network: tables in, a string out.

Nothing here needs Kedro or PyTorch.
"""

from tdpo_pipeline.html_report.lineage import lineage
from tdpo_pipeline.html_report.page import html_report

__all__ = ["html_report", "lineage"]
