import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tdpo_pipeline.config import EnsemblePartSettings
from tdpo_pipeline.rewards.base import PaperScale, RewardError, Scores
from tdpo_pipeline.rewards.ensemble import Ensemble
from tdpo_pipeline.rewards.jpeg import jpeg_kilobytes
from tdpo_pipeline.rewards.registry import (
    UnknownRewardError,
    critic_encoder,
    load_reward,
    load_rewards,
    reward_path,
)
from tests import tiny

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_reward_scores_images_and_prompts():
    scores = tiny.Redness()(IMAGES, ["a", "b", "c"])
    assert isinstance(scores, Scores)
    assert scores.values.shape == (3,)


def test_scores_of_any_float_become_float32():
    class Half(tiny.Redness):
        def score(self, images, prompts):
            return Scores(super().score(images, prompts).values.bfloat16())

    values = Half()(IMAGES, ["a", "b", "c"]).values
    assert values.dtype == torch.float32
    plain = tiny.Redness()(IMAGES, ["a", "b", "c"]).values
    torch.testing.assert_close(values, plain, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("images", "prompts"),
    [(IMAGES, ["a"]), (IMAGES[0], ["a"] * 3), (IMAGES[:, :1], ["a"] * 3)],
)
def test_inputs_that_do_not_belong_together_are_errors(images, prompts):
    with pytest.raises(RewardError, match="takes images"):
        tiny.Redness()(images, prompts)


def with_pixel(value):
    images = IMAGES.clone()
    images[1, 2, 3, 4] = value
    return images


@pytest.mark.parametrize(
    "value", [1.1, -0.1, float("nan"), float("inf"), -float("inf")]
)
def test_what_is_no_image_is_refused_and_named(value):
    with pytest.raises(RewardError, match="1 of 3 are not, first that of prompt 'b'"):
        tiny.Redness()(with_pixel(value), ["a", "b", "c"])


def test_an_image_in_minus_one_to_one_is_refused_with_advice():
    with pytest.raises(RewardError, match=re.escape("x / 2 + 0.5")):
        tiny.Redness()(2 * IMAGES - 1, ["a", "b", "c"])


@pytest.mark.parametrize("value", [1.0009, -0.0009])
def test_overshoot_that_rounds_to_the_same_picture_is_accepted(value):
    # Half of one of 255 levels is 0.00196.
    found = tiny.Redness()(with_pixel(value), ["a", "b", "c"]).values
    assert found.isfinite().all()


def test_images_are_floats_and_at_least_one():
    with pytest.raises(RewardError, match=re.escape("got torch.uint8")):
        tiny.Redness()((IMAGES * 255).byte(), ["a", "b", "c"])
    with pytest.raises(RewardError, match="was given no images"):
        tiny.Redness()(IMAGES[:0], [])


def test_a_reward_moves_to_a_device_with_its_encoder(tmp_path):
    reward = tiny.Redness()
    assert reward.to("meta") is reward
    assert reward.encoder.matrix.device.type == "meta"
    jpeg = load_reward("jpeg_compressibility", tmp_path)
    assert jpeg.to("meta") is jpeg
    mixed = Ensemble(
        "both",
        {"a": tiny.Redness(), "b": tiny.Brightness()},
        {name: EnsemblePartSettings(mean=0.0, std=1.0) for name in "ab"},
    )
    mixed.to("meta")
    parts = mixed.rewards.values()
    assert {part.encoder.matrix.device.type for part in parts} == {"meta"}


def test_a_papers_scale_is_affine():
    # Hundredths, and a shift: 100 * 0.25 + 3.
    assert PaperScale(100.0, 3.0)(torch.tensor([0.25])).tolist() == [28.0]
    assert PaperScale()(torch.tensor([0.25])).tolist() == [0.25]


def test_nan_and_wrong_shape_are_errors():
    with pytest.raises(RewardError, match=re.escape("NaN or infinity for 1 of 3")):
        tiny.NanReward()(IMAGES, ["a", "b", "c"])

    class Square(tiny.Redness):
        def score(self, images, prompts):
            return Scores(torch.zeros(len(images), len(images)))

    with pytest.raises(RewardError, match=re.escape("expected (3,)")):
        Square()(IMAGES, ["a", "b", "c"])


