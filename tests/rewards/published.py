"""Published models in small: random weights of the true classes, laid out as fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.rewards.model_files import AESTHETIC_HEAD, CLIP_L, PICKSCORE

VOCABULARY = 49408
IMAGE_SIZE = 32


def images(count: int = 2, size: int = IMAGE_SIZE) -> Tensor:
    """Random images of 8 bits; at the models' own size nothing is resized."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator) / 255


def clip_config(dim: int, activation: str = "gelu") -> CLIPConfig:
    """A small CLIP with CLIP's whole vocabulary."""
    return CLIPConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_act": activation,
            "projection_dim": dim,
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "hidden_act": activation,
            "projection_dim": dim,
        },
        projection_dim=dim,
    )


def clip(dim: int, activation: str = "gelu", seed: int = 0) -> CLIPModel:
    """A random small CLIP."""
    torch.manual_seed(seed)
    return CLIPModel(clip_config(dim, activation)).eval()


def openai_clip(dim: int, seed: int = 0) -> open_clip.CLIP:
    """The same architecture by OpenCLIP."""
    torch.manual_seed(seed)
    return open_clip.CLIP(
        dim,
        open_clip.CLIPVisionCfg(
            layers=2, width=32, head_width=16, mlp_ratio=2, patch_size=8, image_size=32
        ),
        open_clip.CLIPTextCfg(
            context_length=77,
            vocab_size=VOCABULARY,
            width=16,
            heads=2,
            layers=2,
            mlp_ratio=2,
        ),
    ).eval()


def write_clip_l(weights: Path, model: CLIPModel) -> None:
    """A whole CLIP, as it is published, of which only the image tower is needed."""
    folder = CLIP_L.folder(weights)
    model.save_pretrained(folder)
    # Checkpoints of that age also hold the buffers that count positions.
    path = folder / "model.safetensors"
    counting = {
        f"{tower}.embeddings.position_ids": torch.arange(length)[None]
        for tower, length in (("text_model", 77), ("vision_model", 17))
    }
    save_file(state(model) | counting, path, {"format": "pt"})


def write_head(weights: Path, features: int) -> AffineHead:
    """A random aesthetic head as the file that is published."""
    torch.manual_seed(1)
    head = AffineHead(features)
    folder = AESTHETIC_HEAD.folder(weights)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(head.state_dict(), folder / AESTHETIC_HEAD.files[0].name)
    return head.eval()


def write_pickscore(weights: Path, model: CLIPModel) -> None:
    """PickScore's repository."""
    folder = PICKSCORE.folder(weights)
    model.save_pretrained(folder)
    write_clip_vocabulary(folder)


def write_clip_vocabulary(folder: Path) -> None:
    """CLIP's ``vocab.json`` and ``merges.txt``, from the ones inside OpenCLIP."""
    tokenizer = SimpleTokenizer()
    vocabulary = list(tokenizer.encoder)[: VOCABULARY - 2]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    table = {token: index for index, token in enumerate(vocabulary)}
    merges = [" ".join(pair) for pair in tokenizer.bpe_ranks]
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def state(model: Any) -> dict[str, Tensor]:
    """A state dict whose tensors can be changed and saved."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """A pickle of ``torch.save``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
