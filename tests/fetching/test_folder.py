from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tdpo_pipeline.fetching import download as downloading
from tdpo_pipeline.fetching import folder as fetching
from tdpo_pipeline.fetching.download import FetchError, RemoteFile
from tdpo_pipeline.fetching.folder import fetch_folder
from tdpo_pipeline.fetching.manifest import known_checksums, read_manifest, sha256_of
from tests.fetching.fake_hub import COMMIT, FakeHub, running_hub

BIG = bytes(range(256)) * 40_000  # 10 MB
SMALL = b'{"a": 1}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(downloading, "WAIT_S", 0.0)
        server.add("org/model", "model_index.json", SMALL)
        server.add("org/model", "unet/weights.safetensors", BIG)
        yield server


def remote(name: str, repo: str = "org/model", **facts: str) -> RemoteFile:
    url = f"https://huggingface.co/{repo}/resolve/{COMMIT}/{name}"
    return RemoteFile(name, url, **facts)  # type: ignore[arg-type]


FILES = [remote("model_index.json"), remote("unet/weights.safetensors")]


def test_a_folder_is_fetched_and_recorded(hub: FakeHub, tmp_path: Path) -> None:
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert (tmp_path / "base" / "model_index.json").read_bytes() == SMALL
    assert (tmp_path / "base" / "unet" / "weights.safetensors").read_bytes() == BIG
    entries = read_manifest(tmp_path / "base")
    weights = tmp_path / "base" / "unet" / "weights.safetensors"
    assert entries["unet/weights.safetensors"].sha256 == sha256_of(weights)
    assert entries["unet/weights.safetensors"].size == len(BIG)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".base.lock", "base"], "but for the lock, nothing is left beside it"


def test_a_second_fetch_asks_for_nothing(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_folder(tmp_path / "base", FILES, "base model")
    hub.files.clear()
    monkeypatch.setattr(fetching, "describe", None)
    fetch_folder(tmp_path / "base", FILES, "base model")


def test_two_fetches_at_once_download_once(
    hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "fetched"
    fetches = [Thread(target=fetch_folder, args=(folder, FILES, "m")) for _ in range(2)]
    with fetching._alone(folder, "m"):
        for fetch in fetches:
            fetch.start()
        deadline = time.monotonic() + 30
        while caplog.text.count("waiting for another process") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not folder.exists()
    for fetch in fetches:
        fetch.join(timeout=60)
    assert (folder / "unet/weights.safetensors").read_bytes() == BIG
    assert len(hub.ranges) == 2  # of each file one
    assert caplog.text.count("all 2 files are in") == 1


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.break_after = [3_000_000, 2_000_000]
    fetch_folder(tmp_path / "base", FILES[1:], "base model")
    assert (tmp_path / "base" / "unet" / "weights.safetensors").read_bytes() == BIG
    starts = [int(r.removeprefix("bytes=")[:-1]) for r in hub.ranges if r]
    assert len(starts) == 2
    assert 0 < starts[0] <= 3_000_000
    assert starts[0] < starts[1] <= 5_000_000


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_busy_server_is_asked_again(
    hub: FakeHub, tmp_path: Path, method: str
) -> None:
    hub.busy[method] = downloading.ATTEMPTS - 1
    fetch_folder(tmp_path / "base", FILES, "base model")
    hub.busy[method] = downloading.ATTEMPTS
    with pytest.raises(FetchError, match="503 Service Unavailable.*is kept"):
        fetch_folder(tmp_path / "other", FILES, "base model")
    assert hub.busy[method] == 0


def test_a_file_that_is_not_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    """Its size is asked for, and asked for again; nobody states a checksum."""
    url = f"{hub.endpoint}/org/model/resolve/{COMMIT}/model_index.json"
    hub.busy["HEAD"] = 2
    assert downloading.describe(RemoteFile("x", url)).size == len(SMALL)
    hub.busy["HEAD"] = downloading.ATTEMPTS
    with pytest.raises(FetchError, match="503 Service Unavailable"):
        downloading.describe(RemoteFile("x", url))


def test_a_killed_fetch_goes_on_in_the_next_one(hub: FakeHub, tmp_path: Path) -> None:
    hub.break_after = [2_000_000] + [0] * (downloading.ATTEMPTS - 1)
    with pytest.raises(FetchError, match="what has been downloaded is kept"):
        fetch_folder(tmp_path / "base", FILES[1:], "base model")
    assert not (tmp_path / "base").exists(), "half a file is not in place"
    hub.ranges.clear()
    fetch_folder(tmp_path / "base", FILES[1:], "base model")
    assert hub.ranges[0] is not None
    assert (tmp_path / "base" / "unet" / "weights.safetensors").read_bytes() == BIG


def test_a_file_of_unknown_size_begins_again(hub: FakeHub, tmp_path: Path) -> None:
    """What is there may be all of it, and nothing comes after its end."""
    (tmp_path / "weights").write_bytes(BIG)
    counts: list[int] = []
    downloading.download(FILES[1], tmp_path / "weights", counts.append)
    assert hub.ranges == [None]
    assert (tmp_path / "weights").read_bytes() == BIG
    assert sum(counts) == len(BIG)


@pytest.mark.parametrize("name", ["model_index.json", "unet/weights.safetensors"])
def test_a_file_with_another_checksum_is_thrown_away(
    hub: FakeHub, tmp_path: Path, name: str
) -> None:
    hub.lie_about = name
    with pytest.raises(FetchError, match="is broken: its (sha256|git_sha1) is"):
        fetch_folder(tmp_path / "base", FILES, "base model")
    assert not (tmp_path / "base").exists()
    hub.lie_about = None
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert len(read_manifest(tmp_path / "base")) == 2


def test_the_hub_has_another_file_than_expected(hub: FakeHub, tmp_path: Path) -> None:
    expected = remote("unet/weights.safetensors", sha256="0" * 64)
    with pytest.raises(FetchError, match="The hub has another unet/weights"):
        fetch_folder(tmp_path / "base", [expected], "base model")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (remote("config.json", "org/modle"), "There is no repository of .*org/modle"),
        (remote("missing.bin"), "missing.bin can't be downloaded: 404"),
        (
            RemoteFile("x", "https://huggingface.co/org/model/resolve/main2/x"),
            "names a revision",
        ),
    ],
)
def test_what_the_hub_does_not_have(
    hub: FakeHub, tmp_path: Path, file: RemoteFile, message: str
) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_folder(tmp_path / "base", [*FILES, file], "base model")
    assert not (tmp_path / "base").exists()
    assert hub.ranges == [], "nothing is downloaded before all is known to be there"


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="Run the command again when there is a net"):
        fetch_folder(tmp_path / "base", FILES, "base model")


