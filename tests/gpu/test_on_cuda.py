"""Sampling, training, resuming and scoring on a GPU, at tiny sizes."""

import numpy as np
import pytest
import torch
import yaml

from tdpo_pipeline.config import AlgorithmSettings, ComputeSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import kl_to_base, replay, rollout
from tdpo_pipeline.rewards.registry import load_reward
from tests import tiny
from tests.conftest import ROOT, parameters_of

pytestmark = pytest.mark.gpu

METHODS = list(
    yaml.safe_load((ROOT / "conf/base/parameters_methods.yml").read_text())["methods"]
)
MODELS = ROOT / "data" / "06_models" / "menagerie"


def policy(device, model="sd", **compute):
    return Policy(
        tiny.PIPELINES[model](),
        num_inference_steps=4,
        lora=tiny.LORA,
        compute=ComputeSettings(device=device, **compute),
    )


def perturb(target, size):
    """Move the adapters, as updates would."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in target.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.add_(size * noise.to(parameter.device))


def sample(target):
    return rollout(
        target,
        tiny.PROMPTS * 4,
        seed=0,
        epoch=1,
        guidance_scale=5.0,
        eta=1.0,
        chunk_size=4,
    )


def ratio_error(target, trajectory):
    """Largest |ratio - 1|, pairs in any order, four at a time as they were sampled."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    errors = []
    for pairs in trajectory.pairs()[order].to(target.device).split(4):
        _, log_probs = replay(target, trajectory, pairs)
        old = trajectory.log_probs[pairs[:, 0], pairs[:, 1]]
        errors.append((torch.exp(log_probs.detach() - old) - 1).abs().max())
    return float(torch.stack(errors).max())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("model", tiny.PIPELINES)
def test_the_ratio_begins_at_1(device, model, precision, channels_last):
    target = policy(device, model, precision=precision, channels_last=channels_last)
    perturb(target, 0.1)
    trajectory = sample(target)
    assert trajectory.log_probs.device.type == device
    settings = AlgorithmSettings.model_validate(tiny.DDPO)
    limit = settings.converted_clip_range(target.latent_dims) / 4
    assert ratio_error(target, trajectory) <= limit
    # Another policy's is beyond it.
    perturb(target, 0.1)
    assert ratio_error(target, trajectory) > limit


def test_a_gpu_samples_what_a_cpu_samples(device):
    found, expected = sample(policy(device)), sample(policy("cpu"))
    for name in ("latents", "noise_preds", "log_probs", "images"):
        torch.testing.assert_close(
            getattr(found, name).cpu(), getattr(expected, name), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_epoch_of_tdpo_trains_policy_and_critic(device, precision, train):
    config = tiny.run_config(tiny.TDPO, epochs=2, device=device, precision=precision)
    result = train(config)
    history, seconds = result.history, result.timings
    measured = history[["redness_mean", "policy_grad_norm", "critic_loss"]]
    assert np.isfinite(measured).to_numpy().all()
    # The second epoch's samples are those of a policy that has learned.
    assert history["kl_to_base"].iloc[0] == pytest.approx(0, abs=1e-4)
    assert history["kl_to_base"].iloc[1] > 1e-4
    assert history["critic_weight_change"].gt(0).all()
    parts = seconds.drop(columns=["epoch", "device", "total_s"]).sum(axis=1)
    assert parts.le(seconds["total_s"]).all()


@pytest.fixture(scope="module")
def smoke():
    pytest.importorskip("kedro")
    return parameters_of("smoke")


@pytest.mark.parametrize("method", METHODS)
def test_every_configured_method_trains(device, smoke, method, tmp_path):
    """As in tests/trainer/test_methods.py, on Menagerie's shipped models."""
    config, result = tiny.train_configured(
        smoke, method, MODELS, tmp_path, device=device
    )
    history = result.history
    assert len(history) == config.training.epochs
    assert history["aesthetic-mini_mean"].notna().all()
    assert (result.timings["device"] == "cpu").all() == (device == "cpu")


def test_a_killed_run_resumes(device, train):
    config = tiny.run_config(tiny.TDPO, epochs=2, device=device)
    whole = train(config, "whole")

    with tiny.killed_after(1):
        train(config, "killed")
    resumed = train(config, "killed")
    assert resumed.history["epoch"].tolist() == [1, 2]
    # The second epoch is trained from the first one's state: but for the order in which
    # a GPU adds up, the same.
    for name in ("kl_to_base", "redness_mean", "ratio_error", "approx_kl"):
        np.testing.assert_allclose(
            resumed.history[name], whole.history[name], rtol=1e-2, atol=1e-4
        )


def test_the_kl_of_a_policy_that_has_moved_is_positive(device):
    target = policy(device, precision="bf16")
    chunk = {"chunk_size": 4}
    assert kl_to_base(target, sample(target), torch.arange(8), **chunk) < 1e-4
    perturb(target, 0.1)
    assert kl_to_base(target, sample(target), torch.arange(8), **chunk) > 1e-4


@pytest.mark.parametrize("name", ["aesthetic", "pickscore", "jpeg_compressibility"])
def test_a_gpu_scores_as_a_cpu(device, name, tmp_path):
    pytest.importorskip("open_clip")
    from tests.rewards import published

    published.write_clip_l(tmp_path, published.clip(24, "quick_gelu"))
    published.write_head(tmp_path, 24)
    published.write_pickscore(tmp_path, published.clip(24, seed=1))
    # Larger than what the networks read, so that they are resized where they lie.
    images, prompts = published.images(4, size=48), ["a cat", "a dog"] * 2
    expected = load_reward(name, tmp_path)(images, prompts).values
    reward = load_reward(name, tmp_path).to(torch.device(device))
    found = reward(images.to(device), prompts).values
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert found.std() > 0