def test_a_score_outside_the_range_is_an_error():
    class Bold(tiny.Redness):
        value_range = (-1.0, 0.5)

        def score(self, images, prompts):
            return Scores(torch.tensor([0.502, self.last, -1.0]))

    Bold.last = 0.0
    assert Bold()(IMAGES, ["a", "b", "c"]).values[0] == pytest.approx(0.502)  # rounding
    Bold.last = 0.6
    with pytest.raises(RewardError, match=r"returned 0.6, .* value_range of -1 to 0.5"):
        Bold()(IMAGES, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.zeros(3), "returned Tensor and not Scores"),
        (Scores([0.0] * 3), "no tensor of floats"),
        (Scores(torch.zeros(3, dtype=torch.int64)), "no tensor of floats"),
    ],
)
def test_anything_but_scores_of_floats_is_an_error(monkeypatch, result, message):
    monkeypatch.setattr(tiny.Redness, "score", lambda *_: result)
    with pytest.raises(RewardError, match=message):
        tiny.Redness()(IMAGES, ["a", "b", "c"])


def test_jpeg_size_is_that_of_the_file():
    picture = (IMAGES[0] * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=95)
    expected = len(buffer.getvalue()) / 1000
    assert jpeg_kilobytes(IMAGES[:1]).item() == pytest.approx(expected)


def test_jpeg_rewards_are_each_others_negative(tmp_path):
    small = load_reward("jpeg_compressibility", tmp_path)
    large = load_reward("jpeg_incompressibility", tmp_path)
    flat = torch.full((1, 3, 32, 32), 0.5)
    noise = torch.from_numpy(np.random.default_rng(0).random((1, 3, 32, 32)))
    assert small(flat, [""]).values > small(noise, [""]).values
    assert torch.equal(small(noise, [""]).values, -large(noise, [""]).values)
    assert small.value_range == (-float("inf"), 0.0)
    assert not small.differentiable


def test_unknown_reward_suggests_a_name(tmp_path):
    with pytest.raises(UnknownRewardError, match="did you mean aesthetic-mini"):
        load_reward("asthetic-mini", tmp_path)
    with pytest.raises(UnknownRewardError, match="can't be imported"):
        load_reward("nowhere:Nothing", tmp_path)


def test_a_reward_of_ones_own_needs_no_registration(tmp_path):
    assert load_reward("tests.tiny:Redness", tmp_path).name == "redness"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NotAReward", "must be a subclass of"),
        ("Scores", "must be a subclass of"),
        ("WithArguments", "can't be made without arguments (missing a required"),
        ("WithoutScore", "lacks the method score"),
    ],
)
def test_a_class_that_is_no_reward_is_found_before_anything_is_loaded(name, message):
    with pytest.raises(RewardError, match=re.escape(message)):
        reward_path(f"tests.rewards.own_rewards:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WithoutName", "needs a 'name'"),
        ("Masquerade", "has the name of another reward, 'gold_match'"),
    ],
)
def test_a_reward_of_ones_own_needs_a_name_of_its_own(tmp_path, name, message):
    with pytest.raises(RewardError, match=message):
        load_reward(f"tests.rewards.own_rewards:{name}", tmp_path)


def test_rewards_side_by_side_have_different_names(tmp_path):
    own = "tests.rewards.own_rewards"
    names = [f"{own}:Brightness", "jpeg_compressibility", f"{own}:Brightness"]
    loaded = load_rewards(names, tmp_path)
    assert list(loaded) == names[:2]
    with pytest.raises(RewardError, match="are both named 'brightness'"):
        load_rewards([*names, f"{own}:SecondBrightness"], tmp_path)


def test_critic_without_encoder_is_an_error(tmp_path):
    jpeg = load_reward("jpeg_compressibility", tmp_path)
    with pytest.raises(ValueError, match="'critic_encoder'"):
        critic_encoder(jpeg, None, tmp_path)
    encoder = critic_encoder(jpeg, "tests.tiny:Redness", tmp_path)
    assert encoder.embedding_dim == 6
