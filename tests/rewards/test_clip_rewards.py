"""Aesthetic and PickScore: as their authors compute them, by the same random weights."""

import gc
import hashlib
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tdpo_pipeline.rewards.aesthetic import Aesthetic
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.clip import ClipImageEncoder, clip_l_encoder
from tdpo_pipeline.rewards.head import AffineHead
from tdpo_pipeline.rewards.loading import WeightsError, load_strict, read_tensors
from tdpo_pipeline.rewards.model_files import AESTHETIC_HEAD, CLIP_L, PICKSCORE
from tdpo_pipeline.rewards.preprocessing import clip_pixels
from tdpo_pipeline.rewards.reading import TruncatedPromptWarning
from tdpo_pipeline.rewards.registry import REWARDS, critic_encoder, load_reward
from tests.rewards import published

DIM = 24
PROMPTS = ["a cat on the moon", "a dog"]


@pytest.fixture(scope="module")
def models():
    return {"l": published.clip(DIM, "quick_gelu"), "pick": published.clip(DIM, seed=1)}


@pytest.fixture(scope="module")
def weights(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    published.write_clip_l(folder, models["l"])
    published.write_head(folder, DIM)
    published.write_pickscore(folder, models["pick"])
    return folder


def image_embeds(model, images):
    embeds = model.get_image_features(pixel_values=clip_pixels(images, 32))
    embeds = embeds.pooler_output
    return embeds / embeds.norm(dim=-1, keepdim=True)


@torch.no_grad()
def test_aesthetic_is_the_head_on_the_normalised_embedding(models, weights):
    images = published.images(3)
    head = read_tensors(AESTHETIC_HEAD.folder(weights) / AESTHETIC_HEAD.files[0].name)
    x = image_embeds(models["l"], images)
    for layer in (0, 2, 4, 6, 7):
        x = x @ head[f"layers.{layer}.weight"].T + head[f"layers.{layer}.bias"]
    scores = load_reward("aesthetic", weights)(images, ["", "a", "b"])
    torch.testing.assert_close(scores.values, x.squeeze(1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_pickscore_is_the_cosine_and_the_papers_has_the_temperature(models, weights):
    images = published.images()
    model, folder = models["pick"], PICKSCORE.folder(weights)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(
        PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    text = model.get_text_features(**tokens).pooler_output
    text = text / text.norm(dim=-1, keepdim=True)
    cosine = (image_embeds(model, images) * text).sum(-1)
    reward = load_reward("pickscore", weights)
    values = reward(images, PROMPTS).values
    torch.testing.assert_close(values, cosine, rtol=0, atol=1e-6)
    official = model.logit_scale.exp() * cosine
    torch.testing.assert_close(reward.paper_scale(values), official, rtol=0, atol=1e-5)
    # CLIP's initial temperature: e^2.6592 = 14.285.
    assert reward.paper_scale.factor == pytest.approx(14.285, abs=1e-3)


@pytest.mark.parametrize("name", ["aesthetic", "pickscore"])
def test_a_gradient_reaches_the_images_and_no_weight(name, weights):
    reward = load_reward(name, weights)
    images = published.images(2, 48).requires_grad_()
    reward(images, PROMPTS).values.sum().backward()
    assert (images.grad.abs().sum((1, 2, 3)) > 0).all()
    networks = [v for v in vars(reward).values() if isinstance(v, torch.nn.Module)]
    assert networks
    assert all(
        not p.requires_grad and not network.training
        for network in networks
        for p in network.parameters()
    )


@pytest.mark.parametrize("name", ["aesthetic", "pickscore"])
def test_the_registry_knows_what_it_is(name, weights):
    reward, entry = load_reward(name, weights), REWARDS[name]
    assert reward.name == name
    assert entry.differentiable == reward.differentiable
    assert entry.has_encoder == (reward.encoder is not None)
    low, high = reward.value_range
    values = reward(published.images(), PROMPTS).values
    assert ((values >= low) & (values <= high)).all()


@torch.no_grad()
def test_a_critic_shares_the_rewards_encoder(models, weights):
    aesthetic = load_reward("aesthetic", weights)
    encoder = critic_encoder(aesthetic, None, weights)
    assert encoder is aesthetic.encoder is clip_l_encoder(weights)
    assert encoder.embedding_dim == DIM
    images = published.images()
    torch.testing.assert_close(encoder(images), image_embeds(models["l"], images))
    pickscore = load_reward("pickscore", weights)
    borrowed = critic_encoder(aesthetic, "pickscore", weights)
    assert borrowed is pickscore.encoder
    torch.testing.assert_close(borrowed(images), image_embeds(models["pick"], images))


def test_a_model_is_loaded_once_and_not_kept(weights):
    first = load_reward("aesthetic", weights)
    assert load_reward("aesthetic", weights) is first
    gone = weakref.ref(first.encoder)
    del first
    gc.collect()
    assert gone() is None


def test_it_moves_to_a_device_whole(weights):
    reward = load_reward("pickscore", weights)
    assert reward.to("meta") is reward
    for network in (reward.encoder, reward.text):
        assert {p.device.type for p in network.parameters()} == {"meta"}


def test_a_prompt_of_more_than_77_tokens_is_cut_and_told(weights):
    reward = load_reward("pickscore", weights)
    long = "cat " * 100
    with pytest.warns(TruncatedPromptWarning, match="first 77 of the 102 tokens"):
        found = reward(published.images(), [long, "cat"]).values
    # 75 words and the two tokens around them.
    expected = reward(published.images(), ["cat " * 75, "cat"]).values
    assert torch.equal(found, expected)


def test_an_empty_prompt_is_refused(weights):
    with pytest.raises(RewardError, match="'pickscore'.*prompt is empty"):
        load_reward("pickscore", weights)(published.images(), ["cat", " "])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("visual_projection.weight"),
            "lacks 'visual_projection.weight'",
        ),
        (lambda t: t.update(extra=torch.zeros(1)), "has the unknown 'extra'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(models, tmp_path, change, message):
    published.write_clip_l(tmp_path, models["l"])
    path = CLIP_L.folder(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=message):
        clip_l_encoder(tmp_path)


def test_bounds_of_an_affine_head_by_hand():
    head = AffineHead(2)
    for p in head.parameters():
        torch.nn.init.zeros_(p)
    # The first unit of every layer passes on 3 x + 4 y + 1; |(3, 4)| = 5.
    for layer in (0, 2, 4, 6, 7):
        head.layers[layer].weight.data[0, 0] = 1.0
    head.layers[0].weight.data[0] = torch.tensor([3.0, 4.0])
    head.layers[7].bias.data[0] = 1.0
    assert head.eval().bounds() == pytest.approx((-4.0, 6.0))
    assert head(torch.tensor([[0.6, 0.8]])).item() == pytest.approx(6.0)


def test_the_real_aesthetic_head():
    folder = os.environ.get("TDPO_REAL_WEIGHTS")
    if not folder:
        pytest.skip("TDPO_REAL_WEIGHTS names no folder of published weights")
    file = AESTHETIC_HEAD.files[0]
    places = [Path(folder) / file.name, AESTHETIC_HEAD.folder(Path(folder)) / file.name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        pytest.fail(f"TDPO_REAL_WEIGHTS has none of {', '.join(map(str, places))}")
    assert path.stat().st_size == file.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
    head = load_strict(AffineHead(768), read_tensors(path), path)
    assert sum(p.numel() for p in head.parameters()) == 927_969
    # b = 5.2366 and |w| = 17.996, computed from the file in float64 beforehand.
    low, high = head.bounds()
    assert (low + high) / 2 == pytest.approx(5.2366, abs=1e-3)
    assert (high - low) / 2 == pytest.approx(17.996, abs=1e-3)
    tower = ClipImageEncoder(published.clip(768, "quick_gelu"))
    values = Aesthetic(tower, head)(published.images(), PROMPTS).values
    assert ((values > low) & (values < high)).all()


def test_sizes_of_the_aesthetic_head():
    with torch.device("meta"):
        head = AffineHead(768)
    shapes = {k: tuple(v.shape) for k, v in head.state_dict().items()}
    assert shapes["layers.0.weight"] == (1024, 768)
    assert shapes["layers.7.weight"] == (1, 16)
    assert len(shapes) == 10
    assert sum(p.numel() for p in head.parameters()) == 927_969
