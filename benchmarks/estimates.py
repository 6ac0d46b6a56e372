"""What runs of the Stable Diffusion environments are estimated to take, on any machine.

    python benchmarks/estimates.py

For each environment, each memory preset and one run of each kind: GB of GPU memory and
hours, by the same estimate that a run prints before it starts. Needs no weights: the base
models' architectures are given here as in their published configuration files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from common import ROOT, output_argument, parameters, plain, write
from transformers import CLIPTextConfig

from tdpo_pipeline.config import AlgorithmSettings, RunConfig, TrainingSettings
from tdpo_pipeline.trainer.estimate import architecture, estimate, sustained_tflops

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
    ),
    "sd15": (("ddpo_diffexp", "aesthetic"), ("alignprop_diffexp", "aesthetic")),
    "sdxl": (("alignprop_diffexp", "aesthetic"),),
}
SD1 = {
    "sample_size": 64,
    "in_channels": 4,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
XL = {
    "sample_size": 128,
    "in_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
TEXT_2 = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}


def write_configuration(folder: Path, *, xl: bool) -> Path:
    """A pipeline folder without weights."""
    for part, config in (("unet", XL if xl else SD1), ("vae", VAE)):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    CLIPTextConfig(**TEXT).save_pretrained(folder / "text_encoder")
    if xl:
        CLIPTextConfig(**TEXT_2).save_pretrained(folder / "text_encoder_2")
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
                tflops = sustained_tflops(GPUS[preset], params["training"].precision)
                for method, reward in chosen:
                    config = run_config(params, method, reward, memory)
                    model, trained = architecture(folders[env == "sdxl"], config)
                    found = estimate(config, model, trained)
                    hours = found.seconds(tflops, 1) * config.training.epochs / 3600
                    rows.append(
                        {
                            "environment": env,
                            "preset": preset,
                            "run": config.key,
                            "gigabytes": round(found.gigabytes, 1),
                            "gpu": GPUS[preset],
                            "assumed_tflops": round(tflops),
                            "epochs": config.training.epochs,
                            "pflop_an_epoch": round(sum(found.work.values()), 1),
                            "hours": round(hours, 1),
                        }
                    )
    write(arguments.output, {"estimates": rows})


if __name__ == "__main__":
    main()
