import json
import logging
import os
import re
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tdpo_pipeline.algorithms.ddpo import Ddpo
from tdpo_pipeline.algorithms.tdpo_replay import TdpoReplay
from tdpo_pipeline.diffusion.devices import DeviceError
from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.model_files import MissingWeightsError
from tdpo_pipeline.trainer import loop, state
from tdpo_pipeline.trainer.loop import MetricError, TaskError, TrainingStoppedError
from tdpo_pipeline.trainer.state import DiskError, disk_needed, run_identity
from tests import tiny
from tests.conftest import slow_but

EXPLORATION = {"guidance": {"threshold": 600}, "prompt_weighting": {"high": 1.5}}
METHODS = {
    "ddpo": tiny.DDPO,
    "ddpo sample-major": tiny.DDPO
    | {"loop": "sample_major", "group_size": 2, "updates_per_timestep": 1},
    "tdpo": tiny.TDPO,
    "tdpo, official switches": tiny.TDPO
    | {
        "critic": tiny.TDPO["critic"]
        | {"init": "official", "precision": "official_fp16", "value_clip": None},
        "neurons": {"reset": "all", "stats_steps": "one", "overlap": "official"},
    },
    "tdpo_constrained": tiny.TDPO
    | {
        "algorithm": "tdpo_constrained",
        "constraints": {"tests.tiny:Brightness": {"slack": 0.0}},
    },
    "tdpo_replay": tiny.TDPO
    | {
        "algorithm": "tdpo_replay",
        "policy_neurons": {"reset": "active", "reset_fraction": 0.5},
        "buffer_epochs": 2,
        "buffer_samples": 4,
    },
    "tdpo, KL off the reward": tiny.TDPO
    | {"kl": {"penalty": "clip", "coefficient": 0.5, "target": 0.01, "horizon": 20}},
    "tdpo, KL in the loss": tiny.TDPO
    | {"kl": {"applied_to": "loss", "coefficient": 0.5, "target": 0.01}},
    "dpok": tiny.DPOK,
    "ddpo, exploring": tiny.DDPO | {"exploration": EXPLORATION},
    "ddpo, exploring off policy": tiny.DDPO
    | {"exploration": EXPLORATION | {"log_prob": "target"}},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_records(train, method):
    result = train(tiny.run_config(METHODS[method]))
    history = result.history
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["reward_queries"].tolist() == [8, 16, 24, 32]
    assert history["ratio_error"].eq(0).all()
    assert history["kl_to_base"].iloc[0] == pytest.approx(0, abs=1e-8)
    assert history["kl_to_base"].iloc[-1] > 0
    for column in ("redness_mean", "approx_kl", "clip_fraction", "policy_grad_norm"):
        assert history[column].notna().all()
    assert list(tiny.saved_weights(result)) == ["epoch_0002", "epoch_0004"]
    assert result.timings["device"].tolist() == ["cpu"] * 4
    if method.startswith("tdpo"):
        assert history["critic_loss"].notna().all()
        assert history["critic_dormant_pct_layer2"].between(0, 100).all()
    if "KL" in method:
        # The first epoch's samples are the base model's, so the weight falls.
        assert history["kl_weight"].iloc[0] == 0.5
        assert 0 < history["kl_weight"].iloc[1] < 0.5
        assert history["kl_weight"].nunique() == 4


def test_tdpo_r_resets_at_its_period(train):
    history = train(tiny.run_config(tiny.TDPO)).history
    active = 12 * (1 - history["critic_dormant_pct"] / 100)
    expected = [0, round(active[1]), 0, round(active[3])]
    assert history["neurons_reset"].tolist() == expected
    assert expected[1] > 0


def test_adapters_are_reset_before_an_epoch_and_never_after_the_last(train):
    neurons = {"reset": "active", "reset_fraction": 0.5}
    result = train(tiny.run_config(tiny.DDPO | {"policy_neurons": neurons}))
    # Due after epochs 2 and 4 of 4.
    reset = result.history["policy_neurons_reset"]
    assert reset.notna().tolist() == [False, False, True, False]
    assert reset[2] > 0
    # The weights kept after epoch 2 and 4 are the trained ones, not those of a reset,
    # which takes the up projection of an active neuron back to 0.
    for path in result.checkpoints.rglob("*.safetensors"):
        ups = [x for name, x in load_file(path).items() if "lora.up" in name]
        assert ups
        assert all(up.any(dim=0).all() for up in ups)


def test_official_overlap_is_always_100(train):
    overlap = train(tiny.run_config(METHODS["tdpo, official switches"])).history[
        "critic_overlap_pct"
    ]
    assert overlap.tolist() == [0.0, 100.0, 100.0, 100.0]


RESUMED = [
    ("ddpo", 2, "full"),
    ("ddpo sample-major", 3, "lora"),
    ("tdpo", 1, "lora"),
    ("tdpo", 2, "lora"),
    ("tdpo, official switches", 2, "lora"),
    ("tdpo_constrained", 2, "lora"),
    ("tdpo_replay", 1, "lora"),
    ("tdpo_replay", 2, "lora"),  # a reset is due, and not made yet
    ("tdpo, KL off the reward", 2, "lora"),
    ("tdpo, KL in the loss", 2, "full"),
    ("dpok", 2, "lora"),
    ("ddpo, exploring", 2, "lora"),
]
QUICK = [
    ("ddpo", 2, "full"),
    *((m, 2, "lora") for m in ("tdpo", "tdpo_replay", "dpok")),
]


@pytest.mark.parametrize(("method", "at", "finetune"), slow_but(QUICK, RESUMED))
def test_resume_is_bitwise(train, method, at, finetune):
    config = tiny.run_config(METHODS[method], finetune=finetune)
    whole = train(config, "whole")

    with tiny.killed_after(at):
        train(config, "killed")
    resumed = train(config, "killed")
    assert tiny.saved_weights(resumed) == tiny.saved_weights(whole)
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)


