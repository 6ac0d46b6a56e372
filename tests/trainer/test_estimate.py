from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models import modeling_utils

from benchmarks.architectures import ATTENTION, SD1_UNET, VAE
from tdpo_pipeline.config import (
    AlgorithmSettings,
    RewardSettings,
    RunConfig,
    TrainingSettings,
    UnetVisits,
)
from tdpo_pipeline.diffusion.devices import DeviceError
from tdpo_pipeline.trainer import estimate, loop, networks
from tdpo_pipeline.trainer.networks import Architecture, Network
from tests import tiny

# Round numbers, to be worked with by hand.
DECODER = Network(
    parameters=50_000_000,
    flops=2e9,
    kept=30_000_000,
    kept_checkpointed=20_000_000,
    largest=4_000_000,
)
MODEL = Architecture(
    unet=Network(
        parameters=100_000_000,
        flops=1e9,
        kept=10_000_000,
        kept_checkpointed=4_000_000,
        largest=1_000_000,
    ),
    decoder=DECODER,
    critic_decoder=DECODER,
    text_parameters=25_000_000,
    latent_dims=64,
    pixels=192,
)
TRAINED = 1_000_000
OPTIMIZER = {"optimizer": tiny.OPTIMIZER}
ALIGNPROP = {"algorithm": "alignprop"} | OPTIMIZER


def of(algorithm: dict[str, Any] = tiny.DDPO, **changes: Any) -> estimate.Estimate:
    """Of 8 samples of 4 steps with guidance, in chunks and micro-batches of 4."""
    return estimate.estimate(tiny.run_config(algorithm, **changes), MODEL, TRAINED)


def test_memory_of_adapters() -> None:
    assert of().memory == {
        # 4 bytes x (100 + 50 + 25) M weights.
        "base model": pytest.approx(0.7),
        "rewards": 0.0,
        # 4 bytes x 1 M x 8: weight, gradient, two moments, last good, three for spread.
        "trained weights and their optimizer": pytest.approx(0.032),
        # 4 bytes x 8 samples x ((5 + 4) x 64 latents and predictions + 192 pixels).
        "trajectories": pytest.approx(24_576e-9),
        # 4 pairs x 2 with guidance x 10 MB, more than 4 images x 4 x 4 MB of decoding.
        "activations": pytest.approx(0.08),
    }


def test_memory_of_half_precision_and_checkpointing() -> None:
    memory = of(precision="fp16", gradient_checkpointing=True).memory
    assert memory["base model"] == pytest.approx(0.35)
    # Checkpointed: 4 x 2 x 4 MB are less than the 64 MB of decoding 4 images.
    assert memory["activations"] == pytest.approx(0.064)
    sliced = of(gradient_checkpointing=True, vae_slicing=True).memory
    assert sliced["activations"] == pytest.approx(0.032)


def test_memory_of_a_whole_unet() -> None:
    memory = of(finetune="full").memory
    # The frozen 75 M; and 9 copies of what is trained, the base model's one of them.
    assert memory["base model"] == pytest.approx(0.3)
    assert memory["trained weights and their optimizer"] == pytest.approx(0.036)


def test_memory_of_a_rewards_gradient() -> None:
    draft = {"algorithm": "draft"} | OPTIMIZER
    # 4 images x (2 x 10 MB + 30 MB); then 2 at a time.
    assert of(draft).memory["activations"] == pytest.approx(0.2)
    few = of(draft, backprop_batch_size=2).memory
    assert few["activations"] == pytest.approx(0.1)


def test_memory_of_what_a_critic_sees() -> None:
    short = {"gradient_checkpointing": True, "vae_slicing": True}
    # 8 states at once are 8 x 4 x 4 MB, more than the 32 MB of an update.
    memory = of(tiny.TDPO, critic_batch_size=8, **short).memory
    assert memory["activations"] == pytest.approx(0.128)
    assert of(tiny.TDPO, **short).memory["activations"] == pytest.approx(0.032)
    # DDPO has no critic.
    memory = of(critic_batch_size=8, **short).memory
    assert memory["activations"] == pytest.approx(0.032)


