"""Proxy rewards: small networks that learned a gold reward from few, noisy labels.

Each proxy has an image encoder of its own, which a temporal critic may share, and a
text tower where the model whose name it recalls has one. It is trained on labels of
exactly one gold. What it gets wrong was not put there: it comes of few labels, noise
and a small network, as in the real models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tdpo_pipeline.menagerie.proxies_settings import ProxySettings
from tdpo_pipeline.menagerie.render import IMAGE_SIZE
from tdpo_pipeline.menagerie.scenes import VocabularyError
from tdpo_pipeline.menagerie.vocabulary import WORDS
from tdpo_pipeline.rewards.base import ImageEncoder, Reward, RewardError, Scores


class ProxyWeightsError(FileNotFoundError):
    """A proxy's weights that are missing or truncated."""


_INDEX = {word: i for i, word in enumerate(WORDS)}


class ProxyEncoder(ImageEncoder):
    """Three strided convolutions and a projection: (N, 3, 32, 32) to (N, d).

    Args:
        width: Channels of the first layer; doubled by each of the others.
        embedding_dim: Size d of the L2-normalised embedding.
    """

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width):
            layers += [
                nn.Conv2d(channels, out, 3, stride=2, padding=1),
                nn.GroupNorm(4, out),
                nn.SiLU(),
            ]
            channels = out
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.project = nn.Linear(channels * 4 * 4, embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings (N, d) of images in [0, 1]."""
        return F.normalize(self.project(self.body(2 * images - 1)), dim=-1)


class TextTower(nn.Module):
    """The mean of the prompt's word embeddings, projected and L2-normalised."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(len(WORDS), embedding_dim, mode="mean")
        self.project = nn.Sequential(
            nn.Linear(embedding_dim, embedding_dim),
            nn.SiLU(),
            nn.Linear(embedding_dim, embedding_dim),
        )

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (N, d) of N prompts."""
        tokens = [word_ids(prompt) for prompt in prompts]
        starts = [0]
        for ids in tokens[:-1]:
            starts.append(starts[-1] + len(ids))
        device = self.words.weight.device
        flat = torch.tensor([i for ids in tokens for i in ids], device=device)
        bags = self.words(flat, torch.tensor(starts, device=device))
        return F.normalize(self.project(bags), dim=-1)


def word_ids(prompt: str) -> list[int]:
    """Indices of a prompt's words in ``WORDS``.

    Raises:
        VocabularyError: If the prompt is empty or has a word that Menagerie has not.
    """
    words = prompt.lower().strip().removesuffix(".").split()
    unknown = [word for word in words if word not in _INDEX]
    if unknown or not words:
        raise VocabularyError(
            f"A proxy reward can't read the prompt {prompt!r}: "
            f"{unknown or 'it is empty'} is not in Menagerie's vocabulary."
        )
    return [_INDEX[word] for word in words]


class ProxyNetwork(nn.Module):
    """Image encoder, text tower (unless ``aesthetic``) and head of a proxy.

    Args:
        settings: Its kind and sizes.
    """

    def __init__(self, settings: ProxySettings) -> None:
        super().__init__()
        dim = settings.embedding_dim
        self.kind = settings.kind
        self.encoder = ProxyEncoder(settings.width, dim)
        if self.kind != "aesthetic":
            self.text = TextTower(dim)
        if self.kind == "dual":
            self.log_scale = nn.Parameter(torch.tensor(2.0))
            self.bias = nn.Parameter(torch.tensor(0.0))
        else:
            inputs = dim if self.kind == "aesthetic" else 3 * dim
            self.head = nn.Sequential(
                nn.Linear(inputs, 32), nn.SiLU(), nn.Linear(32, 1)
            )

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores, float32, shape (N,)."""
        image = self.encoder(images)
        if self.kind == "aesthetic":
            return self.head(image).squeeze(-1)
        unique = list(dict.fromkeys(prompts))
        which = torch.tensor([unique.index(p) for p in prompts], device=image.device)
        text = self.text(unique)[which]
        if self.kind == "dual":
            return self.log_scale.exp() * (image * text).sum(-1) + self.bias
        return self.head(torch.cat([image, text, image * text], -1)).squeeze(-1)


class ProxyReward(Reward):
    """A trained proxy, frozen; a gradient reaches the images.

    Args:
        name: Its name, ending in ``-mini``.
        network: The trained network; frozen in place.
    """

    differentiable = True

    def __init__(self, name: str, network: ProxyNetwork) -> None:
        self.name = name
        self.network = network.requires_grad_(False).eval()
        self.encoder = network.encoder

    def score(self, images: Tensor, prompts: Sequence[str]) -> Scores:
        """Scores (N,) in the units of the labels.

        Raises:
            RewardError: If the pictures aren't of Menagerie's size.
        """
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise RewardError(
                f"'{self.name}' scores pictures of {IMAGE_SIZE}x{IMAGE_SIZE} pixels, "
                f"Menagerie's; got {images.shape[3]}x{images.shape[2]}."
            )
        return Scores(self.network(images.float(), prompts))


def proxy_path(name: str, weights: Path) -> Path:
    """The file of a proxy."""
    return weights / f"{name}.safetensors"


def save_proxy(
    name: str, network: ProxyNetwork, settings: ProxySettings, weights: Path
) -> None:
    """Write a proxy with its settings to ``<weights>/<name>.safetensors``."""
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    metadata = {"settings": settings.model_dump_json()}
    save_file(tensors, proxy_path(name, weights), metadata)


def load_proxy(name: str, weights: Path) -> ProxyReward:
    """A proxy as :func:`save_proxy` wrote it.

    Raises:
        ProxyWeightsError: If the file is missing or truncated.
    """
    path = proxy_path(name, weights)
    hint = (
        "Menagerie's come with the repository (git checkout data/06_models/menagerie); "
        "to train proxies: kedro run --pipelines proxy_rewards"
    )
    if not path.is_file():
        raise ProxyWeightsError(f"The weights {path} are missing. {hint}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise ProxyWeightsError(f"{path} is truncated ({error}). {hint}") from error
    settings = ProxySettings.model_validate(json.loads(metadata["settings"]))
    network = ProxyNetwork(settings)
    network.load_state_dict(tensors)
    return ProxyReward(name, network)
