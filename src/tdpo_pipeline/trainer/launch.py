"""Training in one process, or in several that `accelerate` launches.

Several processes are started as commands of their own and not from Kedro's process: of
``accelerate launch -m kedro run`` every process would run the whole pipeline and save
every dataset, and a process that has touched a GPU can't fork. What they need is in a
file, the *job*, beside the run's state:

    accelerate launch ... -m tdpo_pipeline.trainer.launch <state_dir>.job.json

Each process trains by the same :func:`train_run`; the first one writes. If one fails, its
error is kept beside the job, all are ended, and the next attempt resumes.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tdpo_pipeline import distributed
from tdpo_pipeline.config import RunConfig, TrainingSettings
from tdpo_pipeline.trainer.loop import TrainingResult, train_run
from tdpo_pipeline.trainer.state import (
    RunState,
    locked,
    read_tables,
    run_identity,
)

log = logging.getLogger(__name__)


class ProcessError(RuntimeError):
    """A process of a training failed, or the processes can't be started."""


def launch_run(
    config: RunConfig,
    *,
    prompts: Sequence[str],
    base_model: Path,
    weights: Path,
    state_dir: Path,
) -> TrainingResult:
    """Train one run, in as many processes as its configuration says.

    Args, results and errors are those of :func:`train_run`.

    Raises:
        ProcessError: If there are fewer GPUs than processes, or a process failed; the
            message is that of the process that failed first.
    """
    if config.training.processes == 1:
        return train_run(
            config,
            prompts=prompts,
            base_model=base_model,
            weights=weights,
            state_dir=state_dir,
        )
    identity = run_identity(config, prompts, base_model, weights)
    if not RunState(state_dir, config, identity).has_ended():
        check_devices(config.training)
        job = state_dir.with_name(f"{state_dir.name}.job.json")
        with locked(job):
            _launch(job, config, prompts, base_model, weights, state_dir)
    return TrainingResult(state_dir / "checkpoints", *read_tables(state_dir))


def _launch(
    job: Path,
    config: RunConfig,
    prompts: Sequence[str],
    base_model: Path,
    weights: Path,
    state_dir: Path,
) -> None:
    """Train a run in processes of its own, which read from ``job`` what to train."""
    errors = _errors_folder(job)
    errors.mkdir(exist_ok=True)
    for old in errors.iterdir():
        old.unlink()
    values = {
        "config": config.model_dump(mode="json"),
        "prompts": list(prompts),
        "base_model": str(base_model.absolute()),
        "weights": str(weights.absolute()),
        "state_dir": str(state_dir.absolute()),
    }
    job.write_text(json.dumps(values, indent=2))
    for machine in range(1, config.training.machines):
        words = " ".join(command(job, config.training, machine))
        log.info("%s: to be started on machine %d: %s", config.key, machine, words)
    release_gpu()
    done = subprocess.run(
        command(job, config.training, 0),
        env=environment(config.training, dict(os.environ)),
        check=False,
    )
    if done.returncode:
        raise ProcessError(_first_error(config, errors, done.returncode))
    errors.rmdir()
    job.unlink()


def release_gpu() -> None:
    """Give back the GPU memory that this process keeps of what it ran before.

    The processes of a run share its GPU with the process that starts them.
    """
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def check_devices(training: TrainingSettings) -> None:
    """Raise ProcessError if this machine has fewer GPUs than processes."""
    if _on_cpu(training):
        return
    found = torch.cuda.device_count()
    wanted = training.processes // training.machines
    if found < wanted:
        raise ProcessError(
            f"training.processes: {training.processes} on {training.machines} "
            f"machine(s) takes {wanted} GPUs of each; this one has {found}. Set "
            "training.processes to what there is; the result is the same."
        )


def command(job: Path, training: TrainingSettings, machine: int) -> list[str]:
    """The command that starts a machine's processes; every option is explicit.

    Otherwise `accelerate` would take it from the user's own configuration file.
    """
    host, _, port = (training.main_address or "").partition(":")
    options: dict[str, Any] = {
        "num_processes": training.processes,
        "num_machines": training.machines,
        "machine_rank": machine,
        "gpu_ids": "all",
        "mixed_precision": "no",  # the policy has its own precision
        "dynamo_backend": "no",
        "main_process_port": port or 0,  # 0: a free one
    }
    if host:
        options["main_process_ip"] = host
    return [
        sys.executable,
        *("-m", "accelerate.commands.launch", "--multi_gpu"),
        *(
            word
            for name, value in options.items()
            for word in (f"--{name}", str(value))
        ),
        *("-m", __name__, str(job)),
    ]


def environment(
    training: TrainingSettings, inherited: dict[str, str]
) -> dict[str, str]:
    """The environment variables of the processes."""
    own = dict(inherited)
    if _on_cpu(training):
        own["ACCELERATE_USE_CPU"] = "true"
    cores = os.cpu_count() or 1
    per_machine = training.processes // training.machines
    own.setdefault("OMP_NUM_THREADS", str(max(1, cores // per_machine)))
    return own


def _on_cpu(training: TrainingSettings) -> bool:
    """Whether the processes compute on CPUs."""
    cuda = torch.cuda.is_available()
    return training.device == "cpu" or (training.device == "auto" and not cuda)


def _errors_folder(job: Path) -> Path:
    return job.with_suffix(".errors")


def _first_error(config: RunConfig, errors: Path, code: int) -> str:
    """What to say of processes that failed."""
    found = [json.loads(path.read_text()) for path in errors.glob("*.json")]
    if not found:
        return (
            f"{config.key}: a process died with code {code} and without a word, as when "
            "the system is out of memory. Its last output is above; run again to resume."
        )
    # What others raise when a process is gone may be written down before its own error.
    first = min(found, key=lambda error: (_lost_a_peer(error["error"]), error["time"]))
    return (
        f"{config.key}: process {first['process']} of {config.training.processes} "
        f"failed: {first['error']}"
    )


def _lost_a_peer(error: str) -> bool:
    """Whether this is what a process says when another one is gone."""
    return (
        re.search(r"Connection (closed|reset) by peer|DistBackendError", error)
        is not None
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """One process of a training: read the job, and train."""
    parser = argparse.ArgumentParser(description="One process of a training.")
    parser.add_argument("job", type=Path, help="what to train")
    job: Path = parser.parse_args(arguments).job
    values = json.loads(job.read_text())
    config = RunConfig.model_validate(values["config"])
    main_process = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if main_process else logging.WARNING, format="%(message)s"
    )
    try:
        with distributed.joined(cpu=_on_cpu(config.training)):
            train_run(
                config,
                prompts=values["prompts"],
                base_model=Path(values["base_model"]),
                weights=Path(values["weights"]),
                state_dir=Path(values["state_dir"]),
            )
    except BaseException as error:
        _keep_error(_errors_folder(job), error)
        raise


def _keep_error(folder: Path, error: BaseException) -> None:
    """Leave the error where the process that launched can read it."""
    process = int(os.environ.get("RANK", "0"))
    facts = {
        "time": time.time(),
        "process": process,
        "error": f"{type(error).__name__}: {error}",
        "traceback": traceback.format_exc(),
    }
    path = folder / f"{process}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts))
    partial.replace(path)


if __name__ == "__main__":
    main()