def test_a_tiny_decoder_takes_the_critics_part_alone() -> None:
    small = Network(
        parameters=1_000_000, flops=1e8, kept=0, kept_checkpointed=0, largest=10_000_000
    )
    config = tiny.run_config(
        tiny.TDPO | {"critic": tiny.TDPO["critic"] | {"decoder": "tiny"}},
        gradient_checkpointing=True,
        vae_slicing=True,
    )
    found = estimate.estimate(config, replace(MODEL, critic_decoder=small), TRAINED)
    # A million weights more, and 4 states at once of 4 x 10 MB.
    assert found.memory["base model"] == pytest.approx(0.704)
    assert found.memory["activations"] == pytest.approx(0.16)
    assert found.work["critic"] == pytest.approx(32 * 1e8 / 1e15)
    assert found.work["encoders"] == of(tiny.TDPO).work["encoders"]
    assert found.work["sampling"] == of(tiny.TDPO).work["sampling"]


def test_memory_of_samples_that_are_kept() -> None:
    replay = tiny.TDPO | {
        "algorithm": "tdpo_replay",
        "policy_neurons": {"reset": "active"},
        "buffer_epochs": 3,
        "buffer_samples": 4,
    }
    # 3 epochs of 4 samples of 5 states of 64 numbers, and 4 advantages.
    kept = of(replay).memory["trajectories"] - of().memory["trajectories"]
    assert kept == pytest.approx(4 * 3 * 4 * (5 * 64 + 4) / 1e9)
    # Rounds of 2 epochs of 8 samples, of which the last trains: 2 x 64 moments, a reward.
    rwr = {"algorithm": "rwr", "rounds": 2, "batch_size": 4} | OPTIMIZER
    kept = of(rwr).memory["trajectories"] - of().memory["trajectories"]
    assert kept == pytest.approx(4 * 8 * 129 / 1e9)


def test_memory_of_trajectories_in_host_memory() -> None:
    found = of(offload_trajectories=True)
    # Of 8 samples those of a chunk of 4 are on the GPU, while they are sampled.
    assert found.memory["trajectories"] == pytest.approx(12_288e-9)
    assert found.host == pytest.approx(24_576e-9)
    assert of().host == 0
    big = replace(found, host=2.5).text(tiny.run_config(), 1.0, 1.0)
    assert "), 2.5 GB of host memory; " in big
    assert "host" not in of().text(tiny.run_config(), 1.0, 1.0)


def test_work_of_ddpo_and_tdpo() -> None:
    expected = {
        "sampling": 8 * 4 * 2e9 / 1e15,  # 4 guided steps
        "decoding": 8 * 2e9 / 1e15,
        "KL": 4 * 4 * 2e9 / 1e15,  # of 4 samples
        "updates": 8 * 4 * 2e9 * 2.15 / 1e15,  # forward 1, backward 1.15
    }
    assert of().work == pytest.approx(expected)
    # 32 states are decoded and encoded.
    assert of(tiny.TDPO).work == pytest.approx(
        expected | {"critic": 32 * 2e9 / 1e15, "encoders": 32 * 335e9 / 1e15}
    )
    full = of(finetune="full", gradient_checkpointing=True).work
    assert full["updates"] == pytest.approx(8 * 4 * 2e9 * 4 / 1e15)


RWR = {
    "algorithm": "rwr",
    "rounds": 1,
    "passes": 3,
    "batch_size": 4,
    "weighting": "sparse",
    "percentile": 0.5,
}
REPLAY = tiny.TDPO | {
    "algorithm": "tdpo_replay",
    "policy_neurons": {"reset": "active", "reset_fraction": 0.25},
    "buffer_epochs": 2,
    "buffer_samples": 4,
}


