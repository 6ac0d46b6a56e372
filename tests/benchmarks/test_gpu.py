"""The benchmark of GPUs: its architecture is true, and it runs where there is none."""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel
from peft import LoraConfig

from tdpo_pipeline.config import ComputeSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tests import tiny
from tests.conftest import ROOT


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_its_unet_is_that_of_stable_diffusion_1(gpu):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**gpu.SD1_UNET).requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == 859_520_964
        targets = list(gpu.LORA.target_modules)
        unet.add_adapter(LoraConfig(r=gpu.LORA.rank, target_modules=targets))
    trained = [p for p in unet.parameters() if p.requires_grad]
    # 128 pairs of matrices, as in the official code.
    assert len(trained) == 2 * 128
    assert sum(p.numel() for p in trained) == 797_184


def test_its_sizes_are_those_of_sd14_on_an_h200(gpu):
    text = (ROOT / "conf" / "sd14" / "parameters_training.yml").read_text()
    preset = yaml.safe_load(text)["training"]["presets"]["gpu_141gb"]
    assert gpu.CHUNK == preset["chunk_size"] == preset["micro_batch_size"]
    assert gpu.CRITIC_BATCH_SIZE == preset["critic_batch_size"]


def test_the_encoder_is_counted_as_it_is(gpu):
    # ViT-L/14 at 224: 257 tokens of width 1024 in 24 layers. A layer: 12 x 1024^2 weights
    # for each token, and two products of 257 x 257 by 1024; 2 FLOPs each: 6.467e9 + 0.271e9.
    # Patches: 256 x 588 x 1024 x 2 = 0.308e9; the projection next to nothing.
    assert gpu.encoder_flops(tiny=False) == pytest.approx(162.0e9, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ratio_is_measured_on_pairs_in_any_order(gpu, precision):
    policy = Policy(
        tiny.pipeline(),
        num_inference_steps=3,
        lora=tiny.LORA,
        compute=ComputeSettings(precision=precision),
    )
    trajectory = rollout(
        policy, tiny.PROMPTS * 2, seed=0, epoch=1, guidance_scale=5.0, eta=1.0,
        chunk_size=4,
    )  # fmt: skip
    orders = gpu.replay_orders(4, 3, 4)
    every = {(sample, step) for sample in range(4) for step in range(3)}
    for batches in orders.values():
        assert {tuple(pair) for batch in batches for pair in batch.tolist()} == every
    assert orders["as sampled"][1].tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]
    # Mixed in both, as an update's.
    mixed = orders["shuffled"][0]
    assert len(set(mixed[:, 1].tolist())) > 1
    assert [len(batch) for batch in orders["shuffled, half the batch"]] == [2] * 6

    for name in ("as sampled", "shuffled"):
        errors = gpu.ratio_errors(policy, trajectory, orders[name])
        assert torch.equal(errors, torch.zeros(4, 3))
    # The one step is now half as likely again as when it is replayed: |1 / 1.5 - 1|.
    trajectory.log_probs[2, 1] += math.log(1.5)
    errors = gpu.ratio_errors(policy, trajectory, orders["shuffled"])
    assert errors[2, 1] == pytest.approx(1 / 3)
    assert errors.count_nonzero() == 1


def options(**changes):
    values = {
        "chunk": 32, "samples": 64, "critic_batch_size": 16, "precision": "fp16",
        "compile": False, "channels_last": False, "gradient_checkpointing": False,
        "tf32": False, "tiny": False,
    }  # fmt: skip
    return argparse.Namespace(**values | changes)


def test_measurements_are_named_by_what_they_depend_on(gpu):
    assert gpu.key("matmul", options(tf32=True)) == "matmul"
    assert gpu.key("ratio", options()) == "ratio fp16 chunk 32"
    found = gpu.key("tdpo", options(tf32=True, tiny=True, compile=True))
    assert found == "tdpo fp16 chunk 32 samples 64 critic 16 compile tf32 tiny"


def test_a_rate_is_that_of_the_median_repeat(gpu):
    # 8 images in 2 s, each of 3 TFLOP.
    row = gpu.rate([2.0, 1.0, 50.0], 8, "img/s", 3e12)
    assert row["value"] == 4.0
    assert row["tflop_per_s"] == 12.0


