"""A hub on this machine: files of repositories, with what a test wants to go wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
LARGE = 1000
"""Files from this size on are stored as large files, known by their SHA-256."""


class FakeHub:
    """What the server has, and what has been asked of it.

    Attributes:
        files: Content by ``repo/resolve/revision/name``.
        break_after: Bytes after which the next responses break off, one each.
        busy: How many of the next requests of a method are answered with 503.
        ranges: The ``Range`` header of every GET of a file, or None.
        lie_about: A file whose checksum the hub states wrongly.
        endpoint: Its address.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: list[int] = []
        self.busy = {"GET": 0, "HEAD": 0}
        self.ranges: list[str | None] = []
        self.lie_about: str | None = None
        self.endpoint = ""

    def add(self, repo: str, name: str, content: bytes) -> None:
        """Publish a file."""
        self.files[f"{repo}/resolve/{COMMIT}/{name}"] = content

    def etag(self, path: str) -> str:
        """The checksum that the hub states of a file."""
        content = self.files[path]
        if self.lie_about is not None and path.endswith(self.lie_about):
            content = content + b"!"
        if len(content) >= LARGE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if not self._busy():
            self._head()

    def do_GET(self) -> None:
        if self._busy():
            return
        content = self._head()
        if content is None:
            return
        self.hub.ranges.append(self.headers.get("Range"))
        if self.hub.break_after:
            content = content[: self.hub.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(content)

    def _busy(self) -> bool:
        if not self.hub.busy[self.command]:
            return False
        self.hub.busy[self.command] -= 1
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def _head(self) -> bytes | None:
        path = self.path.lstrip("/")
        if path not in self.hub.files:
            self.send_response(404)
            repo = path.partition("/resolve/")[0]
            known = any(p.startswith(f"{repo}/resolve/") for p in self.hub.files)
            error = "EntryNotFound" if known else "RepoNotFound"
            if known and f"/{COMMIT}/" not in path:
                error = "RevisionNotFound"
            self.send_header("X-Error-Code", error)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        content, start = self.hub.files[path], 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{self.hub.etag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        return content[start:]


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that answers at ``endpoint`` while the context lasts."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
