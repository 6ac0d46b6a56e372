import pytest
import torch

from tdpo_pipeline.menagerie.gold import gold_match, gold_taste
from tdpo_pipeline.menagerie.proxies import ProxyNetwork, proxy_path, save_proxy
from tdpo_pipeline.menagerie.proxies_settings import ProxySettings
from tdpo_pipeline.menagerie.scenes import VocabularyError
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.registry import REWARDS, critic_encoder, load_reward

KINDS = {
    "aesthetic-mini": "aesthetic",
    "pick-mini": "dual",
    "hps-mini": "dual",
    "imagereward-mini": "fused",
}
PROMPTS = ["cat", "A dog on the moon."]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for seed, (name, kind) in enumerate(KINDS.items()):
        settings = ProxySettings(
            kind=kind,
            gold="gold_taste" if kind == "aesthetic" else "gold_match",
            width=4,
            embedding_dim=8,
            labels=1,
            noise=0.0,
            steps=1,
            batch_size=1,
            learning_rate=1e-3,
            seed=seed,
        )
        torch.manual_seed(seed)
        save_proxy(name, ProxyNetwork(settings), settings, folder)
    return folder


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", KINDS)
def test_a_proxy_loads_by_name_and_a_gradient_reaches_the_images(name, weights, images):
    reward = load_reward(name, weights)
    assert (reward.name, reward.differentiable) == (name, True)
    values = reward(images.requires_grad_(), PROMPTS).values
    assert (values.shape, values.dtype) == ((2,), torch.float32)
    values.sum().backward()
    assert (images.grad.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", [*KINDS, "gold_match", "gold_taste"])
def test_the_registry_knows_what_a_reward_is(name, weights):
    reward, entry = load_reward(name, weights), REWARDS[name]
    assert entry.differentiable == reward.differentiable
    assert entry.has_encoder == (reward.encoder is not None)


@pytest.mark.parametrize("name", KINDS)
def test_a_critic_can_share_a_proxys_encoder(name, weights, images):
    encoder = critic_encoder(load_reward(name, weights), None, weights)
    assert not any(p.requires_grad for p in encoder.parameters())
    embeddings = encoder(images)
    assert embeddings.shape == (2, encoder.embedding_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", KINDS)
def test_missing_weights_name_the_file_and_the_command(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="kedro run --pipelines proxy_rewards"):
        load_reward(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=proxy_path(name, tmp_path).name):
        load_reward(name, tmp_path)


def test_a_proxy_that_reads_prompts_refuses_unknown_words(weights, images):
    with pytest.raises(VocabularyError, match="unicorn"):
        load_reward("pick-mini", weights)(images, ["cat", "a unicorn"])


def test_golds_load_without_weights_and_give_their_functions(tmp_path, images):
    match = load_reward("gold_match", tmp_path)
    taste = load_reward("gold_taste", tmp_path)
    for reward, expected in (
        (match, gold_match(images, PROMPTS)),
        (taste, gold_taste(images)),
    ):
        assert reward.value_range == (0.0, 1.0)
        assert not reward.differentiable
        assert torch.equal(reward(images, PROMPTS).values, expected)


@pytest.mark.parametrize("name", ["gold_match", "gold_taste"])
def test_a_gold_has_no_encoder_for_a_critic(name, tmp_path):
    with pytest.raises(ValueError, match="no image encoder"):
        critic_encoder(load_reward(name, tmp_path), None, tmp_path)


def test_a_critic_of_a_gold_can_borrow_an_encoder(weights):
    gold = load_reward("gold_match", weights)
    encoder = critic_encoder(gold, "aesthetic-mini", weights)
    assert encoder.embedding_dim == 8


def test_images_and_prompts_must_belong_together(weights, images):
    with pytest.raises(RewardError, match="aesthetic-mini"):
        load_reward("aesthetic-mini", weights)(images, ["cat"])
