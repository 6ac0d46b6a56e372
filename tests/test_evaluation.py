import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from tdpo_pipeline import evaluation
from tdpo_pipeline.config import EvaluationSettings, RewardSettings
from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.evaluation import evaluate_run
from tdpo_pipeline.overoptimization.image_statistics import (
    STATISTICS,
    image_statistics,
)
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS
from tdpo_pipeline.rewards.base import PaperScale, RewardError
from tdpo_pipeline.trainer.loop import train_run
from tests import tiny

SETTINGS = EvaluationSettings(
    prompt_sets=("animals", "other"),
    images_per_prompt=2,
    etas=(1.0, 0.0),
    rewards=("tests.tiny:Redness", "jpeg_compressibility"),
    seed=7,
    chunk_size=4,
    strip_prompts=("dog", "cat"),
)
SETS = {"animals": ["cat", "dog"], "other": ["cat dog"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


def train(folder, config, state):
    return train_run(
        config,
        prompts=["cat"],
        base_model=folder / "base_model",
        weights=folder / "no_weights",
        state_dir=folder / state,
    )


@pytest.fixture(scope="module")
def trained(folder):
    tiny.pipeline().save_pretrained(folder / "base_model")
    config = tiny.run_config(tiny.DDPO | {"clip_range": 1e-2})
    return config, train(folder, config, "state").checkpoints


ENCODERS = ("tests.tiny:Redness", "tests.tiny:Brightness")


def evaluate(
    folder, config, checkpoints, settings=SETTINGS, encoders=ENCODERS, state_dir=None
):
    return evaluate_run(
        config,
        settings,
        prompt_sets=SETS,
        train_prompts=["cat"],
        checkpoints=checkpoints,
        base_model=folder / "base_model",
        weights=folder / "no_weights",
        diversity_encoders=encoders,
        state_dir=state_dir,
    )


@pytest.fixture(scope="module")
def result(folder, trained):
    return evaluate(folder, *trained)


class Interrupted(Exception):
    """Ends an evaluation as a crash would."""


def test_an_interrupted_evaluation_goes_on(
    folder, trained, result, tmp_path, monkeypatch
):
    config, checkpoints = trained
    state, look = tmp_path / "state", evaluation._evaluate_checkpoint
    left = 0

    def looked(*given):
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted
        return look(*given)

    monkeypatch.setattr(evaluation, "_evaluate_checkpoint", looked)

    def evaluated(settings=SETTINGS, *, until):
        nonlocal left
        left = until
        return evaluate(folder, config, checkpoints, settings, state_dir=state)

    with pytest.raises(Interrupted):
        evaluated(until=2)
    # Of three, the base model and one checkpoint are done.
    whole = evaluated(until=1)
    for table in ("scores", "statistics", "diversity"):
        found, expected = getattr(whole, table), getattr(result, table)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert np.array_equal(whole.strip, result.strip)
    assert not state.exists()
    # What was seen with other settings is of no use.
    with pytest.raises(Interrupted):
        evaluated(until=1)
    with pytest.raises(Interrupted):
        evaluated(SETTINGS.model_copy(update={"seed": 8}), until=2)


def test_every_checkpoint_and_the_base_model_are_scored(result):
    scores = result.scores
    # 3 checkpoints (0, 2, 4) at eta 1, two of them at eta 0, x 3 prompts x 2 images.
    assert len(scores) == (3 + 2) * 3 * 2
    assert scores.loc[scores["eta"] == 0, "epoch"].unique().tolist() == [0, 4]
    assert scores["epoch"].unique().tolist() == [0, 2, 4]
    assert scores["reward_queries"].unique().tolist() == [0, 16, 32]
    assert set(scores.loc[scores["seen"], "prompt"]) == {"cat"}
    assert scores[["redness", "jpeg_compressibility"]].notna().all(axis=None)
    assert scores["run"].unique().tolist() == ["ddpo-redness-s0"]


def test_scores_know_the_scale_of_their_paper(folder, trained, result, monkeypatch):
    assert not result.scores.attrs
    monkeypatch.setattr(tiny.Redness, "paper_scale", PaperScale(100.0))
    found = evaluate(folder, *trained).scores
    pd.testing.assert_frame_equal(found, result.scores)
    found.to_parquet(folder / "scores.parquet", index=False)
    kept = pd.read_parquet(folder / "scores.parquet").attrs
    assert kept == {"paper_scale": {"redness": {"factor": 100.0, "offset": 0.0}}}


def test_kl_is_that_of_the_checkpoint(result):
    kl = result.scores[result.scores["eta"] == 1].groupby("epoch")["kl_to_base"].first()
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[4] > 1e-6
    assert result.scores.loc[result.scores["eta"] == 0, "kl_to_base"].isna().all()


def test_images_are_paired_across_runs(folder, trained, result):
    # Another seed, more images and another order of the sets: same noise, same images.
    config = tiny.run_config(tiny.DDPO).model_copy(update={"seed": 1})
    checkpoints = train(folder, config, "other").checkpoints
    settings = SETTINGS.model_copy(
        update={"images_per_prompt": 3, "prompt_sets": ("other", "animals")}
    )
    other = evaluate(folder, config, checkpoints, settings).scores
    keys = ["prompt", "image", "eta"]
    first, second = (
        table[table["epoch"] == 0].set_index(keys)["redness"]
        for table in (result.scores, other)
    )
    np.testing.assert_allclose(second[first.index], first, atol=1e-6)
    # The images of a prompt have noise of their own.
    assert first.groupby(["prompt", "eta"]).nunique().eq(2).all()


def test_strip_has_a_row_a_checkpoint_and_a_column_a_prompt(result):
    assert result.strip.shape == (3 * 8, 2 * 8, 3)
    assert result.strip.dtype == np.uint8
    assert result.strip_index == {
        "epochs": [0, 2, 4],
        "prompts": ["dog", "cat"],
        "tile": 8,
    }


INDEX = list(INDEX_COLUMNS)


def test_statistics_of_every_image(result):
    statistics = result.statistics
    assert list(statistics.columns) == [*INDEX, *STATISTICS]
    pd.testing.assert_frame_equal(statistics[INDEX], result.scores[INDEX])
    # The tile of "cat" and "dog" in the strip, of the base model and the last one.
    first = statistics[(statistics["image"] == 0) & (statistics["eta"] == 1)]
    for row, epoch in ((0, 0), (2, 4)):
        for column, prompt in enumerate(("dog", "cat")):
            tile = result.strip[8 * row :, 8 * column :][:8, :8] / 255
            own = first[(first["epoch"] == epoch) & (first["prompt"] == prompt)]
            expected = image_statistics(tile.transpose(2, 0, 1)[None])
            # 8 bits move a pixel by 1/510; those at a threshold may change sides.
            np.testing.assert_allclose(
                own["saturation"], expected["saturation"], atol=0.02
            )
            np.testing.assert_allclose(
                own["dark_fraction"], expected["dark_fraction"], atol=2 / 64
            )


def test_diversity_of_every_prompt(result):
    diversity = result.diversity
    # 3 checkpoints at eta 1, two of them at eta 0, x 3 prompts.
    assert len(diversity) == (3 + 2) * 3
    assert set(INDEX) <= set(diversity.columns)
    assert diversity["n_images"].unique().tolist() == [2]
    # The run trained on redness, so another encoder sees.
    assert diversity["encoder"].unique().tolist() == ["tests.tiny:Brightness"]
    assert diversity["vendi_score"].between(1, 2).all()
    # Two images: cos c gives the eigenvalues (1 +- c) / 2.
    share = (1 + (1 - diversity["pairwise_distance"])) / 2
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    np.testing.assert_allclose(diversity["vendi_score"], np.exp(entropy), rtol=1e-6)
    at_0 = diversity[diversity["epoch"] == 0]
    assert set(at_0.loc[at_0["seen"], "prompt"]) == {"cat"}
    assert diversity.loc[diversity["eta"] == 0, "kl_to_base"].isna().all()


def test_diversity_is_never_seen_by_what_was_trained_on(folder, trained):
    with pytest.raises(ValueError, match="no reward of diversity.encoders"):
        evaluate(folder, *trained, encoders=("tests.tiny:Redness",))
    with pytest.raises(ValueError, match="has no image encoder"):
        evaluate(folder, *trained, encoders=("jpeg_compressibility",))


def test_the_parts_of_an_ensemble_were_trained_on():
    part = {"mean": 0.0, "std": 1.0}
    names = ("pick-mini", "hps-mini", "imagereward-mini")
    task = RewardSettings(
        scorer="three", train_prompts="x", ensemble=dict.fromkeys(names[:2], part)
    )
    config = tiny.run_config().model_copy(update={"task": task})
    assert evaluation.diversity_encoder(names, config) == "imagereward-mini"


def test_checkpoints_of_another_run_are_an_error(folder, trained):
    config, checkpoints = trained
    other = config.model_copy(update={"seed": 3})
    with pytest.raises(CheckpointError, match="belongs to run ddpo-redness-s0"):
        evaluate(folder, other, checkpoints)


def test_checkpoints_of_another_configuration_are_an_error(folder, trained, tmp_path):
    config, checkpoints = trained
    training = config.training.model_copy(update={"guidance_scale": 3.0})
    other = config.model_copy(update={"training": training})
    with pytest.raises(CheckpointError, match="trained with another configuration"):
        evaluate(folder, other, checkpoints)
    shutil.copytree(checkpoints, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "epoch_0002")
    with pytest.raises(CheckpointError, match=re.escape("epochs [4]")):
        evaluate(folder, config, tmp_path / "fewer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"etas": (0.0, 1.0)}, "first of etas must be 1"),
        ({"etas": (1.0, 2.0)}, "less than or equal to 1"),
        ({"rewards": ("gold_match", "gold_match")}, "something twice"),
    ],
)
def test_settings_that_can_not_be_evaluated_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings.model_validate(SETTINGS.model_dump() | change)


def test_no_checkpoints_name_the_command(folder, trained, tmp_path):
    with pytest.raises(CheckpointError, match="--env .* --namespaces ddpo.redness.s0"):
        evaluate(folder, trained[0], tmp_path)


def test_strip_prompt_outside_the_sets_is_an_error(folder, trained):
    settings = SETTINGS.model_copy(update={"strip_prompts": ("cow",)})
    with pytest.raises(ValueError, match="strip_prompts names"):
        evaluate(folder, *trained, settings)


def test_unknown_reward_is_an_error_before_sampling():
    with pytest.raises(ValueError, match="did you mean gold_match"):
        EvaluationSettings.model_validate(
            SETTINGS.model_dump() | {"rewards": ["gold_mach"]}
        )


def test_the_trained_reward_is_scored_in_any_case(folder, trained, result):
    settings = SETTINGS.model_copy(update={"rewards": ("jpeg_compressibility",)})
    scores = evaluate(folder, *trained, settings).scores
    assert scores["redness"].equals(result.scores["redness"])


def test_a_broken_reward_is_found_before_sampling(folder, trained, monkeypatch):
    monkeypatch.setattr(evaluation, "rollout_chunks", None)
    broken = ("tests.rewards.own_rewards:Broken",)
    settings = SETTINGS.model_copy(update={"rewards": broken})
    with pytest.raises(RewardError, match="'broken' failed"):
        evaluate(folder, *trained, settings)


def test_evaluation_leaves_torchs_generator_alone(folder, trained):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    evaluate(folder, *trained)
    assert torch.equal(torch.rand(1), expected)
