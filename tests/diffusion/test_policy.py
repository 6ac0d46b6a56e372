import re

import pytest
import torch
from safetensors.torch import save_file

from tdpo_pipeline.config import LoraSettings
from tdpo_pipeline.diffusion.loading import BaseModelError, load_pipeline
from tdpo_pipeline.diffusion.policy import (
    LORA_FILE,
    CheckpointError,
    LoraError,
    Policy,
    kohya_names,
    read_safetensors,
)
from tests import tiny


def policy(lora: LoraSettings | None = tiny.LORA, seed: int = 0) -> Policy:
    return Policy(tiny.pipeline(), num_inference_steps=4, lora=lora, seed=seed)


def shift(target: Policy) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def predict(target: Policy, guidance_scale: float = 2.0) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 64).view(2, 4, 4, 4)
    t = torch.tensor([751, 1])
    with torch.no_grad():
        return target.predict_noise(x, t, target.encode(tiny.PROMPTS), guidance_scale)


@pytest.mark.parametrize("lora", [tiny.LORA, None])
def test_reference_is_the_base_model_exactly(lora):
    base = predict(policy(None))
    changed = policy(lora)
    assert torch.equal(predict(changed), base)
    shift(changed)
    trained = predict(changed)
    assert not torch.equal(trained, base)
    with changed.reference():
        assert torch.equal(predict(changed), base)
    assert torch.equal(predict(changed), trained)


def test_strength_scales_the_adapters():
    target = policy()
    base = predict(target)
    shift(target)
    trained = predict(target)
    target.set_strength(0.5)
    half = predict(target)
    assert not torch.allclose(half, trained)
    # Twice as strong an adapter at half the strength is the same.
    with torch.no_grad():
        for name, parameter in target.unet.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(2)
    torch.testing.assert_close(predict(target), trained)
    target.set_strength(0.0)
    torch.testing.assert_close(predict(target), base)
    with pytest.raises(ValueError, match="no strength"):
        policy(None).set_strength(0.5)


def test_guidance_of_one_is_the_conditional_prediction():
    target = policy()
    unguided = predict(target, 1.0)
    half = predict(target, 1.5)
    double = predict(target, 2.0)
    # eps_u + w (eps_c - eps_u) is linear in w.
    torch.testing.assert_close(double - unguided, 2 * (half - unguided))


def test_only_the_adapters_are_trained():
    target = policy()
    names = [n for n, p in target.unet.named_parameters() if p.requires_grad]
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert all(p.requires_grad for p in policy(None).unet.parameters())


@pytest.mark.parametrize("lora", [tiny.LORA, None])
def test_save_and_load_are_inverse(lora, tmp_path):
    source, target = policy(lora), policy(lora, seed=1)
    shift(source)
    source.save(tmp_path)
    target.load(tmp_path)
    assert torch.equal(predict(source), predict(target))


