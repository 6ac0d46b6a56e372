"""One and two processes give the same; two are started once for all of these tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tdpo_pipeline import distributed
from tdpo_pipeline.trainer.loop import LORA_THRESHOLDS, train_run
from tests import tiny
from tests.conftest import ROOT, slow_but
from tests.distributed_program import WRITERS, recorded

BACKPROP = {"optimizer": tiny.OPTIMIZER}
METHODS: dict[str, dict[str, Any]] = {
    "ddpo": tiny.DDPO,
    "ddpo, recomputed": tiny.DDPO
    | {"loop": "sample_major", "group_size": 2, "old_log_prob": "recompute"},
    "tdpo": tiny.TDPO,
    "tdpo, KL in the loss": tiny.TDPO | {"kl": {"applied_to": "loss"}},
    "tdpo_constrained": tiny.TDPO
    | {
        "algorithm": "tdpo_constrained",
        "constraints": {"tests.tiny:Brightness": {"slack": 0.0}},
    },
    "tdpo_replay": tiny.TDPO
    | {
        "algorithm": "tdpo_replay",
        "policy_neurons": {"reset": "active", "reset_fraction": 1.0},
        "buffer_samples": 4,
    },
    "dpok": tiny.DPOK,
    "rwr": {
        "algorithm": "rwr",
        "rounds": 1,
        "passes": 2,
        "batch_size": 8,
        "weighting": "sparse",
        "percentile": 0.5,
    }
    | BACKPROP,
    "alignprop": {"algorithm": "alignprop", "truncation": {"kind": "per_step"}}
    | BACKPROP,
    "draft": {"algorithm": "draft", "extra_noisings": 2} | BACKPROP,
    "refl": {"algorithm": "refl"} | BACKPROP,
}


EPOCHS = {
    method: 2 if method in ("tdpo", "tdpo_replay", "dpok") else 1 for method in METHODS
}
"""A second epoch where critic, value function, resets or a buffer tell only then."""


def config(method: str) -> Any:
    return tiny.run_config(
        METHODS[method],
        epochs=EPOCHS[method],
        checkpoint_every=1,
        micro_batch_size=2,
        threads=1,
        processes=2,
    )


# Each has calls between processes of its own; "ddpo" is also the one that diverges.
QUICK = ("ddpo", "tdpo_replay", "rwr", "alignprop")
CASES = slow_but(QUICK, METHODS)


@pytest.fixture(scope="module")
def two(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of what two processes gave, of the methods that are tested."""
    folder = tmp_path_factory.mktemp("two")
    tiny.pipeline().save_pretrained(folder / "base_model")
    tested = {
        item.callspec.params.get("method")
        for item in request.session.items
        if getattr(item, "module", None) is request.module and hasattr(item, "callspec")
    }
    for method in METHODS:
        if method in tested or method == "ddpo":
            (folder / f"{method}.job.json").write_text(config(method).model_dump_json())
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "tests.distributed_program", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("rank", [0, 1])
def test_primitives(two: Path, rank: int) -> None:
    found = json.loads((two / f"primitives_{rank}.json").read_text())
    assert (found["rank"], found["size"], found["main"]) == (rank, 2, rank == 0)
    assert found["dealt"] == [[10, 12], [11]][rank]
    assert found["computed"] == [[0, 2], [1]][rank]
    assert found["parts"] == [[[0.0], 0], [[0.5, 0.5], 1], [[1.0, 1.0, 1.0], 2]]
    assert found["collected"] == [0, "x", 1, "x"]
    assert found["total"] == [2.0, 1.0]
    # 1 x + 2 x; what one process has alone; what none has.
    assert found["summed"] == [[3.0, 6.0], [5.0, 6.0], None]
    # Now both have the sums, whose mean they are.
    assert found["averaged"] == [[3.0, 6.0], [5.0, 6.0], None]
    assert found["first"] == ["first 0", "then 1"][rank]
    assert found["raised"] == "'of part 1'"


def test_one_process_alone() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_main()
    assert distributed.deal([1, 2, 3]) == [1, 2, 3]
    assert distributed.collect([1, 2]) == [1, 2]
    assert distributed.main_first(lambda: "first", lambda: "then") == "first"
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    distributed.sum_gradients([weight])
    distributed.average_gradients([weight])
    assert weight.grad.tolist() == [1, 1]
    (result,) = distributed.compute_parts(lambda part: (part,), [weight])
    assert result[0] is weight


@pytest.mark.parametrize("method", CASES)
def test_only_the_main_process_writes(two: Path, method: str) -> None:
    written = [
        json.loads((two / f"{method}.{rank}.writes.json").read_text())
        for rank in (0, 1)
    ]
    # Each epoch's checkpoint is kept; the tables are written again at the end.
    opened, *epoch, finished = WRITERS
    expected = [opened, *epoch * EPOCHS[method], "save_tables", finished]
    assert written == [expected, []]


def test_a_process_that_diverges_stops_the_run_in_order(two: Path) -> None:
    told = [(two / f"diverging_{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert "log-probs are not finite" in told[0]
    assert "after epoch 1 and the history are kept" in told[0]
    # The launcher ends all processes as soon as one has ended with an error.
    assert told[0].endswith("Saved: True")
    kept = two / "diverging" / "checkpoints"
    assert [folder.name for folder in kept.iterdir()] == ["epoch_0001"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights that a run ends with: the policy's, and those of what learns beside it."""
    newest = max((folder / "states").glob("epoch_*.pt"))
    return flat(torch.load(newest, weights_only=False))


def flat(state: Any, name: str = "") -> dict[str, torch.Tensor]:
    """The float tensors of a nested state, by their place in it."""
    if isinstance(state, torch.Tensor):
        return {name: state} if state.is_floating_point() else {}
    items: Any = []
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    found: dict[str, torch.Tensor] = {}
    for key, value in items:
        found |= flat(value, f"{name}.{key}")
    return found


@pytest.mark.parametrize("method", CASES)
def test_two_processes_train_as_one_does(
    two: Path, tmp_path: Path, method: str
) -> None:
    found: dict[str, torch.Tensor] = {}
    with recorded(found):
        one = train_run(
            config(method),
            prompts=tiny.PROMPTS,
            base_model=two / "base_model",
            weights=tmp_path / "no_weights",
            state_dir=tmp_path / "one",
        )
    for rank in (0, 1):
        other = load_file(two / f"{method}.{rank}.safetensors")
        # Samples are the same bit for bit, and gradients but for the order of their sum.
        assert torch.equal(other["latents"], found["latents"])
        assert torch.equal(other["images"], found["images"])
        distance = (other["gradient"] - found["gradient"]).norm()
        assert 0 <= distance <= 1e-5 * found["gradient"].norm()
    assert found["gradient"].norm() > 0
    history = pd.read_csv(two / "two" / method / "history.csv")
    alone, together = one.history.iloc[0], history.iloc[0]
    for column in ("redness_mean", "redness_std"):
        assert alone[column] == together[column]
    for column in LORA_THRESHOLDS:
        assert alone[column] == pytest.approx(together[column])
    assert alone["kl_to_base"] == pytest.approx(together["kl_to_base"], abs=1e-9)
    norm, spread = alone["policy_grad_norm"], alone["policy_grad_spread"]
    assert norm > 0
    assert together["policy_grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert together["policy_grad_spread"] == pytest.approx(spread, rel=1e-4)
    expected, trained = weights(tmp_path / "one"), weights(two / "two" / method)
    assert expected.keys() == trained.keys()
    assert len(expected) > 4
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-5, msg=name)
