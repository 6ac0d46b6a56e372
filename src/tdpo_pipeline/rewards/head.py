"""The head of the aesthetic predictor and of ImageReward: five affine layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AffineHead(nn.Module):
    """From features (N, d) to scores (N,); linear layers, and nothing in between.

    Its state dict has the names of both published heads, ``layers.0`` to ``layers.7``.

    Args:
        features: Size d.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(
            nn.Linear(features, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Scores, shape (N,)."""
        return self.layers(features).squeeze(-1)

    @torch.no_grad()
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest score of features of length 1.

        Being affine, the head is b + w e, which is in [b - |w|, b + |w|].
        """
        axes = torch.eye(self.features, device=next(self.parameters()).device)
        bias = self(torch.zeros_like(axes[:1]))
        length = (self(axes) - bias).norm()
        return float(bias - length), float(bias + length)
