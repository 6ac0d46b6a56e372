"""ImageReward against numbers that its own modules gave, and its official names."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from transformers import BertTokenizer

from tdpo_pipeline.rewards import imagereward
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.imagereward import (
    MEAN,
    STD,
    ImageReward,
    ImageRewardNetwork,
    from_upstream,
)
from tdpo_pipeline.rewards.loading import WeightsError, load_strict
from tdpo_pipeline.rewards.model_files import BERT_TOKENIZER, IMAGE_REWARD
from tdpo_pipeline.rewards.preprocessing import CLIP_MEAN, CLIP_STD
from tdpo_pipeline.rewards.registry import critic_encoder, load_reward
from tests.rewards import published

GOLDEN = Path(__file__).parent / "data" / "image_reward_tiny_golden.npz"
PROMPTS = ["a cat on the moon", "dog"]

VISION = {
    "hidden_size": 48,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 16,
}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "on", "the", "moon"]
UNUSED = {
    f"blip.{tower}_proj.{kind}": torch.zeros(1)
    for tower in ("vision", "text")
    for kind in ("weight", "bias")
}
"""BLIP's projections, which are in the official checkpoint and not in scoring."""


@pytest.fixture(scope="module")
def golden():
    """Pixels x, token ids and mask, z-scored rewards r, and the weights they are of."""
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def checkpoint(golden):
    weights = {k[3:]: v for k, v in golden.items() if k.startswith("sd/")}
    return weights | UNUSED


@pytest.fixture(scope="module")
def network(checkpoint):
    with init_empty_weights():
        empty = ImageRewardNetwork(VISION, TEXT)
    return load_strict(empty, from_upstream(checkpoint, "golden"), "golden")


@pytest.fixture
def folder(monkeypatch, tmp_path, checkpoint):
    """A folder of weights with the small checkpoint and a small vocabulary."""
    monkeypatch.setattr(imagereward, "VISION", VISION)
    monkeypatch.setattr(imagereward, "TEXT", TEXT)
    path = IMAGE_REWARD.folder(tmp_path) / IMAGE_REWARD.files[0].name
    published.write_pickle(path, checkpoint)
    vocabulary = BERT_TOKENIZER.folder(tmp_path) / BERT_TOKENIZER.files[0].name
    vocabulary.parent.mkdir()
    vocabulary.write_text("\n".join(WORDS) + "\n")
    published.write_clip_l(tmp_path, published.clip(24, "quick_gelu"))
    return tmp_path


