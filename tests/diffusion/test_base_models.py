"""The policy against plain diffusers, on random Stable Diffusion 1.x and XL."""

import numpy as np
import pytest
import torch

from tdpo_pipeline.algorithms.exploration import weighted_embeds
from tdpo_pipeline.config import PromptWeightingSettings
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import rollout
from tests import tiny


def policy(pipeline, **settings):
    return Policy(pipeline, num_inference_steps=4, lora=tiny.LORA, **settings)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize(
    "make",
    [
        tiny.pipeline,
        tiny.xl_pipeline,
        lambda: tiny.xl_pipeline(force_zeros_for_empty_prompt=False),
    ],
    ids=["sd", "sdxl", "sdxl, the empty prompt encoded"],
)
def test_a_rollout_draws_what_plain_diffusers_draws(make, guidance_scale):
    plain = make()
    plain.set_progress_bar_config(disable=True)
    ours = rollout(
        policy(make()),
        tiny.PROMPTS,
        seed=0,
        epoch=1,
        guidance_scale=guidance_scale,
        eta=0.0,
        chunk_size=2,
    )
    theirs = plain(
        tiny.PROMPTS,
        latents=ours.latents[:, 0],
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        eta=0.0,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-5)


def test_both_text_encoders_are_read():
    pipeline = tiny.xl_pipeline()
    target = policy(pipeline)
    embeds = target.encode(["cat dog", "cat"])
    ids = pipeline.tokenizer(["cat dog"], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        first = pipeline.text_encoder(ids.input_ids, output_hidden_states=True)
        second = pipeline.text_encoder_2(ids.input_ids, output_hidden_states=True)
    # The layers before the last, side by side; the projection of the second.
    penultimate = [first.hidden_states[-2], second.hidden_states[-2]]
    torch.testing.assert_close(embeds.tokens[:1], torch.cat(penultimate, -1))
    torch.testing.assert_close(embeds.pooled[:1], second.text_embeds)
    assert embeds.tokens.shape == (2, 4, 20)
    assert embeds.pooled.shape == (2, 10)


def test_the_unet_reads_the_size_of_the_image(monkeypatch):
    target, seen = policy(tiny.xl_pipeline()), {}
    forward = target.unet.forward

    def spy(*args, **kwargs):
        seen.update(kwargs["added_cond_kwargs"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(target.unet, "forward", spy)
    embeds = target.encode(tiny.PROMPTS)
    target.predict_noise(
        torch.zeros(2, 4, 4, 4), torch.tensor([1, 1]), embeds, guidance_scale=5.0
    )
    # Original height and width, upper left corner, target height and width; the
    # unconditional half comes first, and has no pooled text.
    assert seen["time_ids"].tolist() == [[8, 8, 0, 0, 8, 8]] * 4
    assert not seen["text_embeds"][:2].any()
    assert torch.equal(seen["text_embeds"][2:], embeds.pooled)


@pytest.mark.parametrize("force_zeros", [True, False])
def test_prompt_weighting_weighs_a_word_in_both_encoders(force_zeros):
    target = policy(tiny.xl_pipeline(force_zeros_for_empty_prompt=force_zeros))
    plain, null = target.encode(["cat"]), target.encode([""])
    settings = PromptWeightingSettings(low=1.5, high=1.5)
    found = weighted_embeds(target, ["cat"], np.random.default_rng(0), settings)
    # One word, at place 1: c_null + 1.5 (c - c_null), over the width of both encoders.
    expected = 1.5 * plain.tokens[:, 1] - 0.5 * null.tokens[:, 1]
    torch.testing.assert_close(found.tokens[:, 1], expected)
    assert torch.equal(found.tokens[:, [0, 2, 3]], plain.tokens[:, [0, 2, 3]])
    assert torch.equal(found.pooled, plain.pooled)
