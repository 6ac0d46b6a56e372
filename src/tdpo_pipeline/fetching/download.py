"""One file from the network: what it should be, and its bytes.

``huggingface_hub`` throws a half-downloaded file away; here it is kept, and the next
attempt asks for the rest of it. Addresses, tokens, proxies and the offline switch are
the hub library's: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

HUB = "https://huggingface.co/"
ATTEMPTS = 5
WAIT_S = 1.0
"""Seconds before the second attempt; before each later one twice as long."""
TIMEOUT_S = 60.0
"""Seconds of silence after which a connection counts as broken."""

_BUSY = (429, 500, 502, 503, 504)
_CHUNK = 1 << 20
_SHA1_HEX, _SHA256_HEX = 40, 64


class FetchError(RuntimeError):
    """A file that can't be had, or isn't what it should be."""


class _BusyError(Exception):
    """The server answers that it can't just now."""


class RemoteFile(NamedTuple):
    """A file to fetch.

    Attributes:
        name: Its path in the folder that it goes to.
        url: Address, or path of a local copy.
        size: Bytes, where known.
        sha256: Of its content, where known beforehand.
        git_sha1: Git's blob checksum, where the hub says no other.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is only copied."""
        return "://" not in self.url


def describe(file: RemoteFile) -> RemoteFile:
    """Ask for a file's exact size and its checksum, without downloading it.

    Raises:
        FetchError: If there is no such repository, revision or file, it needs a
            token, or the network is off; or the hub has another checksum than expected.
    """
    if file.is_local:
        path = Path(file.url)
        if not path.is_file():
            raise FetchError(f"There is no file {path}, from which {file.name} is.")
        return file._replace(size=path.stat().st_size)
    with _told(file):
        if not file.url.startswith(HUB):
            length = _again_and_again(lambda: _content_length(file.url))
            return file._replace(size=file.size if length is None else length)
        found = _again_and_again(lambda: _hub_metadata(file.url))
    etag = found.etag or ""
    if len(etag) == _SHA1_HEX:
        return file._replace(size=found.size, git_sha1=etag)
    if len(etag) == _SHA256_HEX:
        if file.sha256 not in (None, etag):
            raise FetchError(
                f"The hub has another {file.name} than is expected: its SHA-256 is "
                f"{etag}, not {file.sha256} ({file.url}). Don't use it; report it."
            )
        return file._replace(size=found.size, sha256=etag)
    return file._replace(size=found.size)


def download(
    file: RemoteFile, path: Path, progress: Callable[[int], None] = lambda count: None
) -> str:
    """Bring a file's content to ``path``, going on where an earlier attempt stopped.

    Args:
        file: What to download, as :func:`describe` gives it.
        path: Where to; what is there is the beginning of it.
        progress: Called with the number of new bytes, again and again.

    Returns:
        SHA-256 of the whole, in hexadecimal.

    Raises:
        FetchError: If the connection breaks again and again, in which case what there
            is is kept; or the whole isn't what it should be, and is thrown away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    progress(path.stat().st_size)
    with _told(file):
        _again_and_again(lambda: _append(file, path, progress))
    return verify(file, path)


def verify(file: RemoteFile, path: Path) -> str:
    """SHA-256 of a downloaded file, in hexadecimal, if it is what it should be.

    Raises:
        FetchError: If it has another size or checksum; it is thrown away.
    """
    size = path.stat().st_size
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    git_sha1.update(f"blob {size}\0".encode())
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            sha256.update(chunk)
            git_sha1.update(chunk)
    found = {
        "size": size,
        "sha256": sha256.hexdigest(),
        "git_sha1": git_sha1.hexdigest(),
    }
    for name, value in found.items():
        expected = getattr(file, name)
        if expected not in (None, value):
            path.unlink()
            raise FetchError(
                f"What was downloaded of {file.url} is broken: its {name} is {value}, "
                f"not {expected}. It has been deleted; run the command again."
            )
    return sha256.hexdigest()


def _again_and_again(ask: Callable[[], T]) -> T:
    """What ``ask`` gives, in the first attempt in which the connection holds.

    Raises:
        Exception: That of the last of ``ATTEMPTS``.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return ask()
        except _connection_errors():
            time.sleep(WAIT_S * 2**attempt)
    return ask()


