"""The constants of an ensemble are those of the base model's images."""

import pytest
import torch

from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tests import tiny
from tests.conftest import ROOT


@pytest.fixture
def reward_statistics(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reward_statistics

    return reward_statistics


def test_chunks_give_the_statistics_of_the_whole(reward_statistics):
    training = tiny.training(num_inference_steps=2, samples_per_epoch=8, chunk_size=2)
    policy = Policy(tiny.pipeline(), num_inference_steps=2, lora=None, trained=False)
    reward, prompts = tiny.Redness(), tiny.PROMPTS * 3
    found = reward_statistics.statistics(
        policy, {"red": reward}, prompts, training, seed=5
    )
    images = rollout(
        policy,
        prompts,
        seed=5,
        epoch=0,
        guidance_scale=training.guidance_scale,
        eta=training.eta,
        chunk_size=2,
        purpose="reward statistics",
    ).images
    values = reward(images, prompts).values.double()
    assert found == {"red": reward_statistics.moments(values)}
    assert len(set(values.tolist())) == 6, "each image has noise of its own"


def test_moments_by_hand(reward_statistics):
    # Mean 0.3, and deviations of -0.012345 and 0.012345: three digits of the deviation.
    values = torch.tensor([0.287655, 0.312345], dtype=torch.float64)
    assert reward_statistics.moments(values) == {"mean": 0.3, "std": 0.0123}
    # A deviation of 4 has three decimals.
    values = torch.tensor([1.23456, 9.23456], dtype=torch.float64)
    assert reward_statistics.moments(values) == {"mean": 5.235, "std": 4.0}


def test_what_is_no_ensemble(reward_statistics):
    tasks = {"aesthetic": {"scorer": "aesthetic", "train_prompts": "simple_animals"}}
    with pytest.raises(SystemExit, match="is no ensemble"):
        reward_statistics.ensemble(tasks, "aesthetic")
    with pytest.raises(SystemExit, match="no task 'ensembl'"):
        reward_statistics.ensemble(tasks, "ensembl")