@pytest.mark.parametrize(
    "at", ["epoch_0003.pt", "checkpoints/epoch_0002", "epoch_0004.pt"]
)
def test_kill_while_writing_loses_nothing_saved(train, monkeypatch, at):
    config = tiny.run_config()
    whole = train(config, "whole")
    replace = os.replace

    def failing(source, target):
        if str(target).endswith(at):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        train(config, "killed")
    monkeypatch.setattr(os, "replace", replace)
    assert tiny.saved_weights(train(config, "killed")) == tiny.saved_weights(whole)


def test_kill_before_the_last_tables_loses_no_row_of_them(train, monkeypatch, tmp_path):
    # The processes of a launch hand their result over in these files.
    config = tiny.run_config()
    save_tables = state.RunState.save_tables

    def failing(self, history, timings):
        if len(history) == config.training.epochs:
            raise KeyboardInterrupt
        save_tables(self, history, timings)

    monkeypatch.setattr(state.RunState, "save_tables", failing)
    with pytest.raises(KeyboardInterrupt):
        train(config, "killed")
    monkeypatch.setattr(state.RunState, "save_tables", save_tables)
    train(config, "killed")
    written = pd.read_csv(tmp_path / "killed" / "history.csv")
    assert written["epoch"].tolist() == list(range(1, config.training.epochs + 1))


def test_equal_seeds_give_equal_runs_and_others_do_not(train):
    config = tiny.run_config(tiny.TDPO)
    first, second = train(config, "a"), train(config, "b")
    assert tiny.saved_weights(first) == tiny.saved_weights(second)
    other = train(config.model_copy(update={"seed": 1}), "c")
    assert tiny.saved_weights(other) != tiny.saved_weights(first)


