from __future__ import annotations

import hashlib
from pathlib import Path

from tdpo_pipeline.fetching.manifest import entry_of, write_manifest
from tdpo_pipeline.rewards.model_files import HPS_V2, HPS_V2_1
from tdpo_pipeline.trainer.state import fingerprint, run_identity
from tests import tiny


def folder_of(path: Path, **files: str) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, b="two", a="one")
    digest = hashlib.sha256()
    for name, content in (("a", b"one"), ("b", b"two")):
        digest.update(name.encode() + hashlib.sha256(content).digest())
    assert fingerprint([folder]) == digest.hexdigest()


def test_a_fetched_file_is_not_read_while_it_is_as_it_was_fetched(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path / "fetched", a="one")
    true = hashlib.sha256(b"one").hexdigest()
    plain = fingerprint([folder])
    write_manifest(folder, {"a": entry_of(folder / "a", "url", true)})
    assert fingerprint([folder]) == plain, "the manifest itself doesn't count"
    write_manifest(folder, {"a": entry_of(folder / "a", "url", "0" * 64)})
    assert fingerprint([folder]) != plain, "the recorded checksum counts"
    (folder / "a").touch()
    assert fingerprint([folder]) == plain, "a file with another time is read"


def test_half_a_fetch_does_not_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "weights", a="one")
    plain = fingerprint([folder])
    folder_of(folder / ".org--model.partial", b="half")
    assert fingerprint([folder]) == plain


def test_a_run_is_known_by_the_weights_that_it_loads(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", x="x")
    weights = tmp_path / "weights"
    folder_of(HPS_V2.folder(weights), **{HPS_V2.files[0].name: "v2"})
    config = tiny.run_config(monitor=("hpsv2",))

    def of_weights() -> str:
        return run_identity(config, ["cat"], base, weights)["reward weights"]

    before = of_weights()
    folder_of(HPS_V2_1.folder(weights), **{HPS_V2_1.files[0].name: "v2.1"})
    assert of_weights() == before, "another reward was fetched beside it"
    folder_of(HPS_V2.folder(weights), **{HPS_V2.files[0].name: "changed"})
    assert of_weights() != before
    folder_of(HPS_V2.folder(weights), **{HPS_V2.files[0].name: "v2"})
    folder_of(weights, own="x")
    assert of_weights() != before, "what no registered reward owns counts"


def test_rewards_in_use() -> None:
    config = tiny.run_config(
        tiny.TDPO, critic_encoder="pick-mini", monitor=("hps-mini", "pick-mini")
    )
    assert config.rewards_in_use == ("tests.tiny:Redness", "pick-mini", "hps-mini")