@torch.no_grad()
def test_the_network_gives_upstreams_rewards(golden, network):
    raw = network(golden["x"], golden["ids"], golden["mask"])
    expected = golden["r"].squeeze(1)
    torch.testing.assert_close((raw - MEAN) / STD, expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.01, "the rewards tell the pairs apart"


@torch.no_grad()
@pytest.mark.parametrize("part", ["ids", "mask", "x"])
def test_the_rewards_depend_on_all_that_is_given(golden, network, part):
    # The fixture can fail: the next pair's input gives another reward.
    inputs = {name: golden[name] for name in ("x", "ids", "mask")}
    inputs[part] = inputs[part].roll(1, 0)
    raw = network(*inputs.values())
    assert ((raw - MEAN) / STD - golden["r"].squeeze(1)).abs().max() > 1e-4


@torch.no_grad()
def test_the_reward_reads_and_sees_as_its_authors(folder, network):
    images = published.images()
    reward = load_reward("imagereward", folder)
    tokenizer = BertTokenizer(vocab=str(BERT_TOKENIZER.folder(folder) / "vocab.txt"))
    tokens = tokenizer(
        PROMPTS,
        padding="max_length",
        truncation=True,
        max_length=35,
        return_tensors="pt",
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    raw = network((images - mean) / std, tokens.input_ids, tokens.attention_mask)
    scores = reward(images, PROMPTS)
    torch.testing.assert_close(scores.values, (raw - MEAN) / STD, rtol=0, atol=1e-6)
    # TDPO's figures have the raw rewards.
    torch.testing.assert_close(
        reward.paper_scale(scores.values), raw, rtol=0, atol=1e-6
    )


def test_a_gradient_reaches_the_images(folder):
    images = published.images(2, 40).requires_grad_()
    load_reward("imagereward", folder)(images, PROMPTS).values.sum().backward()
    assert (images.grad.abs().sum((1, 2, 3)) > 0).all()


def test_prompts_are_refused_and_cut_as_others_are(folder):
    reward, images = load_reward("imagereward", folder), published.images()
    with pytest.raises(RewardError, match="'imagereward'.*prompt is empty"):
        reward(images, ["cat", ""])
    with pytest.warns(UserWarning, match="first 35 of the 42 tokens"):
        found = reward(images, ["cat " * 40, "cat"]).values
    assert torch.equal(found, reward(images, ["cat " * 33, "cat"]).values)


def test_a_critic_gets_clip_l_which_is_loaded_when_asked_for(folder):
    reward = load_reward("imagereward", folder)
    assert "encoder" not in vars(reward)
    encoder = critic_encoder(reward, None, folder)
    assert encoder.embedding_dim == 24
    assert encoder is critic_encoder(reward, None, folder)


def test_names_that_are_not_imagerewards_are_refused(checkpoint):
    for name in ("blip.visual_encoder.blocks.0.gate.weight", "head.weight"):
        with pytest.raises(WeightsError, match=f"'{name}' is no name of ImageReward's"):
            from_upstream(checkpoint | {name: torch.zeros(1)}, "x.pt")
    lacking = dict(checkpoint)
    del lacking["mlp.layers.7.bias"]
    with pytest.raises(WeightsError, match="lacks 'mlp.layers.7.bias'"):
        load_strict(
            ImageRewardNetwork(VISION, TEXT), from_upstream(lacking, ""), "x.pt"
        )


def official_names(small, vision_layers=24, text_layers=12):
    """The names of the full-size checkpoint: those of the small one, layer by layer."""
    names = set()
    for name in small:
        if found := re.search(r"(blocks|encoder\.layer)\.\d+\.", name):
            layers = vision_layers if found[1] == "blocks" else text_layers
            names |= {
                name.replace(found[0], f"{found[1]}.{layer}.", 1)
                for layer in range(layers)
            }
        else:
            names.add(name)
    return names


def test_the_full_size(checkpoint):
    names = official_names(checkpoint)
    assert len(names) == 625
    with init_empty_weights():
        network = ImageRewardNetwork()
    assert set(network.state_dict()) == set(from_upstream(dict.fromkeys(names), ""))
    # 446.67 M in the checkpoint, of which the projections to 256 are not in scoring.
    projections = 256 * (1024 + 1) + 256 * (768 + 1)
    total = sum(p.numel() for p in network.parameters()) + projections
    assert round(total / 1e6, 2) == 446.67


@pytest.mark.slow
def test_at_full_size_a_checkpoint_loads_and_scores(tmp_path, checkpoint):
    torch.manual_seed(0)
    network = ImageRewardNetwork().requires_grad_(False).eval()
    tensors = network.state_dict()
    upstream = {
        name: tensors[ours]
        for name in official_names(checkpoint)
        for ours in from_upstream({name: None}, "")
    }
    path = IMAGE_REWARD.folder(tmp_path) / IMAGE_REWARD.files[0].name
    published.write_pickle(path, upstream | UNUSED)
    vocabulary = BERT_TOKENIZER.folder(tmp_path) / BERT_TOKENIZER.files[0].name
    vocabulary.parent.mkdir()
    vocabulary.write_text("\n".join(WORDS) + "\n")
    reward = load_reward("imagereward", tmp_path)
    assert isinstance(reward, ImageReward)
    images = published.images(2, 512).requires_grad_()
    values = reward(images, PROMPTS).values
    values.sum().backward()
    assert (images.grad.abs().sum((1, 2, 3)) > 0).all()
    pixels = imagereward.clip_pixels(images, 224)
    ids, mask = reward.reader(PROMPTS)
    expected = (network(pixels, ids, mask) - MEAN) / STD
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)