def test_a_finished_run_is_not_trained_again(train, monkeypatch):
    config = tiny.run_config()
    first = train(config)
    # Nothing is loaded for it, and no GPU is asked for.
    monkeypatch.setattr(loop.Trainer, "create", None)
    monkeypatch.setattr(loop, "resolve_device", None)
    again = train(config)
    assert tiny.saved_weights(again) == tiny.saved_weights(first)
    for name in ("history", "timings"):
        found, expected = getattr(again, name), getattr(first, name)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_a_finished_run_makes_room_for_another_configuration(train, tmp_path, caplog):
    first = tiny.saved_weights(train(tiny.run_config()))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    other = train(tiny.run_config(guidance_scale=3.0))
    assert tiny.saved_weights(other) != first
    aside = tmp_path / ".state.replaced"
    assert "(changed: config.training.guidance_scale)" in caplog.text
    assert str(aside) in caplog.text
    left = sorted(str(p.relative_to(aside)) for p in aside.rglob("epoch_*"))
    assert left == ["checkpoints/epoch_0002", "checkpoints/epoch_0004"]
    assert tiny.saved_weights(train(tiny.run_config())) == first


def test_a_result_that_is_not_whole_is_made_whole(train, tmp_path):
    config = tiny.run_config()
    first = train(config)
    folder = tmp_path / "state"
    (folder / "history.csv").unlink()
    pd.testing.assert_frame_equal(train(config).history, first.history)
    # Without the states it is trained again, and isn't finished until then.
    shutil.rmtree(folder / "states")
    shutil.rmtree(folder / "checkpoints" / "epoch_0004")
    with tiny.killed_after(2):
        train(config)
    assert not (folder / "finished").exists()
    again = train(config)
    assert tiny.saved_weights(again) == tiny.saved_weights(first)
    pd.testing.assert_frame_equal(again.history, first.history)


@pytest.mark.parametrize("name", ["epoch", "redness_mean", "advantage_mean"])
def test_a_measurement_does_not_pass_for_another_column(train, monkeypatch, name):
    monkeypatch.setattr(TdpoReplay, "before_epoch", lambda *_: {name: 1.0})
    with pytest.raises(MetricError, match=name):
        train(tiny.run_config(METHODS["tdpo_replay"]))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"Ddpo.update returned a NoneType; .* numbers by name"),
        ({"loss": torch.tensor(1.0)}, r"'loss' as a torch.Tensor; .*float\(x\)"),
        ({"stage": "late"}, r"'stage' as a builtins.str"),
    ],
)
def test_measurements_are_numbers_by_name(train, monkeypatch, returned, message):
    monkeypatch.setattr(Ddpo, "update", lambda *_: returned)
    with pytest.raises(MetricError, match=message):
        train(tiny.run_config())


def test_a_constraint_that_fails_is_found_before_any_sample(train, monkeypatch):
    def broken(*_):
        raise IndexError("no such prompt")

    monkeypatch.setattr(tiny.Brightness, "score", broken)
    monkeypatch.setattr(loop.Trainer, "run_epoch", None)
    with pytest.raises(RewardError, match="'brightness' failed on trial pictures"):
        train(tiny.run_config(METHODS["tdpo_constrained"]))


def test_two_processes_do_not_train_in_one_folder(train, tmp_path):
    config = tiny.run_config()
    with (
        state.locked(tmp_path / "state"),
        pytest.raises(CheckpointError, match="Another process is training in"),
    ):
        train(config)
    train(config)


def test_code_of_ones_own_is_part_of_a_run(tmp_path, monkeypatch):
    module = tmp_path / "sharpness_of_mine.py"
    mine = "from tests.tiny import Redness\n\nclass Mine(Redness):\n    name = 'mine'\n"
    module.write_text(mine)
    monkeypatch.syspath_prepend(str(tmp_path))

    def identity():
        config = tiny.run_config(monitor=("sharpness_of_mine:Mine",))
        return run_identity(config, ["cat"], tmp_path / "no_model", tmp_path / "none")

    before = identity()
    assert identity() == before
    module.write_text(mine + "    value_range = (-2.0, 2.0)\n")
    after = identity()
    assert after.pop("code") != before.pop("code")
    assert after == before


