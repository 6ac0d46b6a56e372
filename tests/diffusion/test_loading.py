import json
import logging

import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from tdpo_pipeline.diffusion.loading import (
    BaseModelError,
    TinyDecoderError,
    ddim_scheduler,
    load_pipeline,
    load_tiny_decoder,
)
from tdpo_pipeline.rewards.loading import WeightsError
from tdpo_pipeline.rewards.model_files import MissingWeightsError
from tests import tiny

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
PNDM = {"_class_name": "PNDMScheduler"} | NOISE
# What scheduler_config.json of each model says.
CONFIGS = {
    "stable-diffusion-v1-4": PNDM
    | {"_diffusers_version": "0.7.0.dev0", "clip_sample": False},
    "stable-diffusion-v1-5": PNDM
    | {"_diffusers_version": "0.6.0", "clip_sample": False},
    "as PNDM saves it, which clips nothing": PNDM
    | {"prediction_type": "epsilon", "timestep_spacing": "leading"},
    "stable-diffusion-xl-base-1.0": NOISE
    | {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.19.0.dev0",
        "clip_sample": False,
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
}
SCHEDULERS = {
    "PNDMScheduler": PNDMScheduler,
    "EulerDiscreteScheduler": EulerDiscreteScheduler,
}


def read_config(values, folder):
    """A configuration as diffusers reads it from a file."""
    (folder / "scheduler_config.json").write_text(json.dumps(values))
    return SCHEDULERS[values["_class_name"]].from_pretrained(folder).config


@pytest.mark.parametrize("model", CONFIGS)
def test_published_schedulers_give_the_papers_timesteps(model, tmp_path):
    scheduler = ddim_scheduler(read_config(CONFIGS[model], tmp_path), tmp_path)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    abar = scheduler.alphas_cumprod
    # The last step ends at the first abar, not at 1; sigma(t) of DDPO's sampler.
    assert scheduler.final_alpha_cumprod == abar[0]
    a, a_prev = abar[981], abar[961]
    sigma = ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    assert float(sigma) == pytest.approx(0.4545, abs=5e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"timestep_spacing": "trailing"},
        {"set_alpha_to_one": True},
        {"prediction_type": "v_prediction"},
        {"rescale_betas_zero_snr": True},
        {"clip_sample": True},
        {"steps_offset": 0},
    ],
)
def test_other_transitions_are_refused(changed, tmp_path):
    config = read_config(CONFIGS["stable-diffusion-xl-base-1.0"] | changed, tmp_path)
    with pytest.raises(BaseModelError, match=next(iter(changed))):
        ddim_scheduler(config, tmp_path)


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_what_is_saved_is_loaded(name, tmp_path):
    original = tiny.PIPELINES[name]()
    original.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path)
    assert type(loaded) is type(original)
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(original, part).state_dict()
        for key, value in getattr(loaded, part).state_dict().items():
            assert torch.equal(value, theirs[key])


def test_the_safety_checker_is_not_loaded(tmp_path, caplog):
    tiny.pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    # As Stable Diffusion 1 has it; neither of them is in the folder.
    parts = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
    }
    index.write_text(json.dumps(json.loads(index.read_text()) | parts))
    with caplog.at_level(logging.WARNING, logger="diffusers"):
        loaded = load_pipeline(tmp_path)
    assert loaded.safety_checker is None
    assert not caplog.records


