"""The epoch loop: sample, score, update, record, checkpoint."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from tdpo_pipeline import distributed
from tdpo_pipeline.algorithms.base import Algorithm, DivergedError
from tdpo_pipeline.algorithms.registry import algorithm_class
from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.adapter_neurons import (
    adapter_neuron_scores,
    dormant_percents,
)
from tdpo_pipeline.diffusion.devices import (
    DeviceError,
    check_memory,
    device_name,
    resolve_device,
)
from tdpo_pipeline.diffusion.loading import load_pipeline, load_tiny_decoder
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator
from tdpo_pipeline.diffusion.trajectory import Trajectory, kl_to_base, replay
from tdpo_pipeline.overoptimization.sequential import Alarm, Baseline
from tdpo_pipeline.rewards.base import Reward, RewardError
from tdpo_pipeline.rewards.probe import probe_rewards
from tdpo_pipeline.rewards.registry import load_rewards
from tdpo_pipeline.rewards.scoring import scores
from tdpo_pipeline.trainer.early_stop import (
    last_checkpoint,
    onset_alarm,
    reward_columns,
)
from tdpo_pipeline.trainer.estimate import announce
from tdpo_pipeline.trainer.state import (
    RunState,
    check_disk_budget,
    check_plain,
    locked,
    read_tables,
    run_identity,
)
from tdpo_pipeline.trainer.stopwatch import Stopwatch

log = logging.getLogger(__name__)

LORA_THRESHOLDS = {"lora_dormant_pct_t0": 0.0, "lora_dormant_pct_t01": 0.1}
LORA_SAMPLES = 64  # of an epoch, that the adapters' neurons are scored on


class TaskError(ValueError):
    """A task without prompts, or of another name than its reward's."""


class MetricError(ValueError):
    """An algorithm's measurements are no numbers, or have names of other columns."""


class TrainingStoppedError(RuntimeError):
    """The run can't go on: the weights are not finite, or the rewards collapsed."""


@dataclass
class TrainingResult:
    """What a finished run gives.

    Attributes:
        checkpoints: Folder with one folder for each kept epoch.
        history: One row an epoch.
        timings: Seconds of each part of each epoch, and the device that took them.
    """

    checkpoints: Path
    history: pd.DataFrame
    timings: pd.DataFrame


def train_run(
    config: RunConfig,
    *,
    prompts: Sequence[str],
    base_model: Path,
    weights: Path,
    state_dir: Path,
) -> TrainingResult:
    """Train one run of the grid, resuming it if it was interrupted.

    A run that has already been finished, with this configuration, inputs and code,
    gives its result at once, and needs no GPU for it. Of several processes each calls
    this; the main one writes.

    Args:
        config: The run.
        prompts: Training prompts.
        base_model: Diffusers pipeline directory.
        weights: Folder of reward weights.
        state_dir: The run's folder for checkpoints and states.

    Raises:
        TrainingStoppedError: On weights that are not finite, or collapsed rewards; the
            last good checkpoint and the history so far are kept.
        CheckpointError: If the folder holds another run's unfinished state, lacks a
            checkpoint that can't be made again, or another process trains in it; or if
            the algorithm's state couldn't be read back.
        MetricError: If the algorithm's measurements are no numbers, or have names of
            other columns.
        TaskError: If there is no prompt, or the task has not its reward's name.
        DiskError: If the run would write more than its budget, or than there is room.
        RewardError: If a reward can't score the base model's pictures.
        DeviceError: If the device is not there, or too small.
    """
    state = RunState(
        state_dir, config, run_identity(config, prompts, base_model, weights)
    )
    if distributed.collect([state.has_ended()])[0]:  # as the main process sees it
        log.info("%s has been trained: its result is in %s.", config.key, state_dir)
        return TrainingResult(state.checkpoints, *read_tables(state_dir))
    with contextlib.ExitStack() as held:
        distributed.main_first(
            lambda: held.enter_context(locked(state_dir)), lambda: None
        )
        trainer = _trainer(config, prompts, base_model, weights, state)
        trainer.run(state)
    return TrainingResult(
        checkpoints=state.checkpoints,
        history=pd.DataFrame(trainer.history),
        timings=pd.DataFrame(trainer.timings),
    )


