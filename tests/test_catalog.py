from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline

from tests.conftest import ROOT, catalog_of

LAYERS = {"raw", "model_input", "models", "model_output", "reporting"}
ENVIRONMENTS = {"base": "data", "study": "data/study", "smoke": "data/smoke"}


def dataset_names(registry: dict[str, Pipeline]) -> list[str]:
    everything = set().union(*(p.datasets() for p in registry.values()))
    return sorted(
        name
        for name in everything
        if name != "parameters" and not name.startswith("params:")
    )


def path_of(catalog: DataCatalog, name: str) -> Path:
    dataset = catalog[name]
    path = getattr(dataset, "_filepath", None) or getattr(dataset, "_path", None)
    assert path is not None, f"{name} has no path"
    return Path(str(path))


def test_every_dataset_is_kept_on_disk(
    registry: dict[str, Pipeline], catalog: DataCatalog
) -> None:
    names = dataset_names(registry)
    assert len(names) > 300
    for name in names:
        assert name in catalog, f"{name} is in no catalog entry"
        assert not isinstance(catalog[name], MemoryDataset), name


def test_every_dataset_has_a_layer(
    registry: dict[str, Pipeline], catalog: DataCatalog
) -> None:
    for name in dataset_names(registry):
        metadata = getattr(catalog[name], "metadata", None) or {}
        assert metadata.get("kedro-viz", {}).get("layer") in LAYERS, name


def test_no_two_datasets_share_a_file(
    registry: dict[str, Pipeline], catalog: DataCatalog
) -> None:
    names = dataset_names(registry)
    assert len({path_of(catalog, name) for name in names}) == len(names)


def test_no_catalog_entry_is_unused(
    registry: dict[str, Pipeline], catalog: DataCatalog
) -> None:
    resolver = catalog.config_resolver
    used = set(dataset_names(registry))
    explicit = set(resolver.config) - used
    assert not {name for name in explicit if not name.startswith("params:")}
    matched = {resolver.match_dataset_pattern(name) for name in used}
    assert set(resolver.list_patterns()) - {"{default}"} <= matched


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_environments_keep_their_data_apart(
    registry: dict[str, Pipeline], env: str
) -> None:
    catalog = catalog_of(env)
    data = ROOT / ENVIRONMENTS[env]
    others = [ROOT / root for root in ENVIRONMENTS.values() if (ROOT / root) != data]
    models = ROOT / ("data/smoke/06_models" if env == "smoke" else "data/06_models")
    for name in dataset_names(registry):
        path = path_of(catalog, name)
        assert path.is_relative_to(data) or path.is_relative_to(models), name
        inner = [root for root in others if root.is_relative_to(data)]
        assert not any(path.is_relative_to(root) for root in inner), name


def test_kind_comes_before_the_run(catalog: DataCatalog) -> None:
    run = "tdpo_r.aesthetic-mini.s0"
    expected = {
        "history": "07_model_output/history/tdpo_r/aesthetic-mini/s0.csv",
        "scores": "07_model_output/scores/tdpo_r/aesthetic-mini/s0.parquet",
        "metrics": "07_model_output/metrics/tdpo_r/aesthetic-mini/s0.json",
        "checkpoints": "06_models/checkpoints/tdpo_r/aesthetic-mini/s0",
    }
    for kind, path in expected.items():
        assert path_of(catalog, f"{run}.{kind}") == ROOT / "data" / path