def test_pipelines_of_other_models_are_refused(tmp_path):
    tiny.pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    other = {"_class_name": "FluxPipeline"}
    index.write_text(json.dumps(json.loads(index.read_text()) | other))
    with pytest.raises(BaseModelError, match="FluxPipeline; a base model is one of"):
        load_pipeline(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    tiny.pipeline().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(
        BaseModelError, match="can't be loaded: .*(no file named|safetensors)"
    ):
        load_pipeline(tmp_path)


def test_a_missing_part_is_named(tmp_path):
    tiny.pipeline().save_pretrained(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"diffusion_pytorch_model\.safetensors"):
        load_pipeline(tmp_path)


WEIGHTS = {
    "unet": ("diffusion_pytorch_model.safetensors", "conv_in.weight"),
    "vae": ("diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    "text_encoder": ("model.safetensors", "final_layer_norm.weight"),
    "text_encoder_2": ("model.safetensors", "text_projection.weight"),
}
"""File of each network, and one of its names."""


def rewrite(path, change):
    """Change the tensors of a file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("part", WEIGHTS)
def test_networks_are_loaded_strictly(part, tmp_path):
    tiny.xl_pipeline().save_pretrained(tmp_path)
    file, name = WEIGHTS[part]
    path = tmp_path / part / file
    whole = path.read_bytes()

    def refused(change, match):
        rewrite(path, change)
        with pytest.raises(BaseModelError, match=match) as told:
            load_pipeline(tmp_path)
        assert str(path.parent) in str(told.value)
        path.write_bytes(whole)

    refused(lambda t: t.pop(name), f"lacks '.*{name}'")
    refused(lambda t: t.update(other=torch.zeros(1)), "has the unknown 'other'")
    refused(lambda t: t.update({name: torch.zeros(3, 5)}), name)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BaseModelError, match="can't be loaded"):
        load_pipeline(tmp_path)


def test_the_names_of_older_files_are_known(tmp_path):
    """As Stable Diffusion 1 is published: text encoder and VAE have other names."""
    original = tiny.pipeline()
    original.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older_vae(tensors):
        for name in [n for n in tensors if "attentions" in n]:
            renamed = name
            for new, before in old.items():
                renamed = renamed.replace(f".{new}.", f".{before}.")
            tensors[renamed] = tensors.pop(name)

    def older_text(tensors):
        for name in list(tensors):
            tensors[f"text_model.{name.removeprefix('text_model.')}"] = tensors.pop(
                name
            )
        tensors["text_model.embeddings.position_ids"] = torch.arange(4)[None]

    for part, change in (("vae", older_vae), ("text_encoder", older_text)):
        path = tmp_path / part / WEIGHTS[part][0]
        names = load_file(path).keys()
        rewrite(path, change)
        assert load_file(path).keys() != names
        expected = getattr(original, part).state_dict()
        found = getattr(load_pipeline(tmp_path), part).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_weights_that_are_published_in_half_precision_alone(tmp_path):
    pipeline = tiny.pipeline().to(torch.float16)
    pipeline.save_pretrained(tmp_path, variant="fp16")
    loaded = load_pipeline(tmp_path)
    assert loaded.unet.dtype == torch.float32
    for name, weight in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], weight.float()), name


def test_a_tiny_decoder_is_loaded_whole_and_frozen(tmp_path):
    saved = tiny.tiny_decoder()
    saved.save_pretrained(tmp_path / "tiny_decoder")
    loaded = load_tiny_decoder(tmp_path, tiny.pipeline().vae)
    found, expected = loaded.state_dict(), saved.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_a_missing_tiny_decoder_is_told_with_the_command_that_fetches_it(tmp_path):
    vae = tiny.pipeline().vae
    words = r"config\.json and diffusion_pytorch_model\.safetensors in .*tiny_decoder"
    with pytest.raises(MissingWeightsError, match=f"{words}.*--pipelines fetch"):
        load_tiny_decoder(tmp_path, vae)
    tiny.tiny_decoder().save_pretrained(tmp_path / "tiny_decoder")
    (tmp_path / "tiny_decoder" / "config.json").unlink()
    with pytest.raises(MissingWeightsError, match=r"needs config\.json in"):
        load_tiny_decoder(tmp_path, vae)


def test_a_tiny_decoder_that_does_not_fit_is_refused(tmp_path):
    vae = tiny.pipeline().vae
    tiny.tiny_decoder(latent_channels=16).save_pretrained(tmp_path / "tiny_decoder")
    with pytest.raises(TinyDecoderError, match="latents of 16 channels"):
        load_tiny_decoder(tmp_path, vae)
    # Three blocks double the width twice; the base model's decoder doubles it once.
    three = {"decoder_block_out_channels": (8,) * 3, "num_decoder_blocks": (1,) * 3}
    tiny.tiny_decoder(**three).save_pretrained(tmp_path / "tiny_decoder")
    with pytest.raises(TinyDecoderError, match="4 times as wide"):
        load_tiny_decoder(tmp_path, vae)
    # The configuration of another than the weights are of.
    tiny.tiny_decoder().save_config(tmp_path / "tiny_decoder")
    with pytest.raises(WeightsError, match="has the unknown 'decoder"):
        load_tiny_decoder(tmp_path, vae)
    vae.save_config(tmp_path / "tiny_decoder")
    with pytest.raises(TinyDecoderError, match="is of a AutoencoderKL"):
        load_tiny_decoder(tmp_path, vae)
