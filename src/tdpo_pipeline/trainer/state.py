"""What a run leaves on disk while it trains: checkpoints, full states, histories.

    <state_dir>/run.json                     configuration and fingerprint of the inputs
    <state_dir>/checkpoints/epoch_0004/      weights and checkpoint.json, of kept epochs
    <state_dir>/states/epoch_0004.pt         everything a bitwise resume needs
    <state_dir>/history.csv, timings.csv     rewritten after every epoch
    <state_dir>/finished                     the run has ended, with these checkpoints

All writes are atomic (written aside, then renamed). States are kept for the epochs
whose checkpoints are kept, and for the newest epoch; a kept checkpoint that somebody
deleted is made again from its state. A run is known by its identity: configuration,
inputs and the code that trains. A finished run of the same identity is not trained
again; one of another identity is set aside for the new one, without its states, until
the next comes; an unfinished one of another identity is an error, so that nothing is
lost unasked. One process at a time works in a run's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from tdpo_pipeline.config import TINY_DECODER, RunConfig
from tdpo_pipeline.diffusion.policy import CheckpointError, Policy
from tdpo_pipeline.fetching.manifest import MANIFEST, known_checksums, sha256_of
from tdpo_pipeline.rewards.repositories import files_of_others

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
TRAINING_CODE = (
    "algorithms",
    "config.py",
    "critic",
    "diffusion",
    "distributed.py",
    "hints.py",
    "menagerie/animals.py",
    "menagerie/beasts.py",
    "menagerie/birds.py",
    "menagerie/canvas.py",
    "menagerie/crawlers.py",
    "menagerie/gold.py",
    "menagerie/props.py",
    "menagerie/proxies.py",
    "menagerie/proxies_settings.py",
    "menagerie/quadrupeds.py",
    "menagerie/render.py",
    "menagerie/scenes.py",
    "menagerie/swimmers.py",
    "menagerie/vocabulary.py",
    "overoptimization/sequential.py",
    "prompts/counting.py",
    "rewards",
    "trainer",
)
"""Files and folders of the package that can change what a run comes to.

The training stages of ``dvc.yaml`` depend on the same; of Menagerie, on its rewards and
on what these draw with, because its models are inputs of a run.
"""


FLOAT32 = 4

TABLES = ("history", "timings")
"""Names of the tables of a run's epochs."""

NO_RESULT = (
    "disk_budget_mb",
    "gpu_memory_gb",
    "machines",
    "main_address",
    "offload_trajectories",
    "preset",
    "processes",
    "threads",
)
"""Settings of the training that its result doesn't depend on, but for rounding."""


def fingerprint(
    places: Iterable[Path], pattern: str = "*", leave_out: Collection[Path] = ()
) -> str:
    """SHA-256 over the names and contents of files, and of the files in folders.

    A fetched file that hasn't changed isn't read: its manifest has the checksum. What is
    hidden (half a fetch) and the manifests themselves are left out.

    Args:
        places: Files and folders.
        pattern: Names of the files of a folder.
        leave_out: Files that don't count.
    """
    digest = hashlib.sha256()
    for place in places:
        folder = place if place.is_dir() else place.parent
        paths = _files_in(place, pattern) if place.is_dir() else [place]
        known = known_checksums(folder) if place.is_dir() else {}
        for path in (p for p in paths if p.is_file() and p not in leave_out):
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(bytes.fromhex(known.get(path) or sha256_of(path)))
    return digest.hexdigest()


