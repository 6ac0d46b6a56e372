"""The LAION aesthetic predictor: how much people like a picture, whatever it shows.

An affine head on CLIP ViT-L/14's normalised image embedding (Schuhmann's "improved
aesthetic predictor", trained on SAC, Logos and AVA), about 4 to 7 for pictures of
Stable Diffusion. The reward of DDPO, TDPO, AlignProp and DRaFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tdpo_pipeline.rewards.base import ImageEncoder, Reward, Scores
from tdpo_pipeline.rewards.clip import clip_l_encoder
from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.rewards.loading import load_strict, read_tensors
from tdpo_pipeline.rewards.model_files import AESTHETIC_HEAD, require_files


class Aesthetic(Reward):
    """The head on an image encoder, which a critic may share.

    Args:
        encoder: CLIP ViT-L/14.
        head: Trained on its embeddings.
    """

    name = "aesthetic"
    differentiable = True

    def __init__(self, encoder: ImageEncoder, head: AffineHead) -> None:
        self.encoder: ImageEncoder = encoder
        self.head = head
        self.value_range = head.bounds()

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores (N,) of the images; the prompts don't matter."""
        return Scores(self.head(self.encoder(images)))


def load(weights: Path) -> Reward:
    """The predictor.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    path = require_files(AESTHETIC_HEAD, weights) / AESTHETIC_HEAD.files[0].name
    encoder = clip_l_encoder(weights)
    head = load_strict(AffineHead(encoder.embedding_dim), read_tensors(path), path)
    return Aesthetic(encoder, head)