@pytest.mark.parametrize(
    ("algorithm", "trained", "forward"),
    [
        # 8 samples of 4 steps; once more for log-probs, and once for the base model.
        (tiny.DDPO, 32, 0),
        (tiny.DDPO | {"old_log_prob": "recompute"}, 32, 32),
        (
            tiny.DDPO | {"exploration": {"prompt_weighting": {}, "log_prob": "target"}},
            32,
            32,
        ),
        (tiny.TDPO, 32, 0),
        (tiny.TDPO | {"kl": {}}, 32, 32),
        (tiny.TDPO | {"kl": {}, "old_log_prob": "recompute"}, 32, 64),
        (tiny.DPOK, 32, 32),
        (tiny.DPOK | {"kl_weight": 0.0}, 32, 0),
        # After epochs 1, 2 and 3 a reset: 1, 2 and 2 kept epochs of 4 x 4 pairs, which are
        # 80 in 4 epochs. Every second epoch: after epoch 2 alone, 32 in 4.
        (REPLAY, 52, 20),
        (
            REPLAY | {"policy_neurons": {"reset": "active", "reset_fraction": 0.5}},
            40,
            8,
        ),
        # 3 passes over half of 8 images; without guidance each is half the work.
        (RWR | OPTIMIZER, 12, 0),
        (RWR | OPTIMIZER | {"cfg_training": False}, 6, 0),
        # The last 3 steps, computed again for their gradient; the last one, which isn't.
        ({"algorithm": "draft", "last_steps": 3} | OPTIMIZER, 24, 24),
        ({"algorithm": "draft"} | OPTIMIZER, 8, 0),
        ({"algorithm": "draft", "extra_noisings": 2} | OPTIMIZER, 24, 0),
        ({"algorithm": "refl"} | OPTIMIZER, 8, 0),
        # Half of 4 steps; from N(3, 0.04) on, which is as often above 3 as below; from 1 or
        # 2 on; the last one.
        (ALIGNPROP | {"truncation": {"kind": "per_step"}}, 16, 16),
        (
            ALIGNPROP | {"truncation": {"kind": "normal", "mean": 0.75, "std": 0.01}},
            12,
            12,
        ),
        (
            ALIGNPROP | {"truncation": {"kind": "uniform", "low": 0.25, "high": 0.75}},
            20,
            20,
        ),
        (ALIGNPROP | {"truncation": {"kind": "fixed"}}, 8, 0),
    ],
)
def test_updates_visit_the_unet(
    algorithm: dict[str, Any], trained: int, forward: int
) -> None:
    config = tiny.run_config(algorithm)
    found = config.algorithm.unet_visits(config.training)
    assert found == pytest.approx((trained, forward))


class OwnSettings(AlgorithmSettings):
    """Of an algorithm that says what it costs, and of one that doesn't."""

    cost: float | None = None

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        if self.cost is None:
            return super().unet_visits(training)
        return UnetVisits(trained=self.cost, forward=10)


@pytest.mark.parametrize(
    # Forward and backward are 2.15 of a guided evaluation's 2 GFLOP; 8 x 4 pairs.
    ("cost", "updates"),
    [(5.0, (5 * 2.15 + 10) * 2e9), (None, 32 * 2.15 * 2e9)],
)
def test_ones_own_algorithm_says_what_it_costs(
    cost: float | None, updates: float
) -> None:
    own = OwnSettings(algorithm="own:Own", cost=cost)
    config = tiny.run_config().model_copy(update={"algorithm": own})
    found = estimate.estimate(config, MODEL, TRAINED)
    assert found.work["updates"] == pytest.approx(updates / 1e15)


def test_the_base_models_pass_is_a_forward_one() -> None:
    more = of(tiny.TDPO | {"kl": {}}).work["updates"] - of(tiny.TDPO).work["updates"]
    assert more == pytest.approx(8 * 4 * 2e9 / 1e15)


def test_a_methods_own_guidance_counts() -> None:
    # ReFL samples and trains without: half of the evaluations of 1 GFLOP and 10 MB.
    found = of({"algorithm": "refl"} | OPTIMIZER)
    assert found.work["sampling"] == pytest.approx(8 * 4 * 1e9 / 1e15)
    assert found.memory["activations"] == pytest.approx(4 * (10 + 30) / 1e3)


