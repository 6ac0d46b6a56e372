"""The node that trains and measures the proxy rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.menagerie.proxies_settings import ProxyRewardsSettings


def train(
    base_model: Path, settings: ProxyRewardsSettings, state: str
) -> tuple[Path, dict[str, Any]]:
    """Train all proxy rewards.

    Args:
        base_model: Folder of the base model, whose samples are labelled.
        settings: Pictures and proxies.
        state: Folder for working files, relative to the project.

    Returns:
        Folder of the proxies' weights, and the report.
    """
    from tdpo_pipeline.menagerie.proxies_training import train_proxy_rewards

    folder = ROOT / state / "proxy_rewards"
    report = train_proxy_rewards(base_model, settings, folder)
    return folder, report