def test_states_without_a_record_are_not_resumed(train, tmp_path):
    config = tiny.run_config()
    first = tiny.saved_weights(train(config))
    for name in ("run.json", "finished"):
        (tmp_path / "state" / name).unlink()
    (tmp_path / "state" / "states" / "epoch_0004.pt").write_bytes(b"stale")
    assert tiny.saved_weights(train(config)) == first


def test_the_disk_budget_can_be_raised_in_mid_run(train, monkeypatch):
    interrupt(train, monkeypatch, tiny.run_config())
    train(tiny.run_config(disk_budget_mb=3000.0))


def test_settings_that_have_their_default_are_no_part_of_an_identity(tmp_path):
    """A setting that is added later doesn't make strangers of older checkpoints."""

    def identity(**changes):
        config = tiny.run_config(**changes)
        return run_identity(config, ["cat"], tmp_path, tmp_path)

    assert "min_reward_std" not in identity()["config"]["training"]
    assert identity(min_reward_std=1e-6) == identity() != identity(min_reward_std=1e-5)
    # Nor is what a rule that is off would watch.
    assert identity(early_stop={"rule": "none", "held_out": ["x"]}) == identity()


def interrupt(train, monkeypatch, config):
    with monkeypatch.context() as patch:
        patch.setattr(loop.RunState, "finish", lambda _: None)
        train(config)


def test_unfinished_run_of_another_configuration_is_an_error(train, monkeypatch):
    interrupt(train, monkeypatch, tiny.run_config())
    with pytest.raises(CheckpointError, match=re.escape("training.guidance_scale")):
        train(tiny.run_config(guidance_scale=3.0))
    with pytest.raises(CheckpointError, match="prompts"):
        train(tiny.run_config(), prompts=["cat"])


def test_truncated_state_is_an_error(train, monkeypatch, tmp_path):
    interrupt(train, monkeypatch, tiny.run_config())
    path = tmp_path / "state" / "states" / "epoch_0004.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"epoch_0004\.pt is truncated"):
        train(tiny.run_config())


def test_a_deleted_checkpoint_is_made_again(train, monkeypatch, tmp_path):
    config = tiny.run_config(tiny.TDPO)
    first = tiny.saved_weights(train(config))
    shutil.rmtree(tmp_path / "state" / "checkpoints" / "epoch_0002")
    monkeypatch.setattr(loop.Trainer, "run_epoch", None)
    again = train(config)
    assert tiny.saved_weights(again) == first
    facts = again.checkpoints / "epoch_0002" / "checkpoint.json"
    assert json.loads(facts.read_text())["reward_queries"] == 16
    assert again.history["epoch"].tolist() == [1, 2, 3, 4]


def test_a_deleted_checkpoint_without_its_state_is_an_error(train, tmp_path):
    train(tiny.run_config())
    folder = tmp_path / "state"
    shutil.rmtree(folder / "checkpoints" / "epoch_0002")
    (folder / "states" / "epoch_0002.pt").unlink()
    with pytest.raises(CheckpointError, match=r"epochs \[2\] are missing.*Delete"):
        train(tiny.run_config())


def test_states_are_kept_for_kept_epochs_and_the_newest(train, tmp_path):
    train(tiny.run_config(epochs=5, checkpoint_every=2))
    names = sorted(p.name for p in (tmp_path / "state" / "states").iterdir())
    assert names == ["epoch_0002.pt", "epoch_0004.pt", "epoch_0005.pt"]


def test_disk_budget_is_held_before_the_first_epoch(train, tmp_path):
    with pytest.raises(DiskError, match="disk_budget_mb"):
        train(tiny.run_config(disk_budget_mb=0.001))
    assert not (tmp_path / "state").exists()


