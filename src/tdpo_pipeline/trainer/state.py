"""What a run leaves on disk while it trains: checkpoints, full states, histories.

    <state_dir>/run.json                     configuration and fingerprint of the inputs
    <state_dir>/checkpoints/epoch_0004/      weights and checkpoint.json, of kept epochs
    <state_dir>/states/epoch_0004.pt         everything a bitwise resume needs
    <state_dir>/history.csv, timings.csv     rewritten after every epoch
    <state_dir>/finished                     the run has ended; the next one starts over

All writes are atomic (written aside, then renamed). States are kept for the epochs
whose checkpoints are kept, and for the newest epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tdpo_pipeline.config import RunConfig
from tdpo_pipeline.diffusion.policy import CheckpointError, Policy


def fingerprint(folders: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of all files in the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class RunState:
    """The folder of one run's checkpoints and states.

    Args:
        directory: The run's folder; made if it is missing.
        config: The run.
        inputs: Fingerprint of the base model, the rewards' weights and the prompts.
    """

    def __init__(self, directory: Path, config: RunConfig, inputs: str) -> None:
        self.directory = directory
        self.checkpoints = directory / "checkpoints"
        self.states = directory / "states"
        self.config = config
        self.identity = {"config": config.model_dump(mode="json"), "inputs": inputs}
        self.kept = set(config.training.kept_epochs())

    def open(self) -> dict[str, Any] | None:
        """Make the folder, and give the newest state to resume from, if any.

        Raises:
            CheckpointError: If an unfinished run of another configuration or other
                inputs is in the folder, or its newest state is truncated.
            PermissionError: If the folder can't be written.
        """
        self._make_writable()
        if (self.directory / "finished").exists():
            self.clear()
        record = self.directory / "run.json"
        if record.exists():
            self._check_identity(json.loads(record.read_text()))
        else:
            _write_text(record, json.dumps(self.identity, indent=2))
        newest = max(self.states.glob("epoch_*.pt"), default=None)
        return None if newest is None else self._load(newest)

    def _make_writable(self) -> None:
        try:
            for folder in (self.directory, self.checkpoints, self.states):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise PermissionError(
                f"The output folder {self.directory} can't be written ({error}). Give "
                "another data root in conf/base/globals.yml, or mend its permissions."
            ) from error

    def _check_identity(self, found: dict[str, Any]) -> None:
        if found == self.identity:
            return
        changed = _changed_keys(found["config"], self.identity["config"])
        what = ", ".join(changed) or "the base model, reward weights or prompts"
        raise CheckpointError(
            f"{self.directory} holds an unfinished run of another configuration "
            f"(changed: {what}). Restore that configuration to resume it, or delete "
            "the folder to start over."
        )

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise CheckpointError(
                f"The state {path} is truncated or unreadable ({error}). Delete it to "
                "resume from the one before it."
            ) from error

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the full state after ``epoch``; drop the states no longer needed."""
        path = self.states / f"epoch_{epoch:04d}.pt"
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)
        for other in self.states.glob("epoch_*.pt"):
            number = int(other.stem.removeprefix("epoch_"))
            if number not in self.kept and number < epoch:
                other.unlink()

    def save_checkpoint(self, policy: Policy, facts: dict[str, Any]) -> None:
        """Write the weights after an epoch, with ``facts`` (epoch, queries, KL)."""
        path = self.checkpoints / f"epoch_{facts['epoch']:04d}"
        partial = self.directory / f".partial_{path.name}"
        shutil.rmtree(partial, ignore_errors=True)
        policy.save(partial)
        _write_text(partial / "checkpoint.json", json.dumps(facts, indent=2))
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)

    def save_tables(self, history: list[dict], timings: list[dict]) -> None:
        """Write the tables of the epochs so far."""
        for name, rows in (("history", history), ("timings", timings)):
            text = pd.DataFrame(rows).to_csv(index=False)
            _write_text(self.directory / f"{name}.csv", text)

    def finish(self) -> None:
        """Mark the run as ended."""
        (self.directory / "finished").touch()

    def clear(self) -> None:
        """Delete everything of the run that was here."""
        shutil.rmtree(self.directory)
        self._make_writable()


def check_disk_budget(config: RunConfig, policy: Policy, disk: Path) -> None:
    """Hold what the run will write against its budget and the free disk.

    A state holds the weights three times (Adam's moments), a checkpoint once.

    Raises:
        ValueError: If the budget or the disk is too small.
    """
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    count = len(config.training.kept_epochs()) + 1
    needed = 4 * weights * count / 1e6
    if needed > config.training.disk_budget_mb:
        raise ValueError(
            f"{config.key} would write {count} checkpoints of {4 * weights / 1e6:.0f} MB "
            f"each, {needed:.0f} MB in all; training.disk_budget_mb is "
            f"{config.training.disk_budget_mb:.0f}. Raise it, or checkpoint_every."
        )
    while not disk.exists():
        disk = disk.parent
    free = shutil.disk_usage(disk).free / 1e6
    if needed > free:
        raise ValueError(
            f"{config.key} would write {needed:.0f} MB; the disk of {disk} has only "
            f"{free:.0f} MB free."
        )


def read_checkpoint_facts(checkpoint: Path) -> dict[str, Any]:
    """What is recorded beside a checkpoint's weights.

    Raises:
        CheckpointError: If the record is missing or truncated.
    """
    path = checkpoint / "checkpoint.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is missing or truncated ({error}); train the run again."
        ) from error


def _changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [prefix.rstrip(".")]
    return [
        changed
        for key in sorted(old.keys() | new.keys())
        for changed in _changed_keys(old.get(key), new.get(key), f"{prefix}{key}.")
    ]


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
