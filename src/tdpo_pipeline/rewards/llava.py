"""LLaVA: answers to questions about images, in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from tdpo_pipeline.rewards.loading import WeightsError, frozen, load_pretrained, shared
from tdpo_pipeline.rewards.model_files import LLAVA, require_files
from tdpo_pipeline.rewards.preprocessing import clip_pixels, levels

IMAGE = "<image>"
JPEG_QUALITY = 80
"""DDPO sends images to LLaVA as JPEGs of this quality; it is part of the reward."""

MAX_NEW_TOKENS = 64
BATCH_SIZE = 16


class Llava(nn.Module):
    """LLaVA 1.5, which answers greedily.

    Args:
        model: transformers' ``LlavaForConditionalGeneration``.
        encode: Token ids of a text with the token that begins it.
        decode: Text of token ids, without special tokens.
    """

    def __init__(
        self,
        model: Any,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        super().__init__()
        self.model = model
        self.encode = encode
        self.decode = decode
        vision = model.config.vision_config
        self.image_size: int = vision.image_size
        patches = (vision.image_size // vision.patch_size) ** 2
        with_class = model.config.vision_feature_select_strategy == "full"
        self.image_tokens = patches + with_class
        frozen(self)

    def forward(self, images: Tensor, questions: Sequence[str]) -> list[str]:
        """The answer to each image's question.

        Images of one question go together, so that no prompt needs filling up.

        Args:
            images: Float in [0, 1], shape (N, 3, H, W).
            questions: N questions.
        """
        answers = [""] * len(questions)
        for question in dict.fromkeys(questions):
            rows = [i for i, other in enumerate(questions) if other == question]
            for start in range(0, len(rows), BATCH_SIZE):
                batch = rows[start : start + BATCH_SIZE]
                for row, answer in zip(
                    batch, self._answer(images[batch], question), strict=True
                ):
                    answers[row] = answer
        return answers

    @torch.no_grad()
    def _answer(self, images: Tensor, question: str) -> list[str]:
        pixels = clip_pixels(as_jpeg(images), self.image_size)
        prompt = torch.tensor([self.prompt_ids(question)], device=images.device)
        out = self.model.generate(
            input_ids=prompt.expand(len(images), -1),
            attention_mask=torch.ones_like(prompt).expand(len(images), -1),
            pixel_values=pixels.to(self.model.dtype),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
        )
        return [self.decode(ids.tolist()).strip() for ids in out[:, prompt.shape[1] :]]

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of the prompt, with a token for each patch of the image.

        Raises:
            WeightsError: If the tokenizer doesn't know the image token.
        """
        text = f"USER: {IMAGE * self.image_tokens}\n{question} ASSISTANT:"
        ids = list(self.encode(text))
        found = ids.count(self.model.config.image_token_id)
        if found != self.image_tokens:
            raise WeightsError(
                f"The tokenizer of LLaVA gives {found} image tokens where the model "
                f"takes {self.image_tokens}: it belongs to another model."
            )
        return ids


def as_jpeg(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as they look when saved as JPEGs and read again."""
    read = [_as_jpeg(image) for image in levels(images).cpu()]
    return torch.stack(read).to(images.device)


def _as_jpeg(image: Tensor) -> Tensor:
    buffer = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    with Image.open(buffer) as read:
        data = torch.frombuffer(
            bytearray(read.convert("RGB").tobytes()), dtype=torch.uint8
        )
    return data.view(*image.shape[1:], 3).permute(2, 0, 1).float() / 255


def llava(weights: Path) -> Llava:
    """LLaVA 1.5 7B in the format it is published in (half), shared by everybody.

    Raises:
        MissingWeightsError: If its files are not under ``weights``.
        WeightsError: If they are damaged or of another model.
    """
    return shared(_load, weights)


def _load(weights: Path) -> Llava:
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    folder = require_files(LLAVA, weights)
    model = load_pretrained(LlavaForConditionalGeneration, folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Llava(
        model,
        lambda text: tokenizer(text).input_ids,
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
    )