def test_disk_budget_is_what_a_run_writes(base_model, train, tmp_path):
    config = tiny.run_config(tiny.TDPO, epochs=2, checkpoint_every=1)
    train(config)
    folder = tmp_path / "state"
    sizes = {p: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    states = [size for path, size in sizes.items() if path.suffix == ".pt"]
    tensors = sum(sizes[p] for p in folder.rglob("*.safetensors"))
    # Two states and the next one while it is being written; checkpoints and a copy.
    written = sum(states) + states[-1] + 2 * tensors
    trainer = loop.Trainer.create(config, tiny.PROMPTS, base_model, folder)
    estimate = disk_needed(config, trainer.policy, trainer.algorithm.state_dict())
    # These weights are so small that names and headers take as much.
    assert 0.3 * written < estimate < written


def test_disk_budget_counts_samples_that_are_kept(base_model, tmp_path):
    def needed(method):
        config = tiny.run_config(method, checkpoint_every=1)
        trainer = loop.Trainer.create(config, tiny.PROMPTS, base_model, tmp_path)
        return disk_needed(config, trainer.policy, trainer.algorithm.state_dict())

    replay = METHODS["tdpo_replay"]
    without = tiny.TDPO | {"policy_neurons": replay["policy_neurons"]}
    # States after 4 epochs with 1, 2, 2 and 2 epochs in the buffer, and the next one with
    # 2: each 4 bytes x 4 samples x (5 x 64 numbers and 4 advantages).
    assert needed(replay) - needed(without) == (1 + 2 + 2 + 2 + 2) * 4 * 4 * 324


def test_fetching_a_tiny_decoder_makes_no_run_another(tmp_path):
    def identity(decoder):
        critic = tiny.TDPO["critic"] | {"decoder": decoder}
        config = tiny.run_config(tiny.TDPO | {"critic": critic})
        return run_identity(config, ["cat"], tmp_path, tmp_path / "no_weights")

    (tmp_path / "unet").write_text("weights")
    full, by_tiny = identity("full"), identity("tiny")
    (tmp_path / "tiny_decoder").mkdir()
    (tmp_path / "tiny_decoder" / "weights").write_text("other weights")
    assert identity("full") == full
    assert identity("tiny")["base model"] != by_tiny["base model"]


def test_a_critic_with_a_tiny_decoder(base_model, train, tmp_path):
    config = tiny.run_config(
        tiny.TDPO | {"critic": tiny.TDPO["critic"] | {"decoder": "tiny"}}, epochs=1
    )
    with pytest.raises(MissingWeightsError, match=r"critic\.decoder: tiny needs"):
        train(config)
    assert not (tmp_path / "state").exists()
    model = shutil.copytree(base_model, tmp_path / "base_model")
    tiny.tiny_decoder().save_pretrained(model / "tiny_decoder")
    result = loop.train_run(
        config,
        prompts=tiny.PROMPTS,
        base_model=model,
        weights=tmp_path / "no_weights",
        state_dir=tmp_path / "tiny",
    )
    row = result.history.iloc[0]
    full = train(tiny.run_config(tiny.TDPO, epochs=1)).history.iloc[0]
    # The samples and their rewards are the same; what the critic makes of them isn't.
    assert row["redness_mean"] == full["redness_mean"]
    assert row["critic_prediction_std"] != full["critic_prediction_std"]


def test_what_a_run_has_written_counts_as_free(train, monkeypatch, tmp_path):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    config = tiny.run_config()
    monkeypatch.setattr(state.shutil, "disk_usage", lambda _: full)
    with pytest.raises(DiskError, match="has only 0 MB free"):
        train(config)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "of_this_run").write_bytes(bytes(10**6))
    train(config)


