"""The base model: settings, tokenizer, training, and the weights that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline
from pydantic import ValidationError
from transformers import CLIPTokenizer

from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.menagerie.autoencoder import (
    build_autoencoder,
    gradient_difference,
    latent_moments,
    reconstruct,
    standardise_latents,
)
from tdpo_pipeline.menagerie.base_model import (
    build_pipeline,
    caption,
    ddim_scheduler,
    sample_images,
    save_base_model,
    to_tensor,
    train_base_model,
    training_data,
)
from tdpo_pipeline.menagerie.base_model_settings import (
    AutoencoderSettings,
    BaseModelSettings,
)
from tdpo_pipeline.menagerie.denoiser import (
    add_noise,
    encode_captions,
    loss_weights,
    tokenize,
)
from tdpo_pipeline.menagerie.optimization import (
    AveragedWeights,
    LossError,
    TrainingLog,
    batches,
    cosine_with_warm_up,
)
from tdpo_pipeline.menagerie.render import render
from tdpo_pipeline.menagerie.scenes import Scene, describe, sample_scene
from tdpo_pipeline.menagerie.tokenizer import build_tokenizer, train_bpe
from tdpo_pipeline.menagerie.vocabulary import RARE_COMPOSITIONS, WORDS
from tdpo_pipeline.prompts import prompt_set

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "06_models" / "menagerie" / "base_model"
LARGEST_BYTES = 6_000_000

TINY: dict[str, Any] = {
    "seed": 3,
    "scenes": 40,
    "threads": 1,
    "autoencoder": {
        "channels": [8, 8, 8],
        "layers_per_block": 1,
        "norm_groups": 4,
        "latent_channels": 4,
        "steps": 3,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "gradient_weight": 0.5,
        "kl_weight": 1e-3,
    },
    "text_encoder": {"width": 16, "layers": 1, "heads": 2, "max_length": 16},
    "denoiser": {
        "channels": [8, 8],
        "cross_attention": [False, True],
        "layers_per_block": 1,
        "heads": 2,
        "norm_groups": 4,
        "steps": 3,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "ema_decay": 0.9,
        "caption_dropout": 0.1,
        "snr_gamma": 5.0,
    },
    "report": {
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "eta": 1.0,
        "images_per_prompt": 1,
        "images_per_complex_prompt": 2,
        "renders_per_animal": 1,
        "scenes": 32,
        "held_out": 1,
        "passes": 1,
        "width": 4,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "seed": 0,
    },
}


@pytest.fixture(scope="module")
def settings() -> BaseModelSettings:
    return BaseModelSettings.model_validate(TINY)


@pytest.fixture(scope="module")
def pipeline(settings: BaseModelSettings) -> StableDiffusionPipeline:
    return build_pipeline(settings, seed=0)


@pytest.fixture(scope="module")
def shipped() -> StableDiffusionPipeline:
    return load_pipeline(SHIPPED)


class TestSettings:
    def test_the_committed_parameters_are_valid(self) -> None:
        text = (ROOT / "conf" / "base" / "parameters_base_model.yml").read_text()
        BaseModelSettings.model_validate(yaml.safe_load(text)["base_model"])

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("autoencoder", {"norm_groups": 3}, "norm_groups 3 must divide"),
            ("denoiser", {"cross_attention": [True]}, "one entry for each of the 2"),
            ("text_encoder", {"heads": 3}, "heads 3 must divide width 16"),
            ("denoiser", {"steps": 0}, "steps"),
            ("denoiser", {"learning_rat": 1}, "learning_rat"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, part: str, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValidationError, match=message):
            BaseModelSettings.model_validate(TINY | {part: TINY[part] | change})

    def test_latent_size(self, settings: BaseModelSettings) -> None:
        assert settings.autoencoder.latent_size == 8


class TestTokenizer:
    def test_one_token_a_word_after_a_round_trip(self, tmp_path: Path) -> None:
        build_tokenizer(WORDS, 16).save_pretrained(tmp_path)
        tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
        ids = tokenizer(list(WORDS)).input_ids
        assert all(
            len(i) == 3
            and i[0] == tokenizer.bos_token_id
            and i[2] == tokenizer.eos_token_id
            for i in ids
        )
        assert len({i[1] for i in ids}) == len(WORDS)

    def test_training_is_deterministic(self) -> None:
        first = train_bpe(WORDS)
        assert all(train_bpe(WORDS) == first for _ in range(5))

    def test_an_unknown_word_is_spelt(self) -> None:
        tokenizer = build_tokenizer(WORDS, 16)
        assert tokenizer.tokenize("jazz q") == ["j", "a", "z", "z</w>", "q</w>"]

    def test_letter_case_does_not_matter_and_padding_is_the_end(self) -> None:
        tokenizer = build_tokenizer(WORDS, 8)
        upper, lower = tokenize(tokenizer, ["A Dog on the Moon", "a dog on the moon"])
        assert torch.equal(upper, lower)
        assert upper.shape == (8,)
        assert upper[6:].tolist() == [tokenizer.eos_token_id] * 2

    def test_all_prompts_fit(self) -> None:
        tokenizer = build_tokenizer(WORDS, 16)
        rng = np.random.default_rng(0)
        prompts = [describe(sample_scene(rng)) for _ in range(500)]
        assert max(len(ids) for ids in tokenizer(prompts).input_ids) <= 16

    def test_a_word_that_cannot_be_one_token(self) -> None:
        with pytest.raises(ValueError, match="'Cat'"):
            build_tokenizer(["Cat"], 16)


class TestOptimization:
    def test_schedule_by_hand(self) -> None:
        factors = [cosine_with_warm_up(step, 100) for step in (0, 4, 5, 52, 100)]
        assert factors[:3] == pytest.approx([0.2, 1.0, 1.0])
        assert factors[3] == pytest.approx(0.5 * (1 + np.cos(np.pi * 47 / 95)))
        assert factors[4] == pytest.approx(0.0)

    def test_average_by_hand(self) -> None:
        module = torch.nn.Linear(1, 1, bias=False)
        module.weight.data.fill_(0.0)
        average = AveragedWeights([module], decay=0.5)
        module.weight.data.fill_(1.0)
        average.update()  # decay 2/11
        average.update()  # decay 3/12
        average.copy_to_modules()
        assert module.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)

    def test_batches_pass_over_everything(self) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.cat(list(batches(6, 4, 3, generator)))
        assert drawn[:6].sort().values.tolist() == list(range(6))
        assert drawn[6:].sort().values.tolist() == list(range(6))

    def test_log_averages_and_stops_at_nan(self) -> None:
        log = TrainingLog("denoiser", 100)
        log.add(1, {"loss": torch.tensor(1.0)})
        log.add(2, {"loss": torch.tensor(3.0)})
        assert log.rows == [{"stage": "denoiser", "step": 2, "loss": 2.0}]
        log.add(3, {"loss": torch.tensor(float("nan"))})
        with pytest.raises(LossError, match=r"denoiser\.learning_rate"):
            log.add(4, {"loss": torch.tensor(1.0)})


class TestAutoencoder:
    def test_gradient_difference_by_hand(self) -> None:
        image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        assert gradient_difference(image, torch.zeros(1, 1, 2, 2)).item() == 1.0
        assert gradient_difference(image + 3, image).item() == 0.0

    def test_standardised_latents_give_the_same_pictures(self) -> None:
        torch.manual_seed(0)
        vae: AutoencoderKL = build_autoencoder(
            AutoencoderSettings.model_validate(TINY["autoencoder"])
        )
        images = training_data(30, 0).images
        before = reconstruct(vae, images)
        standardise_latents(vae, latent_moments(vae, images))
        mean, std = latent_moments(vae, images).chunk(2, dim=1)
        total = mean.var((0, 2, 3)) + std.square().mean((0, 2, 3))
        torch.testing.assert_close(
            mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(total, torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(reconstruct(vae, images), before, atol=1e-4, rtol=0)


class TestDenoiser:
    def test_loss_weights_by_hand(self) -> None:
        abar = torch.tensor([0.95, 0.5])  # signal-to-noise ratios 19 and 1
        weights = loss_weights(abar, gamma=5.0)
        torch.testing.assert_close(weights, torch.tensor([5 / 19, 1.0]))
        assert loss_weights(abar, gamma=0.0).tolist() == [1.0, 1.0]

    def test_noise_is_that_of_the_scheduler(self) -> None:
        scheduler = ddim_scheduler()
        latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
        timesteps = torch.tensor([0, 500, 999])
        torch.testing.assert_close(
            add_noise(latents, noise, timesteps, scheduler.alphas_cumprod),
            scheduler.add_noise(latents, noise, timesteps),
        )

    def test_captions_are_encoded_as_by_the_pipeline(
        self, pipeline: StableDiffusionPipeline
    ) -> None:
        prompts = ["cat", "a dog on the moon", "cat"]
        with torch.no_grad():
            ours = encode_captions(
                pipeline.text_encoder, tokenize(pipeline.tokenizer, prompts)
            )
            theirs, _ = pipeline.encode_prompt(prompts, torch.device("cpu"), 1, False)
        torch.testing.assert_close(ours, theirs)
        assert torch.equal(ours[0], ours[2])


class TestTrainingData:
    def test_depends_on_the_seed_alone(self) -> None:
        one, two, other = (training_data(20, seed) for seed in (5, 5, 6))
        assert torch.equal(one.images, two.images) and one.captions == two.captions
        assert one.captions != other.captions
        assert one.images.shape == (20, 3, 32, 32)
        assert one.images.dtype == torch.uint8

    def test_no_rare_composition(self) -> None:
        rng = np.random.default_rng(1)
        captions = {caption(sample_scene(rng), rng) for _ in range(3000)}
        assert not captions & set(RARE_COMPOSITIONS)

    def test_only_a_bare_noun_may_get_an_article(self) -> None:
        rng = np.random.default_rng(0)
        drawn = {caption(Scene("elephant"), rng) for _ in range(200)}
        assert drawn == {"elephant", "an elephant"}
        assert caption(Scene("cat", colour="red"), rng) == "a red colored cat"


class TestPipeline:
    def test_plain_diffusers_loads_and_samples(
        self, pipeline: StableDiffusionPipeline, tmp_path: Path
    ) -> None:
        folder = save_base_model(pipeline, tmp_path / "base_model")
        plain = StableDiffusionPipeline.from_pretrained(folder)
        plain.set_progress_bar_config(disable=True)
        images = plain("a cat", num_inference_steps=2, output_type="np").images
        assert images.shape == (1, 32, 32, 3)
        assert np.isfinite(images).all()

    def test_sampling_depends_on_the_seed(
        self, pipeline: StableDiffusionPipeline
    ) -> None:
        def draw(seed: int) -> torch.Tensor:
            return sample_images(
                pipeline,
                ["cat", "dog", "fox"],
                num_inference_steps=2,
                guidance_scale=2.0,
                eta=1.0,
                seed=seed,
                batch_size=2,
            )

        assert draw(0).shape == (3, 3, 32, 32)
        assert torch.equal(draw(0), draw(0))
        assert not torch.equal(draw(0), draw(1))

    def test_training_is_deterministic_and_changes_everything(
        self, settings: BaseModelSettings
    ) -> None:
        first, log = train_base_model(settings)
        second, again = train_base_model(settings)
        start = build_pipeline(settings, settings.seed)
        assert log.equals(again)
        assert set(log["stage"]) == {"autoencoder", "denoiser"}
        for part in ("vae", "unet", "text_encoder"):
            weights = getattr(first, part).state_dict()
            same = getattr(second, part).state_dict()
            before = getattr(start, part).state_dict()
            assert all(torch.equal(weights[k], same[k]) for k in weights)
            assert any(not torch.equal(weights[k], before[k]) for k in weights)


class TestShippedModel:
    def test_is_small(self) -> None:
        files = [path for path in SHIPPED.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
        weights = {path.suffix for path in files if path.stat().st_size > 100_000}
        assert weights == {".safetensors"}

    def test_loads_in_float32_in_plain_diffusers(self) -> None:
        plain = StableDiffusionPipeline.from_pretrained(SHIPPED)
        for part in (plain.vae, plain.unet, plain.text_encoder):
            assert {p.dtype for p in part.parameters()} == {torch.float32}
        assert plain.safety_checker is None

    def test_is_what_the_parameters_describe(
        self, shipped: StableDiffusionPipeline
    ) -> None:
        text = (ROOT / "conf" / "base" / "parameters_base_model.yml").read_text()
        settings = BaseModelSettings.model_validate(yaml.safe_load(text)["base_model"])
        built = build_pipeline(settings, 0)
        for part in ("vae", "unet", "text_encoder"):
            shapes = {k: v.shape for k, v in getattr(built, part).state_dict().items()}
            kept = getattr(shipped, part).state_dict()
            assert {k: v.shape for k, v in kept.items()} == shapes
        kept, wanted = (
            {k: v for k, v in p.scheduler.config.items() if not k.startswith("_")}
            for p in (shipped, built)
        )
        assert kept == wanted

    def test_knows_every_word(self, shipped: StableDiffusionPipeline) -> None:
        assert all(len(ids) == 3 for ids in shipped.tokenizer(list(WORDS)).input_ids)

    def test_latents_have_unit_variance(self, shipped: StableDiffusionPipeline) -> None:
        mean, std = latent_moments(shipped.vae, training_data(500, 11).images).chunk(
            2, dim=1
        )
        total = mean.var((0, 2, 3)) + std.square().mean((0, 2, 3))
        assert shipped.vae.config.scaling_factor == 1.0
        torch.testing.assert_close(total, torch.ones(4), atol=0.15, rtol=0)

    def test_draws_what_the_prompt_says(self, shipped: StableDiffusionPipeline) -> None:
        """The mean of samples looks most like the mean of renders of its own prompt."""
        prompts = prompt_set("quick_animals")
        drawn = sample_images(
            shipped,
            [p for p in prompts for _ in range(8)],
            num_inference_steps=10,
            guidance_scale=2.0,
            eta=1.0,
            seed=0,
        )
        drawn = drawn.unflatten(0, (len(prompts), 8)).mean(1)
        renders = torch.stack(
            [
                to_tensor([render(Scene(p), seed) for seed in range(64)])
                .float()
                .mean(0)
                / 255
                for p in prompts
            ]
        )
        renders, drawn = (x - x.mean(0) for x in (renders, drawn))
        similarity = torch.nn.functional.cosine_similarity(
            drawn.flatten(1)[:, None], renders.flatten(1)[None], dim=-1
        )
        best = similarity.argmax(1)
        assert torch.equal(best, torch.arange(len(prompts))), similarity
