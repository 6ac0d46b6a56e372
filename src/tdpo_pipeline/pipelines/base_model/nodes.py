"""The nodes that train Menagerie's base model, and measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.menagerie.base_model_settings import BaseModelSettings


def train(settings: BaseModelSettings, state: str) -> tuple[Path, pd.DataFrame]:
    """Train the base model from nothing.

    Args:
        settings: Shape and training of all parts.
        state: Folder for working files, relative to the project.

    Returns:
        Folder of the ``StableDiffusionPipeline``, and the training log.
    """
    from tdpo_pipeline.menagerie.base_model import save_base_model, train_base_model

    pipeline, log = train_base_model(settings)
    return save_base_model(pipeline, ROOT / state / "base_model"), log


def measure(base_model: Path, settings: BaseModelSettings) -> dict[str, Any]:
    """Measure the base model with readers that were trained on renders alone.

    Args:
        base_model: Folder of the ``StableDiffusionPipeline``.
        settings: Sampler and readers.

    Returns:
        The report, see ``base_model_report``.
    """
    from tdpo_pipeline.diffusion.loading import load_pipeline
    from tdpo_pipeline.menagerie.base_model import torch_threads
    from tdpo_pipeline.menagerie.base_model_report import base_model_report

    with torch_threads(settings.threads):
        return base_model_report(load_pipeline(base_model), settings.report)
