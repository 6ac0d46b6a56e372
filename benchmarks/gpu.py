"""Speed, memory and rounding of Stable Diffusion 1.4's architecture on a GPU.

    python benchmarks/gpu.py                          # what has not been measured yet
    python benchmarks/gpu.py --compile --channels-last --parts sampling training
    python benchmarks/gpu.py --tiny --device cpu --output gpu.json    # a trial

Weights are random, of the true shapes, which is all that speed depends on; the reward
is the aesthetic predictor at random weights. Every part is meant to take less than ten
minutes on one H200, and is saved as soon as it is done. A part that fails is saved with its
error, and the others go on; the next time it is measured again. One that has been measured
is skipped, unless it is asked for ``--again``. Speeds are also given as a share of the
machine's own rate of multiplying large matrices in bf16, which the part ``matmul``
measures. Kedro isn't needed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from architectures import ATTENTION, SD1_UNET, TEXT, VAE
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from record import context, output_argument, printed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tdpo_pipeline.algorithms.policy_gradient import (
    PolicyGradientSettings,
    SurrogateUpdate,
)
from tdpo_pipeline.config import (
    CLIP_REFERENCE_DIMS,
    AlgorithmSettings,
    ComputeSettings,
    LoraSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.diffusion.devices import DeviceError, resolve_device
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import Steps, Trajectory, replay, rollout
from tdpo_pipeline.menagerie.tokenizer import build_tokenizer
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.aesthetic import Aesthetic
from tdpo_pipeline.rewards.clip import ClipImageEncoder
from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.trainer.estimate import estimate, work
from tdpo_pipeline.trainer.loop import Trainer
from tdpo_pipeline.trainer.networks import architecture
from tdpo_pipeline.trainer.state import RunState

PROMPTS = prompt_set("simple_animals")
GUIDANCE = 5.0
LORA = LoraSettings(rank=4, target_modules=ATTENTION)
TARGETS = {"sampling": 4.3, "training": 99.0, "ddpo": 1.35, "tdpo": 0.9}
"""On one H200; in the units of the parts."""
CHUNK, CRITIC_BATCH_SIZE = 32, 16
"""As in sd14's preset for an H200."""

VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
TINY_UNET = SD1_UNET | {
    "sample_size": 16,
    "block_out_channels": (32, 32, 32, 32),
    "cross_attention_dim": 16,
    "layers_per_block": 1,
}
TINY_VAE = VAE | {"block_out_channels": (32, 32, 32, 32)}
TINY_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
TINY_VISION = VISION | {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}


class RandomAesthetic(Aesthetic):
    """The aesthetic predictor at random weights."""

    name = "aesthetic-random"
    vision = VISION

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = CLIPVisionConfig(**self.vision)
            encoder = ClipImageEncoder(CLIPVisionModelWithProjection(config))
            super().__init__(encoder, AffineHead(encoder.embedding_dim))


class TinyAesthetic(RandomAesthetic):
    """The same, tiny."""

    vision = TINY_VISION


def save_base_model(folder: Path, tiny: bool) -> None:
    """Write a pipeline of random weights."""
    torch.manual_seed(0)
    unet, vae, text = (
        (TINY_UNET, TINY_VAE, TINY_TEXT) if tiny else (SD1_UNET, VAE, TEXT)
    )
    tokenizer = build_tokenizer(PROMPTS, 77)
    heads = text["hidden_size"] // 64 or 1
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(**unet),
        vae=AutoencoderKL(**vae),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, num_attention_heads=heads)),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


@cache
def encoder_flops(tiny: bool) -> int:
    """Of one image through the reward's encoder, which is the critic's too."""
    with torch.device("meta"):
        config = CLIPVisionConfig(**(TINY_VISION if tiny else VISION))
        encoder = CLIPVisionModelWithProjection(config)
        image = torch.empty(1, 3, config.image_size, config.image_size)
        with FlopCounterMode(display=False) as counter:
            encoder(image)
    return counter.get_total_flops()