def test_unwritable_output_folder_is_an_error(train, tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(PermissionError, match="can't be written"):
        train(tiny.run_config())


def test_adapter_neurons_are_those_of_the_epoch_whatever_the_chunk(
    train, monkeypatch, tmp_path
):
    original, scores = loop.Trainer.adapter_neurons, []

    def kept(self, trajectory):
        scores.append(original(self, trajectory))
        return scores[-1]

    monkeypatch.setattr(loop.Trainer, "adapter_neurons", kept)
    for chunk_size in (2, 4):
        train(tiny.run_config(epochs=1, chunk_size=chunk_size))
        shutil.rmtree(tmp_path / "state")
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["policy", "critic"])
def test_weights_that_are_not_finite_stop_the_run(train, monkeypatch, tmp_path, part):
    original = loop.Trainer.adapter_neurons

    def poisoned(self, trajectory):
        measured = original(self, trajectory)
        if self.epoch == 2:
            owner = self.policy if part == "policy" else self.algorithm.critic.critic
            next(iter(owner.parameters())).data.fill_(float("nan"))
        return measured

    monkeypatch.setattr(loop.Trainer, "adapter_neurons", poisoned)
    with pytest.raises(TrainingStoppedError, match="not finite after epoch 3"):
        train(tiny.run_config(tiny.TDPO))
    folder = tmp_path / "state"
    facts = json.loads((folder / "checkpoints/epoch_0002/checkpoint.json").read_text())
    assert facts["epoch"] == 2
    assert len(pd.read_csv(folder / "history.csv")) == 2


def test_what_a_stop_has_kept_is_gone_once_the_run_goes_on(train, monkeypatch):
    config = tiny.run_config(epochs=3, checkpoint_every=3)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "all_finite", lambda _: patched.pop())
        patched = [False, True]
        with pytest.raises(TrainingStoppedError, match="after epoch 1 .* are kept"):
            train(config)
    result = train(config)
    assert list(tiny.saved_weights(result)) == ["epoch_0003"]


def test_a_policy_that_diverges_stops_the_run(train, monkeypatch, tmp_path):
    original = TdpoReplay.after_epoch

    def poisoned(self, epoch, neuron_scores):
        original(self, epoch, neuron_scores)
        self.buffer[-1].latents.fill_(1e30)  # replayed before epoch 3

    monkeypatch.setattr(TdpoReplay, "after_epoch", poisoned)
    with pytest.raises(
        TrainingStoppedError, match=r"not finite.* after epoch 2 .*kept"
    ):
        train(tiny.run_config(METHODS["tdpo_replay"]))
    assert (tmp_path / "state" / "checkpoints" / "epoch_0002").is_dir()


def test_equal_rewards_stop_the_run(train, monkeypatch):
    monkeypatch.setattr(
        tiny.Redness,
        "score",
        lambda self, images, *_: tiny.Scores(torch.zeros(len(images))),
    )
    with pytest.raises(TrainingStoppedError, match="all rewards of epoch 1 are equal"):
        train(tiny.run_config())


def test_an_exhausted_gpu_says_what_needs_less(train, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(loop.Trainer, "score", exhausted)
    with pytest.raises(DeviceError, match="epoch 1 .CUDA out of memory.*preset"):
        train(tiny.run_config())


def test_more_steps_than_timesteps_are_refused():
    with pytest.raises(ValueError, match="num_inference_steps"):
        tiny.run_config(num_inference_steps=1000)


def test_nan_reward_stops_the_run(train):
    with pytest.raises(TrainingStoppedError, match="NaN or infinity for 1 of 4"):
        train(tiny.run_config(scorer="tests.tiny:NanReward"))


def test_a_broken_reward_is_found_before_the_first_epoch(train, tmp_path):
    broken = "tests.rewards.own_rewards:Broken"
    with pytest.raises(RewardError, match="'broken' failed"):
        train(tiny.run_config(monitor=(broken,)))
    assert not (tmp_path / "state").exists()


def test_tdpo_trains_on_a_reward_with_a_borrowed_encoder(train):
    name = "jpeg_compressibility"
    config = tiny.run_config(
        tiny.TDPO, scorer=name, reward=name, critic_encoder="tests.tiny:Redness"
    )
    assert train(config).history[f"{name}_mean"].lt(0).all()


def test_a_task_has_the_name_of_its_reward(train):
    with pytest.raises(TaskError, match="a reward named 'redness'"):
        train(tiny.run_config(reward="rednes"))
    with pytest.raises(ValueError, match="must have the name of its reward"):
        tiny.run_config(scorer="jpeg_compressibility")


def test_no_prompts_is_an_error(train):
    with pytest.raises(TaskError, match="no training prompts"):
        train(tiny.run_config(), prompts=[])
