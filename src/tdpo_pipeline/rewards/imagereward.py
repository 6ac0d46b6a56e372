"""ImageReward: a learned human preference for text-to-image (Xu et al., 2023).

A BLIP text encoder reads the prompt and attends to the image's patches (ViT-L/16); an
affine head scores its first token. The score is the official one, z-scored by the
constants of its authors; TDPO's code leaves that affine step out.

The published package doesn't run on the libraries of today (its code needs functions
that transformers has dropped). This is the same network from transformers' own BLIP
classes, filled strictly from the official checkpoint; ``benchmarks/
upstream_image_reward.py`` compares both where the package still runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tdpo_pipeline.rewards.base import PaperScale, Reward, Scores
from tdpo_pipeline.rewards.clip import LendsClipL
from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.rewards.loading import WeightsError, load_strict, read_tensors
from tdpo_pipeline.rewards.model_files import (
    BERT_TOKENIZER,
    IMAGE_REWARD,
    require_files,
)
from tdpo_pipeline.rewards.preprocessing import clip_pixels
from tdpo_pipeline.rewards.reading import PromptReader

TEXT_LENGTH = 35
MEAN, STD = 0.16717362830052426, 1.0333394966054072

VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
}
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}

_UNUSED = re.compile(
    r"blip\.(vision|text)_proj\..*|blip\.text_encoder\.embeddings\.position_ids"
)
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_VISION_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


class ImageRewardNetwork(nn.Module):
    """Vision and text encoder, and the head on the text's first token.

    Args:
        vision: Sizes of the image encoder, as in ``VISION``.
        text: Sizes of the text encoder, as in ``TEXT``.
    """

    def __init__(
        self, vision: Mapping[str, int] = VISION, text: Mapping[str, int] = TEXT
    ) -> None:
        super().__init__()
        from transformers import (
            BlipTextConfig,
            BlipTextModel,
            BlipVisionConfig,
            BlipVisionModel,
        )

        # transformers' defaults are those of other BLIP models: 1e-5 instead of 1e-6,
        # and weights drawn next to 0.
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                **vision,
                hidden_act="gelu",
                layer_norm_eps=1e-6,
                initializer_range=0.02,
            )
        )
        # A "decoder" has the cross-attention; it is run as an encoder.
        self.text = BlipTextModel(
            BlipTextConfig(
                **text,
                encoder_hidden_size=vision["hidden_size"],
                hidden_act="gelu",
                layer_norm_eps=1e-12,
                is_decoder=True,
                bos_token_id=None,
                sep_token_id=None,
                pad_token_id=0,
            ),
            add_pooling_layer=False,
        )
        self.mlp = AffineHead(text["hidden_size"])
        self.image_size = vision["image_size"]

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Raw rewards (N,) of pixel values (N, 3, S, S) and token ids and mask (N, L)."""
        image = self.vision(pixel_values=pixels).last_hidden_state
        seen = torch.ones(image.shape[:-1], dtype=torch.long, device=image.device)
        text = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=image,
            encoder_attention_mask=seen,
            is_decoder=False,
        )
        return self.mlp(text.last_hidden_state[:, 0].float())


def from_upstream(tensors: Mapping[str, Tensor], source: Path | str) -> dict[str, Any]:
    """The official state dict with the names of :class:`ImageRewardNetwork`.

    What scoring doesn't use is left out: BLIP's projections, and a buffer that counts.

    Raises:
        WeightsError: If a name is none of the official ones.
    """
    return {
        _renamed(name, source): tensor
        for name, tensor in tensors.items()
        if not _UNUSED.fullmatch(name)
    }


def _renamed(name: str, source: Path | str) -> str:
    if name.startswith("blip.text_encoder."):
        return name.replace("blip.text_encoder.", "text.", 1)
    if name.startswith("mlp."):
        return name
    if found := re.fullmatch(r"blip\.visual_encoder\.blocks\.(\d+)\.(.+)\.(.+)", name):
        layer, module, kind = found.groups()
        if module in _VISION_BLOCK:
            return f"vision.encoder.layers.{layer}.{_VISION_BLOCK[module]}.{kind}"
    elif found := re.fullmatch(r"blip\.visual_encoder\.(.+?)(\.weight|\.bias)?", name):
        module, kind = found[1], found[2] or ""
        if module in _VISION:
            return f"vision.{_VISION[module]}{kind}"
    raise WeightsError(f"{source}: '{name}' is no name of ImageReward's.")


class ImageReward(LendsClipL):
    """The network, its tokens, and the scale of its authors.

    Args:
        network: Filled.
        reader: Its tokens.
        weights: Folder of weights, which a critic's encoder is loaded from when asked.
    """

    name = "imagereward"
    differentiable = True
    # TDPO's figures have the rewards before the z-score.
    paper_scale = PaperScale(STD, MEAN)

    def __init__(
        self, network: ImageRewardNetwork, reader: PromptReader, weights: Path
    ) -> None:
        super().__init__(weights)
        self.network = network
        self.reader = reader

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Z-scored rewards, shape (N,)."""
        unique = list(dict.fromkeys(prompts))
        which = [unique.index(prompt) for prompt in prompts]
        ids, mask = (tensor[which].to(images.device) for tensor in self.reader(unique))
        raw = self.network(clip_pixels(images, self.network.image_size), ids, mask)
        return Scores((raw - MEAN) / STD)


def load(weights: Path) -> Reward:
    """ImageReward v1.0.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    from accelerate import init_empty_weights
    from transformers import BertTokenizer

    path = require_files(IMAGE_REWARD, weights) / IMAGE_REWARD.files[0].name
    vocab = require_files(BERT_TOKENIZER, weights) / BERT_TOKENIZER.files[0].name
    with init_empty_weights():
        network = ImageRewardNetwork(VISION, TEXT)
    load_strict(network, from_upstream(read_tensors(path), path), path)
    tokenizer = BertTokenizer(vocab=str(vocab))
    reader = PromptReader(
        lambda prompt: tokenizer(prompt).input_ids,
        TEXT_LENGTH,
        pad_id=tokenizer.pad_token_id,
        reader=ImageReward.name,
    )
    return ImageReward(network, reader, weights)
