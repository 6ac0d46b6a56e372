"""PickScore: which of two pictures people pick for a prompt (Kirstain et al., 2023).

A CLIP ViT-H/14 tuned on picks. The score is the cosine, about 0.2, which TDPO trains
on; the paper's is multiplied by the learned temperature, about 20.
"""

from __future__ import annotations

from pathlib import Path

from tdpo_pipeline.rewards.base import PaperScale, Reward
from tdpo_pipeline.rewards.clip import ClipSimilarity, hub_tokenizer
from tdpo_pipeline.rewards.loading import load_pretrained
from tdpo_pipeline.rewards.model_files import PICKSCORE, require_files

NAME = "pickscore"


def load(weights: Path) -> Reward:
    """PickScore v1.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    from transformers import CLIPModel

    folder = require_files(PICKSCORE, weights)
    model = load_pretrained(CLIPModel, folder)
    scale = PaperScale(model.logit_scale.exp().item())
    return ClipSimilarity(NAME, model, hub_tokenizer(folder), scale)
