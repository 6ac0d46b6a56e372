"""Published rewards in training: their encoders in critics, their gradients in policies."""

import socket

import pytest

from tdpo_pipeline.rewards.registry import load_reward
from tdpo_pipeline.trainer.loop import Trainer, train_run
from tests import tiny
from tests.rewards import published

DIM = 24
DRAFT = {"algorithm": "draft", "optimizer": tiny.OPTIMIZER}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever asks for a connection gets none, and fails the test even if it's caught."""
    asked = []

    def refused(*address, **_):
        asked.append(address)
        raise OSError("the network is off")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    yield
    assert not asked


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    published.write_clip_l(folder, published.clip(DIM, "quick_gelu"))
    published.write_head(folder, DIM)
    published.write_pickscore(folder, published.clip(DIM, seed=1))
    return folder


def config(name, method, **changes):
    # Random networks tell the small pictures apart by little.
    return tiny.run_config(
        method, scorer=name, reward=name, epochs=2, min_reward_std=0.0, **changes
    )


def test_reward_critic_and_monitor_share_one_network(weights, base_model):
    run = config("pickscore", tiny.TDPO, monitor=("aesthetic",))
    trainer = Trainer.create(run, tiny.PROMPTS, base_model, weights)
    assert trainer.algorithm.encoder is trainer.reward.encoder
    assert trainer.reward is load_reward("pickscore", weights)
    borrowed = config("pickscore", tiny.TDPO, critic_encoder="aesthetic")
    trainer = Trainer.create(borrowed, tiny.PROMPTS, base_model, weights)
    assert trainer.algorithm.encoder is load_reward("aesthetic", weights).encoder


@pytest.mark.parametrize(
    ("name", "method"), [("pickscore", tiny.TDPO), ("aesthetic", DRAFT)]
)
def test_a_policy_trains_on_it(weights, base_model, tmp_path, name, method):
    run = config(name, method)
    result = train_run(
        run,
        prompts=tiny.PROMPTS,
        base_model=base_model,
        weights=weights,
        state_dir=tmp_path / "state",
    )
    assert len(result.history) == 2
    assert (
        result.history[f"{name}_mean"]
        .between(*load_reward(name, weights).value_range)
        .all()
    )
    # The gradient reached the policy: its samples have left the base model's.
    assert result.history["kl_to_base"].iloc[0] == pytest.approx(0, abs=1e-6)
    assert result.history["kl_to_base"].iloc[1] > 1e-6