def test_the_hub_switched_off(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session, constants

    fetch_folder(tmp_path / "base", FILES, "base model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    fetch_folder(tmp_path / "base", FILES, "base model")
    with pytest.raises(FetchError, match="model_index.json must be.*HF_HUB_OFFLINE"):
        fetch_folder(tmp_path / "other", FILES, "base model")
    monkeypatch.undo()
    close_session()


def test_a_deleted_file_is_fetched_again_alone(hub: FakeHub, tmp_path: Path) -> None:
    fetch_folder(tmp_path / "base", FILES, "base model")
    (tmp_path / "base" / "model_index.json").unlink()
    hub.ranges.clear()
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert len(hub.ranges) == 1
    assert len(read_manifest(tmp_path / "base")) == 2


def test_a_copied_folder_is_read_and_kept(hub: FakeHub, tmp_path: Path) -> None:
    fetch_folder(tmp_path / "base", FILES, "base model")
    weights = tmp_path / "base" / "unet" / "weights.safetensors"
    weights.touch()
    assert weights not in known_checksums(tmp_path / "base")
    hub.files.clear()
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert weights in known_checksums(tmp_path / "base")


def test_a_file_that_was_put_there_by_hand(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "base" / "unet").mkdir(parents=True)
    (tmp_path / "base" / "unet" / "weights.safetensors").write_bytes(BIG)
    (tmp_path / "base" / "model_index.json").write_bytes(SMALL.replace(b"1", b"2"))
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert len(hub.ranges) == 1, "the right one is kept, the other fetched"
    assert (tmp_path / "base" / "model_index.json").read_bytes() == SMALL


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text("Prompt\n")
    file = RemoteFile("PartiPrompts.tsv", str(tmp_path / "mine.tsv"))
    fetch_folder(tmp_path / "prompts", [file], "prompts")
    assert (tmp_path / "prompts" / "PartiPrompts.tsv").read_text() == "Prompt\n"
    (tmp_path / "mine.tsv").write_text("Prompt\na cat\n")
    fetch_folder(tmp_path / "prompts", [file], "prompts")
    copied = (tmp_path / "prompts" / "PartiPrompts.tsv").read_text()
    assert copied == "Prompt\na cat\n", "a file that has changed is copied again"
    with pytest.raises(FetchError, match="There is no file .*none.tsv"):
        fetch_folder(
            tmp_path / "prompts", [RemoteFile("x", str(tmp_path / "none.tsv"))], "x"
        )


def test_too_small_a_disk(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = fetching.shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match="0.0102 GB are to be downloaded.*0.001 GB fr"):
        fetch_folder(tmp_path / "base", FILES, "base model")


def test_a_disk_that_fills_up_meanwhile(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading, "_append", full)
    with pytest.raises(FetchError, match="can't be fetched.*No space left.*is kept"):
        fetch_folder(tmp_path / "m", FILES, "m")


def test_a_folder_that_cannot_be_written(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FetchError, match="can't be fetched into .*permissions"):
        fetch_folder(tmp_path / "file" / "m", FILES, "m")


def test_a_whole_folder_needs_no_lock(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_folder(tmp_path / "m", FILES, "m")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(fetching.FileLock, "acquire", refused)
    fetch_folder(tmp_path / "m", FILES, "m")


def test_what_is_there_needs_no_room(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file that somebody put in place, nor what an earlier attempt has brought."""
    usage = fetching.shutil.disk_usage(tmp_path)._replace(free=len(SMALL))
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    path = tmp_path / "base" / "unet" / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(BIG)
    staged = tmp_path / ".base.partial" / "unet" / "weights.safetensors"
    staged.parent.mkdir(parents=True)
    staged.hardlink_to(path)  # taken over already, and not to be counted twice
    fetch_folder(tmp_path / "base", FILES, "base model")
    assert (tmp_path / "base" / "model_index.json").read_bytes() == SMALL


def test_an_unreadable_manifest(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "fetched.json").write_text(json.dumps(["x"]))
    with pytest.raises(FetchError, match="fetched.json is no record"):
        fetch_folder(tmp_path, FILES, "base model")
