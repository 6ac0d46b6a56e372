"""The benchmark of GPUs: its architecture is true, and it runs where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from tests.conftest import ROOT


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_its_unet_is_that_of_stable_diffusion_1(gpu):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**gpu.UNET).requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == 859_520_964
        targets = list(gpu.LORA.target_modules)
        unet.add_adapter(LoraConfig(r=gpu.LORA.rank, target_modules=targets))
    trained = [p for p in unet.parameters() if p.requires_grad]
    # 128 pairs of matrices, as in the official code.
    assert len(trained) == 2 * 128
    assert sum(p.numel() for p in trained) == 797_184


@pytest.mark.slow
def test_every_part_is_measured_and_none_twice(tmp_path: Path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--device", "cpu"]
    command += ["--precisions", "bf16", "--output", str(output)]

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "target 4.3" in run("--parts", "matmul", "sampling")
    run()
    found = json.loads(output.read_text())
    names = {"sampling", "training", "ddpo", "tdpo", "ratio"}
    assert set(found) == {"matmul", *(f"{name} bf16 chunk 2" for name in names)}
    assert all(row["value"] > 0 for name, row in found.items() if "ratio" not in name)
    assert found["ratio bf16 chunk 2"]["value"] == 0
    assert "img/s" not in run()