@pytest.fixture
def run(gpu, monkeypatch, tmp_path):
    """Run the benchmark in this process; its parts are made up."""
    output = tmp_path / "results" / "gpu.json"

    def run(*more, **parts):
        made_up = {part: lambda: {"value": 1.0, "unit": "u"} for part in gpu.PARTS}
        monkeypatch.setattr(gpu.Bench, "_parts", lambda self: made_up | parts)
        command = ["gpu.py", "--tiny", "--device", "cpu", "--output", str(output)]
        monkeypatch.setattr(sys, "argv", [*command, "--precisions", "bf16", *more])
        try:
            gpu.main()
        finally:
            run.found = json.loads(output.read_text())["no GPU"]

    return run


def fail():
    raise torch.OutOfMemoryError("Tried to allocate 200 GiB.")


def test_a_part_that_fails_leaves_the_others_and_is_measured_again(run, capsys):
    with pytest.raises(SystemExit, match="Not measured: ratio bf16 chunk 2 tiny"):
        run(ratio=fail)
    failed = run.found["ratio bf16 chunk 2 tiny"]
    assert failed["error"] == "OutOfMemoryError: Tried to allocate 200 GiB."
    # It comes before the two that it would stop; both are there.
    assert [name.split()[0] for name in run.found][-3:] == ["ratio", "ddpo", "tdpo"]
    assert sum("value" in row for row in run.found.values()) == 5
    assert {"torch", "peft", "commit"} <= failed["machine"].keys()
    capsys.readouterr()
    run()
    assert capsys.readouterr().out == "ratio bf16 chunk 2 tiny: 1 u\n"
    assert "error" not in run.found["ratio bf16 chunk 2 tiny"]


def test_what_is_asked_for_again_is_measured_again_once(run):
    run("--parts", "matmul")
    twos = iter([{"value": 2.0, "unit": "u"}])
    run("--parts", "matmul", matmul=lambda: next(twos))
    assert run.found["matmul tiny"]["value"] == 1.0
    more = ["--precisions", "fp16", "bf16", "--again", "--parts", "matmul"]
    run(*more, matmul=lambda: next(twos))
    assert run.found["matmul tiny"]["value"] == 2.0


def test_a_share_of_the_matrix_rate_is_added_whichever_is_measured_first(
    gpu, run, capsys
):
    fast = {"value": 8.0, "unit": "img/s", "target": None, "tflop_per_s": 100.0}
    run("--parts", "sampling", sampling=lambda: fast)
    sampled = "sampling bf16 chunk 2 tiny"
    assert "share_of_matmul" not in run.found[sampled]
    matrices = {"value": 400.0, "unit": "TFLOP/s"}
    run("--parts", "matmul", matmul=lambda: matrices)
    assert run.found[sampled]["share_of_matmul"] == 0.25
    assert "share_of_matmul" not in run.found["matmul tiny"]
    capsys.readouterr()
    run("--parts", "training", training=lambda: fast)
    assert "25% of the matrix rate" in capsys.readouterr().out
    # The rate of large matrices is no measure of tiny networks.
    rows = {sampled: dict(fast), "matmul": matrices}
    gpu.share_of_matmul(rows)
    assert rows == {sampled: fast, "matmul": matrices}


def test_the_context_needs_no_git(gpu, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu.machine(torch.device("cpu"))["commit"] is None


def test_a_gpu_that_is_not_there_is_told_and_nothing_written(
    gpu, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(output)])
    with pytest.raises(SystemExit, match="finds no GPU"):
        gpu.main()
    assert not output.exists()


@pytest.mark.slow
def test_every_part_is_measured_without_kedro(tmp_path: Path):
    output = tmp_path / "gpu.json"
    for name in ("kedro", "omegaconf", "dvc", "open_clip"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--device", "cpu"]
    command += ["--precisions", "bf16", "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        return done.stdout

    assert "target 4.3" in run("--parts", "matmul", "sampling")
    run()
    found = {
        name.split()[0]: row
        for name, row in json.loads(output.read_text())["no GPU"].items()
    }
    assert set(found) == {"matmul", "sampling", "training", "ddpo", "tdpo", "ratio"}
    assert all(row["value"] > 0 for name, row in found.items() if name != "ratio")
    assert found["ratio"]["value"] == 0
    assert len(found["ratio"]["by_step"]["shuffled, half the batch"]) == 2
    assert "img/s" not in run()