def _files_in(folder: Path, pattern: str) -> list[Path]:
    """The files under a folder that make it what it is, sorted."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
        and path.name != MANIFEST
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def run_identity(
    config: RunConfig, prompts: Sequence[str], base_model: Path, weights: Path
) -> dict[str, Any]:
    """What a run's result depends on: configuration, inputs and code.

    Of published reward weights, which several environments share, only those that the run
    loads count, and so does the base model's tiny decoder. Of code of one's own, the files
    count in which the classes are that configuration names.

    Settings of the disk, the threads and the processes are left out, and so are those
    that have their default, so that checkpoints outlive settings that are added later.
    """
    unused: set[Path] = set()
    if not config.algorithm.needs_tiny_decoder:
        unused = set((base_model / TINY_DECODER).rglob("*"))
    values = config.model_dump(mode="json", exclude_defaults=True)
    for name in NO_RESULT:
        values["training"].pop(name, None)
    return {
        "config": values,
        "base model": fingerprint([base_model], leave_out=unused),
        "reward weights": fingerprint(
            [weights], leave_out=files_of_others(config.rewards_in_use, weights)
        ),
        "prompts": list(prompts),
        "code": fingerprint(
            [
                *(_PACKAGE / name for name in TRAINING_CODE),
                *own_code((config.algorithm.algorithm, *config.rewards_in_use)),
            ],
            "*.py",
        ),
    }


def own_code(names: Iterable[str]) -> list[Path]:
    """Files of those algorithms and rewards that are named as ``module:Class``."""
    modules = sorted({name.partition(":")[0] for name in names if ":" in name})
    return [path for module in modules if (path := _source(module)) is not None]


def _source(module: str) -> Path | None:
    """The file of a module; None if it has none, which is told where it is imported."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def identity_digest(identity: dict[str, Any]) -> str:
    """A short name for what was trained: configuration, inputs and prompts.

    The code is left out, so that a checkpoint outlives an edit of it.
    """
    lasting = {name: value for name, value in identity.items() if name != "code"}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


