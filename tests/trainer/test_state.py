from __future__ import annotations

import hashlib
import re
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import pytest
import torch

from tdpo_pipeline.diffusion.policy import CheckpointError
from tdpo_pipeline.fetching.manifest import entry_of, write_manifest
from tdpo_pipeline.rewards.model_files import HPS_V2, HPS_V2_1
from tdpo_pipeline.trainer.state import check_plain, fingerprint, run_identity
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


@pytest.mark.parametrize(
    ("state", "where"),
    [
        (
            {"algorithm": {"mean": np.float64(1)}},
            r"state['algorithm']['mean'] is a numpy",
        ),
        ({"seen": [1, deque()]}, "state['seen'][1] is a collections.deque"),
        ({"counts": defaultdict(int)}, "state['counts'] is a collections.defaultdict"),
        ({"folder": (Path("x"),)}, "state['folder'][0] is a pathlib"),
    ],
)
def test_what_could_not_be_read_back_is_not_saved(state: object, where: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(where)):
        check_plain(state)


@pytest.mark.parametrize("state", [None, [1.0], torch.zeros(2)])
def test_a_state_is_a_dict(state: object) -> None:
    with pytest.raises(CheckpointError, match="state_dict gives a .* a dict"):
        check_plain(state)


def test_what_is_saved_can_be_read_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {
        "generator": torch.get_rng_state(),
        "rest": [None, True, ("a", b"b", 1.5)],
    }
    check_plain(state)
    torch.save(state, tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=True)


def test_a_constraint_is_not_held_out() -> None:
    constrained = tiny.TDPO | {
        "algorithm": "tdpo_constrained",
        "constraints": {"pick-mini": {}},
    }
    watched = {"rule": "onset", "held_out": ["pick-mini", "hps-mini"]}
    config = tiny.run_config(
        constrained, epochs=8, monitor=("pick-mini", "hps-mini"), early_stop=watched
    )
    assert config.held_out_rewards == ("hps-mini",)


def test_rewards_in_use() -> None:
    config = tiny.run_config(
        tiny.TDPO, critic_encoder="pick-mini", monitor=("hps-mini", "pick-mini")
    )
    assert config.rewards_in_use == ("tests.tiny:Redness", "pick-mini", "hps-mini")
