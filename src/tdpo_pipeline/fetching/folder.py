"""A folder of fetched files: whole or not there.

Files are downloaded beside the folder, into ``.<name>.partial``, and go into place only
when all of them are whole. A second fetch reads the manifest and downloads nothing;
one that begins before the first has ended waits for it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from tdpo_pipeline.fetching.download import (
    FetchError,
    RemoteFile,
    describe,
    download,
    verify,
)
from tdpo_pipeline.fetching.manifest import (
    Entry,
    entry_of,
    read_manifest,
    sha256_of,
    write_manifest,
)

log = logging.getLogger(__name__)


def fetch_folder(folder: Path, files: Sequence[RemoteFile], title: str) -> None:
    """Bring files into a folder, and record them in its manifest.

    Args:
        folder: Where they go; other files in it are left alone.
        files: What to fetch. The first comes into place last, so that a folder that
            is known by it is whole.
        title: What they are, for the progress.

    Raises:
        FetchError: If a file can't be had or isn't what it should be, or the disk is
            too small.
    """
    if _lacking(folder, files):
        with _writing(folder), _alone(folder, title):
            # Another process may have fetched them meanwhile.
            if missing := _lacking(folder, files):
                _fetch(folder, missing, title)
                return
    log.info("%s: all %d files are in %s", title, len(files), folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into what is wrong and what to do."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"Files can't be fetched into {folder} ({error}). Make room, mend its "
            "permissions or take a file system that has locks, and run the command again: "
            "what has been downloaded is kept."
        ) from error


@contextmanager
def _alone(folder: Path, title: str) -> Iterator[None]:
    """Inside the block no other process fetches into the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: waiting for another process that fetches into %s", title, folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lacking(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files that are still to be fetched."""
    entries = read_manifest(folder)
    return [file for file in files if not _is_there(folder, file, entries)]


def _fetch(folder: Path, missing: Sequence[RemoteFile], title: str) -> None:
    """Download files beside the folder, and put them into place."""
    entries = read_manifest(folder)
    described = [describe(file) for file in missing]
    staging = folder.with_name(f".{folder.name}.partial")
    _check_disk(folder, staging, described)
    checksums = _download_all(described, folder, staging, title)
    folder.mkdir(parents=True, exist_ok=True)
    for file in reversed(described):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / file.name, path)
        entries[file.name] = entry_of(path, file.url, checksums[file.name])
    write_manifest(folder, entries)
    shutil.rmtree(staging)
    log.info("%s: fetched %d files into %s", title, len(described), folder)


def _is_there(folder: Path, file: RemoteFile, entries: dict[str, Entry]) -> bool:
    """Whether the folder has a file, from there and whole.

    A file that was copied or touched since is read again, and its entry renewed. A
    copy of a local file that has changed is out of date.
    """
    entry, path = entries.get(file.name), folder / file.name
    if entry is None or entry.url != file.url:
        return False
    if file.is_local and not _has(Path(file.url), entry.sha256):
        return False
    if entry.describes(path):
        return True
    if not _has(path, entry.sha256):
        return False
    entries[file.name] = entry_of(path, entry.url, entry.sha256)
    write_manifest(folder, entries)
    return True


def _has(path: Path, sha256: str) -> bool:
    """Whether there is a file of this content."""
    return path.is_file() and sha256_of(path) == sha256


def _check_disk(folder: Path, staging: Path, files: Sequence[RemoteFile]) -> None:
    """Raise FetchError if the disk can't hold what is still to be downloaded."""
    needed = sum(_missing(folder / f.name, staging / f.name, f) for f in files)
    disk = next(p for p in folder.absolute().parents if p.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise FetchError(
            f"{needed / 1e9:.3g} GB are to be downloaded to {folder}, and its disk has "
            f"only {free / 1e9:.3g} GB free."
        )


def _missing(path: Path, staged: Path, file: RemoteFile) -> int:
    """The bytes that are still to be downloaded of a file, as far as is known."""
    size = file.size or 0
    if staged.is_file():
        return size - staged.stat().st_size
    return 0 if _may_adopt(path, file) else size


def _download_all(
    files: Sequence[RemoteFile], folder: Path, staging: Path, title: str
) -> dict[str, str]:
    """Bring every file whole into ``staging``; their SHA-256 by name."""
    checksums = {}
    terminal = sys.stderr.isatty()
    with tqdm(
        total=sum(file.size or 0 for file in files),
        desc=title,
        unit="B",
        unit_scale=True,
        disable=not terminal,
    ) as bar:
        for number, file in enumerate(files, start=1):
            if not terminal:
                size = f" ({file.size / 1e6:.3g} MB)" if file.size else ""
                log.info("%s: %d/%d %s%s", title, number, len(files), file.name, size)
            _adopt(folder / file.name, staging / file.name, file)
            checksums[file.name] = download(file, staging / file.name, bar.update)
    return checksums


def _may_adopt(path: Path, file: RemoteFile) -> bool:
    """Whether a file that somebody put in place may be the right one, by its size."""
    known = file.sha256 or file.git_sha1
    return bool(known) and path.is_file() and path.stat().st_size == file.size


def _adopt(path: Path, staged: Path, file: RemoteFile) -> None:
    """Take a file that somebody put in place, if it can only be the right one."""
    if staged.exists() or not _may_adopt(path, file):
        return
    staged.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, staged)
    except OSError:
        shutil.copyfile(path, staged)
    try:
        verify(file, staged)
    except FetchError:
        log.info("%s is another file than is published; it is fetched again", path)
