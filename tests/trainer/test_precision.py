"""Whole runs in half precision, and of Stable Diffusion XL."""

import re

import pytest
import torch

from tdpo_pipeline.algorithms.policy_gradient import RatioError
from tdpo_pipeline.diffusion import policy
from tdpo_pipeline.diffusion.devices import DeviceError
from tdpo_pipeline.trainer.loop import train_run
from tests import tiny

ALIGNPROP = {
    "algorithm": "alignprop",
    "truncation": {"kind": "fixed", "last_steps": 2},
    "optimizer": tiny.OPTIMIZER,
}
RWR = {"algorithm": "rwr", "rounds": 2, "batch_size": 4, "optimizer": tiny.OPTIMIZER}


@pytest.fixture(scope="module")
def base_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base_models")
    for name, make in tiny.PIPELINES.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture
def train(base_models, tmp_path):
    def run(algorithm, name="sd", state="state", **settings):
        return train_run(
            tiny.run_config(algorithm, epochs=2, checkpoint_every=1, **settings),
            prompts=tiny.PROMPTS,
            base_model=base_models / name,
            weights=tmp_path / "no_weights",
            state_dir=tmp_path / state,
        )

    return run


@pytest.mark.parametrize(
    ("algorithm", "name", "precision"),
    [
        (tiny.DDPO, "sd", "fp16"),
        (tiny.TDPO, "sd", "bf16"),
        (tiny.TDPO, "sdxl", "fp16"),
        (ALIGNPROP, "sd", "fp16"),
        (RWR, "sd", "fp16"),
    ],
    ids=lambda value: value["algorithm"] if isinstance(value, dict) else value,
)
def test_methods_train_in_half_precision(train, algorithm, name, precision):
    settings = {"precision": precision, "gradient_checkpointing": True}
    history = train(algorithm, name, **settings).history
    assert history["kl_to_base"].iloc[0] == pytest.approx(0, abs=1e-6)
    assert history["kl_to_base"].iloc[1] > 0
    assert history["policy_grad_norm"].iloc[-1] > 0
    assert ("skipped_updates" in history) == (precision == "fp16")
    if "ratio_error" in history:
        assert history["ratio_error"].eq(0).all()


def test_a_resumed_fp16_run_ends_where_the_whole_one_does(train):
    def weights(result):
        folder = result.checkpoints / "epoch_0002"
        return (folder / policy.LORA_FILE).read_bytes()

    whole = train(tiny.TDPO, state="whole", precision="fp16")
    with tiny.killed_after(1):
        train(tiny.TDPO, precision="fp16")
    assert weights(train(tiny.TDPO, precision="fp16")) == weights(whole)


@pytest.fixture
def sampling_differs(monkeypatch):
    """A UNet that gives something else without gradient, as other kernels would."""
    exact = policy.Policy._unet

    def rough(self, *args):
        noise_pred = exact(self, *args)
        return noise_pred if torch.is_grad_enabled() else noise_pred * (1 + 2**-4)

    monkeypatch.setattr(policy.Policy, "_unet", rough)


def test_a_run_stops_if_sampling_and_replay_differ(train, sampling_differs):
    with pytest.raises(RatioError, match=r"a quarter of the clip range .*recompute"):
        train(tiny.DDPO, precision="bf16")


def test_recomputing_needs_the_training_path(train, sampling_differs):
    # It runs without gradient, as sampling does, so this fault it can't mend.
    with pytest.raises(RatioError):
        train(tiny.DDPO | {"old_log_prob": "recompute"}, precision="bf16")


def test_recomputed_log_probs_forgive_another_batch_shape(train, monkeypatch):
    exact = policy.Policy._unet

    def rough(self, latents, *args):
        noise_pred = exact(self, latents, *args)
        # Kernels that round otherwise for the samples of a rollout, 8 with guidance.
        return noise_pred * (1 + 2**-4) if len(latents) == 8 else noise_pred

    monkeypatch.setattr(policy.Policy, "_unet", rough)
    settings = {"precision": "bf16", "chunk_size": 4, "micro_batch_size": 2}
    with pytest.raises(RatioError):
        train(tiny.DDPO, state="sampled", **settings)
    recompute = tiny.DDPO | {"old_log_prob": "recompute"}
    history = train(recompute, state="recomputed", **settings).history
    assert history["ratio_error"].eq(0).all()


def test_a_missing_gpu_is_told_before_anything_is_written(train, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=re.escape("training.device is cuda")):
        train(tiny.DDPO, device="cuda")
    assert not (tmp_path / "state").exists()
