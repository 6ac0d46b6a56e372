from pathlib import Path

import pytest
import torch

from tdpo_pipeline.algorithms.tdpo import Tdpo, critic_inputs, discounted_returns
from tdpo_pipeline.critic.critic import CriticSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny


def test_discounted_returns_by_hand():
    # gamma 0.5, T 3: R/4, R/2, R.
    found = discounted_returns(torch.tensor([4.0, -8.0]), 3, 0.5)
    assert found.tolist() == [[1.0, 2.0, 4.0], [-2.0, -4.0, -8.0]]
    assert discounted_returns(torch.tensor([2.0]), 2, 1.0).tolist() == [[2.0, 2.0]]
    # Penalties 1, 2, 4 with gamma 0.5 and R = 8: 8 - 4; -2 + 4 / 2; -1 + 0 / 2.
    penalties = torch.tensor([[1.0, 2.0, 4.0]])
    found = discounted_returns(torch.tensor([8.0]), 3, 0.5, penalties)
    assert found.tolist() == [[-1.0, 0.0, 4.0]]


def shaped(**changes):
    """Advantages from residuals 1 0 / 3 2 under some settings."""
    config = tiny.run_config(tiny.TDPO | changes)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    algorithm = Tdpo(config, policy, tiny.Redness(), Path(), Stopwatch())
    return algorithm.shaped(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))


def test_advantages_by_hand():
    assert shaped(whiten=False).tolist() == [[1.0, 0.0], [3.0, 2.0]]
    clipped = shaped(whiten=False, advantage_clip=1.5)
    assert clipped.tolist() == [[1.0, 0.0], [1.5, 1.5]]
    # 1 0 3 2: mean 1.5, population deviation sqrt(1.25).
    white = shaped()
    expected = torch.tensor([[-0.5, -1.5], [1.5, 0.5]]) / 1.25**0.5
    torch.testing.assert_close(white, expected)
    assert white.mean().item() == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def policy():
    return Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)


@pytest.fixture(scope="module")
def trajectory(policy):
    return rollout(
        policy,
        tiny.PROMPTS * 2,
        seed=0,
        epoch=1,
        guidance_scale=2.0,
        eta=1.0,
        chunk_size=4,
    )


def inputs(policy, trajectory, **changes):
    settings = CriticSettings.model_validate(
        {"optimizer": {"learning_rate": 1e-3}} | changes
    )
    return critic_inputs(policy, tiny.TinyEncoder(), trajectory, settings, 4)


def test_critic_sees_the_state_before_each_step(policy, trajectory):
    encoder = tiny.TinyEncoder()
    pre, post = inputs(policy, trajectory), inputs(policy, trajectory, state="post")
    assert pre.shape == (4, 4, 6)
    with torch.no_grad():
        expected = encoder(policy.decode(trajectory.latents[:, 0]))
        final = encoder(trajectory.images)
    torch.testing.assert_close(pre[:, 0], expected)
    torch.testing.assert_close(pre[:, 1:], post[:, :-1])
    torch.testing.assert_close(post[:, -1], final)


def test_critic_can_see_the_predicted_x0(policy, trajectory):
    found = inputs(policy, trajectory, state="x0hat")[:, 0]
    # x_0 = (x_t - sqrt(1 - a) eps) / sqrt(a), at the first step t = 751.
    a = policy.scheduler.alphas_cumprod[751]
    x, eps = trajectory.latents[:, 0], trajectory.noise_preds[:, 0]
    with torch.no_grad():
        images = policy.decode((x - (1 - a) ** 0.5 * eps) / a**0.5)
        expected = tiny.TinyEncoder()(images)
        wrong = tiny.TinyEncoder()(policy.decode((x + (1 - a) ** 0.5 * eps) / a**0.5))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, wrong)


def test_prompt_can_be_given_to_the_critic(policy, trajectory):
    both = inputs(policy, trajectory, inputs="image_prompt")
    assert both.shape == (4, 4, 6 + 8)
    assert torch.equal(both[0, 0, 6:], both[2, 3, 6:])
    assert not torch.equal(both[0, 0, 6:], both[1, 0, 6:])
