import numpy as np
import pytest
import torch

from tdpo_pipeline.algorithms.advantages import PerPromptStatTracker, whiten


def test_few_rewards_use_the_statistics_of_the_batch():
    # Batch 1, 2, 3, 6: mean 3, population deviation sqrt((4 + 1 + 0 + 9) / 4) = 1.8708.
    tracker = PerPromptStatTracker(buffer_size=4, min_count=3)
    z = tracker.update(["a", "a", "b", "b"], np.array([1.0, 2.0, 3.0, 6.0]))
    assert z == pytest.approx(np.array([-2, -1, 0, 3]) / 1.870829, abs=1e-5)


def test_enough_rewards_use_the_prompts_own_window():
    tracker = PerPromptStatTracker(buffer_size=4, min_count=3)
    tracker.update(["a", "a", "b"], np.array([1.0, 2.0, 30.0]))
    z = tracker.update(["a", "a", "a", "b"], np.array([3.0, 4.0, 5.0, 50.0]))
    # "a" keeps its last four, 2 3 4 5: mean 3.5, deviation sqrt(1.25) = 1.118034.
    assert z[:3] == pytest.approx(np.array([-0.5, 0.5, 1.5]) / 1.118034, abs=1e-5)
    # "b" has two rewards, fewer than three: batch 3 4 5 50, mean 15.5,
    # deviation sqrt((156.25 + 132.25 + 110.25 + 1190.25) / 4) = 19.9311.
    assert z[3] == pytest.approx(34.5 / 19.9311, abs=1e-4)


def test_first_fifteen_samples_of_a_prompt_use_the_batch():
    tracker = PerPromptStatTracker(buffer_size=32, min_count=16)
    rewards = np.arange(15.0)
    z = tracker.update(["a"] * 15, rewards)
    assert z == pytest.approx((rewards - 7) / np.std(rewards), abs=1e-5)
    tracker.update(["a"], np.array([100.0]))
    assert len(tracker.rewards["a"]) == 16


def test_equal_rewards_give_zero():
    tracker = PerPromptStatTracker(4, 2)
    assert tracker.update(["a", "a"], np.array([2.0, 2.0])).tolist() == [0, 0]


def test_state_round_trip():
    tracker, other = PerPromptStatTracker(4, 2), PerPromptStatTracker(4, 2)
    tracker.update(["a"] * 6, np.arange(6.0))
    other.load_state_dict(tracker.state_dict())
    args = ["a", "b"], np.array([3.0, 1.0])
    assert tracker.update(*args).tolist() == other.update(*args).tolist()
    assert other.rewards["a"].maxlen == 4


def test_whiten_by_hand():
    # 1 1 3 3: mean 2, population deviation 1.
    values = torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(whiten(values), expected)
