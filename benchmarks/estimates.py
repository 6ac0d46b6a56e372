"""What runs of the Stable Diffusion environments are estimated to take, on any machine.

    python benchmarks/estimates.py

For each environment, each memory preset and one run of each kind: GB of GPU memory and
hours, by the same estimate that a run prints before it starts; and the hours of its
evaluation, by the same rates. Needs no weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from architectures import SD1_UNET, TEXT, VAE, XL_TEXT_2, XL_UNET
from common import ROOT, output_argument, parameters, plain, write
from transformers import CLIPTextConfig

from tdpo_pipeline.config import (
    AlgorithmSettings,
    EvaluationSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.pipelines.prompts.nodes import OwnEvaluation, OwnEvaluations
from tdpo_pipeline.prompts.registry import PROMPT_SETS
from tdpo_pipeline.trainer.estimate import ENCODER_FLOPS, estimate, sustained_tflops
from tdpo_pipeline.trainer.networks import Architecture, architecture

GPUS = {
    "gpu_24gb": "RTX 4090",
    "gpu_40gb": "A100",
    "gpu_80gb": "H100",
    "gpu_141gb": "H200",
}
RUNS = {
    "sd14": (
        ("ddpo_2", "aesthetic"),
        ("tdpo_r", "aesthetic"),
        ("tdpo_r", "hpsv2"),
        ("alignprop_2023", "aesthetic"),
        ("ddpo_is", "aesthetic"),
        ("ddpo_is", "llava_bertscore"),
    ),
    "sd15": (("ddpo_diffexp", "aesthetic"), ("alignprop_diffexp", "aesthetic")),
    "sdxl": (("alignprop_diffexp", "aesthetic"),),
}


def write_configuration(folder: Path, *, xl: bool) -> Path:
    """A pipeline folder without weights."""
    for part, config in (("unet", XL_UNET if xl else SD1_UNET), ("vae", VAE)):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    CLIPTextConfig(**TEXT).save_pretrained(folder / "text_encoder")
    if xl:
        CLIPTextConfig(**XL_TEXT_2).save_pretrained(folder / "text_encoder_2")
    return folder


def run_config(
    params: dict[str, Any], method: str, reward: str, memory: Any
) -> RunConfig:
    """A run under a memory preset."""
    algorithm = AlgorithmSettings.model_validate(plain(params["methods"][method]))
    training = plain(params["training"]) | {"preset": None} | memory
    return RunConfig.model_validate(
        {
            "method": method,
            "reward": reward,
            "seed": 0,
            "training": algorithm.scaled(TrainingSettings.model_validate(training)),
            "algorithm": algorithm,
            "task": plain(params["rewards"][reward]),
        }
    )


def evaluated_images(params: dict[str, Any], config: RunConfig) -> int:
    """The images that the evaluation of a run samples, of all checkpoints together."""
    settings = EvaluationSettings.model_validate(plain(params["evaluation"]))
    own = OwnEvaluations.model_validate(plain(params["own_evaluation"])).root
    names, _ = own.get(config.task.train_prompts, OwnEvaluation()).of(settings)
    prompts = 0
    for name in names:
        whole, _, part = name.partition("/")
        prompts += int(part) if part else PROMPT_SETS[whole].size
    checkpoints = len(config.training.kept_epochs()) + 1  # and the base model
    ends = 2 * (len(settings.etas) - 1)
    return prompts * settings.images_per_prompt * (checkpoints + ends)


def evaluation_seconds(
    params: dict[str, Any],
    config: RunConfig,
    model: Architecture,
    tflops: float,
    float32_tflops: float,
) -> float:
    """Time of the sampling and decoding of a run's evaluation, and of its encoders."""
    guided = model.unet.flops * (2 if config.training.guidance_scale != 1 else 1)
    rates = {True: float32_tflops, False: tflops}
    rewards = plain(params["evaluation"])["rewards"]
    encoders = sum(not name.startswith("jpeg") for name in rewards)
    image = (
        config.training.num_inference_steps * guided / rates[model.unet.float32]
        + model.decoder.flops / rates[model.decoder.float32]
        + encoders * ENCODER_FLOPS / float32_tflops
    )
    return evaluated_images(params, config) * image / 1e12


def main() -> None:
    """Estimate, and save the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    output_argument(parser, "estimates.json")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            xl: write_configuration(Path(scratch) / str(xl), xl=xl)
            for xl in (False, True)
        }
        for env, chosen in RUNS.items():
            params = parameters(env)
            path = ROOT / "conf" / env / "parameters_training.yml"
            presets = yaml.safe_load(path.read_text())["training"]["presets"]
            for preset, memory in presets.items():
                for method, reward in chosen:
                    config = run_config(params, method, reward, memory)
                    model, trained = architecture(folders[env == "sdxl"], config)
                    found = estimate(config, model, trained)
                    scale = config.training
                    tflops, float32 = (
                        sustained_tflops(GPUS[preset], precision, tf32=scale.tf32)
                        for precision in (scale.precision, "fp32")
                    )
                    seconds = found.seconds(tflops, 1, float32) * scale.epochs
                    rows.append(
                        {
                            "environment": env,
                            "preset": preset,
                            "run": config.key,
                            "gigabytes": round(found.gigabytes, 1),
                            "gpu": GPUS[preset],
                            "assumed_tflops": round(tflops),
                            "assumed_float32_tflops": round(float32),
                            "epochs": scale.epochs,
                            "pflop_an_epoch": round(sum(found.work.values()), 1),
                            "hours": round(seconds / 3600, 1),
                            "evaluated_images": evaluated_images(params, config),
                            "evaluation_hours": round(
                                evaluation_seconds(
                                    params, config, model, tflops, float32
                                )
                                / 3600,
                                1,
                            ),
                        }
                    )
    write(arguments.output, {"estimates": rows})


if __name__ == "__main__":
    main()
