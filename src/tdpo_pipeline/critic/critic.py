"""The temporal critic of TDPO: predicts the final reward from a noisy state.

It reads the embedding that the reward's own frozen image encoder gives of the decoded
x_t (the paper's inductive bias), and its error on a step, target minus prediction, is
that step's temporal reward (TDPO paper, equations 4 to 9).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tdpo_pipeline.config import OptimizerSettings, Settings
from tdpo_pipeline.diffusion.devices import to_device

ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
}


class CriticSettings(Settings):
    """Depth, width, activation and learning of the critic.

    Attributes:
        hidden: Width of each hidden layer.
        dropout: Dropout after the first layers (the rest have none).
        activation: Between layers. The paper's "5 linear layers" have none.
        init: ``official`` draws all weights from N(0, 1/(d+1)^2) with d the embedding
            size, from which a deep linear net learns nothing for the first hundreds of
            updates (targets of mean 0); ``default`` is torch's own, with biases 0.
        value_clip: The prediction may move by this much from the one made in the
            rollout before its loss is clipped (PPO); None: plain squared error.
        target: ``normalised`` is the per-prompt z-scored reward, ``raw`` the reward.
        state: What is decoded for the critic at a step: the state before it (as the
            official code does), after it (the paper's equation 4), or the predicted
            x_0.
        decoder: ``full`` is the base model's own decoder; ``tiny`` a small one that
            approximates it, for the critic's eyes alone.
        inputs: ``image``, or ``image_prompt`` to append the prompt's mean text
            embedding (the paper's equation 8).
        optimizer: The critic's own AdamW.
        precision: ``fp32``; or ``official_fp16``, for forensics: half precision under a
            growing loss scale, by which the critic's gradient is divided twice, so that
            it hardly learns (a fault of the official code's two optimizers).
        encoder: Reward whose image encoder the critic reads instead of that of the
            task; None: the task's.
    """

    hidden: tuple[PositiveInt, ...] = Field(default=(1024, 128, 64, 16), min_length=1)
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.2, 0.2, 0.1)
    activation: Literal["none", "relu", "gelu", "leaky_relu"] = "none"
    init: Literal["official", "default"] = "default"
    value_clip: float | None = Field(default=0.2, gt=0)
    target: Literal["normalised", "raw"] = "normalised"
    state: Literal["pre", "post", "x0hat"] = "pre"
    decoder: Literal["full", "tiny"] = "full"
    inputs: Literal["image", "image_prompt"] = "image"
    optimizer: OptimizerSettings
    precision: Literal["fp32", "official_fp16"] = "fp32"
    encoder: str | None = None

    @model_validator(mode="after")
    def _dropout_fits(self) -> Self:
        if len(self.dropout) > len(self.hidden):
            raise ValueError("critic.dropout is longer than critic.hidden.")
        return self


class HostDropout(nn.Dropout):
    """Dropout whose mask the CPU draws, so that it is the same on every device."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero random elements of ``x`` in training, and scale up the others."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty_like(x, device="cpu").bernoulli_(1 - self.p)
        return x * to_device(kept.div_(1 - self.p), x.device)


class TemporalCritic(nn.Module):
    """MLP from an embedding (B, d) to a predicted reward (B,).

    Args:
        embedding_dim: Size d of the embedding.
        settings: Shape and initialisation.
    """

    def __init__(self, embedding_dim: int, settings: CriticSettings) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.init = settings.init
        widths = [embedding_dim, *settings.hidden, 1]
        self.linears = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.activation = ACTIVATIONS[settings.activation]()
        rates = [*settings.dropout, *[0.0] * len(settings.hidden)]
        self.dropouts = nn.ModuleList(
            HostDropout(rate) for rate in rates[: len(settings.hidden)]
        )
        for linear in self.layers:
            nn.init.zeros_(linear.bias)
            linear.weight.data = self.initial_weight(linear)

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear layers, from the embedding to the prediction."""
        return [cast(nn.Linear, linear) for linear in self.linears]

    def initial_weight(self, linear: nn.Linear) -> Tensor:
        """A fresh draw of a layer's weights from its initial distribution."""
        weight = torch.empty_like(linear.weight, device="cpu")
        if self.init == "official":
            nn.init.normal_(weight, std=1 / (self.embedding_dim + 1))
        else:
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        return weight.to(linear.weight.device)

    def hidden(self, embeddings: Tensor) -> list[Tensor]:
        """Outputs of the hidden linear layers, before activation, each (B, width)."""
        outputs, x = [], embeddings
        for linear, dropout in zip(self.linears, self.dropouts, strict=False):
            outputs.append(linear(x))
            x = dropout(self.activation(outputs[-1]))
        return outputs

    def forward(self, embeddings: Tensor) -> Tensor:
        """Predicted reward, float32, shape (B,), of embeddings (B, d)."""
        last = self.hidden(embeddings)[-1]
        x = self.dropouts[-1](self.activation(last))
        return self.linears[-1](x).squeeze(-1)


def critic_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, value_clip: float | None
) -> Tensor:
    """Half the squared error, clipped as in PPO (TDPO paper, equation 9 and Table 1).

    Args:
        values: Predictions now, shape (B,).
        old_values: Predictions made in the rollout, shape (B,).
        targets: Shape (B,).
        value_clip: Clip range on the change of the prediction, or None.

    Returns:
        Scalar 1/2 mean max((v - y)^2, (v_clip - y)^2).
    """
    squared = (values - targets) ** 2
    if value_clip is not None:
        change = (values - old_values).clamp(-value_clip, value_clip)
        squared = torch.maximum(squared, (old_values + change - targets) ** 2)
    return 0.5 * squared.mean()


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """1 - Var(targets - predictions) / Var(targets); 0 for a constant prediction."""
    variance = targets.var(correction=0)
    if variance == 0:
        return float("nan")
    return float(1 - (targets - predictions).var(correction=0) / variance)
