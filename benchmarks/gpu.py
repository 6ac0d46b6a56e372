"""Speed, memory and rounding of Stable Diffusion 1.4's architecture on a GPU.

    python benchmarks/gpu.py                          # what has not been measured yet
    python benchmarks/gpu.py --compile --channels-last --parts sampling training
    python benchmarks/gpu.py --tiny --device cpu --output gpu.json    # a trial

Weights are random, of the true shapes, which is all that speed depends on; the reward
is the aesthetic predictor at random weights. Every part takes less than ten minutes on
one H200 and is saved as soon as it is done; a part that has been saved is skipped, unless
it is asked for ``--again``. Speeds are also given as a share of the machine's own rate of
multiplying large matrices in bf16, which the part ``matmul`` measures first.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from common import context, output_argument
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
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
    LoraSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.diffusion.devices import resolve_device
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import replay, rollout
from tdpo_pipeline.menagerie.tokenizer import build_tokenizer
from tdpo_pipeline.prompts import prompt_set
from tdpo_pipeline.rewards.aesthetic import Aesthetic
from tdpo_pipeline.rewards.clip import ClipImageEncoder
from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.trainer.estimate import architecture, work
from tdpo_pipeline.trainer.loop import Trainer
from tdpo_pipeline.trainer.state import RunState

PROMPTS = prompt_set("simple_animals")
GUIDANCE = 5.0
LORA = LoraSettings(rank=4, target_modules=("to_q", "to_k", "to_v", "to_out.0"))
TARGETS = {"sampling": 4.3, "training": 99.0, "ddpo": 1.35, "tdpo": 0.9}
"""On one H200; in the units of the parts."""

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
TINY_UNET = UNET | {
    "sample_size": 16,
    "block_out_channels": (32, 32, 32, 32),
    "cross_attention_dim": 16,
    "layers_per_block": 1,
}
TINY_VAE = VAE | {"sample_size": 128, "block_out_channels": (32, 32, 32, 32)}
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
    unet, vae, text = (TINY_UNET, TINY_VAE, TINY_TEXT) if tiny else (UNET, VAE, TEXT)
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


class Bench:
    """The parts, each of which gives a row of results.

    Args:
        options: The command line.
        folder: A folder for working files.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.base_model = folder / "base_model"
        self.steps = 2 if options.tiny else 50
        self.device = resolve_device(self.training())

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
            "device": options.device,
            "precision": options.precision,
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

    def rollout(self, policy: Policy, samples: int) -> Any:
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

    def seconds(self, task: Callable[[], Any], repeats: int) -> float:
        """Seconds of a task, once it is warm."""
        task()
        self._wait()
        start = time.perf_counter()
        for _ in range(repeats):
            task()
        self._wait()
        return (time.perf_counter() - start) / repeats

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    # ---------------------------------------------------------------- the parts
    def matmul(self) -> dict[str, Any]:
        """Rate of multiplying large matrices in bf16, TFLOP/s."""
        size = 256 if self.options.tiny else 8192
        a, b = torch.randn(2, size, size, device=self.device, dtype=torch.bfloat16)
        seconds = self.seconds(lambda: a @ b, 3 if self.options.tiny else 50)
        return {"value": 2 * size**3 / seconds / 1e12, "unit": "TFLOP/s"}

    def sampling(self) -> dict[str, Any]:
        """Images sampled and decoded in a second."""
        policy, count = self.policy(), self.options.chunk
        seconds = self.seconds(lambda: self.rollout(policy, count), 1)
        model, _ = architecture(self.base_model, self.config("ddpo"))
        flops = 2 * self.steps * model.unet.flops + model.decoder.flops
        return self.speed(count / seconds, "img/s", flops)

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
        seconds = self.seconds(lambda: update.step(trajectory, pairs, advantages), 1)
        updates = work(config, architecture(self.base_model, config)[0])["updates"]
        return self.speed(len(pairs) / seconds, "pairs/s", updates / len(pairs))

    def end_to_end(self, method: str) -> dict[str, Any]:
        """Images an epoch over its seconds, everything included; the second epoch's."""
        config = self.config(method)
        trainer = Trainer.create(config, PROMPTS, self.base_model, self.folder)
        state = RunState(self.folder / method, config, {})
        state.open()
        for _ in range(2):
            trainer.run_epoch(state)
        row = trainer.timings[-1]
        samples = config.training.samples_per_epoch
        flops = sum(work(config, architecture(self.base_model, config)[0]).values())
        speed = self.speed(samples / row["total_s"], "img/s", flops / samples)
        return speed | {"seconds": row, "samples": samples}

    def ratio(self) -> dict[str, Any]:
        """How far the importance ratio is off 1 before any update."""
        policy, count = self.policy(), self.options.chunk
        trajectory = self.rollout(policy, count)
        errors = {}
        for name, size in (("same shape", count), ("half the shape", count // 2)):
            by_step = []
            for step in range(trajectory.num_steps):
                error = 0.0
                for samples in torch.arange(count).split(size):
                    pairs = torch.stack([samples, torch.full_like(samples, step)], 1)
                    log_probs = replay(policy, trajectory, pairs)[1].detach()
                    old = trajectory.log_probs[samples, step]
                    ratio = torch.exp(log_probs - old)
                    error = max(error, float((ratio - 1).abs().max()))
                by_step.append(error)
            errors[name] = by_step
        return {
            "value": max(errors["same shape"]),
            "unit": "largest |ratio - 1|",
            "target": 0.25 * 1e-4 * CLIP_REFERENCE_DIMS / policy.latent_dims,
            "by_step": errors,
        }

    def speed(self, value: float, unit: str, flops: float) -> dict[str, Any]:
        """A speed, and the arithmetic of one of its units."""
        return {
            "value": value,
            "unit": unit,
            "tflop_of_one": flops / 1e12,
            "tflop_per_s": value * flops / 1e12,
        }

    def part(self, name: str) -> dict[str, Any]:
        """Measure a part, with the peak of the GPU's memory."""
        gpu = self.device.type == "cuda"
        if gpu:
            gc.collect()  # else what the part before held would count
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        tasks: dict[str, Callable[[], dict[str, Any]]] = {
            "matmul": self.matmul,
            "sampling": self.sampling,
            "training": self.training_pairs,
            "ddpo": lambda: self.end_to_end("ddpo"),
            "tdpo": lambda: self.end_to_end("tdpo"),
            "ratio": self.ratio,
        }
        if name != "matmul":
            save_base_model(self.base_model, self.options.tiny)
        row = {"target": TARGETS.get(name)} | tasks[name]()
        if gpu:
            row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return row


PARTS = ("matmul", "sampling", "training", "ddpo", "tdpo", "ratio")


def key(part: str, options: argparse.Namespace) -> str:
    """Name of a measurement: the part, and what it was measured with."""
    if part == "matmul":
        return part
    switches = ("compile", "channels_last", "gradient_checkpointing")
    used = [name for name in switches if getattr(options, name)]
    return " ".join([part, options.precision, f"chunk {options.chunk}", *used])


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    gpu = device.type == "cuda"
    return context() | {
        "gpu": torch.cuda.get_device_name(device) if gpu else None,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--precisions", nargs="+", default=["fp16", "bf16", "fp32"])
    parser.add_argument("--chunk", type=int, help="samples or pairs of one pass")
    parser.add_argument("--samples", type=int, help="samples of an epoch")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a trial, on tiny networks")
    parser.add_argument("--again", action="store_true")
    output_argument(parser, "gpu.json")
    options = parser.parse_args()
    options.chunk = options.chunk or (2 if options.tiny else 32)
    options.samples = options.samples or 2 * options.chunk
    return options


def main() -> None:
    """Measure what is missing."""
    options = arguments()
    path: Path = options.output
    found = json.loads(path.read_text()) if path.exists() else {}
    for precision in options.precisions:
        options.precision = precision
        for part in options.parts:
            name = key(part, options)
            # Speed in fp32 is nobody's concern; its rounding is the yardstick.
            if precision == "fp32" and part not in ("ratio", "matmul"):
                continue
            if name in found and not (options.again and part != "matmul"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(options, Path(folder))
                row = bench.part(name.split()[0])
                found[name] = row | {"machine": machine(bench.device)}
            rate = found.get("matmul", {}).get("value")
            if rate and "tflop_per_s" in row:
                found[name]["share_of_matmul"] = row["tflop_per_s"] / rate
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=2) + "\n")
            share = found[name].get("share_of_matmul")
            print(
                f"{name}: {row['value']:.3g} {row['unit']}"
                + (f", target {row['target']:.3g}" if row["target"] else "")
                + (f", {share:.0%} of the matrix rate" if share is not None else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
