"""HPSv2 against OpenCLIP, for which its checkpoints are published."""

import open_clip
import pytest
import torch
from accelerate import init_empty_weights
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from tdpo_pipeline.rewards import hpsv2
from tdpo_pipeline.rewards.loading import WeightsError
from tdpo_pipeline.rewards.model_files import HPS_V2, HPS_V2_1
from tdpo_pipeline.rewards.registry import load_reward
from tests.rewards import published

DIM = 24
PROMPTS = ["a cat on the moon", "“Curly” &amp; <odd>: caf\u00e9, 3 d\u00f6gs"]


@pytest.fixture(scope="module")
def upstream():
    return published.openai_clip(DIM)


@pytest.fixture
def reward(upstream):
    tensors = published.state(upstream)
    return hpsv2.build("hpsv2", tensors, published.clip_config(DIM), "tiny")


def upstream_cosine(model, images, prompts):
    """The official score: OpenCLIP's preprocessing, tokens and embeddings."""
    transform = open_clip.image_transform((32, 32), is_train=False)
    from torchvision.transforms.functional import to_pil_image

    pixels = torch.stack([transform(to_pil_image(image)) for image in images])
    tokens = open_clip.tokenizer.SimpleTokenizer()(prompts)
    image = model.encode_image(pixels, normalize=True)
    text = model.encode_text(tokens, normalize=True)
    return (image @ text.T).diagonal()


@torch.no_grad()
def test_it_is_open_clips_cosine(upstream, reward):
    images = published.images()
    expected = upstream_cosine(upstream, images, PROMPTS)
    scores = reward(images, PROMPTS)
    torch.testing.assert_close(scores.values, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(reward.paper_scale(scores.values), 100 * scores.values)


@torch.no_grad()
def test_both_cut_long_prompts_alike(upstream, reward):
    images, prompts = published.images(), ["cat " * 90, "dog"]
    expected = upstream_cosine(upstream, images, prompts)
    with pytest.warns(UserWarning, match="first 77 of the 92 tokens"):
        found = reward(images, prompts).values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_gradient_is_upstreams(upstream, reward):
    images = published.images()
    ours = images.clone().requires_grad_()
    reward(ours, PROMPTS).values.sum().backward()
    theirs = images.clone().requires_grad_()
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    image = upstream.encode_image((theirs - mean) / std, normalize=True)
    tokens = open_clip.tokenizer.SimpleTokenizer()(PROMPTS)
    text = upstream.encode_text(tokens, normalize=True)
    (image * text).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "repository"), [("hpsv2", HPS_V2), ("hpsv2_1", HPS_V2_1)]
)
@torch.no_grad()
def test_versions_load_their_own_half_precision_file(
    monkeypatch, tmp_path, upstream, name, repository
):
    monkeypatch.setattr(hpsv2, "vit_h_config", lambda: published.clip_config(DIM))
    half = {k: v.half() for k, v in published.state(upstream).items()}
    path = repository.folder(tmp_path) / repository.files[0].name
    published.write_pickle(path, {"state_dict": half, "epoch": 1})
    reward = load_reward(name, tmp_path)
    assert reward.name == name
    assert {p.dtype for p in reward.encoder.parameters()} == {torch.float32}
    images = published.images()
    found = reward(images, PROMPTS).values
    expected = upstream_cosine(upstream, images, PROMPTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_names_that_are_not_open_clips_are_refused(upstream):
    config = published.clip_config(DIM)
    tensors = published.state(upstream)
    with pytest.raises(WeightsError, match="tiny: 'head.weight' is no name"):
        hpsv2.build("hpsv2", tensors | {"head.weight": torch.ones(1)}, config, "tiny")
    del tensors["visual.proj"]
    with pytest.raises(WeightsError, match="lacks 'visual_projection.weight'"):
        hpsv2.build("hpsv2", tensors, config, "tiny")


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_the_full_size_of_vit_h():
    with init_empty_weights():
        upstream = open_clip.model.CLIP(**architecture("ViT-H-14"))
        ours = CLIPModel(hpsv2.vit_h_config())
    tensors = upstream.state_dict()
    assert len(tensors) == 686
    assert sum(p.numel() for p in ours.parameters()) == 986_109_441
    assert shapes(hpsv2.from_open_clip(tensors, "ViT-H")) == shapes(ours.state_dict())
    assert len(ours.state_dict()) == 910
    assert ours.visual_projection.out_features == 1024


def test_the_full_size_of_vit_l():
    sizes = {"projection_dim": 768, "hidden_act": "quick_gelu"}
    config = CLIPConfig(
        text_config=sizes
        | {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
        },
        vision_config=sizes
        | {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
        projection_dim=768,
    )
    with init_empty_weights():
        upstream = open_clip.model.CLIP(**architecture("ViT-L-14"))
        whole = CLIPModel(config)
        tower = CLIPVisionModelWithProjection(config.vision_config)
    expected = shapes(hpsv2.from_open_clip(upstream.state_dict(), "ViT-L"))
    assert shapes(whole.state_dict()) == expected
    # The tower takes its part of a whole checkpoint, by the same names.
    part = {k: v for k, v in expected.items() if k.startswith("vi")}
    assert shapes(tower.state_dict()) == part
    assert sum(p.numel() for p in tower.parameters()) == 303_966_208
    assert tower.visual_projection.out_features == 768


def architecture(name):
    """Sizes of one of OpenCLIP's models, for its class."""
    config = dict(open_clip.get_model_config(name))
    return {k: config[k] for k in ("embed_dim", "vision_cfg", "text_cfg")}
