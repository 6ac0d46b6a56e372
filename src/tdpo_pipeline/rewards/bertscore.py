"""BERTScore's recall: how much of a reference a candidate says (Zhang et al., 2020).

    R = 1/|x| sum_i max_j cos(x_i, y_j)

over the contextual embeddings x_i of the reference's tokens and y_j of the candidate's.
The special tokens at both ends are no part of the mean, but may be matched, as in the
authors' package; idf weights and rescaling with a baseline, off there by default, are
not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdpo_pipeline.rewards.loading import frozen, load_pretrained, shared
from tdpo_pipeline.rewards.model_files import DEBERTA, require_files

LAYER = 40
"""Layer of deberta-xlarge-mnli that the authors found best."""

MAX_TOKENS = 512
UNUSED = ("classifier.", "pooler.", "config")
"""What MNLI checkpoints hold besides; some have their configuration in the weights."""


def recall(reference: Tensor, candidate: Tensor) -> Tensor:
    """Recall of a reference by a candidate.

    Args:
        reference: Token embeddings, shape (n, d), the special ones first and last.
        candidate: Token embeddings, shape (m, d).

    Returns:
        Scalar in [-1, 1].
    """
    reference, candidate = (F.normalize(x, dim=-1) for x in (reference, candidate))
    return (reference[1:-1] @ candidate.T).amax(dim=1).mean()


class BertScorer(nn.Module):
    """Recall by the embeddings of one layer of a text encoder.

    Args:
        model: transformers' ``DebertaModel``; the layers above ``layer`` are dropped.
        encode: Token ids of a text, with its first and last special tokens.
        layer: Whose output is compared; 0 would be the embeddings.
    """

    def __init__(
        self, model: Any, encode: Callable[[str], Sequence[int]], layer: int
    ) -> None:
        super().__init__()
        depth = len(model.encoder.layer)
        if not 1 <= layer <= depth:
            raise ValueError(f"layer {layer} is none of the model's {depth} layers.")
        model.encoder.layer = model.encoder.layer[:layer]
        self.model = model
        self.encode = encode
        frozen(self)

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """Embeddings (n, d) of a text's tokens."""
        ids = list(self.encode(text.strip()))
        if len(ids) > MAX_TOKENS:
            ids = [*ids[: MAX_TOKENS - 1], ids[-1]]
        tokens = torch.tensor([ids], device=self.model.device)
        return self.model(input_ids=tokens).last_hidden_state[0].float()

    def forward(self, references: Sequence[str], candidates: Sequence[str]) -> Tensor:
        """Recall of each reference by its candidate, shape (N,); 0 if that is empty."""
        embedded = {
            text: self.embed(text)
            for text in dict.fromkeys([*references, *candidates])
            if text.strip()
        }
        return torch.stack(
            [
                recall(embedded[reference], embedded[candidate])
                if candidate.strip()
                else torch.zeros((), device=self.model.device)
                for reference, candidate in zip(references, candidates, strict=True)
            ]
        )


def bert_scorer(weights: Path) -> BertScorer:
    """BERTScore by deberta-xlarge-mnli, shared by everybody who asks for it.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    return shared(_load, weights)


def _load(weights: Path) -> BertScorer:
    from transformers import DebertaModel, DebertaTokenizer

    folder = require_files(DEBERTA, weights)
    model = load_pretrained(DebertaModel, folder, unused=UNUSED)
    tokenizer = DebertaTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    return BertScorer(model, lambda text: tokenizer(text).input_ids, LAYER)
