"""What a UNet reads of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """Text embeddings of N prompts.

    Attributes:
        tokens: An embedding for each token, float32, shape (N, L, d). For Stable
            Diffusion XL d is the width of both text encoders together.
        pooled: An embedding for each prompt, float32, shape (N, p), of Stable Diffusion
            XL's second text encoder; None where the UNet reads none.
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, prompts: Tensor | slice) -> PromptEmbeds:
        """Those of some of the prompts."""
        pooled = None if self.pooled is None else self.pooled[prompts]
        return PromptEmbeds(self.tokens[prompts], pooled)

    def expand(self, count: int) -> PromptEmbeds:
        """A single prompt's embeddings ``count`` times, without copying them."""
        pooled = None if self.pooled is None else self.pooled.expand(count, -1)
        return PromptEmbeds(self.tokens.expand(count, -1, -1), pooled)

    @staticmethod
    def cat(parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """The embeddings of several, in their order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return PromptEmbeds(
            torch.cat([part.tokens for part in parts]),
            torch.cat(pooled) if pooled else None,
        )
