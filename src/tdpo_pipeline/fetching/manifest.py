"""What has been fetched into a folder: each file's size, checksum and origin.

``fetched.json`` lies in the folder that it describes. While a file has the size and the
time of its entry, its checksum is taken from there; several gigabytes need not be read
again to know that they are the same.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tdpo_pipeline.fetching.download import FetchError

MANIFEST = "fetched.json"


class Entry(NamedTuple):
    """What is recorded of a fetched file.

    Attributes:
        url: Where it came from; it names the revision.
        size: Bytes.
        sha256: Of its content, in hexadecimal.
        mtime_ns: When it was last written, in ns, as the file system has it.
    """

    url: str
    size: int
    sha256: str
    mtime_ns: int

    def describes(self, path: Path) -> bool:
        """Whether the file still has the size and the time of this entry."""
        if not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The entries of a folder by the names of its files; none without a manifest.

    Raises:
        FetchError: If the manifest can't be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: Entry(**entry) for name, entry in entries.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FetchError(
            f"{path} is no record of fetched files ({error}). Delete it, and fetch "
            "again: what is whole is kept."
        ) from error


def write_manifest(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Record the entries of a folder, in the order of their names."""
    path = folder / MANIFEST
    values = {name: entries[name]._asdict() for name in sorted(entries)}
    partial = path.with_name(f"{MANIFEST}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def entry_of(path: Path, url: str, sha256: str) -> Entry:
    """The entry of a file that has just been put in place."""
    found = path.stat()
    return Entry(url, found.st_size, sha256, found.st_mtime_ns)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_checksums(folder: Path) -> dict[Path, str]:
    """Checksums of the files under a folder that need not be read for it.

    The manifests of the folder and of all folders in it are asked; a file that has
    changed since is left out.
    """
    return {
        manifest.parent / name: entry.sha256
        for manifest in folder.rglob(MANIFEST)
        for name, entry in read_manifest(manifest.parent).items()
        if entry.describes(manifest.parent / name)
    }
