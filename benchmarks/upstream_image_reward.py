"""ImageReward as its authors publish it, against this project's, on the same weights.

    python benchmarks/upstream_image_reward.py

The package ``image-reward`` runs on no recent transformers, so an environment of its own
is built for it (6 GB on disk; ``--environment`` names a folder to keep and use again).
Its network at full size gets random weights, saves them as its authors' checkpoint is
saved, and scores images with prompts; then this project loads that file and scores the
same. Nothing is downloaded but the packages: the vocabulary is made up. The result goes
to benchmarks/results/upstream_image_reward.json.

What may differ: nothing but rounding for images of 224 pixels, which neither resizes.
Larger ones upstream resizes with PIL, and this project with torch, which has a gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REQUIREMENTS = [
    "transformers==4.55.4",
    "diffusers==0.39.0",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "timm==0.6.13",
    "fairscale==0.4.13",
    "datasets",
    "torch",
    "torchvision",
    "setuptools<81",
]
"""The last versions that the package runs on; its own list doesn't resolve."""

PACKAGE = "image-reward==1.5"
SIZES = (224, 512)
PROMPTS = [
    "a red cat on the moon",
    "dog",
    "two wolves playing chess in the style of an old painting, " * 4,
]
VOCABULARY_SIZE = 30522
MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}


def main() -> None:
    """Build the environment, score with both, and save the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, help="folder; a temporary one")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.upstream:
        score_upstream()
        return
    from common import ROOT, write

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        python = environment(options.environment or folder / "environment")
        weights = folder / "weights"
        prepare(folder, weights)
        subprocess.run(
            [python, Path(__file__).resolve(), "--upstream"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"},
            check=True,
        )
        result = compare(folder, weights)
    name = "upstream_image_reward.json"
    write(options.output or ROOT / "benchmarks" / "results" / name, result)


def environment(folder: Path) -> Path:
    """The Python of an environment that has the package, built if it isn't there."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        subprocess.run([*pip, "--no-deps", PACKAGE], check=True)
        (folder / "complete").touch()
    return python


def prepare(folder: Path, weights: Path) -> None:
    """Images, a vocabulary, and what upstream looks for in its working directory."""
    import numpy as np
    from PIL import Image

    from tdpo_pipeline.rewards.model_files import BERT_TOKENIZER, IMAGE_REWARD

    rng = np.random.default_rng(0)
    for size in SIZES:
        for i in range(len(PROMPTS)):
            # Smooth, as pictures are, with some noise.
            small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            picture = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))
            noisy = picture + rng.normal(0, 8, picture.shape)
            levels = noisy.round().clip(0, 255).astype(np.uint8)
            Image.fromarray(levels).save(folder / f"{size}_{i}.png")
    words = dict.fromkeys(" ".join(PROMPTS).replace(",", " ,").split())
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary += [f"word{i}" for i in range(VOCABULARY_SIZE - len(vocabulary))]
    places = [folder / "bert-base-uncased", BERT_TOKENIZER.folder(weights)]
    for place in places:
        place.mkdir(parents=True)
        (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    IMAGE_REWARD.folder(weights).mkdir()
    checkpoint = IMAGE_REWARD.folder(weights) / IMAGE_REWARD.files[0].name
    task = {"checkpoint": str(checkpoint), "prompts": PROMPTS, "sizes": SIZES}
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    # The package imports `clip` for a scorer that isn't used here, and doesn't name it.
    (folder / "clip.py").touch()


def score_upstream() -> None:
    """In the package's own environment: make weights, save them, and score."""
    import torch
    import transformers
    from ImageReward.ImageReward import ImageReward
    from PIL import Image

    task = json.loads(Path("task.json").read_text())
    torch.manual_seed(0)
    model = ImageReward("med_config.json").eval()
    for name, p in model.mlp.named_parameters():
        # As drawn by the package the head gives the same number to everything.
        if "weight" in name:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
    torch.save(model.state_dict(), task["checkpoint"])
    found: dict[str, torch.Tensor] = {}
    for size in task["sizes"]:
        scores, pixels, gradients, ids, masks = [], [], [], [], []
        for i, prompt in enumerate(task["prompts"]):
            image = Image.open(f"{size}_{i}.png")
            scores.append(model.score(prompt, image))
            x = model.preprocess(image)[None].requires_grad_()
            tokens = model.blip.tokenizer(
                prompt,
                padding="max_length",
                truncation=True,
                max_length=35,
                return_tensors="pt",
            )
            reward = model.score_gard(tokens.input_ids, tokens.attention_mask, x)
            gradients += torch.autograd.grad(reward.sum(), x)
            pixels.append(x.detach())
            ids.append(tokens.input_ids)
            masks.append(tokens.attention_mask)
        found[f"scores_{size}"] = torch.tensor(scores, dtype=torch.float64)
        found[f"pixels_{size}"] = torch.cat(pixels)
        found[f"gradients_{size}"] = torch.cat(gradients)
        found[f"ids_{size}"] = torch.cat(ids)
        found[f"masks_{size}"] = torch.cat(masks)
    torch.save(found, "upstream.pt")
    versions = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    Path("versions.json").write_text(json.dumps(versions))


def compare(folder: Path, weights: Path) -> dict[str, object]:
    """This project's scores and gradients, and how far they are from upstream's."""
    import numpy as np
    import torch
    import transformers
    from PIL import Image

    from tdpo_pipeline.rewards.imagereward import MEAN, STD, ImageReward
    from tdpo_pipeline.rewards.registry import load_reward

    reward = load_reward("imagereward", weights)
    assert isinstance(reward, ImageReward)
    upstream = torch.load(folder / "upstream.pt", weights_only=True)
    differences = {}
    for size in SIZES:
        names = ("scores", "pixels", "gradients", "ids", "masks")
        scores, x, gradients, ids, masks = (upstream[f"{n}_{size}"] for n in names)
        pictures = [
            np.asarray(Image.open(folder / f"{size}_{i}.png"))
            for i in range(len(PROMPTS))
        ]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            ours = reward(images, PROMPTS).values.double()
        x = x.requires_grad_()
        # One at a time, as upstream does: a batch rounds differently.
        pairs = zip(x.split(1), ids.split(1), masks.split(1), strict=True)
        raw = torch.cat([reward.network(*pair) for pair in pairs])
        same = (raw - MEAN) / STD
        (gradient,) = torch.autograd.grad(same.sum(), x)
        own_ids, own_masks = reward.reader(PROMPTS)
        differences[f"{size} pixels"] = {
            "upstream scores": scores.tolist(),
            "same tokens": bool((own_ids == ids).all() and (own_masks == masks).all()),
            "score, same pixel values": largest(same.detach().double() - scores),
            "gradient, same pixel values": largest(gradient - gradients),
            "largest gradient": largest(gradients),
            "score, from the image on": largest(ours - scores),
        }
    return {
        "upstream": {"package": PACKAGE}
        | json.loads((folder / "versions.json").read_text()),
        "here": {"torch": torch.__version__, "transformers": transformers.__version__},
        "pairs of each size": len(PROMPTS),
        "largest differences": differences,
    }


def largest(values: object) -> float:
    """The largest absolute value of a tensor."""
    return float(values.abs().max())  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