def _append(file: RemoteFile, path: Path, progress: Callable[[int], None]) -> None:
    """Add to ``path`` what is still missing of a file."""
    if file.is_local:
        path.write_bytes(Path(file.url).read_bytes())
        progress(path.stat().st_size)
        return
    have = path.stat().st_size
    if have == file.size:
        return
    if have and (file.size is None or have > file.size):
        # Too much; or, with no size to tell by, perhaps all there is.
        path.unlink()
        progress(-have)
        have = 0
    from huggingface_hub import get_session

    headers = _headers(file.url) | ({"Range": f"bytes={have}-"} if have else {})
    with get_session().stream(
        "GET",
        _address(file.url),
        headers=headers,
        follow_redirects=True,
        timeout=TIMEOUT_S,
    ) as response:
        _raise_for_status(response)
        goes_on = response.status_code == 206
        if have and not goes_on:
            progress(-have)
        with path.open("ab" if goes_on else "wb") as content:
            for chunk in response.iter_raw(_CHUNK):
                content.write(chunk)
                progress(len(chunk))


def _content_length(url: str) -> int | None:
    """Size in bytes of what is at an address that isn't the hub's, if it says so."""
    from huggingface_hub import get_session

    response = get_session().request(
        "HEAD",
        url,
        headers=_headers(url),
        follow_redirects=True,
        timeout=TIMEOUT_S,
    )
    _raise_for_status(response)
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _hub_metadata(url: str) -> Any:
    """What the hub says of a file: its size, and its checksum as ``etag``."""
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        return get_hf_file_metadata(_address(url), timeout=TIMEOUT_S)
    except errors.HfHubHTTPError as error:
        _raise_if_busy(error.response)
        raise


def _headers(url: str) -> dict[str, str]:
    """Headers of a request: a token for the hub alone, and no compression."""
    from huggingface_hub.utils import build_hf_headers

    named = build_hf_headers() if url.startswith(HUB) else {}
    return named | {"Accept-Encoding": "identity"}


def _address(url: str) -> str:
    """A hub address at the endpoint that the environment names."""
    from huggingface_hub import constants

    if not url.startswith(HUB):
        return url
    return f"{constants.ENDPOINT}/{url.removeprefix(HUB)}"


def _raise_for_status(response: Any) -> None:
    from huggingface_hub.utils import hf_raise_for_status

    _raise_if_busy(response)
    hf_raise_for_status(response)


def _raise_if_busy(response: Any) -> None:
    if response.status_code in _BUSY:
        raise _BusyError(f"{response.status_code} {response.reason_phrase}")


def _connection_errors() -> tuple[type[Exception], ...]:
    """What a broken connection or a busy server raises, and a next attempt may not."""
    from httpx2 import TransportError

    return (TransportError, _BusyError)


@contextmanager
def _told(file: RemoteFile) -> Iterator[None]:
    """Turn the network's errors into what is wrong and what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise FetchError(
            f"{file.name} must be downloaded from {file.url}, and HF_HUB_OFFLINE is "
            "set. Unset it to fetch; set it again afterwards."
        ) from error
    except errors.GatedRepoError as error:
        raise FetchError(
            f"{file.url} is given only to those who accepted its terms. Accept them on "
            "its page, then log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(
            f"{file.url} names a revision that its repository doesn't have. Mend it in "
            "the configuration."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            f"There is no repository of {file.url}, or only for those it is shared "
            "with. Mend its id in the configuration, or log in with: hf auth login"
        ) from error
    except errors.HfHubHTTPError as error:
        raise FetchError(
            f"{file.url} can't be downloaded: {error.response.status_code} "
            f"{error.response.reason_phrase}."
        ) from error
    except _connection_errors() as error:
        raise FetchError(
            f"The connection to {file.url} failed ({type(error).__name__}: {error}). "
            "Run the command again when there is a network: what has been downloaded "
            "is kept."
        ) from error