EVERY_KIND = LoraSettings(
    rank=2,
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
    ),
)


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_plain_diffusers_draws_the_same_with_the_adapter(name, tmp_path):
    source = Policy(
        tiny.PIPELINES[name](), num_inference_steps=4, lora=EVERY_KIND, seed=0
    )
    shift(source)
    source.save(tmp_path)
    base, plain = tiny.PIPELINES[name](), tiny.PIPELINES[name]()
    plain.load_lora_weights(tmp_path)

    def draw(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                # On some processors torch rounds otherwise where weights want gradients.
                part.requires_grad_(False)
        return pipeline(
            tiny.PROMPTS,
            num_inference_steps=4,
            guidance_scale=5.0,
            eta=1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images

    ours = draw(source.pipeline)
    assert torch.equal(draw(plain), ours)
    assert not torch.equal(draw(base), ours)


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_saved_adapter_has_the_names_that_diffusers_reads(name, tmp_path):
    Policy(tiny.PIPELINES[name](), num_inference_steps=4, lora=EVERY_KIND).save(
        tmp_path
    )
    weights = read_safetensors(tmp_path / LORA_FILE)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora"
    assert {f"{layer}.down.weight", f"{layer}.up.weight"} <= set(weights)
    pattern = re.compile(r"unet\.[a-z0-9_.]+\.lora\.(down|up)\.weight")
    assert [key for key in weights if not pattern.fullmatch(key)] == []
    # No alpha: it is the rank, so that the adapter's scale is 1.
    assert {min(weight.shape[:2]) for weight in weights.values()} == {2}


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_other_tools_find_every_layer_by_kohyas_names(name, tmp_path):
    source = Policy(tiny.PIPELINES[name](), num_inference_steps=4, lora=EVERY_KIND)
    shift(source)
    source.save(tmp_path)
    ours = read_safetensors(tmp_path / LORA_FILE)
    kohya = kohya_names(ours)
    # ComfyUI looks for each weight of the UNet under its path with underscores.
    paths = {
        path.removesuffix(".weight")
        for path in tiny.PIPELINES[name]().unet.state_dict()
        if path.endswith(".weight")
    }
    names = {path: f"lora_unet_{path.replace('.', '_')}" for path in paths}
    adapted = {key.removeprefix("unet.").split(".lora.")[0] for key in ours}
    assert adapted <= paths
    for path in adapted:
        for kohyas, own in (("lora_up", "lora.up"), ("lora_down", "lora.down")):
            found = kohya.pop(f"{names[path]}.{kohyas}.weight")
            assert torch.equal(found, ours[f"unet.{path}.{own}.weight"])
        assert kohya.pop(f"{names[path]}.alpha") == EVERY_KIND.rank
    assert not kohya


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (3, tiny.LORA.target_modules, r"\d+ tensors are of another shape, such as"),
        (2, ("to_q", "to_v"), r"\d+ tensors are surplus, such as '.*conv1"),
        (
            2,
            (*tiny.LORA.target_modules, "to_k"),
            r"\d+ tensors are missing, such as '.*to_k",
        ),
    ],
)
def test_checkpoint_of_another_configuration_is_an_error(
    rank, targets, message, tmp_path
):
    policy().save(tmp_path)
    other = policy(LoraSettings(rank=rank, target_modules=targets))
    with pytest.raises(CheckpointError, match="another configuration: " + message):
        other.load(tmp_path)


def test_adapter_of_another_base_model_is_an_error(tmp_path):
    policy().save(tmp_path)
    xl = Policy(tiny.xl_pipeline(), num_inference_steps=4, lora=tiny.LORA)
    with pytest.raises(CheckpointError, match=r"of 8 inputs, and this UNet's has 20"):
        xl.load(tmp_path)
    deep = read_safetensors(tmp_path / LORA_FILE)
    deep["unet.down_blocks.3.resnets.0.conv1.lora.down.weight"] = torch.zeros(
        2, 8, 3, 3
    )
    save_file(deep, tmp_path / LORA_FILE)
    with pytest.raises(CheckpointError, match=r"down_blocks\.3.* belongs to no layer"):
        policy().load(tmp_path)


def test_truncated_or_missing_checkpoint_is_an_error(tmp_path):
    source = policy()
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        source.load(tmp_path)
    source.save(tmp_path)
    path = tmp_path / LORA_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        source.load(tmp_path)


# "v" and "onv1" end the names of layers, but are no part of them between dots.
@pytest.mark.parametrize("target", ["to_everything", "v", "onv1"])
def test_unknown_lora_target_is_an_error(target):
    with pytest.raises(LoraError, match=rf"names \['{target}'\]"):
        policy(LoraSettings(rank=2, target_modules=("to_q", target)))


def test_missing_base_model_names_the_command(tmp_path):
    with pytest.raises(BaseModelError, match="kedro run --pipelines base_model"):
        load_pipeline(tmp_path)


def test_a_scheduler_of_another_kind_is_an_error(tmp_path):
    pipeline = tiny.pipeline()
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match="v_prediction"):
        load_pipeline(tmp_path)


def test_prompts_are_encoded_once_and_alike():
    target = policy()
    embeds = target.encode(["cat", "dog", "cat"]).tokens
    assert embeds.shape == (3, 4, 8)
    assert torch.equal(embeds[0], embeds[2])
    assert not torch.equal(embeds[0], embeds[1])
