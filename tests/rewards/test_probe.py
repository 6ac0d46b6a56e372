import pytest
import torch

from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.rewards.base import RewardError, Scores
from tdpo_pipeline.rewards.probe import probe_rewards
from tests import tiny
from tests.rewards.own_rewards import Brightness, Broken


@pytest.fixture(scope="module")
def policy():
    return Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)


def test_rewards_are_tried_on_two_pictures_of_the_models_size(policy, monkeypatch):
    tried = []

    def score(self, images, prompts):
        tried.append((tuple(images.shape), prompts))
        return Scores(images.mean((1, 2, 3)))

    monkeypatch.setattr(Brightness, "score", score)
    probe_rewards([Brightness()], policy, ["cat"])
    probe_rewards([Brightness()], policy, ["cat", "cow", "dog"])
    assert tried == [((2, 3, 8, 8), ["cat", "cat"]), ((2, 3, 8, 8), ["cat", "dog"])]


def test_a_reward_that_fails_is_named(policy):
    with pytest.raises(RewardError, match="'broken' failed on trial .*KeyError"):
        probe_rewards([Brightness(), Broken()], policy, ["cat"])


def test_a_reward_that_breaks_its_contract_is_named(policy, monkeypatch):
    nan = Scores(torch.full((2,), float("nan")))
    monkeypatch.setattr(Brightness, "score", lambda *_: nan)
    with pytest.raises(RewardError, match="'brightness' returned NaN"):
        probe_rewards([Brightness()], policy, ["cat"])
