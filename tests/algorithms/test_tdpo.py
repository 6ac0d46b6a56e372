from pathlib import Path

import pytest
import torch

from tdpo_pipeline.algorithms.tdpo import Tdpo, critic_inputs, discounted_returns
from tdpo_pipeline.config import ComputeSettings
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


def inputs(policy, trajectory, batch_size=4, **changes):
    settings = CriticSettings.model_validate(
        {"optimizer": {"learning_rate": 1e-3}} | changes
    )
    return critic_inputs(policy, tiny.TinyEncoder(), trajectory, settings, batch_size)


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


def test_states_of_several_steps_are_seen_together(policy, trajectory):
    # 16 states of 4 samples in batches of 5: one batch is of one step and a bit.
    for state in ("pre", "post", "x0hat"):
        found = inputs(policy, trajectory, 5, state=state)
        torch.testing.assert_close(found, inputs(policy, trajectory, state=state))


def test_the_size_of_the_critics_batches_goes_before_slicing():
    def batches(**changes):
        training = {"vae_slicing": True} | changes
        config = tiny.run_config(tiny.TDPO, **training)
        policy = Policy(
            tiny.pipeline(),
            num_inference_steps=4,
            lora=tiny.LORA,
            compute=config.training,
        )
        algorithm = Tdpo(config, policy, tiny.Redness(), Path(), Stopwatch())
        trajectory = algorithm.sample(1, tiny.PROMPTS * 4)
        sizes = []
        policy.pipeline.vae.decoder.register_forward_pre_hook(
            lambda _, given: sizes.append(len(given[0]))
        )
        algorithm.critic_inputs(trajectory)
        policy.decode(trajectory.latents[:2, -1])
        return sizes

    # 8 samples of 4 steps are 32 states; images are decoded one by one.
    assert batches(critic_batch_size=10) == [10, 10, 10, 2] + [1, 1]
    assert batches() == [1] * 32 + [1, 1]


def with_tiny_decoder(**settings):
    return Policy(
        tiny.pipeline(),
        num_inference_steps=4,
        lora=tiny.LORA,
        compute=ComputeSettings(**settings),
        tiny_decoder=tiny.tiny_decoder(),
    )


def test_the_critic_can_see_by_a_tiny_decoder(trajectory):
    policy = with_tiny_decoder()
    found = inputs(policy, trajectory, decoder="tiny")
    # It takes latents as the UNet has them, and gives images in [-1, 1].
    latents, decoder = trajectory.latents[:, 0], tiny.tiny_decoder()
    encoder = tiny.TinyEncoder()
    images = (decoder.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert images.shape == trajectory.images.shape
    torch.testing.assert_close(found[:, 0], encoder(images))
    divided = latents / policy.pipeline.vae.config.scaling_factor
    wrong = (decoder.decode(divided).sample / 2 + 0.5).clamp(0, 1)
    assert not torch.allclose(found[:, 0], encoder(wrong), atol=1e-3)


def test_a_tiny_decoder_is_for_the_critics_eyes_alone(policy, trajectory):
    other = with_tiny_decoder()
    with torch.no_grad():
        assert torch.equal(other.decode(trajectory.latents[:, -1]), trajectory.images)
    # Off, it changes nothing, bit for bit.
    assert torch.equal(inputs(other, trajectory), inputs(policy, trajectory))
    half = with_tiny_decoder(precision="bf16")
    assert half.tiny_decoder.dtype == torch.bfloat16
    assert half.decode_roughly(trajectory.latents[:, 0]).dtype == torch.float32


def test_prompt_can_be_given_to_the_critic(policy, trajectory):
    both = inputs(policy, trajectory, inputs="image_prompt")
    assert both.shape == (4, 4, 6 + 8)
    assert torch.equal(both[0, 0, 6:], both[2, 3, 6:])
    assert not torch.equal(both[0, 0, 6:], both[1, 0, 6:])