def test_memory_of_published_rewards() -> None:
    def rewards(algorithm: dict[str, Any] = tiny.DDPO, **changes: Any) -> float:
        return of(algorithm, **changes).memory["rewards"]

    # LLaVA's 7.063 G weights in half precision, once for both; DeBERTa's 0.64 G.
    both = rewards(monitor=["llava_bertscore", "llava_strict", "jpeg_compressibility"])
    assert both == pytest.approx(2 * 7.063 + 4 * 0.640)
    # The critic of a reward that lends CLIP ViT-L/14, which aesthetic has already.
    lent = rewards(tiny.TDPO, critic_encoder="imagereward")
    assert lent == pytest.approx(4 * (0.446 + 0.304))
    more = rewards(tiny.TDPO, critic_encoder="imagereward", monitor=["aesthetic"])
    assert more - lent == pytest.approx(4 * 0.0009)
    # DDPO has no critic, and reads no encoder.
    assert rewards(critic_encoder="imagereward") == 0
    held = {"algorithm": "tdpo_constrained", "constraints": {"pickscore": {}}}
    assert rewards(tiny.TDPO | held) == pytest.approx(4 * 0.986)


def test_time_and_words() -> None:
    found = of()
    # 0.08 + 0.032 + 0.1376 TFLOP.
    assert found.seconds(1.0, 1) == pytest.approx(0.2496)
    assert found.seconds(1.0, 2) == pytest.approx(0.1248)
    words = found.text(tiny.run_config(epochs=4), 1e-3, 1e-3)
    assert "estimate: 1 GB of GPU memory (base model 0.7, " in words
    # 249.6 s at a thousandth of that rate, 4 times.
    assert "250 s an epoch, 0.3 h in all, at an assumed 0 TFLOP/s" in words


def test_what_is_in_float32_has_a_rate_of_its_own() -> None:
    found = of(tiny.TDPO)
    # The critic's encoder sees 32 states: 10.72 TFLOP, at 10 TFLOP/s; the others' 0.2496
    # and the 0.064 of decoding the states at 1.
    assert found.float32 == {"encoders"}
    assert found.seconds(1.0, 1, 10.0) == pytest.approx(1.072 + 0.3136)
    assert found.seconds(1.0, 2, 10.0) == pytest.approx((1.072 + 0.3136) / 2)
    words = found.text(tiny.run_config(tiny.TDPO), 1.0, 10.0)
    assert "an assumed 1 TFLOP/s a process, 10 in float32 (encoders) (PFLOP" in words
    # A decoder in float32, as XL's in fp16 is, decodes for reward and critic.
    upcast = replace(DECODER, float32=True)
    model = replace(MODEL, decoder=upcast, critic_decoder=upcast)
    found = estimate.estimate(tiny.run_config(tiny.TDPO), model, TRAINED)
    assert found.float32 == {"encoders", "decoding", "critic"}
    assert of().float32 == frozenset()


def test_work_of_rewards_that_are_networks() -> None:
    draft = {"algorithm": "draft"} | OPTIMIZER
    monitor = ["pickscore", "jpeg_compressibility"]
    found = of(draft, monitor=monitor).work
    # 8 images of the one network; the trained reward's counts 8 twice, with its backward.
    assert found["encoders"] == pytest.approx((8 + 16) * 335e9 / 1e15)
    # 8 decodings to score, and 8 forward and backward.
    assert found["decoding"] == pytest.approx((8 + 16) * 2e9 / 1e15)