def _trainer(
    config: RunConfig,
    prompts: Sequence[str],
    base_model: Path,
    weights: Path,
    state: RunState,
) -> Trainer:
    """A run's trainer where it goes on, once all is checked that can be beforehand."""
    device = resolve_device(config.training)
    check_memory(device, config.training.gpu_memory_gb)
    if device.type == "cuda":
        # Where the main process refuses, the others have to hear of it.
        distributed.main_first(
            lambda: log.info(announce(config, base_model, device)), lambda: None
        )
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if not prompts:
        raise TaskError(f"{config.key} has no training prompts.")
    trainer = Trainer.create(config, prompts, base_model, weights)
    distributed.main_first(  # the folder is the main process' own
        lambda: check_disk_budget(
            config, trainer.policy, trainer.algorithm.state_dict(), state
        ),
        lambda: None,
    )
    check_plain(trainer.algorithm.state_dict())
    resumed = distributed.main_first(state.open, state.newest)
    log.info(config.summary())
    if resumed is not None:
        trainer.resume(state, resumed)
        log.info("%s: resumed after epoch %d", config.key, trainer.epoch)
    return trainer


class Trainer:
    """One run: its policy, rewards and algorithm, and what it has measured so far.

    Args:
        config: The run.
        prompts: Training prompts.
        policy: The policy that is fine-tuned.
        reward: The reward that is trained on.
        monitored: All rewards scored every epoch, by name; ``reward`` among them.
        algorithm: What improves the policy.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[str],
        policy: Policy,
        reward: Reward,
        monitored: Mapping[str, Reward],
        algorithm: Algorithm,
    ) -> None:
        self.config = config
        self.prompts = list(prompts)
        self.policy = policy
        self.reward = reward
        self.monitored = dict(monitored)
        self.algorithm = algorithm
        self.epoch = 0
        self.baselines: dict[str, Baseline] = {}
        self.history: list[dict[str, Any]] = []
        self.timings: list[dict[str, Any]] = []

    @classmethod
    def create(
        cls, config: RunConfig, prompts: Sequence[str], base_model: Path, weights: Path
    ) -> Trainer:
        """Load the base model and the rewards, and build the algorithm."""
        settings = config.training
        pipeline, tiny_decoder = load_pipeline(base_model), None
        if config.algorithm.needs_tiny_decoder:
            tiny_decoder = load_tiny_decoder(base_model, pipeline.vae)
        policy = Policy(
            pipeline,
            num_inference_steps=settings.num_inference_steps,
            lora=settings.adapters,
            seed=config.seed,
            compute=settings,
            tiny_decoder=tiny_decoder,
        )
        if distributed.is_main():
            policy.tell_truncated(prompts)
        rewards = load_rewards(
            (config.task.scorer, *settings.monitor), weights, config.task
        )
        for loaded in rewards.values():
            loaded.to(policy.device)
        reward = rewards[config.task.scorer]
        if reward.name != config.reward:
            raise TaskError(
                f"The task '{config.reward}' trains on a reward named '{reward.name}'. "
                "Give the task in conf/base/parameters_rewards.yml the reward's name."
            )
        probe_rewards(rewards.values(), policy, prompts)
        build = algorithm_class(config.algorithm.algorithm)
        algorithm = build(config, policy, reward, weights, Stopwatch())
        probe_rewards(algorithm.auxiliary.values(), policy, prompts)
        return cls(config, prompts, policy, reward, rewards, algorithm)

    def resume(self, state: RunState, newest: dict[str, Any]) -> None:
        """Go on from the state ``newest``; deleted checkpoints are made again.

        Raises:
            CheckpointError: If a kept checkpoint is missing and so is its state.
        """
        if distributed.is_main():
            self._save_deleted(state, newest["epoch"])
        self.load_state_dict(newest)

    def _save_deleted(self, state: RunState, newest: int) -> None:
        for deleted in state.without_checkpoint(newest):
            self.epoch = deleted["epoch"]
            self.policy.load_state_dict(deleted["policy"])
            self._save_checkpoint(state)

    def run(self, state: RunState) -> None:
        """Train from the current epoch to the last, or until an alarm ends the run."""
        epochs = self.config.training.epochs
        terminal = sys.stderr.isatty()
        main = distributed.is_main()
        with tqdm(
            total=epochs,
            initial=self.epoch,
            desc=self.config.key,
            unit="epoch",
            disable=not (terminal and main),
        ) as bar:
            while self.epoch < epochs and self.alarm() is None:
                self.run_epoch(state)
                latest = self.history[-1][f"{self.reward.name}_mean"]
                seconds = self.timings[-1]["total_s"]
                bar.set_postfix(reward=f"{latest:.3f}")
                bar.update()
                if main and not terminal:
                    log.info(
                        "%s: epoch %d/%d, reward %.3f, about %.0f s left",
                        self.config.key,
                        self.epoch,
                        epochs,
                        latest,
                        seconds * (epochs - self.epoch),
                    )
        if main:
            if (alarm := self.alarm()) is not None:
                self._end_early(state, alarm)
            state.save_tables(self.history, self.timings)  # if somebody deleted them
            state.finish()

    def alarm(self) -> Alarm | None:
        """Whether held-out rewards have begun to fall; always None unless configured."""
        held_out = [self.monitored[name].name for name in self.config.held_out_rewards]
        return onset_alarm(
            self.history,
            self.config.training.early_stop,
            trained=self.reward.name,
            held_out=held_out,
            epochs=self.config.training.epochs,
        )

    def _end_early(self, state: RunState, alarm: Alarm) -> None:
        """Leave the checkpoints that a run ends with after an alarm."""
        settings = self.config.training.early_stop
        last = last_checkpoint(alarm, settings, epoch=self.epoch, kept=state.kept)
        if last == self.epoch:
            self._save_checkpoint(state)
        state.drop_checkpoints_after(last)
        log.info(
            "%s: ended after epoch %d: %s has been falling since epoch %d while %s "
            "rises; the last checkpoint is that of epoch %d",
            self.config.key,
            self.epoch,
            self.config.held_out_rewards[alarm.reward],
            alarm.onset,
            self.reward.name,
            last,
        )

    def run_epoch(self, state: RunState) -> None:
        """Sample, score, update, record and save one epoch."""
        epoch = self.epoch + 1
        settings, watch = self.config.training, self.algorithm.stopwatch
        good = self.policy.state_dict()
        with watch.measure("total"), self._stopping(state, good):
            with watch.measure("update"):
                metrics = self.algorithm.before_epoch(epoch)
            if (exploration := self.config.algorithm.exploration) is not None:
                metrics["explored"] = float(exploration.active(epoch, settings.epochs))
            with watch.measure("sampling"):
                prompts = self.draw_prompts(epoch)
                trajectory = self.algorithm.sample(epoch, prompts)
            if not bool(torch.isfinite(trajectory.latents).all()):
                self.stop(state, good, f"samples of epoch {epoch} are not finite.")
            with watch.measure("scoring"):
                scores = self.score(trajectory)
            rewards = scores[self.reward.name]
            if float(rewards.std()) < settings.min_reward_std:
                self.stop(state, good, f"all rewards of epoch {epoch} are equal.")
            with watch.measure("kl"):
                kl = kl_to_base(
                    self.policy,
                    trajectory,
                    torch.arange(settings.kl_samples),
                    chunk_size=settings.chunk_size,
                    eta=settings.eta,
                )
            with watch.measure("update"):
                metrics |= self._measured(
                    self.algorithm.update(epoch, trajectory, rewards)
                )
            with watch.measure("lora_neurons"):
                neurons = self.adapter_neurons(trajectory)
                metrics |= dormant_columns(neurons)
                self.algorithm.after_epoch(epoch, neurons)
        weights = [self.policy.state_dict(), self.algorithm.state_dict()]
        if not all_finite(weights):
            self.stop(state, good, f"the weights are not finite after epoch {epoch}.")
        self.epoch = epoch
        self._record(prompts, scores, kl, metrics, watch.take())
        self._save(state)

    @contextlib.contextmanager
    def _stopping(self, state: RunState, good: dict[str, Tensor]) -> Iterator[None]:
        """Stop the run in order if its reward fails or its policy diverges."""
        try:
            yield
        except (RewardError, DivergedError) as error:
            self.stop(state, good, str(error))
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self.config.key}: the GPU's memory is exhausted in epoch "
                f"{self.epoch + 1} ({str(error).partition('.')[0]}). What was trained "
                "before is kept, and gone on with by the same command if the GPU is free "
                "then. To need less, begin anew with another training.preset, or a smaller "
                "chunk_size and micro_batch_size (docs/stable_diffusion.md), after deleting "
                f"{state.directory}."
            ) from error

    def draw_prompts(self, epoch: int) -> list[str]:
        """The epoch's prompts, drawn with replacement."""
        rng = generator(self.config.seed, "prompts", epoch)
        count = self.config.training.samples_per_epoch
        return [self.prompts[i] for i in rng.integers(len(self.prompts), size=count)]

    def score(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """Each reward's scores (N,) of the epoch's images."""
        size = self.config.training.chunk_size
        return {
            reward.name: scores(
                reward, trajectory.images, trajectory.prompts, size, trajectory.device
            )
            for reward in self.monitored.values()
        }

    def adapter_neurons(self, trajectory: Trajectory) -> list[Tensor]:
        """Scores of each LoRA layer's neurons, over samples at random steps."""
        if self.policy.lora is None:
            return []
        count = min(LORA_SAMPLES, len(trajectory))
        rng = generator(self.config.seed, "adapter neurons", self.epoch + 1)
        steps = torch.from_numpy(rng.integers(trajectory.num_steps, size=count))
        pairs = torch.stack([torch.arange(count), steps], 1)

        def forward() -> None:
            for chunk in distributed.deal(pairs.split(self.config.training.chunk_size)):
                replay(self.policy, trajectory, chunk)

        with self.policy.uncompiled():
            return adapter_neuron_scores(self.policy.unet, forward)

    def _record(
        self,
        prompts: Sequence[str],
        scores: Mapping[str, Tensor],
        kl: float,
        metrics: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> None:
        """Add the epoch's rows.

        Rewards and KL are those of the policy that sampled, before its updates.
        """
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "reward_queries": self.reward_queries(),
            "samples": len(prompts),
        }
        row |= reward_columns(self.baselines, prompts, scores) | {"kl_to_base": kl}
        taken = [name for name in metrics if name in row or name.endswith("_mean")]
        if taken:
            raise MetricError(
                f"The algorithm's metrics {taken} would pass for other columns of the "
                "history, where <reward>_mean is a reward's. Give them other names."
            )
        self.history.append(row | dict(metrics))
        features = seconds.get("critic_features", 0.0)
        self.timings.append(
            {
                "epoch": self.epoch,
                "device": device_name(self.policy.device),
                "sampling_s": seconds["sampling"],
                "scoring_s": seconds["scoring"],
                "critic_features_s": features,
                "update_s": seconds["update"] - features,
                "kl_s": seconds["kl"],
                "lora_neurons_s": seconds["lora_neurons"],
                "total_s": seconds["total"],
            }
        )

    def reward_queries(self) -> int:
        """Reward queries that learning has taken so far."""
        samples = self.epoch * self.config.training.samples_per_epoch
        return samples * self.config.algorithm.queries_per_sample

    def _save(self, state: RunState) -> None:
        if not distributed.is_main():
            return
        if self.epoch in state.kept:
            self._save_checkpoint(state)
        # The state comes last: killed before it, the epoch is trained and written again.
        state.save_tables(self.history, self.timings)
        state.save(self.epoch, self.state_dict())

    def _measured(self, metrics: Any) -> dict[str, float]:
        """What an algorithm's update returned, if it is numbers by name.

        Raises:
            MetricError: If it is something else.
        """
        name = type(self.algorithm).__name__
        if not isinstance(metrics, Mapping):
            raise MetricError(
                f"{name}.update returned a {type(metrics).__name__}; it has to return the "
                "epoch's measurements, numbers by name ({} if there are none)."
            )
        for key, value in metrics.items():
            if not isinstance(value, int | float):
                raise MetricError(
                    f"{name}.update returned '{key}' as a {type(value).__module__}."
                    f"{type(value).__name__}; it has to be a number of Python (float(x))."
                )
        return dict(metrics)

    def _save_checkpoint(self, state: RunState) -> None:
        """Save the weights after the current epoch."""
        queries = self.reward_queries()
        facts = {"run": self.config.key, "epoch": self.epoch, "reward_queries": queries}
        state.save_checkpoint(self.policy, facts)

    def stop(self, state: RunState, good: dict[str, Tensor], reason: str) -> NoReturn:
        """Keep the last good weights, and stop the run. All processes do so together.

        Raises:
            TrainingStoppedError: Always.
        """
        kept = "Nothing had been trained yet."
        if self.epoch:
            self.policy.load_state_dict(good)
            # The others wait: when one ends with an error, the launcher ends all.
            distributed.main_first(lambda: self._save_checkpoint(state), lambda: None)
            kept = f"The weights after epoch {self.epoch} and the history are kept."
        cure = "If a lower learning rate or clip range is the cure, delete"
        if not self.epoch:
            cure = "No update has been made: look at the reward and the prompts, delete"
        raise TrainingStoppedError(
            f"{self.config.key} stopped: {reason} {kept} {cure} {state.directory} and "
            "start again; other runs of the same command are trained if they are named "
            "(--namespaces)."
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bitwise resume needs."""
        return {
            "epoch": self.epoch,
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "baselines": json.dumps(
                {name: asdict(found) for name, found in self.baselines.items()}
            ),
            "history": json.dumps(self.history),
            "timings": json.dumps(self.timings),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self.epoch = state["epoch"]
        self.policy.load_state_dict(state["policy"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.baselines = {
            name: Baseline(**found)
            for name, found in json.loads(state["baselines"]).items()
        }
        self.history = json.loads(state["history"])
        self.timings = json.loads(state["timings"])


def dormant_columns(neuron_scores: list[Tensor]) -> dict[str, float]:
    """Dormant LoRA neurons in percent at each threshold; nothing without LoRA."""
    if not neuron_scores:
        return {}
    percents = dormant_percents(neuron_scores, list(LORA_THRESHOLDS.values()))
    return {name: percents[value] for name, value in LORA_THRESHOLDS.items()}


def all_finite(value: Any) -> bool:
    """Whether all tensors in nested dicts and lists are finite."""
    if isinstance(value, Mapping):
        return all(all_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(all_finite(v) for v in value)
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
