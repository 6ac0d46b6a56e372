import pytest
import torch

from tdpo_pipeline.config import LoraSettings
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import LORA_FILE, CheckpointError, Policy
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


def test_plain_diffusers_loads_the_adapter(tmp_path):
    source = policy()
    shift(source)
    source.save(tmp_path)
    plain = tiny.pipeline()
    plain.load_lora_weights(tmp_path)
    x, t = torch.ones(1, 4, 4, 4), torch.tensor([1])
    embeds = source.encode(["cat"]).tokens
    with torch.no_grad():
        ours = source.unet(x, t, embeds).sample
        theirs = plain.unet(x, t, embeds).sample
    assert torch.equal(ours, theirs)


def test_checkpoint_of_another_rank_is_an_error(tmp_path):
    policy().save(tmp_path)
    other = policy(LoraSettings(rank=3, target_modules=tiny.LORA.target_modules))
    with pytest.raises(CheckpointError, match="another configuration"):
        other.load(tmp_path)


def test_truncated_or_missing_checkpoint_is_an_error(tmp_path):
    source = policy()
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        source.load(tmp_path)
    source.save(tmp_path)
    path = tmp_path / LORA_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        source.load(tmp_path)


def test_unknown_lora_target_is_an_error():
    with pytest.raises(ValueError, match="to_everything"):
        policy(LoraSettings(rank=2, target_modules=("to_q", "to_everything")))


def test_missing_base_model_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="kedro run --pipelines base_model"):
        load_pipeline(tmp_path)


def test_a_scheduler_of_another_kind_is_an_error(tmp_path):
    pipeline = tiny.pipeline()
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="v_prediction"):
        load_pipeline(tmp_path)


def test_prompts_are_encoded_once_and_alike():
    target = policy()
    embeds = target.encode(["cat", "dog", "cat"]).tokens
    assert embeds.shape == (3, 4, 8)
    assert torch.equal(embeds[0], embeds[2])
    assert not torch.equal(embeds[0], embeds[1])
