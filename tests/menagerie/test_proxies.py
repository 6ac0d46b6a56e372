import numpy as np
import pytest
import torch

from tdpo_pipeline.menagerie.proxies import (
    ProxyNetwork,
    ProxyReward,
    load_proxy,
    proxy_path,
    save_proxy,
    word_ids,
)
from tdpo_pipeline.menagerie.proxies_settings import PoolSettings, ProxySettings
from tdpo_pipeline.menagerie.proxies_training import (
    CORRUPTIONS,
    Pool,
    auc,
    corrupt,
    draw_scene,
    give_labels,
    gold_scores,
    paired_auc,
    rank_correlation,
    train_proxy,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, VocabularyError, describe
from tdpo_pipeline.menagerie.vocabulary import WORDS

KINDS = {"aesthetic": "gold_taste", "dual": "gold_match", "fused": "gold_match"}
ANIMALS = ("cat", "zebra", "frog", "duck")


def settings(kind: str = "dual", **changes) -> ProxySettings:
    values = {
        "kind": kind,
        "gold": KINDS[kind],
        "width": 4,
        "embedding_dim": 8,
        "labels": 300,
        "noise": 0.05,
        "steps": 150,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "seed": 0,
    }
    return ProxySettings.model_validate(values | changes)


def renders(count: int, seed: int, coloured: float = 0.0) -> Pool:
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, ANIMALS, coloured) for _ in range(count)]
    pictures = np.stack([render(s, seed + i) for i, s in enumerate(scenes)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    return Pool(images.float(), scenes)


@pytest.fixture(scope="module")
def pool():
    return renders(200, 0, coloured=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_differentiable_and_the_network_is_frozen(kind):
    reward = ProxyReward("x-mini", ProxyNetwork(settings(kind)))
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    scores = reward(images, ["cat", "a dog on the moon", "cat"]).values
    assert scores.shape == (3,)
    scores.sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in reward.network.parameters())


def test_embeddings_are_normalised():
    encoder = ProxyNetwork(settings()).encoder
    embeddings = encoder(torch.rand(2, 3, 32, 32))
    assert embeddings.shape == (2, encoder.embedding_dim)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))


def test_the_aesthetic_proxy_does_not_read_the_prompt():
    reward = ProxyReward("x-mini", ProxyNetwork(settings("aesthetic")))
    images = torch.rand(2, 3, 32, 32)
    a, b = reward(images, ["cat", "cat"]), reward(images, ["dog", "??"])
    assert torch.equal(a.values, b.values)


def test_a_score_does_not_depend_on_the_rest_of_the_batch():
    reward = ProxyReward("x-mini", ProxyNetwork(settings()))
    images = torch.rand(3, 3, 32, 32)
    together = reward(images, ["cat", "dog", "cat"]).values
    alone = reward(images[1:2], ["dog"]).values
    torch.testing.assert_close(together[1:2], alone)


def test_word_ids():
    assert [WORDS[i] for i in word_ids("A dog on the moon.")] == [
        *("a", "dog", "on", "the", "moon")
    ]
    for prompt in ("a unicorn", ""):
        with pytest.raises(VocabularyError):
            word_ids(prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_are_inverse(kind, tmp_path):
    network = ProxyNetwork(settings(kind)).eval()
    save_proxy("x-mini", network, settings(kind), tmp_path)
    images, prompts = torch.rand(2, 3, 32, 32), ["cat", "dog"]
    with torch.no_grad():
        expected = network(images, prompts)
    assert torch.equal(load_proxy("x-mini", tmp_path)(images, prompts).values, expected)


def test_missing_or_truncated_weights_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="kedro run --pipelines proxy_rewards"):
        load_proxy("x-mini", tmp_path)
    save_proxy("x-mini", ProxyNetwork(settings()), settings(), tmp_path)
    path = proxy_path("x-mini", tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FileNotFoundError, match="truncated"):
        load_proxy("x-mini", tmp_path)


def test_a_proxy_has_the_gold_of_its_kind():
    with pytest.raises(ValueError, match="learns gold_taste"):
        settings("aesthetic", gold="gold_match")


def test_ratings_are_the_gold_plus_noise(pool):
    exact = give_labels(pool, settings("aesthetic", noise=0.0))
    gold = gold_scores("gold_taste", pool.images[exact.first], exact.prompts)
    assert torch.equal(exact.values, gold)
    noisy = give_labels(pool, settings("aesthetic", noise=0.5, labels=2000))
    gold = gold_scores("gold_taste", pool.images[noisy.first], noisy.prompts)
    assert (noisy.values - gold).std().item() == pytest.approx(0.5, rel=0.1)


def test_preferences_without_noise_follow_the_gold(pool):
    labels = give_labels(pool, settings(noise=0.0))
    first, second = (
        gold_scores("gold_match", pool.images[rows], labels.prompts)
        for rows in (labels.first, labels.second)
    )
    clear = (first - second).abs() > 1e-6
    assert torch.equal(labels.values[clear], (first > second).float()[clear])
    assert 0.3 < labels.values.mean() < 0.7


def test_labels_differ_by_seed(pool):
    a, b = (give_labels(pool, settings(seed=seed)) for seed in (0, 1))
    assert not torch.equal(a.first, b.first)


@pytest.mark.parametrize("kind", KINDS)
def test_training_finds_the_gold(pool, kind):
    network = train_proxy(pool, settings(kind))
    held_out = renders(120, 1, coloured=0.5)
    prompts = [describe(s) for s in held_out.scenes]
    prompts = prompts[:60] + prompts[30:60] + prompts[:30]
    found = rank_correlation(network, KINDS[kind], held_out, prompts, 0)
    assert found["interval_95"][0] > 0.1


def test_training_is_repeatable(pool):
    short = settings(steps=3)
    first, second = train_proxy(pool, short), train_proxy(pool, short)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_change_pictures_and_keep_their_range(name):
    images = renders(2, 5).images
    spoiled = corrupt(images, name, np.random.default_rng(0))
    assert spoiled.shape == images.shape
    assert 0 <= spoiled.min() <= spoiled.max() <= 1 + 1e-6
    assert (spoiled - images).abs().mean() > 0.005


def test_auc_by_hand():
    # Pairs (2 > 1), (2 > 0), (1 = 1), (1 > 0): 3.5 of 4.
    better, worse = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])
    assert auc(better, worse) == 0.875
    # Pair by pair: one above, one equal.
    assert paired_auc(better, torch.tensor([1.0, 1.0])) == 0.75


def test_draw_scene_names_colours_at_the_given_rate():
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, ANIMALS, 0.25) for _ in range(400)]
    share = sum(scene.colour is not None for scene in scenes) / 400
    assert share == pytest.approx(0.25, abs=0.07)
    assert draw_scene(rng, ["cat"], 0.0) == Scene("cat")


def test_pool_settings_reject_shares_above_one():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        PoolSettings(
            images=1,
            held_out=1,
            guidance_scales=(1.0,),
            num_inference_steps=1,
            coloured=1.5,
            corrupted=0,
            rendered=0,
            seed=0,
        )
