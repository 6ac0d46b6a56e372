"""HPSv2 and HPSv2.1: human preference scores (Wu et al., 2023).

A CLIP ViT-H/14 tuned on the preferences of HPDv2; v2.1 on more and cleaner ones. The two
are not comparable. The score is the cosine, about 0.2 to 0.35; the papers' tables are
in hundredths.

The published checkpoints are those of OpenCLIP. They are brought to the names of
transformers, so that all CLIP rewards are one class; both compute the same. Prompts are
tokenised by OpenCLIP, which mends a text's encoding first. Images that aren't square get
black borders, where other CLIP scorers crop them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tdpo_pipeline.rewards.base import PaperScale, Reward
from tdpo_pipeline.rewards.clip import ClipSimilarity
from tdpo_pipeline.rewards.loading import WeightsError, load_strict, read_tensors
from tdpo_pipeline.rewards.model_files import (
    HPS_V2,
    HPS_V2_1,
    Repository,
    require_files,
)

HUNDREDTHS = PaperScale(100.0)
START, END = 49406, 49407

_TOWERS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "logit_scale": "logit_scale",
}
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_PROJECTIONS = {
    "visual.proj": "visual_projection",
    "text_projection": "text_projection",
}
_IN_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


def from_open_clip(tensors: Mapping[str, Tensor], source: Path | str) -> dict[str, Any]:
    """OpenCLIP's state dict with the names and shapes of transformers' ``CLIPModel``.

    Raises:
        WeightsError: If a name is none of OpenCLIP's.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _PROJECTIONS:
            converted[f"{_PROJECTIONS[name]}.weight"] = tensor.T.contiguous()
        elif found := _IN_BLOCK.fullmatch(name):
            tower = "vision_model" if found[1] else "text_model"
            converted |= _block(f"{tower}.encoder.layers.{found[2]}", found[3], tensor)
        else:
            converted[_renamed(name, _TOWERS, source)] = tensor
    return converted


def _block(layer: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor of a block; query, key and value are one in OpenCLIP."""
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{layer}.self_attn.{part}_proj.{kind}": value for part, value in parts}
    return {f"{layer}.{_renamed(name, _BLOCK, layer)}": tensor}


def _renamed(name: str, names: Mapping[str, str], source: Path | str) -> str:
    if name in names:
        return names[name]
    stem, _, kind = name.rpartition(".")
    if stem not in names:
        raise WeightsError(f"{source}: '{name}' is no name of OpenCLIP's CLIP.")
    return f"{names[stem]}.{kind}"


def vit_h_config() -> Any:
    """Transformers' configuration of OpenCLIP's ViT-H-14."""
    from transformers import CLIPConfig

    return CLIPConfig(
        text_config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 1024,
            "bos_token_id": START,
            "eos_token_id": END,
        },
        vision_config={
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 224,
            "hidden_act": "gelu",
            "projection_dim": 1024,
        },
        projection_dim=1024,
    )


def open_clip_tokens() -> Callable[[str], Sequence[int]]:
    """OpenCLIP's tokenizer, which comes with the library."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda prompt: [START, *tokenizer.encode(prompt), END]


def build(
    name: str, tensors: Mapping[str, Tensor], config: Any, source: Path | str
) -> ClipSimilarity:
    """A score from a state dict of OpenCLIP.

    Args:
        name: The reward's name.
        tensors: OpenCLIP's state dict.
        config: transformers' ``CLIPConfig`` of the same model.
        source: Where the tensors are from, for messages.
    """
    from accelerate import init_empty_weights
    from transformers import CLIPModel

    with init_empty_weights():
        model = CLIPModel(config)
    load_strict(model, from_open_clip(tensors, source), source)
    return ClipSimilarity(name, model, open_clip_tokens(), HUNDREDTHS, fit="pad")


def _load(name: str, repository: Repository, weights: Path) -> Reward:
    path = require_files(repository, weights) / repository.files[0].name
    return build(name, read_tensors(path, "state_dict"), vit_h_config(), path)


def load(weights: Path) -> Reward:
    """HPSv2 (v2.0).

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    return _load("hpsv2", HPS_V2, weights)


def load_v2_1(weights: Path) -> Reward:
    """HPSv2.1; errors as of :func:`load`."""
    return _load("hpsv2_1", HPS_V2_1, weights)