class RunState:
    """The folder of one run's checkpoints and states.

    Args:
        directory: The run's folder; made if it is missing.
        config: The run.
        identity: What its result depends on, see :func:`run_identity`.
    """

    def __init__(
        self, directory: Path, config: RunConfig, identity: dict[str, Any]
    ) -> None:
        self.directory = directory
        self.checkpoints = directory / "checkpoints"
        self.states = directory / "states"
        self.identity = identity
        self.kept = set(config.training.kept_epochs())

    def open(self) -> dict[str, Any] | None:
        """Make the folder, and give the newest state to go on from, if any.

        Raises:
            CheckpointError: If an unfinished run of another configuration or other
                inputs is in the folder, or its newest state is truncated.
            FolderError: If the folder can't be written.
        """
        self._make_writable()
        record = self.directory / "run.json"
        found = json.loads(record.read_text()) if record.exists() else None
        finished = (self.directory / "finished").exists()
        saved = any(self.states.glob("epoch_*.pt"))
        if found != self.identity:
            if found is None or not (finished or saved):
                self.clear()
            elif finished:
                self._set_aside(found)
            else:
                raise self._of_another_run(found)
        write_text(record, json.dumps(self.identity, indent=2))
        (self.directory / "finished").unlink(missing_ok=True)  # until it has again
        return self.newest()

    def has_ended(self) -> bool:
        """Whether this very run has ended, and nothing of its result is missing."""
        record, finished = self.directory / "run.json", self.directory / "finished"
        tables = (self.directory / f"{name}.csv" for name in TABLES)
        if not all(path.is_file() for path in (record, finished, *tables)):
            return False
        left = json.loads(finished.read_text() or "null")
        if left is None or json.loads(record.read_text()) != self.identity:
            return False
        return all(self._checkpoint_path(epoch).is_dir() for epoch in left)

    def reused_bytes(self) -> int:
        """What of the folder makes room for this run, or is already of it."""
        record, finished = self.directory / "run.json", self.directory / "finished"
        places = [self.directory]
        if finished.exists() and json.loads(record.read_text()) != self.identity:
            places = [self.states, self._aside]  # the rest is set aside
        return sum(
            path.stat().st_size
            for place in places
            for path in place.rglob("*")
            if path.is_file()
        )

    @property
    def _aside(self) -> Path:
        return self.directory.with_name(f".{self.directory.name}.replaced")

    def newest(self) -> dict[str, Any] | None:
        """The newest state, or None."""
        newest = max(self.states.glob("epoch_*.pt"), key=epoch_of, default=None)
        return None if newest is None else self._load(newest)

    def _make_writable(self) -> None:
        try:
            for folder in (self.directory, self.checkpoints, self.states):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise FolderError(
                f"The output folder {self.directory} can't be written ({error}). Give "
                "another data root in the environment's globals.yml, or mend its "
                "permissions."
            ) from error

    def _of_another_run(self, found: dict[str, Any]) -> CheckpointError:
        what = ", ".join(_changed_keys(found, self.identity))
        return CheckpointError(
            f"{self.directory} holds an unfinished run of another configuration "
            f"(changed: {what}). Restore that to resume it, or delete the folder to "
            "start over."
        )

    def without_checkpoint(self, newest: int) -> Iterator[dict[str, Any]]:
        """States of kept epochs up to ``newest`` whose checkpoints were deleted.

        Raises:
            CheckpointError: If one of these states was deleted too.
        """
        deleted = [
            epoch
            for epoch in sorted(self.kept)
            if epoch <= newest and not self._checkpoint_path(epoch).is_dir()
        ]
        lost = [epoch for epoch in deleted if not self._state_path(epoch).exists()]
        if lost:
            raise CheckpointError(
                f"The checkpoints of the epochs {lost} are missing from "
                f"{self.checkpoints}, and so are their states in {self.states}. Delete "
                f"{self.directory} and train the run again."
            )
        for epoch in deleted:
            yield self._load(self._state_path(epoch))

    def _state_path(self, epoch: int) -> Path:
        return self.states / f"epoch_{epoch:04d}.pt"

    def _checkpoint_path(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch_{epoch:04d}"

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise CheckpointError(
                f"The state {path} is truncated or unreadable ({error}). Delete it to "
                "resume from the one before it."
            ) from error

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write the full state after ``epoch``; drop what is no longer needed before it.

        That is states of epochs that aren't kept, and the checkpoint that a run left there
        when it was stopped.
        """
        check_plain(state)
        path = self._state_path(epoch)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        _replace(partial, path)
        for other in self.states.glob("epoch_*.pt"):
            if epoch_of(other) not in self.kept and epoch_of(other) < epoch:
                other.unlink()
        for checkpoint in self.checkpoints.glob("epoch_*"):
            if epoch_of(checkpoint) not in self.kept and epoch_of(checkpoint) < epoch:
                shutil.rmtree(checkpoint)

    def save_checkpoint(self, policy: Policy, facts: dict[str, Any]) -> None:
        """Write the weights after an epoch, with ``facts`` (run, epoch, queries)."""
        facts = facts | {"identity": identity_digest(self.identity)}
        path = self._checkpoint_path(facts["epoch"])
        partial = self.directory / f".partial_{path.name}"
        shutil.rmtree(partial, ignore_errors=True)
        policy.save(partial)
        write_text(partial / "checkpoint.json", json.dumps(facts, indent=2))
        shutil.rmtree(path, ignore_errors=True)
        _replace(partial, path)

    def drop_checkpoints_after(self, epoch: int) -> None:
        """Delete the checkpoints of later epochs."""
        for path in self.checkpoints.glob("epoch_*"):
            if epoch_of(path) > epoch:
                shutil.rmtree(path)

    def save_tables(self, history: list[dict], timings: list[dict]) -> None:
        """Write the tables of the epochs so far."""
        for name, rows in zip(TABLES, (history, timings), strict=True):
            text = pd.DataFrame(rows).to_csv(index=False)
            write_text(self.directory / f"{name}.csv", text)

    def finish(self) -> None:
        """Mark the run as ended, with the checkpoints that it has."""
        left = sorted(epoch_of(path) for path in self.checkpoints.glob("epoch_*"))
        write_text(self.directory / "finished", json.dumps(left))

    def _set_aside(self, found: dict[str, Any]) -> None:
        """Make room for this run where another one has ended."""
        aside = self._aside
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.directory, aside)
        shutil.rmtree(aside / "states", ignore_errors=True)
        self._make_writable()
        log.warning(
            "%s held a finished run of other settings, inputs or code (changed: %s), and "
            "is trained anew. The former run's checkpoints and history are in %s, until "
            "the next is replaced.",
            self.directory,
            ", ".join(_changed_keys(found, self.identity)),
            aside,
        )

    def clear(self) -> None:
        """Delete everything of the run that was here.

        The folder is first renamed, so that a crash leaves no half of it behind.
        """
        old = self.directory.with_name(f".{self.directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(self.directory, old)
        shutil.rmtree(old)
        self._make_writable()


def read_tables(state_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """History and timings of a run, from its folder."""
    history, timings = (pd.read_csv(state_dir / f"{name}.csv") for name in TABLES)
    return history, timings


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within this context no other process has a run's folder or its job.

    Args:
        path: What is locked, by a hidden file beside it.

    Raises:
        CheckpointError: If another process has it.
        FolderError: If there can be no lock.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise CheckpointError(
            f"Another process is training in {path}. Wait for it, or end it: what it "
            "has done is kept, and resumed."
        ) from None
    except OSError as error:
        raise FolderError(
            f"{file} can't be locked ({error}): the folder can't be written, or its "
            "file system has no locks. Give another data root in the environment's "
            "globals.yml, or mend its permissions."
        ) from error
    try:
        yield
    finally:
        lock.release()


class FolderError(PermissionError):
    """A run's folder that can't be written or locked."""


class DiskError(ValueError):
    """A run would write more than its budget, or than the disk has free."""


def check_disk_budget(
    config: RunConfig, policy: Policy, algorithm: Mapping[str, Any], state: RunState
) -> None:
    """Hold what the run will write against its budget and the free disk.

    What the run's folder holds of it already, or gives back, counts as free.

    Args:
        config: The run.
        policy: The policy.
        algorithm: The algorithm's state before the first update.
        state: The run's folder, which need not exist.

    Raises:
        DiskError: If the budget or the disk is too small.
    """
    needed = disk_needed(config, policy, algorithm)
    budget = config.training.disk_budget_mb * 1e6
    if needed > budget:
        raise DiskError(
            f"{config.key} would write {needed / 1e6:.3g} MB, with checkpoints of "
            f"{len(config.training.kept_epochs())} epochs; training.disk_budget_mb is "
            f"{config.training.disk_budget_mb:g}. Raise it, or checkpoint_every."
        )
    written = state.reused_bytes()
    disk = next(p for p in (state.directory, *state.directory.parents) if p.exists())
    free = shutil.disk_usage(disk).free
    if needed > free + written:
        raise DiskError(
            f"{config.key} would write another {(needed - written) / 1e6:.3g} MB; the "
            f"disk of {disk} has only {free / 1e6:.3g} MB free."
        )


def disk_needed(config: RunConfig, policy: Policy, algorithm: Mapping[str, Any]) -> int:
    """About how many bytes a run takes; arguments as for :func:`check_disk_budget`.

    A state holds the weights of policy and algorithm three times (Adam's two moments),
    and the samples that the algorithm keeps; one more, the largest, is there while it
    takes the newest one's place. A checkpoint holds
    the policy's weights, and is there twice: in the run's folder, and as the copy that
    the run's dataset makes.
    """
    weights = tensor_bytes(policy.parameters())
    state = 3 * (weights + tensor_bytes(algorithm))
    kept = config.training.kept_epochs()
    samples = {
        epoch: FLOAT32
        * config.algorithm.kept_numbers(config.training, policy.latent_dims, epoch)
        for epoch in range(1, config.training.epochs + 1)
    }
    return (
        len(kept) * (state + 2 * weights)
        + sum(samples[epoch] for epoch in kept)
        + state
        + max(samples.values())
    )


def tensor_bytes(value: Any) -> int:
    """Size of all tensors in nested mappings, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


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


_PLAIN = (int, float, bool, str, bytes, type(None))


def check_plain(state: Any) -> None:
    """Refuse what is no dict, or could be saved and not be read back.

    States are read with ``weights_only``, so that a file can't run code.

    Raises:
        CheckpointError: Naming where in the state it is.
    """
    if not isinstance(state, dict):
        raise CheckpointError(
            f"The algorithm's state_dict gives a {type(state).__name__}; it has to give a "
            "dict ({} if there is nothing to keep)."
        )
    _check_plain(state, "state")


def _check_plain(state: Any, where: str) -> None:
    if type(state) in (dict, OrderedDict):
        for key, value in state.items():
            _check_plain(value, f"{where}[{key!r}]")
    elif type(state) in (list, tuple):
        for place, value in enumerate(state):
            _check_plain(value, f"{where}[{place}]")
    # Exactly these: a number of NumPy is a float too, and isn't read back.
    elif not isinstance(state, Tensor) and type(state) not in _PLAIN:
        raise CheckpointError(
            f"{where} is a {type(state).__module__}.{type(state).__name__}, which can't be "
            "read back. The algorithm's state_dict has to give tensors, plain numbers, "
            "texts and None, in dicts, lists and tuples."
        )


def epoch_of(path: Path) -> int:
    """The epoch in a name like ``epoch_0004`` or ``epoch_0004.pt``."""
    return int(path.stem.removeprefix("epoch_"))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    _replace(partial, path)


def _replace(partial: Path, path: Path) -> None:
    """Name what was written, a file or a folder: a power cut leaves all of it or none."""
    for written in (partial, *partial.rglob("*")):
        if written.is_file():
            _sync(written)
    os.replace(partial, path)
    with contextlib.suppress(OSError):  # some network drives have no folders to sync
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