def replay_orders(samples: int, steps: int, size: int) -> dict[str, tuple[Tensor, ...]]:
    """All pairs in batches (B, 2) of samples and steps, by what the batches are like.

    ``as sampled`` has the same samples at the same step in the same places as when they
    were sampled; ``shuffled`` any samples at any steps, as updates have them.
    """
    step, sample = torch.cartesian_prod(
        torch.arange(steps), torch.arange(samples)
    ).unbind(1)
    as_sampled = torch.stack([sample, step], 1)
    draw = torch.Generator().manual_seed(0)
    shuffled = as_sampled[torch.randperm(len(as_sampled), generator=draw)]
    return {
        "as sampled": as_sampled.split(size),
        "shuffled": shuffled.split(size),
        "shuffled, half the batch": shuffled.split(max(1, size // 2)),
    }


def ratio_errors(
    policy: Policy, trajectory: Steps, batches: Iterable[Tensor]
) -> Tensor:
    """How far the importance ratio of each pair is off 1, replayed in these batches.

    Returns:
        float32, shape (N, T); NaN for pairs that are in no batch.
    """
    errors = torch.full_like(trajectory.log_probs, torch.nan)
    for pairs in batches:
        sample, step = pairs.to(policy.device).unbind(1)
        log_probs = replay(policy, trajectory, pairs)[1].detach()
        ratio = torch.exp(log_probs - trajectory.log_probs[sample, step])
        errors[sample, step] = (ratio - 1).abs()
    return errors


class Bench:
    """The parts, each of which gives a row of results.

    Args:
        options: The command line, with one ``precision``.
        folder: A folder for working files, of all parts.
        device: What computes.
    """

    def __init__(
        self, options: argparse.Namespace, folder: Path, device: torch.device
    ) -> None:
        self.options = options
        self.folder = folder
        self.device = device
        self.steps = 2 if options.tiny else 50

    @cached_property
    def base_model(self) -> Path:
        """A pipeline of random weights, written once."""
        path = self.folder / ("tiny_model" if self.options.tiny else "base_model")
        if not path.exists():
            # Under another name until it is whole.
            begun = Path(tempfile.mkdtemp(dir=self.folder))
            save_base_model(begun, self.options.tiny)
            begun.rename(path)
        return path

    def training(self, **changes: Any) -> TrainingSettings:
        """The settings of a run, with the command line's switches."""
        options = self.options
        samples = changes.get("samples_per_epoch", options.samples)
        settings = {
            "epochs": 2,
            "samples_per_epoch": samples,
            "num_inference_steps": self.steps,
            "guidance_scale": GUIDANCE,
            "chunk_size": options.chunk,
            "micro_batch_size": options.chunk,
            "lora": LORA,
            "checkpoint_every": 2,
            "kl_samples": max(1, samples // 16),  # 16 of 256, as in sd14
            "vae_slicing": True,
            "critic_batch_size": options.critic_batch_size,
            "min_reward_std": 0.0,  # random networks tell pictures apart by little
            "device": options.device,
            "precision": options.precision,
            "tf32": options.tf32,
            "compile": options.compile,
            "channels_last": options.channels_last,
            "gradient_checkpointing": options.gradient_checkpointing,
        }
        return TrainingSettings.model_validate(settings | changes)

    def config(self, method: str, **changes: Any) -> RunConfig:
        """A run: DDPO with TDPO's loop, or TDPO-R."""
        optimizer = {"learning_rate": 1e-4}
        algorithm: dict[str, Any] = {
            "algorithm": method,
            "loop": "timestep_major",
            "updates_per_timestep": 2,
            "optimizer": optimizer,
        }
        if method == "tdpo":
            algorithm["critic"] = {"optimizer": optimizer}
            algorithm["neurons"] = {"reset": "active"}
        reward = "TinyAesthetic" if self.options.tiny else "RandomAesthetic"
        return RunConfig(
            method=method,
            reward=RandomAesthetic.name,
            seed=0,
            training=self.training(**changes),
            algorithm=AlgorithmSettings.model_validate(algorithm),
            task={"scorer": f"gpu:{reward}", "train_prompts": "simple_animals"},
        )

    def policy(self, **changes: Any) -> Policy:
        """SD 1.4 with random adapters that do something."""
        settings = self.training(**changes)
        policy = Policy(
            load_pipeline(self.base_model),
            num_inference_steps=settings.num_inference_steps,
            lora=LORA,
            compute=settings,
        )
        with torch.no_grad():
            for parameter in policy.parameters():
                draw = torch.Generator().manual_seed(0)
                noise = torch.randn(parameter.shape, generator=draw)
                parameter.add_(0.01 * noise.to(parameter.device))
        return policy

    def rollout(self, policy: Policy, samples: int) -> Trajectory:
        """Trajectories of the policy, in chunks."""
        return rollout(
            policy,
            (PROMPTS * samples)[:samples],
            seed=0,
            epoch=1,
            guidance_scale=GUIDANCE,
            eta=1.0,
            chunk_size=self.options.chunk,
        )

    def seconds(self, task: Callable[[], Any], *, repeats: int = 5) -> list[float]:
        """Seconds of each repeat of a task, once it is warm."""
        task()
        taken = []
        for _ in range(repeats):
            self._wait()
            start = time.perf_counter()
            task()
            self._wait()
            taken.append(time.perf_counter() - start)
        return taken

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    # ---------------------------------------------------------------- the parts
    def matmul(self) -> dict[str, Any]:
        """Rate of multiplying large matrices in bf16, TFLOP/s."""
        size, times = (256, 1) if self.options.tiny else (8192, 20)
        a, b = torch.randn(2, size, size, device=self.device, dtype=torch.bfloat16)

        def multiply() -> None:
            for _ in range(times):
                a @ b

        return rate(self.seconds(multiply), times * 2 * size**3 / 1e12, "TFLOP/s")

    def sampling(self) -> dict[str, Any]:
        """Images sampled and decoded in a second."""
        policy, count = self.policy(), self.options.chunk
        seconds = self.seconds(lambda: self.rollout(policy, count), repeats=3)
        model, _ = architecture(self.base_model, self.config("ddpo"))
        flops = 2 * self.steps * model.unet.flops + model.decoder.flops
        return rate(seconds, count, "img/s", flops)

    def training_pairs(self) -> dict[str, Any]:
        """(Image, timestep) pairs trained on in a second."""
        count = self.options.chunk
        # How long trajectories are makes no difference to a pair.
        config = self.config("ddpo", num_inference_steps=2, samples_per_epoch=2 * count)
        policy = self.policy(num_inference_steps=2, samples_per_epoch=2 * count)
        trajectory = self.rollout(policy, 2 * count)
        settings = config.algorithm.model_copy(update={"clip_range": 1e3})
        assert isinstance(settings, PolicyGradientSettings)
        update = SurrogateUpdate(policy, settings, config.training)
        pairs, advantages = trajectory.pairs().to(self.device), trajectory.log_probs
        seconds = self.seconds(lambda: update.step(trajectory, pairs, advantages))
        updates = work(config, architecture(self.base_model, config)[0])["updates"]
        speed = rate(seconds, len(pairs), "pairs/s", updates / len(pairs))
        return speed | {"estimated_gb": self.estimated_memory(config)}

    def end_to_end(self, method: str) -> dict[str, Any]:
        """Images an epoch over its seconds, everything included; the second epoch's."""
        config = self.config(method)
        trainer = Trainer.create(config, PROMPTS, self.base_model, self.folder)
        state = RunState(Path(tempfile.mkdtemp(dir=self.folder)), config, {})
        state.open()
        for _ in range(2):
            trainer.run_epoch(state)
        row, samples = trainer.timings[-1], config.training.samples_per_epoch
        speed = rate(
            [row["total_s"]], samples, "img/s", self.epoch_flops(config) / samples
        )
        estimated = self.estimated_memory(config)
        return speed | {"samples": samples, "parts": row, "estimated_gb": estimated}

    def estimated_memory(self, config: RunConfig) -> dict[str, float]:
        """GB by what they are for, to hold ``peak_gb`` against.

        Without the reward and the critic's encoder, which are none of the registry's.
        """
        return estimate(config, *architecture(self.base_model, config)).memory

    def epoch_flops(self, config: RunConfig) -> float:
        """Of an epoch; the encoder is counted as it is, and not as the largest one."""
        parts = work(config, architecture(self.base_model, config)[0])
        embedded = 1 + self.steps * config.algorithm.needs_encoder
        images = config.training.samples_per_epoch * embedded
        return sum(
            (parts | {"encoders": images * encoder_flops(self.options.tiny)}).values()
        )

    def ratio(self) -> dict[str, Any]:
        """How far the importance ratio is off 1 before any update."""
        # What a backward pass needs of as many pairs in float32 has no room on an H200,
        # and there is none.
        dropped = {"gradient_checkpointing": True}
        policy = self.policy(**dropped if self.options.precision == "fp32" else {})
        count = self.options.chunk
        trajectory = self.rollout(policy, count)
        errors = {
            name: ratio_errors(policy, trajectory, batches)
            for name, batches in replay_orders(count, self.steps, count).items()
        }
        return {
            "value": float(errors["shuffled"].max()),
            "unit": "largest |ratio - 1|",
            "target": 0.25 * 1e-4 * CLIP_REFERENCE_DIMS / policy.latent_dims,
            "by_step": {name: e.amax(0).tolist() for name, e in errors.items()},
        }

    def row(self, name: str) -> dict[str, Any]:
        """A part's result, or the error that it ended with; the peak of GPU memory."""
        try:
            self._forget()
            row = {"target": TARGETS.get(name)} | self._parts()[name]()
        except Exception as error:  # one part's failure is not the others'
            traceback.print_exc()
            row = {"error": f"{type(error).__name__}: {error}"}
        if self.device.type == "cuda":
            row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return row

    def _forget(self) -> None:
        """Drop what the part before has left: graphs and memory."""
        if self.options.compile:
            torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _parts(self) -> dict[str, Callable[[], dict[str, Any]]]:
        return {
            "matmul": self.matmul,
            "sampling": self.sampling,
            "training": self.training_pairs,
            "ratio": self.ratio,
            "ddpo": lambda: self.end_to_end("ddpo"),
            "tdpo": lambda: self.end_to_end("tdpo"),
        }


PARTS = ("matmul", "sampling", "training", "ratio", "ddpo", "tdpo")


def rate(
    seconds: list[float], count: float, unit: str, flops: float | None = None
) -> dict[str, Any]:
    """How many a second, by the median of repeats; and the arithmetic of one of them."""
    value = count / statistics.median(seconds)
    row = {"value": value, "unit": unit, "seconds": seconds}
    if flops is None:
        return row
    return row | {"tflop_of_one": flops / 1e12, "tflop_per_s": value * flops / 1e12}


def key(part: str, options: argparse.Namespace) -> str:
    """Name of a measurement among a GPU's: the part, and what it was measured with."""
    tiny = ["tiny"] if options.tiny else []
    if part == "matmul":
        return " ".join([part, *tiny])
    sizes = [f"chunk {options.chunk}"]
    if part in ("ddpo", "tdpo"):
        sizes.append(f"samples {options.samples}")
    if part == "tdpo":
        sizes.append(f"critic {options.critic_batch_size}")
    switches = ("compile", "channels_last", "gradient_checkpointing", "tf32")
    used = [name for name in switches if getattr(options, name)]
    return " ".join([part, options.precision, *sizes, *used, *tiny])


def share_of_matmul(rows: dict[str, dict[str, Any]]) -> None:
    """Add to each row its share of the matrix rate, in whichever order they came."""
    for name, row in rows.items():
        tiny = " tiny" if name.endswith(" tiny") else ""
        matmul = rows.get(f"matmul{tiny}", {})
        if "tflop_per_s" in row and "value" in matmul:
            row["share_of_matmul"] = row["tflop_per_s"] / matmul["value"]


def machine(device: torch.device) -> dict[str, Any]:
    """What is measured on, and with."""
    packages = ("torch", "diffusers", "transformers", "peft")
    found = context() | {name: importlib.metadata.version(name) for name in packages}
    if device.type != "cuda":
        return found
    query = "--query-gpu=driver_version"
    driver = printed("nvidia-smi", query, "--format=csv,noheader")
    return found | {
        "gpu": torch.cuda.get_device_name(device),
        "gpu_memory_gb": torch.cuda.get_device_properties(device).total_memory / 1e9,
        "driver": driver and driver.splitlines()[0],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp16", "bf16", "fp32"),
        default=["fp16", "bf16", "fp32"],
        help="in fp32 the ratio alone is measured: speed in it is nobody's concern",
    )
    parser.add_argument("--chunk", type=int, help="samples or pairs of one pass")
    parser.add_argument("--samples", type=int, help="samples of an epoch")
    parser.add_argument(
        "--critic-batch-size", type=int, help="states seen by the critic of one pass"
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a trial, on tiny networks")
    parser.add_argument("--again", action="store_true")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the random base model is kept for the next time (4 GB)",
    )
    output_argument(parser, "gpu.json")
    options = parser.parse_args()
    options.chunk = options.chunk or (2 if options.tiny else CHUNK)
    options.samples = options.samples or 2 * options.chunk
    options.critic_batch_size = options.critic_batch_size or (
        2 if options.tiny else CRITIC_BATCH_SIZE
    )
    return options


def wanted(options: argparse.Namespace) -> dict[str, tuple[str, argparse.Namespace]]:
    """Part and options, with one precision, of what is asked for, by its name."""
    found = {}
    for precision in options.precisions:
        one = argparse.Namespace(**vars(options) | {"precision": precision})
        for part in options.parts:
            if precision != "fp32" or part in ("ratio", "matmul"):
                found[key(part, one)] = part, one
    return found


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """A folder for working files: the one that is named, or one that is deleted."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def text(name: str, row: dict[str, Any]) -> str:
    """What to print of a measurement."""
    if "error" in row:
        return f"{name}: {row['error']}"
    share = row.get("share_of_matmul")
    return (
        f"{name}: {row['value']:.3g} {row['unit']}"
        + (f", target {row['target']:.3g}" if row["target"] else "")
        + (f", {share:.0%} of the matrix rate" if share is not None else "")
    )


def main() -> None:
    """Measure what is missing.

    Raises:
        SystemExit: If there is no GPU, or a part has failed.
    """
    options = arguments()
    try:
        device = resolve_device(ComputeSettings(device=options.device))
    except DeviceError as error:
        raise SystemExit(str(error)) from None
    about = machine(device)
    path: Path = options.output
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.exists() else {}
    rows = found.setdefault(about.get("gpu", "no GPU"), {})
    failed = []
    with working_folder(options.folder) as folder:
        for name, (part, one) in wanted(options).items():
            if "value" in rows.get(name, {}) and not options.again:
                continue
            row = Bench(one, folder, device).row(part)
            rows[name] = row | {"machine": about}
            share_of_matmul(rows)
            path.write_text(json.dumps(found, indent=2) + "\n")
            print(text(name, rows[name]), flush=True)
            failed += [name] * ("error" in row)
    if failed:
        raise SystemExit(f"Not measured: {'; '.join(failed)}.")


if __name__ == "__main__":
    main()
