"""CLIP's two towers as rewards use them: frozen, in float32, their outputs normalised.

ViT-L/14 (768 dimensions) is what the aesthetic predictor sees and what temporal critics
of TDPO read; PickScore and HPSv2 are ViT-H/14 (1024) with weights of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tdpo_pipeline.rewards.base import ImageEncoder, PaperScale, Reward, Scores
from tdpo_pipeline.rewards.loading import frozen, load_pretrained, shared
from tdpo_pipeline.rewards.model_files import CLIP_L, require_files
from tdpo_pipeline.rewards.preprocessing import Fit, clip_pixels
from tdpo_pipeline.rewards.reading import PromptReader

CONTEXT_LENGTH = 77


class ClipImageEncoder(ImageEncoder):
    """A CLIP image tower with its projection.

    Args:
        model: transformers' ``CLIPModel`` or ``CLIPVisionModelWithProjection``; only its
            ``vision_model`` and ``visual_projection`` are kept.
        fit: How images that aren't square are fitted, see ``preprocessing``.
    """

    def __init__(self, model: Any, fit: Fit = "crop") -> None:
        super().__init__()
        self.fit: Fit = fit
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection
        self.image_size: int = model.vision_model.config.image_size
        self.embedding_dim = model.visual_projection.out_features
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings (N, d) of images in [0, 1]."""
        pixels = clip_pixels(images, self.image_size, self.fit)
        pooled = self.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.visual_projection(pooled), dim=-1)


class ClipTextEncoder(nn.Module):
    """A CLIP text tower with its projection.

    Args:
        model: transformers' ``CLIPModel``; only its ``text_model`` and
            ``text_projection`` are kept.
        encode: Token ids of a prompt, whole, with its first and last special tokens.
        name: Name of the reward, for messages.
    """

    def __init__(
        self, model: Any, encode: Callable[[str], Sequence[int]], name: str
    ) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection
        # What fills up comes after the token that ends the prompt, at which a causal
        # tower is read, so its id doesn't matter.
        self.reader = PromptReader(encode, CONTEXT_LENGTH, pad_id=0, reader=name)
        frozen(self)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """L2-normalised embeddings (N, d) of N prompts; equal ones are read once."""
        unique = list(dict.fromkeys(prompts))
        device = self.text_projection.weight.device
        ids, _ = self.reader(unique)
        pooled = self.text_model(input_ids=ids.to(device)).pooler_output
        embeds = F.normalize(self.text_projection(pooled), dim=-1)
        return embeds[[unique.index(prompt) for prompt in prompts]]


class ClipSimilarity(Reward):
    """The cosine between the embeddings of an image and of its prompt.

    Args:
        name: The reward's name.
        model: transformers' ``CLIPModel``; a critic may share its image tower.
        encode: Token ids of a prompt, whole, with its first and last special tokens.
        paper_scale: How the paper scales the cosine.
        fit: How images that aren't square are fitted, see ``preprocessing``.
    """

    value_range = (-1.0, 1.0)
    differentiable = True

    def __init__(
        self,
        name: str,
        model: Any,
        encode: Callable[[str], Sequence[int]],
        paper_scale: PaperScale,
        fit: Fit = "crop",
    ) -> None:
        self.name = name
        self.encoder: ClipImageEncoder = ClipImageEncoder(model, fit)
        self.text = ClipTextEncoder(model, encode, name)
        self.paper_scale = paper_scale

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Cosines (N,) in [-1, 1]."""
        text = self.text(prompts)
        return Scores((self.encoder(images) * text).sum(-1))


class LendsClipL(Reward):
    """A reward without an image embedding of its own: critics get CLIP ViT-L/14.

    TDPO does so for ImageReward. The tower is loaded when somebody asks for it.

    Args:
        weights: Folder of weights.
    """

    def __init__(self, weights: Path) -> None:
        self.weights = weights

    @cached_property
    def encoder(self) -> ImageEncoder:  # type: ignore[override]
        """CLIP ViT-L/14, on the device of the reward's networks."""
        networks = (v for v in vars(self).values() if isinstance(v, nn.Module))
        device = next(p.device for network in networks for p in network.parameters())
        return clip_l_encoder(self.weights).to(device)


def hub_tokenizer(folder: Path) -> Callable[[str], Sequence[int]]:
    """CLIP's tokens by the ``vocab.json`` and ``merges.txt`` of a folder."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    return lambda prompt: tokenizer(prompt).input_ids


def clip_l_encoder(weights: Path) -> ClipImageEncoder:
    """OpenAI's CLIP ViT-L/14 image tower, shared by everybody who asks for it.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    return shared(_load_clip_l, weights)


def _load_clip_l(weights: Path) -> ClipImageEncoder:
    from transformers import CLIPVisionModelWithProjection

    folder = require_files(CLIP_L, weights)
    model = load_pretrained(
        CLIPVisionModelWithProjection,
        folder,
        unused=("text_model.", "text_projection.", "logit_scale"),
    )
    return ClipImageEncoder(model)
