"""A weighted ensemble of rewards, as a reward and as a task."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from pydantic import ValidationError

from tdpo_pipeline.config import (
    AlgorithmSettings,
    EvaluationSettings,
    RewardSettings,
    RunConfig,
)
from tdpo_pipeline.evaluation import evaluate_run
from tdpo_pipeline.overoptimization.curves import reward_curves
from tdpo_pipeline.overoptimization.summary import gold_report
from tdpo_pipeline.overoptimization.tables import gold_of, known_rewards, role_of
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.ensemble import Ensemble
from tdpo_pipeline.rewards.registry import UnmeasuredError, load_rewards
from tdpo_pipeline.trainer.loop import train_run
from tests import tiny
from tests.conftest import ROOT

RED, BRIGHT = "tests.tiny:Redness", "tests.tiny:Brightness"
JPEG = "jpeg_compressibility"
PARTS = {
    RED: {"weight": 2.0, "mean": 0.1, "std": 0.5},
    BRIGHT: {"weight": -1.0, "mean": 0.5, "std": 0.25},
}


def task(parts=PARTS, scorer="both", **changes):
    values = {"scorer": scorer, "train_prompts": "simple_animals", "ensemble": parts}
    return RewardSettings.model_validate(values | changes)


def load(parts=PARTS):
    settings = task(parts)
    return load_rewards(["both"], ROOT / "no_weights", settings)["both"]


def config(
    algorithm=tiny.DDPO,
    parts=PARTS,
    scorer="both",
    reward="both",
    training=None,
    **changes,
):
    run = tiny.run_config(algorithm).model_dump(exclude={"task"})
    return RunConfig.model_validate(
        run
        | {
            "reward": reward,
            "algorithm": AlgorithmSettings.model_validate(algorithm),
            "task": task(parts, scorer, **changes),
        }
        | ({} if training is None else {"training": training})
    )


def picture(red, green, blue):
    return torch.tensor([red, green, blue]).view(3, 1, 1).expand(3, 8, 8)


# Redness 1 - 0 and 0.2 - 0.8, brightness 1/3 and 0.5.
IMAGES = torch.stack([picture(1.0, 0.0, 0.0), picture(0.2, 0.5, 0.8)])


def test_scores_by_hand():
    scores = load()(IMAGES, tiny.PROMPTS)
    # 2 (1 - 0.1) / 0.5 = 3.6, and -(1/3 - 0.5) / 0.25 = 2/3;
    # 2 (-0.6 - 0.1) / 0.5 = -2.8, and -(0.5 - 0.5) / 0.25 = 0.
    torch.testing.assert_close(scores.values, torch.tensor([3.6 + 2 / 3, -2.8]))
    assert scores.values.dtype == torch.float32


def test_what_it_declares():
    found = load()
    assert found.name == "both"
    # Redness in [-1, 1]: -4.4 to 3.6. Brightness in [0, 1], turned: -2 to 2.
    assert found.value_range == pytest.approx((-6.4, 5.6))
    assert found.differentiable
    assert found.encoder is None


def test_an_unbounded_part_leaves_that_side_unbounded():
    kilobytes = {"mean": -1.0, "std": 0.1}
    assert load({JPEG: kilobytes}).value_range == (-float("inf"), 10.0)
    turned = load({JPEG: kilobytes | {"weight": -1.0}})
    assert turned.value_range == (-10.0, float("inf"))


def test_its_gradient_is_the_weighted_sum_of_the_parts_gradients():
    images = IMAGES.clone().requires_grad_()
    load()(images, tiny.PROMPTS).values.sum().backward()
    # A red pixel: 2 / 0.5 of 1 / 64, less 1 / 0.25 of 1 / 192.
    red, green, blue = images.grad[0, :, 0, 0].tolist()
    assert red == pytest.approx(4 / 64 - 4 / 192)
    assert green == pytest.approx(-4 / 192)
    assert blue == pytest.approx(-4 / 64 - 4 / 192)


def test_one_part_without_a_gradient_leaves_none():
    assert not load(PARTS | {JPEG: {"mean": -1.0, "std": 0.1}}).differentiable


def test_a_score_does_not_depend_on_the_other_images():
    both = load()(IMAGES, tiny.PROMPTS).values
    alone = load()(IMAGES[1:], tiny.PROMPTS[1:]).values
    torch.testing.assert_close(both[1:], alone)


def test_parts_are_loaded_once_and_shared(monkeypatch):
    made = []
    original = tiny.Redness.__init__
    monkeypatch.setattr(
        tiny.Redness, "__init__", lambda self: (made.append(self), original(self))[1]
    )
    rewards = load_rewards(["both", RED], ROOT, task({RED: PARTS[RED]}))
    assert list(rewards) == ["both", RED]
    assert rewards["both"].rewards[RED] is rewards[RED]
    assert len(made) == 1


def test_a_part_that_fails_is_named():
    with pytest.raises(RewardError, match="'redness' returned NaN"):
        load({"tests.tiny:NanReward": PARTS[RED]})(torch.rand(3, 3, 8, 8), ["cat"] * 3)


def test_another_reward_of_its_name_is_an_error():
    with pytest.raises(RewardError, match="both named 'redness'"):
        load_rewards(["redness", RED], ROOT, task(scorer="redness"))


# -- wrong configuration --


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "at least 1 item"),
        ({RED: {"mean": 0.0, "std": 0.0}}, "greater than 0"),
        ({RED: {"mean": 0.0, "std": -1.0}}, "greater than 0"),
        ({RED: {"mean": float("nan"), "std": 1.0}}, "finite number"),
        ({RED: {"weight": 0.0, "mean": 0.0, "std": 1.0}}, "weight of 0 says nothing"),
        ({RED: {"mean": 0.0, "std": 1.0, "wait": 1.0}}, "unknown key 'wait'"),
    ],
)
def test_parts_that_say_nothing_are_refused(parts, message):
    with pytest.raises(ValidationError, match=message):
        task(parts)


@pytest.mark.parametrize(
    ("parts", "name", "message"),
    [
        ({"hps-mimi": PARTS[RED]}, "both", "did you mean hps-mini"),
        ({"both": PARTS[RED]}, "both", "Unknown reward 'both'"),
        ({"tests.tiny:Nothing": PARTS[RED]}, "both", "can't be imported"),
        (PARTS, "gold_match", "Give the ensemble a name of its own"),
        (PARTS, RED, "Give the ensemble a name of its own"),
    ],
)
def test_names_that_do_not_fit_are_refused(parts, name, message):
    with pytest.raises(ValidationError, match=message):
        config(parts=parts, scorer=name, reward=name)


def test_the_task_has_the_name_of_the_ensemble():
    with pytest.raises(ValidationError, match="name of its reward, 'all'"):
        config(scorer="all")


def test_a_reward_that_is_no_ensemble_needs_no_parts():
    with pytest.raises(ValidationError, match="Unknown reward 'both'"):
        config(parts=None)


def test_a_temporal_critic_borrows_an_encoder():
    with pytest.raises(ValidationError, match="'both' has no image encoder"):
        config(tiny.TDPO)
    assert config(tiny.TDPO, critic_encoder=RED).critic_encoder == RED


def test_methods_by_gradient_need_it_from_every_part():
    draft = {"algorithm": "draft", "optimizer": tiny.OPTIMIZER}
    assert config(draft).task.ensemble is not None
    with pytest.raises(ValidationError, match=f"gradient of reward '{JPEG}'"):
        config(draft, parts=PARTS | {JPEG: {"mean": -1.0, "std": 0.1}})


# -- through training and evaluation --


METHODS = {
    "ddpo": tiny.DDPO,
    "tdpo": tiny.TDPO,
    "dpok": tiny.DPOK,
    "rwr": {
        "algorithm": "rwr",
        "rounds": 2,
        "passes": 1,
        "batch_size": 4,
        "optimizer": tiny.OPTIMIZER,
    },
    "alignprop": {
        "algorithm": "alignprop",
        "truncation": {"kind": "per_step"},
        "optimizer": tiny.OPTIMIZER,
    },
    "draft": {"algorithm": "draft", "optimizer": tiny.OPTIMIZER},
    "refl": {"algorithm": "refl", "optimizer": tiny.OPTIMIZER},
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_on_it(base_model, tmp_path, method):
    run = config(METHODS[method], critic_encoder=RED)
    training = run.training.model_copy(update={"epochs": 2, "monitor": (RED, BRIGHT)})
    run = run.model_copy(update={"training": training})
    result = train_run(
        run,
        prompts=tiny.PROMPTS,
        base_model=base_model,
        weights=tmp_path / "no_weights",
        state_dir=tmp_path / "state",
    )
    history = result.history
    expected = 4 * (history["redness_mean"] - 0.1) - 4 * (
        history["brightness_mean"] - 0.5
    )
    assert history["both_mean"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    if method != "ddpo":
        return
    # Evaluation scores the trained ensemble, which its settings don't name.
    settings = EvaluationSettings(
        prompt_sets=("animals",),
        images_per_prompt=1,
        etas=(1.0,),
        rewards=(RED,),
        seed=7,
        chunk_size=4,
        strip_prompts=("dog",),
    )
    scores = evaluate_run(
        run,
        settings,
        prompt_sets={"animals": tiny.PROMPTS},
        train_prompts=tiny.PROMPTS,
        checkpoints=result.checkpoints,
        base_model=base_model,
        weights=tmp_path / "no_weights",
        diversity_encoders=["tests.rewards.own_rewards:SeeingBrightness"],
    ).scores
    assert scores[["both", "redness"]].notna().all(axis=None)
    # It has no gold, which is no reason to stop.
    curves = reward_curves(scores)
    assert dict(zip(curves["scored"], curves["role"], strict=True)) == {
        "both": "trained",
        "redness": "cross",
    }
    assert gold_report(scores).empty


def test_it_has_the_gold_that_all_of_its_parts_have():
    assert gold_of("ensemble-mini") is None
    assert role_of("gold_match", "ensemble-mini") == "cross"
    match, taste = ("pick-mini", "hps-mini"), ("pick-mini", "aesthetic-mini")
    assert gold_of("both", match) == "gold_match"
    assert gold_of("both", taste) is None
    assert gold_of("both", ("pick-mini", RED)) is None
    assert gold_of("both", (RED,)) is None
    with known_rewards(parts={"both": match, "mixed": taste}):
        assert role_of("gold_match", "both") == "gold"
        assert role_of("gold_match", "mixed") == "cross"


def test_a_stop_does_not_watch_its_parts():
    training = tiny.run_config().training.model_dump() | {
        "monitor": (RED, JPEG),
        "early_stop": {"rule": "onset", "held_out": (RED, JPEG), "min_epochs": 2},
    }
    assert config(training=training).held_out_rewards == (JPEG,)
    training["early_stop"]["held_out"] = (RED,)
    with pytest.raises(ValidationError, match=f"trained on, both, {RED}, {BRIGHT};"):
        config(training=training)


# -- statistics that were not measured --


def test_a_part_without_statistics_is_refused_before_anything_is_loaded():
    parts = PARTS | {BRIGHT: {"weight": 1.0, "mean": 0.5}}
    with pytest.raises(ValidationError, match="no mean and std of tests.tiny:Bright"):
        config(parts=parts)
    with pytest.raises(UnmeasuredError, match="--env <env> --task both"):
        load_rewards(["both"], ROOT / "no_weights", task(parts))
    # Each alone, as when they are measured, needs none.
    assert set(load_rewards(parts, ROOT / "no_weights", task(parts))) == set(parts)


# -- the configured ensemble --


@pytest.fixture(
    scope="module",
    params=["ensemble-mini", "pick_hps-mini", "pick_hps_imagereward-mini"],
)
def configured(request):
    path = ROOT / "conf" / "base" / "parameters_rewards.yml"
    rewards = yaml.safe_load(path.read_text())["rewards"]
    return RewardSettings.model_validate(rewards[request.param])


def test_the_configured_constants_are_the_measured_ones(configured):
    path = ROOT / "benchmarks" / "results" / "reward_statistics.json"
    measured = json.loads(path.read_text())["rewards"]
    found = {
        name: {"mean": part.mean, "std": part.std}
        for name, part in configured.ensemble.items()
    }
    assert found == {name: measured[name] for name in found}


def test_the_configured_ensemble_is_differentiable(configured):
    parts = {
        name: SimpleNamespace(differentiable=True, value_range=(-1.0, 1.0))
        for name in configured.ensemble
    }
    assert Ensemble(configured.scorer, parts, configured.ensemble).differentiable
    for method in (tiny.TDPO, METHODS["draft"]):
        run = tiny.run_config(method).model_dump(exclude={"task"})
        RunConfig.model_validate(
            run
            | {
                "reward": configured.scorer,
                "algorithm": AlgorithmSettings.model_validate(method),
                "task": configured,
            }
        )
