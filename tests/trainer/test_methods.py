"""Every configured method, through the trainer, at the smoke environment's scale."""

from __future__ import annotations

import pytest
import yaml

from tdpo_pipeline.algorithms.policy_gradient import PolicyGradientSettings
from tests import tiny
from tests.conftest import ROOT, Workspace, parameters_of

METHODS = list(
    yaml.safe_load((ROOT / "conf/base/parameters_methods.yml").read_text())["methods"]
)


@pytest.fixture(scope="module")
def parameters() -> dict:
    return parameters_of("smoke")


@pytest.mark.parametrize("method", METHODS)
def test_every_configured_method_trains(
    smoke_project: Workspace, parameters, tmp_path, method: str
) -> None:
    models = smoke_project.root / "data" / "smoke" / "06_models"
    config, result = tiny.train_configured(parameters, method, models, tmp_path)
    history = result.history
    assert len(history) == config.training.epochs
    assert history["aesthetic-mini_mean"].notna().all()
    # It moved: the second epoch's samples are no longer the base model's.
    moved = history["kl_to_base"].iloc[-1] > 0
    weights = list(result.checkpoints.rglob("*.safetensors"))
    assert moved or len({path.read_bytes() for path in weights}) > 1
    # Sampling and replay agree to the bit, in every policy gradient.
    measured = "ratio_error" in history
    assert measured == isinstance(config.algorithm, PolicyGradientSettings)
    assert not measured or (history["ratio_error"] == 0).all()
