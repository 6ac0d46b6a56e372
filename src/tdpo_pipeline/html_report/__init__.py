"""The report as one HTML file that needs no network: tables in, a string out.

Nothing here needs Kedro or PyTorch.
"""

from tdpo_pipeline.html_report.page import Tables, html_report
from tdpo_pipeline.html_report.provenance import lineage

__all__ = ["Tables", "html_report", "lineage"]
