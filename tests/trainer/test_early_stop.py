"""Runs that end when held-out rewards begin to fall."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.config import EarlyStopSettings
from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.evaluation import checkpoint_folders
from tdpo_pipeline.overoptimization.sequential import Alarm, Baseline
from tdpo_pipeline.trainer import loop
from tdpo_pipeline.trainer.early_stop import (
    last_checkpoint,
    onset_alarm,
    reward_columns,
)
from tdpo_pipeline.trainer.state import read_checkpoint_facts
from tests import tiny
from tests.conftest import slow_but

BRIGHTNESS = "tests.tiny:Brightness"
ONSET = {"rule": "onset", "held_out": [BRIGHTNESS], "min_epochs": 3}


def config(**early_stop: object):
    return tiny.run_config(
        epochs=8,
        checkpoint_every=4,
        monitor=(BRIGHTNESS,),
        early_stop=ONSET | early_stop,
    )


@pytest.fixture
def train(train, monkeypatch):
    """Train; brightness rises up to the fifth epoch's samples, and then falls."""

    def score(self, trajectory):
        epoch = self.epoch + 1
        noise = np.random.default_rng(epoch).normal(0, 0.1, (2, len(trajectory)))
        levels = [[epoch], [5 - abs(epoch - 5)]]
        redness, brightness = torch.from_numpy(noise + levels).float()
        return {"redness": redness, "brightness": brightness}

    monkeypatch.setattr(loop.Trainer, "score", score)

    return train


@pytest.mark.parametrize(
    ("action", "checkpoints"),
    [("rollback", ["epoch_0004"]), ("stop", ["epoch_0004", "epoch_0006"])],
)
def test_a_run_ends_at_the_fall(train, action, checkpoints):
    result = train(config(action=action))
    # The sixth epoch's samples are the first that are less bright.
    assert result.history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert list(tiny.saved_weights(result)) == checkpoints


def test_without_the_rule_nothing_ends(train):
    result = train(config(rule="none"))
    assert len(result.history) == 8
    assert list(tiny.saved_weights(result)) == ["epoch_0004", "epoch_0008"]


@pytest.mark.parametrize(
    ("action", "at"),
    slow_but([("rollback", 6)], [*product(["stop", "rollback"], [3, 6])]),
)
def test_an_interrupted_run_ends_where_the_other_one_does(train, action, at):
    whole = train(config(action=action), "whole")

    with tiny.killed_after(at):
        train(config(action=action), "killed")
    resumed = train(config(action=action), "killed")
    assert tiny.saved_weights(resumed) == tiny.saved_weights(whole)
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)


@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_a_run_that_has_ended_early_is_finished(train, monkeypatch, action):
    first = train(config(action=action))
    found = tiny.saved_weights(first)
    monkeypatch.setattr(loop.Trainer, "run_epoch", None)
    again = train(config(action=action))
    assert tiny.saved_weights(again) == found
    pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)


def test_evaluation_takes_what_an_ended_run_left_and_nothing_less(train):
    settings = config(action="stop")
    folder = train(settings).checkpoints
    identity = read_checkpoint_facts(folder / "epoch_0004")["identity"]
    found = checkpoint_folders(folder, settings, identity)
    assert [path.name for path in found] == ["epoch_0004", "epoch_0006"]
    (folder / "epoch_0004").rename(folder.parent / "aside")
    with pytest.raises(CheckpointError, match=r"epochs \[6\], .* keeps \[4, 6\]"):
        checkpoint_folders(folder, settings, identity)
    (folder / "epoch_0006").rename(folder.parent / "aside_too")
    with pytest.raises(CheckpointError, match=r"epochs \[\]"):
        checkpoint_folders(folder, settings, identity)


@pytest.mark.parametrize(
    ("onset", "action", "epoch", "expected"),
    [
        (9, "stop", 13, 13),
        (9, "rollback", 13, 8),
        (8, "rollback", 13, 8),  # row 8 (from 0) was sampled by checkpoint 8
        (7, "rollback", 13, 4),
        (2, "rollback", 13, 4),  # none before the onset: the first there is
        (1, "rollback", 3, 3),  # none at all
    ],
)
def test_last_checkpoint(onset, action, epoch, expected):
    settings = EarlyStopSettings(action=action)
    alarm = Alarm(epoch - 1, onset, 0, 3.0)
    assert (
        last_checkpoint(alarm, settings, epoch=epoch, kept=[4, 8, 12, 16]) == expected
    )


def test_reward_columns_by_hand():
    baselines: dict[str, Baseline] = {}
    prompts = ["a", "a", "b", "b"]
    first = reward_columns(
        baselines, prompts, {"r": torch.tensor([0.0, 2.0, 4.0, 6.0])}
    )
    assert (first["r_mean"], first["r_std"]) == (3.0, pytest.approx(5**0.5))
    assert first["r_change"] == 0
    assert np.isnan(first["r_change_se"])
    then = reward_columns(baselines, prompts, {"r": torch.tensor([1.0, 3.0, 5.0, 7.0])})
    assert then["r_change"] == pytest.approx(1.0)
    # Baselines are 1.25 and 4.75: changes -0.25, 1.75, 0.25, 2.25.
    assert then["r_change_se"] == pytest.approx(np.std([-1.25, 0.75, -0.75, 1.25], ddof=1) / 2)  # fmt: skip


def test_no_rule_and_no_history_are_no_alarm():
    how = {"trained": "r", "held_out": ["s"], "epochs": 4}
    assert onset_alarm([{"epoch": 1}], EarlyStopSettings(), **how) is None
    assert onset_alarm([], EarlyStopSettings(rule="onset"), **how) is None


@pytest.mark.parametrize(
    ("early_stop", "message"),
    [
        ({"held_out": ["jpeg_compressibility"]}, "which training.monitor has not"),
        ({"held_out": []}, "no reward besides what is trained on, tests.tiny:Redness"),
        ({"alpha": 0.0}, "greater than 0"),
        ({"min_epochs": 1000}, "min_epochs 1000 is more than epochs"),
        ({"action": "pause"}, "'stop' or 'rollback'"),
    ],
)
def test_settings_that_cannot_work_are_refused(early_stop, message):
    with pytest.raises(ValidationError, match=message):
        config(**early_stop)


def test_the_trained_reward_is_never_watched():
    settings = tiny.run_config(
        monitor=(BRIGHTNESS, "tests.tiny:Redness"),
        early_stop=ONSET | {"held_out": [BRIGHTNESS, "tests.tiny:Redness"]},
    )
    assert settings.held_out_rewards == (BRIGHTNESS,)
