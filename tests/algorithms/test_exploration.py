"""DiffExp: weak guidance at noisy steps, weighted words, and what the loss makes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from transformers import CLIPTokenizer

from tdpo_pipeline.algorithms.ddpo import Ddpo
from tdpo_pipeline.algorithms.exploration import (
    guidance_schedule,
    weighted_embeds,
    word_tokens,
)
from tdpo_pipeline.algorithms.policy_gradient import RatioError
from tdpo_pipeline.config import (
    EvaluationSettings,
    ExplorationSettings,
    GuidanceScheduleSettings,
    PromptWeightingSettings,
)
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.trajectory import replay, rollout
from tdpo_pipeline.evaluation import evaluate_run
from tdpo_pipeline.trainer.loop import train_run
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny
from tests.conftest import ROOT

GUIDANCE = {"guidance": {"threshold": 600, "low": 1.0}}
WORDS = {"prompt_weighting": {"low": 1.1, "high": 1.5}}


@pytest.mark.parametrize(("threshold", "count"), [(900, 5), (800, 10), (700, 15)])
def test_low_guidance_is_at_the_noisiest_steps_alone(threshold, count):
    scheduler = tiny.scheduler()
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[[0, -1]].tolist() == [981, 1]
    settings = GuidanceScheduleSettings(threshold=threshold, low=1.5)
    weights = guidance_schedule(scheduler.timesteps, settings, 5.0)
    assert weights.tolist() == [1.5] * count + [5.0] * (50 - count)
    assert weights.dtype == torch.float32


def test_guidance_schedule_by_hand():
    timesteps = torch.tensor([751, 501, 251, 1])
    settings = GuidanceScheduleSettings(threshold=501, low=0.5, high=3.0)
    # At the threshold itself the guidance is high.
    assert guidance_schedule(timesteps, settings, 7.0).tolist() == [0.5, 3.0, 3.0, 3.0]
    # Where nothing changes over the steps it is a number, as in plain sampling.
    low = GuidanceScheduleSettings(threshold=0, low=1.0)
    assert guidance_schedule(timesteps, low, 7.0) == 1.0
    high = GuidanceScheduleSettings(threshold=900, low=1.0)
    assert guidance_schedule(timesteps, high, 7.0) == 7.0
    equal = GuidanceScheduleSettings(threshold=501, low=7.0)
    assert guidance_schedule(timesteps, equal, 7.0) == 7.0


def test_a_threshold_above_all_timesteps_is_refused():
    # Four steps are at the timesteps 751, 501, 251, 1.
    explores = {"exploration": {"guidance": {"threshold": 750}}}
    config = tiny.run_config(tiny.DDPO | explores)
    assert "weak guidance at 1 of 4 steps up to epoch 3" in config.summary()
    explores["exploration"]["guidance"]["threshold"] = 751
    with pytest.raises(ValueError, match="751 is above all of the 4 timesteps"):
        tiny.run_config(tiny.DDPO | explores)
    explores = {"exploration": {"prompt_weighting": {}, "fraction": 0.2}}
    with pytest.raises(ValueError, match=r"fraction 0\.2 of 4 epochs is less than one"):
        tiny.run_config(tiny.DDPO | explores)


@pytest.mark.parametrize(
    ("method", "training", "setting"),
    [
        (
            {
                "algorithm": "refl",
                "optimizer": tiny.OPTIMIZER,
                "loss": {"kind": "hinge", "target": 2.0, "unit": "base_std"},
            },
            {},
            r"loss\.unit: base_std",
        ),
        (
            {
                "algorithm": "rwr",
                "rounds": 2,
                "batch_size": 8,
                "optimizer": tiny.OPTIMIZER,
                "unit": "base_std",
            },
            {},
            "unit: base_std",
        ),
        (
            tiny.TDPO
            | {
                "algorithm": "tdpo_constrained",
                "constraints": {"pick-mini": {"slack": 0.5}},
            },
            {},
            "constraints",
        ),
        (
            tiny.DDPO,
            {
                "monitor": ("pick-mini",),
                "early_stop": {
                    "rule": "onset",
                    "held_out": ("pick-mini",),
                    "min_epochs": 2,
                },
            },
            r"training\.early_stop",
        ),
    ],
)
def test_what_is_measured_from_the_base_model_does_not_explore(
    method, training, setting
):
    tiny.run_config(method, **training)
    explores = {"exploration": WORDS}
    with pytest.raises(ValidationError, match=f"{setting} measures rewards against"):
        tiny.run_config(method | explores, **training)


def test_a_unit_that_nothing_is_measured_in_may_explore():
    explores = {"optimizer": tiny.OPTIMIZER, "exploration": WORDS}
    sparse = {"rounds": 2, "batch_size": 8, "weighting": "sparse", "unit": "base_std"}
    tiny.run_config(explores | sparse | {"algorithm": "rwr"})
    tiny.run_config(explores | {"algorithm": "refl", "loss": {"unit": "base_std"}})


def test_exploration_is_in_the_first_three_quarters():
    settings = ExplorationSettings.model_validate(GUIDANCE)
    assert [settings.active(e, 4) for e in (1, 2, 3, 4)] == [True] * 3 + [False]
    assert [e for e in range(1, 17) if settings.active(e, 16)] == list(range(1, 13))
    # 0.57 x 100 is a little less than 57 in floating point.
    part = ExplorationSettings.model_validate(GUIDANCE | {"fraction": 0.57})
    assert part.active(57, 100)
    assert not part.active(58, 100)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("cat", [[1]]),
        ("cat dog", [[1], [2]]),
        ("  cat \t dog ", [[1], [2]]),
        ("CAT Dog", [[1], [2]]),
        ("catdog", [[1, 2]]),  # ca, t and dog, of which two have room
        ("tac dog", [[1, 2]]),  # t, a, c and dog
        ("cat dog cat", [[1], [2]]),
        ("", []),
        ("   ", []),
        (", cat", [[2]]),  # a sign that it doesn't know
        ("<|endoftext|> dog", [[2]]),
    ],
)
def test_words_of_the_tiny_tokenizer(prompt, expected):
    assert word_tokens(tiny.pipeline().tokenizer, prompt) == expected


@pytest.fixture(scope="module")
def menagerie():
    return CLIPTokenizer.from_pretrained(
        ROOT / "data/06_models/menagerie/base_model/tokenizer"
    )


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("zebra", [[1]]),
        ("a green  rabbit ", [[1], [2], [3]]),
        ("Four wolves in the park", [[1], [2], [3], [4], [5]]),
        # Unknown words are spelt: c a p y b ar a.
        ("capybara playing chess", [[1, 2, 3, 4, 5, 6, 7], [8], [9]]),
        # A comma is unknown, and takes the second place.
        ("zebra, dog", [[1], [3]]),
        ("dog , cat", [[1], [3]]),
        # Two of the word's letters are unknown bytes.
        ("caf\u00e9 dog", [[1, 2, 3], [6]]),
    ],
)
def test_words_of_menageries_tokenizer(menagerie, prompt, expected):
    assert word_tokens(menagerie, prompt) == expected


def test_words_are_cut_off_where_the_prompt_is(menagerie):
    words = word_tokens(menagerie, " ".join(["dog"] * 100))
    assert words == [[i] for i in range(1, 15)]  # 16 places, two of them special
    split = word_tokens(menagerie, " ".join(["dog"] * 12 + ["capybara"]))
    assert split[-1] == [13, 14]


@pytest.mark.parametrize("prompt", ["zebra, dog", "capybara", "dog " * 50, "", "?"])
def test_special_tokens_are_in_no_word(menagerie, prompt):
    ids = menagerie(prompt, truncation=True, padding="max_length")["input_ids"]
    for position in (p for word in word_tokens(menagerie, prompt) for p in word):
        assert ids[position] not in menagerie.all_special_ids


@pytest.fixture(scope="module")
def policy():
    return Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)


def weighted(policy, prompts, low, high, seed=0):
    settings = PromptWeightingSettings(low=low, high=high)
    rng = np.random.default_rng(seed)
    return weighted_embeds(policy, prompts, rng, settings).tokens


def test_the_tokens_of_one_word_are_weighted_by_hand(policy):
    plain, null = policy.encode(["catdog"]).tokens, policy.encode([""]).tokens
    found = weighted(policy, ["catdog"], 1.5, 1.5)
    # The word has places 1 and 2: c_null + 1.5 (c - c_null) = 1.5 c - 0.5 c_null.
    expected = 1.5 * plain - 0.5 * null
    torch.testing.assert_close(found[:, 1:3], expected[:, 1:3])
    assert not torch.allclose(found[:, 1:3], plain[:, 1:3])
    assert torch.equal(found[:, [0, 3]], plain[:, [0, 3]])
    # The embeddings that the policy keeps for its prompts are as they were.
    assert torch.equal(policy.encode(["catdog"]).tokens, plain)


def test_one_random_word_gets_its_own_random_weight(policy):
    prompts = ["cat dog"] * 200
    plain, null = policy.encode(prompts).tokens, policy.encode([""]).tokens
    found = weighted(policy, prompts, 1.0, 1.2)
    changed = (found != plain).any(-1)
    assert not changed[:, [0, 3]].any()
    assert (changed.sum(1) == 1).all()
    assert 60 < changed[:, 1].sum() < 140
    weights = ((found - null).norm(dim=-1) / (plain - null).norm(dim=-1))[changed]
    assert weights.min() >= 1
    assert weights.max() <= 1.2
    # Uniform on [1, 1.2]: mean 1.1 and deviation 0.2 / sqrt(12).
    assert weights.mean() == pytest.approx(1.1, abs=4 * 0.0577 / 200**0.5)
    assert weights.std() == pytest.approx(0.0577, rel=0.2)


def test_a_samples_draw_is_not_that_of_its_neighbours_prompts(policy):
    found = weighted(policy, ["cat", "cat dog", "cat"], 1.0, 1.2)
    other = weighted(policy, ["", "cat dog", "dog"], 1.0, 1.2)
    assert torch.equal(found[1], other[1])
    assert not torch.equal(found[0], found[2])


def test_nothing_to_weigh_changes_nothing(policy):
    assert torch.equal(
        weighted(policy, ["", " "], 1.2, 1.2), policy.encode(["", " "]).tokens
    )
    words = ["cat", "cat dog"]
    assert torch.equal(weighted(policy, words, 1.0, 1.0), policy.encode(words).tokens)


# As wide as at Stable Diffusion, 1e-4, though the tiny model has 64 dimensions.
METHOD = tiny.DDPO | {"clip_range": 1e-4 / 256}


def build(**exploration):
    config = tiny.run_config(METHOD | {"exploration": exploration or None})
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    return Ddpo(config, policy, tiny.Redness(), Path(), Stopwatch())


PROMPTS = ["cat", "dog", "cat dog", "catdog"] * 2


def plainly(algorithm, number):
    return rollout(
        algorithm.policy,
        PROMPTS,
        seed=0,
        epoch=number,
        guidance_scale=2.0,
        eta=1.0,
        chunk_size=4,
    )


def update(algorithm, number, trajectory):
    rewards = algorithm.reward(trajectory.images, trajectory.prompts).values
    return algorithm.update(number, trajectory, rewards)


@pytest.mark.parametrize("exploration", [GUIDANCE, WORDS, GUIDANCE | WORDS])
def test_exploration_changes_the_samples(exploration):
    algorithm = build(**exploration)
    found, plain = algorithm.sample(1, PROMPTS), plainly(algorithm, 1)
    assert torch.equal(found.latents[:, 0], plain.latents[:, 0])
    assert not torch.allclose(found.latents[:, -1], plain.latents[:, -1])
    # Timesteps 751, 501, 251, 1 at threshold 600.
    guidance = [1.0, 2.0, 2.0, 2.0] if "guidance" in exploration else [2.0] * 4
    assert [float(found.guidance_at(torch.tensor(i))) for i in range(4)] == guidance
    changed = not torch.equal(found.embeds.tokens, plain.embeds.tokens)
    assert changed == ("prompt_weighting" in exploration)


def test_low_guidance_at_all_steps_is_plain_sampling_with_it():
    algorithm = build(guidance={"threshold": 0, "low": 1.0})
    found = algorithm.sample(1, PROMPTS)
    expected = rollout(
        algorithm.policy,
        PROMPTS,
        seed=0,
        epoch=1,
        guidance_scale=1.0,
        eta=1.0,
        chunk_size=4,
    )
    assert torch.equal(found.latents, expected.latents)


def test_every_epoch_draws_words_of_its_own():
    algorithm = build(**WORDS)
    first, second = algorithm.sample(1, PROMPTS), algorithm.sample(2, PROMPTS)
    assert not torch.equal(first.embeds.tokens, second.embeds.tokens)
    assert torch.equal(algorithm.sample(1, PROMPTS).embeds.tokens, first.embeds.tokens)


def test_after_the_first_part_sampling_is_plain():
    algorithm = build(**GUIDANCE, **WORDS)
    for number in (3, 4):
        found, plain = algorithm.sample(number, PROMPTS), plainly(algorithm, number)
        assert torch.equal(found.latents, plain.latents) == (number == 4)
    assert torch.equal(found.embeds.tokens, plain.embeds.tokens)
    assert torch.equal(found.log_probs, plain.log_probs)
    assert found.guidance == plain.guidance == 2.0


@pytest.mark.parametrize("log_prob", ["behaviour", "target"])
def test_the_ratio_is_1_before_the_first_update(log_prob):
    algorithm = build(**GUIDANCE, **WORDS, log_prob=log_prob)
    for number in (1, 2):
        metrics = update(algorithm, number, algorithm.sample(number, PROMPTS))
        assert metrics["ratio_error"] == 0
        assert metrics["approx_kl"] > 0


def test_behaviour_replays_what_sampled():
    algorithm = build(**GUIDANCE, **WORDS)
    trajectory = algorithm.sample(1, PROMPTS)
    assert algorithm.to_replay(trajectory) is trajectory


def test_target_replays_plainly_with_log_probs_of_its_own():
    algorithm = build(**GUIDANCE, **WORDS, log_prob="target")
    trajectory = algorithm.sample(1, PROMPTS)
    found = algorithm.to_replay(trajectory)
    assert found.guidance == 2.0
    assert torch.equal(found.embeds.tokens, algorithm.policy.encode(PROMPTS).tokens)
    assert torch.equal(found.latents, trajectory.latents)
    pairs = torch.tensor([[0, 0], [3, 1], [6, 2], [7, 3]])
    with torch.no_grad():
        _, expected = replay(algorithm.policy, found, pairs)
    torch.testing.assert_close(found.log_probs[pairs.unbind(1)], expected)
    # Far from the log-probs of what sampled.
    difference = (found.log_probs - trajectory.log_probs).abs()
    assert difference.max() > 10 * algorithm.surrogate.clip_range


@pytest.mark.parametrize("exploration", [GUIDANCE, WORDS])
def test_mixing_the_two_stops_the_run(exploration):
    algorithm = build(**exploration)
    trajectory = algorithm.sample(1, PROMPTS)
    mixed = replace(
        trajectory, guidance=2.0, embeds=algorithm.policy.encode(trajectory.prompts)
    )
    # All pairs in one update, so that the steps of low guidance are among them.
    pairs = trajectory.pairs()
    algorithm.surrogate.step(trajectory, pairs, torch.ones(8, 4))
    algorithm = build(**exploration)
    with pytest.raises(RatioError, match="off 1"):
        algorithm.surrogate.step(mixed, pairs, torch.ones(8, 4))


def test_target_explores_in_one_part_only_too():
    # After the first part old log-probs are recomputed under what sampled them.
    algorithm = build(**GUIDANCE, **WORDS, log_prob="target")
    trajectory = algorithm.sample(4, PROMPTS)
    found = algorithm.to_replay(trajectory)
    torch.testing.assert_close(found.log_probs, trajectory.log_probs)


def train(folder, name, exploration, **changes):
    base_model = folder / "base_model"
    if not base_model.exists():
        tiny.pipeline().save_pretrained(base_model)
    method = tiny.DDPO | {"exploration": exploration}
    config = tiny.run_config(method, **changes)
    result = train_run(
        config,
        prompts=tiny.PROMPTS,
        base_model=base_model,
        weights=folder / "no_weights",
        state_dir=folder / name,
    )
    return config, result


def test_equal_guidance_and_weight_1_change_nothing_bit_for_bit(tmp_path):
    nothing = {
        "guidance": {"threshold": 600, "low": 2.0, "high": 2.0},
        "prompt_weighting": {"low": 1.0, "high": 1.0},
    }
    _, plain = train(tmp_path, "plain", None)
    _, idle = train(tmp_path, "idle", nothing)
    assert idle.history["explored"].tolist() == [1, 1, 1, 0]
    history = idle.history.drop(columns="explored")
    pd.testing.assert_frame_equal(history, plain.history, check_exact=True)
    weights = [
        [p.read_bytes() for p in sorted(result.checkpoints.rglob("*.safetensors"))]
        for result in (plain, idle)
    ]
    assert len(weights[0]) == 2
    assert weights[0] == weights[1]


def test_evaluation_samples_plainly(tmp_path):
    settings = EvaluationSettings(
        prompt_sets=("animals",),
        images_per_prompt=2,
        etas=(1.0,),
        rewards=("tests.tiny:Redness",),
        seed=7,
        chunk_size=4,
        strip_prompts=("cat",),
    )
    scores = []
    for name, exploration in (("plain", None), ("exploring", GUIDANCE | WORDS)):
        config, result = train(tmp_path, name, exploration, epochs=2)
        evaluated = evaluate_run(
            config,
            settings,
            prompt_sets={"animals": tiny.PROMPTS},
            train_prompts=tiny.PROMPTS,
            checkpoints=result.checkpoints,
            base_model=tmp_path / "base_model",
            weights=tmp_path / "no_weights",
            diversity_encoders=["tests.rewards.own_rewards:SeeingBrightness"],
        )
        scores.append(evaluated.scores)
    # The base model is the same in both runs; what was trained differs.
    plain, exploring = ([s[s["epoch"] == e]["redness"] for e in (0, 2)] for s in scores)
    assert plain[0].tolist() == exploring[0].tolist()
    assert plain[1].tolist() != exploring[1].tolist()
