from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import tdpo_pipeline
from tests.conftest import ROOT

MENAGERIE = ROOT / "data" / "06_models" / "menagerie"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w-]+", requirement) for requirement in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): pin for name, pin in pins}


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tdpo_pipeline.__version__
    assert f"## {tdpo_pipeline.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_say_what_was_tested_of_each_direct_dependency() -> None:
    optional = PROJECT["optional-dependencies"]
    direct = names(PROJECT["dependencies"]) | names(optional["dev"])
    assert direct <= set(constraints())
    text = (ROOT / "constraints.txt").read_text()
    assert re.fullmatch(r"(#.*\n|[\w.-]+==[\w.]+\n)+", text), "only name==version"


def test_torch_is_uncapped_and_kedro_is_not() -> None:
    requirements = {r.split("[")[0]: r for r in PROJECT["dependencies"]}
    assert "torch>=2.7" in requirements
    assert requirements["kedro"].endswith("~=1.7")
    assert "image-reward" not in names(PROJECT["dependencies"])
    assert version("kedro").startswith("1.7")


def test_telemetry_is_refused() -> None:
    assert yaml.safe_load((ROOT / ".telemetry").read_text()) == {"consent": False}
    assert "kedro_telemetry" not in (ROOT / "pyproject.toml").read_text()


def test_the_checks_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_shipped_weights_are_small_and_let_through() -> None:
    files = [path for path in MENAGERIE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    large = [
        hook
        for repo in hooks
        for hook in repo["hooks"]
        if hook["id"] == "check-added-large-files"
    ]
    path = "data/06_models/menagerie/base_model/unet/model.safetensors"
    assert re.search(large[0]["exclude"], path)
    assert not re.search(large[0]["exclude"], "data/06_models/other.safetensors")


def ignored(path: str) -> bool:
    command = ["git", "check-ignore", "--quiet", "--no-index", path]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_git_keeps_what_is_shipped_and_nothing_else() -> None:
    assert not ignored("data/06_models/menagerie/base_model/unet/config.json")
    assert not ignored("data/06_models/.gitkeep")
    assert not ignored("conf/local/.gitkeep")
    assert not ignored("data/study/07_model_output/history/tdpo/pick-mini/s0.csv")
    assert ignored("data/07_model_output/history/tdpo/pick-mini/s0.csv")
    assert ignored("data/06_models/checkpoints/tdpo/pick-mini/s0/epoch_0001/a.json")
    assert ignored("data/study/06_models/state/tdpo-pick-mini-s0/run.json")
    assert ignored("data/smoke/06_models/base_model/model_index.json")
    assert ignored("conf/local/credentials.yml")


def test_importing_the_kedro_side_needs_no_torch() -> None:
    modules = [
        *("config", "grid", "hooks", "settings", "prompts", "pipeline_registry"),
        *("datasets", "figures", "html_report", "overoptimization"),
        *("menagerie.vocabulary", "menagerie.scenes"),
    ]
    imports = "; ".join(f"import tdpo_pipeline.{module}" for module in modules)
    check = "import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{imports}; {check}"], check=True)


def test_the_notebooks_are_stripped() -> None:
    import json

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(Path(path).read_text())["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path
