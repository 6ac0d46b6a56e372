"""What two processes compute in the tests, started by ``torch.distributed.run``."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from tdpo_pipeline import distributed
from tdpo_pipeline.algorithms import policy_gradient
from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.ddpo import Ddpo
from tdpo_pipeline.algorithms.optimization import PolicyOptimizer, flat_gradient
from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.trajectory import Trajectory, replay
from tdpo_pipeline.trainer.loop import TrainingStoppedError, train_run
from tdpo_pipeline.trainer.state import RunState

WRITERS = ("open", "save_checkpoint", "save_tables", "save", "finish")
"""Methods of ``RunState`` that write into the run's folder."""


def primitives() -> dict[str, object]:
    """What each function of the module gives in this process."""
    rank = distributed.rank()
    computed: list[int] = []

    def compute(part: int) -> tuple[torch.Tensor, torch.Tensor]:
        computed.append(part)
        # Parts may differ in shape and type.
        return torch.full((part + 1,), 0.5 * part), torch.tensor(part)

    parts = distributed.compute_parts(compute, [0, 1, 2])
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    if rank == 1:
        weights[1].grad = torch.tensor([5.0, 6.0])
    distributed.BUCKET = 3  # so that gradients go in two buckets
    distributed.sum_gradients(weights)
    summed = [None if w.grad is None else w.grad.tolist() for w in weights]
    distributed.average_gradients(weights)

    def fails(part: int) -> tuple[torch.Tensor]:
        if part == 1:
            raise KeyError("of part 1")
        return (torch.zeros(1),)

    try:
        distributed.compute_parts(fails, [0, 1])
    except KeyError as error:
        raised = str(error)
    return {
        "rank": rank,
        "size": distributed.world_size(),
        "main": distributed.is_main(),
        "dealt": distributed.deal([10, 11, 12]),
        "computed": computed,
        "parts": [[tensor.tolist() for tensor in part] for part in parts],
        "collected": distributed.collect([rank, "x"]),
        "total": distributed.sum_over(torch.tensor([1.0, rank])).tolist(),
        "summed": summed,
        "averaged": [None if w.grad is None else w.grad.tolist() for w in weights],
        "first": distributed.main_first(
            lambda: f"first {rank}", lambda: f"then {rank}"
        ),
        "raised": raised,
    }


@contextlib.contextmanager
def recorded(found: dict[str, torch.Tensor]) -> Iterator[None]:
    """Within this context a run leaves its first samples and its first gradient."""
    sample, step = Algorithm.sample, PolicyOptimizer.step

    def sampled(self: Algorithm, *arguments: Any) -> Trajectory:
        trajectory = sample(self, *arguments)
        found.setdefault("latents", trajectory.latents.clone())
        found.setdefault("images", trajectory.images.clone())
        return trajectory

    def stepped(self: PolicyOptimizer, parts: Any) -> None:
        step(self, parts)
        found.setdefault("gradient", flat_gradient(self.parameters).clone())

    with (
        mock.patch.object(Algorithm, "sample", sampled),
        mock.patch.object(PolicyOptimizer, "step", stepped),
    ):
        yield


@contextlib.contextmanager
def writes() -> Iterator[list[str]]:
    """Within this context the calls of ``WRITERS`` by this process, in order."""
    made: list[str] = []

    def noted(name: str) -> Any:
        original = getattr(RunState, name)

        def write(self: RunState, *arguments: Any) -> Any:
            made.append(name)
            return original(self, *arguments)

        return mock.patch.object(RunState, name, write)

    with contextlib.ExitStack() as patches:
        for name in WRITERS:
            patches.enter_context(noted(name))
        yield made


def diverging(folder: Path) -> str:
    """How a run ends whose log-probs are not finite in the second process alone.

    It trains one epoch before, whose weights are slow to be saved. Returns the error, and
    whether they are there when this process gets it.
    """

    def update(self: Algorithm, epoch: int, *arguments: Any) -> dict[str, float]:
        def broken(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            noise_preds, log_probs = replay(*arguments)
            bad = epoch == 2 and distributed.rank() == 1
            return noise_preds, log_probs * (float("nan") if bad else 1.0)

        with mock.patch.object(policy_gradient, "replay", broken):
            return original(self, epoch, *arguments)

    def save_slowly(self: RunState, *arguments: Any) -> None:
        time.sleep(1)
        save(self, *arguments)

    original, save = Ddpo.update, RunState.save_checkpoint
    job = folder / "ddpo.job.json"
    config = RunConfig.model_validate_json(job.read_text())
    longer = config.training.model_copy(update={"epochs": 2, "checkpoint_every": 2})
    kept = folder / "diverging/checkpoints/epoch_0001"
    with (
        mock.patch.object(Ddpo, "update", update),
        mock.patch.object(RunState, "save_checkpoint", save_slowly),
    ):
        try:
            train_run(
                config.model_copy(update={"training": longer}),
                prompts=["cat", "dog"],
                base_model=folder / "base_model",
                weights=folder / "no_weights",
                state_dir=folder / "diverging",
            )
        except TrainingStoppedError as error:
            return f"{error} Saved: {kept.is_dir()}"
    return "not at all"


def main(folder: Path) -> None:
    """The primitives, every run whose job is in ``folder``, and one that diverges."""
    torch.set_num_threads(1)
    with distributed.joined(cpu=True):
        (folder / f"primitives_{distributed.rank()}.json").write_text(
            json.dumps(primitives())
        )
        for job in sorted(folder.glob("*.job.json")):
            name = job.name.removesuffix(".job.json")
            found: dict[str, torch.Tensor] = {}
            with recorded(found), writes() as made:
                train_run(
                    RunConfig.model_validate_json(job.read_text()),
                    prompts=["cat", "dog"],
                    base_model=folder / "base_model",
                    weights=folder / "no_weights",
                    state_dir=folder / "two" / name,
                )
            mine = f"{name}.{distributed.rank()}"
            save_file(found, folder / f"{mine}.safetensors")
            (folder / f"{mine}.writes.json").write_text(json.dumps(made))
        told = folder / f"diverging_{distributed.rank()}.txt"
        told.write_text(diverging(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