def test_encoders_of_menagerie_are_no_work() -> None:
    # An encoder that isn't known is taken for a large one: 8 samples x 4 states each.
    config = tiny.run_config(tiny.TDPO)
    large = estimate.work(config, MODEL)["encoders"]
    assert large == 8 * 4 * estimate.ENCODER_FLOPS
    small = config.model_copy(
        update={"task": config.task.model_copy(update={"scorer": "aesthetic-mini"})}
    )
    assert "encoders" not in estimate.work(small, MODEL)
    # And of an ensemble as many as it has, forward and backward.
    parts = {name: {} for name in ("aesthetic-mini", "aesthetic", "pickscore")}
    task = {"scorer": "both", "train_prompts": "simple_animals", "ensemble": parts}
    backward = tiny.run_config({"algorithm": "draft"} | OPTIMIZER).model_copy(
        update={"task": RewardSettings.model_validate(task)}
    )
    assert estimate.work(backward, MODEL)["encoders"] == pytest.approx(
        (2 + 2 * 2) * 8 * estimate.ENCODER_FLOPS
    )


def test_rates_are_a_share_of_the_peak() -> None:
    rate = estimate.sustained_tflops
    assert rate("NVIDIA H200", "fp16") == pytest.approx(0.20 * 989)  # measured
    assert rate("NVIDIA H200", "fp32") == pytest.approx(0.35 * 67)
    assert rate("NVIDIA H200", "fp32", tf32=True) == pytest.approx(0.35 * 495)
    assert rate("NVIDIA H200", "fp16", tf32=True) == rate("NVIDIA H200", "fp16")
    # It has no TF32.
    assert rate("Tesla V100", "fp32", tf32=True) == rate("Tesla V100", "fp32")
    assert rate("NVIDIA A100-SXM4-80GB", "bf16") == pytest.approx(0.35 * 312)
    # Not the L4's, whose name begins like it.
    assert rate("NVIDIA L40", "bf16") == rate("something new", "bf16")
    assert rate("something new", "bf16") == pytest.approx(0.35 * 312)


def test_too_little_memory_is_told_and_what_would_fit() -> None:
    config = tiny.run_config(tiny.TDPO, monitor=["pickscore"], samples_per_epoch=8)

    def measure(config: RunConfig) -> estimate.Estimate:
        wide = replace(MODEL, latent_dims=10_000_000)
        return estimate.estimate(config, wide, TRAINED)

    # GB: base model 0.7, PickScore 3.944, adapters 0.032, trajectories 2.88 (9 x 10 M
    # numbers of 8 samples), activations 0.08 for 4 pairs.
    assert measure(config).gigabytes == pytest.approx(7.636, abs=1e-3)
    # Of half the samples 1.44; of one 0.36, with activations of 0.02 (0.016 to decode).
    for gigabytes, settings, left in (
        (7.0, {"offload_trajectories": True}, 6.196),
        (
            5.1,
            {"chunk_size": 1, "micro_batch_size": 1, "backprop_batch_size": 1},
            5.056,
        ),
        (4.8, {"precision": "bf16"}, 4.706),  # half of the 0.7
        (1.2, {"monitor": ()}, 0.762),
        (0.5, {"monitor": ()}, 0.762),
    ):
        changed, found = estimate.fitted(config, gigabytes, measure)
        assert settings.items() <= changed.items()
        assert found.gigabytes == pytest.approx(left, abs=1e-3)
        # Which save nothing here.
        assert not {"vae_slicing", "gradient_checkpointing"} & set(changed)

    def words(gigabytes: float) -> str:
        return str(estimate.too_little_memory(config, gigabytes, "a GPU", measure))

    assert words(7.0).startswith(
        "The run takes an estimated 8 GB of GPU memory (base model 0.7, rewards 3.9, "
    )
    assert words(7.0).endswith(
        "a GPU has 7 GB. It takes 6 GB with training.offload_trajectories=true."
    )
    assert "Take a larger GPU: even with training.offload_trajectories=true, " in (
        words(0.5)
    )
    assert words(0.5).endswith("training.monitor=[] it takes 1 GB.")


