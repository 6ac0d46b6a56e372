"""The policy against plain diffusers, on random Stable Diffusion 1.x and XL."""

import logging
import warnings

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from benchmarks.architectures import ATTENTION, XL_UNET
from tdpo_pipeline.algorithms.exploration import weighted_embeds
from tdpo_pipeline.config import PromptWeightingSettings
from tdpo_pipeline.diffusion.policy import (
    Policy,
    _diffusers_name,
    _peft_name,
    check_adapter,
)
from tdpo_pipeline.diffusion.trajectory import rollout
from tdpo_pipeline.rewards.reading import TruncatedPromptWarning
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


@pytest.mark.parametrize("make", tiny.PIPELINES.values(), ids=tiny.PIPELINES)
def test_prompts_that_are_cut_are_told_before_and_once(make, caplog):
    # 4 tokens are read, of which one begins and one ends a prompt.
    model = policy(make())
    with pytest.warns(TruncatedPromptWarning) as told:
        model.tell_truncated(["cat dog", "cat dog cat", "dog", "dog dog dog dog"])
    assert [str(warning.message) for warning in told] == [
        "The base model reads the first 4 tokens of a prompt, and 2 of 4 prompts are "
        "longer, first that of 5 tokens 'cat dog cat'."
    ]
    for library in ("diffusers", "transformers"):
        monitor = logging.getLogger(library)
        monitor.addHandler(caplog.handler)
        try:
            cut = model.encode(["cat dog cat"])
        finally:
            monitor.removeHandler(caplog.handler)
    assert not caplog.records
    assert torch.equal(cut.tokens, model.encode(["cat dog"]).tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.tell_truncated(["cat dog", "dog"])


def test_the_full_size_of_xls_adapters() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(XL_UNET)
        assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684
        config = LoraConfig(r=4, lora_alpha=4, target_modules=list(ATTENTION))
        unet.add_adapter(config)
    names = get_peft_model_state_dict(unet, adapter_name="default")
    # 2 matrices for 4 layers of the 2 attentions of 70 blocks: 2 x 2 + 2 x 10 on the way
    # down, 10 in the middle, 3 x 10 + 3 x 2 on the way up.
    assert len(names) == 2 * 4 * 2 * 70
    # A block of width d: 7 layers to or from d, 4 x 2 d each, twice for attention on the
    # image and twice for the query and the result of that on the text, whose keys and
    # values read 2048: 56 d + 16384. 10 blocks have width 640, 60 have 1280.
    expected = 10 * (56 * 640 + 16384) + 60 * (56 * 1280 + 16384)
    assert sum(weight.numel() for weight in names.values()) == expected
    saved = {_diffusers_name(name): weight for name, weight in names.items()}
    assert {_peft_name(f"unet.{name}") for name in saved} == set(names)
    check_adapter(unet, saved)
    assert (
        "up_blocks.0.attentions.2.transformer_blocks.9.attn2.to_out.0.lora.up.weight"
        in saved
    )