def test_stable_diffusion_is_measured_without_weights() -> None:
    unet, trained = networks._measured_unet(
        json.dumps(SD1_UNET), "fp16", (4, ATTENTION)
    )
    assert unet.parameters == 859_520_964
    assert trained == 797_184  # 128 adapters of rank 4
    # 803 GFLOP, and the adapters' 1.1.
    assert unet.flops == pytest.approx(804.4e9, rel=1e-3)
    assert 0 < unet.kept_checkpointed < 0.3 * unet.kept
    decoder = networks._measured_decoder(json.dumps(VAE), 64, "fp16")
    assert decoder.flops == pytest.approx(2515e9, rel=1e-3)
    assert not decoder.float32
    # A quarter of a megapixel in 256 channels of 2 bytes.
    assert decoder.largest == 512 * 512 * 256 * 2
    # Recomputed a whole up block at a time, of which the largest keeps most of it.
    assert 0.4 * decoder.kept < decoder.kept_checkpointed < 0.7 * decoder.kept


def test_a_tiny_decoder_is_measured_without_weights() -> None:
    # As published for Stable Diffusion: 64 channels, 3 + 3 + 3 + 1 blocks.
    config = json.dumps({"_class_name": "AutoencoderTiny", "latent_channels": 4})
    decoder = networks._measured_decoder(config, 64, "fp16")
    # Its encoder and decoder have 1.2 M weights each.
    assert decoder.parameters == pytest.approx(2.4e6, rel=0.05)
    full = networks._measured_decoder(json.dumps(VAE), 64, "fp16")
    assert decoder.flops < full.flops / 10
    # A quarter of a megapixel in 64 channels of 2 bytes.
    assert decoder.largest == 512 * 512 * 64 * 2


def test_a_pipelines_configuration_is_enough(tmp_path: Any) -> None:
    tiny.pipeline().save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    config = tiny.run_config()
    model, trained = networks.architecture(tmp_path, config)
    pipeline = tiny.pipeline()
    count = sum(p.numel() for p in pipeline.unet.parameters())
    assert model.unet.parameters == count
    assert model.latent_dims == 4 * 4 * 4
    assert model.pixels == 3 * 8 * 8
    text = sum(p.numel() for p in pipeline.text_encoder.parameters())
    assert model.text_parameters == text
    from tdpo_pipeline.diffusion.policy import Policy

    policy = Policy(pipeline, num_inference_steps=4, lora=config.training.lora)
    assert trained == sum(p.numel() for p in policy.parameters())


A100 = "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def a100(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A GPU that isn't there, of as many bytes as the mapping says."""
    size = {"bytes": 80e9}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: A100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, size["bytes"]))
    return size


def test_what_a_run_takes_is_announced(
    base_model: Path, a100: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks._measured_unet.cache_clear()
    monkeypatch.setattr(modeling_utils.logger, "warning", pytest.fail)
    config, device = tiny.run_config(precision="fp16"), torch.device("cuda")
    words = estimate.announce(config, base_model, device)
    assert words.startswith(
        "ddpo-redness-s0: estimate: 0 GB of GPU memory (base model 0.0, rewards 0.0, "
    )
    # 0.35 of the A100's 312 TFLOP/s in half precision, in which all of DDPO's work is.
    assert (
        "at an assumed 109 TFLOP/s a process (PFLOP an epoch: sampling 0.0, " in words
    )
    full = estimate.announce(tiny.run_config(), base_model, device)
    assert "an assumed 7 TFLOP/s a process, 7 in float32 (sampling, decoding, " in full
    assert "known" not in full
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA B900")
    unknown = estimate.announce(config, base_model, device)
    assert "a process, those of an A100 (NVIDIA B900 isn't known) (PFLOP" in unknown


def test_too_small_a_gpu_ends_a_run_before_it_begins(
    base_model: Path,
    a100: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a100["bytes"] = 1e3
    monkeypatch.setattr(loop, "resolve_device", lambda _: torch.device("cuda"))
    with pytest.raises(DeviceError, match=f"{A100} has 0 GB. Take a larger GPU"):
        loop.train_run(
            tiny.run_config(),
            prompts=tiny.PROMPTS,
            base_model=base_model,
            weights=tmp_path / "no_weights",
            state_dir=tmp_path / "state",
        )
    assert not (tmp_path / "state").exists()
