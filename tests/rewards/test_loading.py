import gc
import pickle
import re
import weakref

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tdpo_pipeline.rewards.loading import (
    WeightsError,
    load_strict,
    read_tensors,
    shared,
)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_tensors_come_from_safetensors_and_from_pickles(tmp_path):
    tensors = {"weight": torch.arange(3.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pt")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "b.pt")
    for found in (
        read_tensors(tmp_path / "a.safetensors"),
        read_tensors(tmp_path / "a.pt"),
        read_tensors(tmp_path / "b.pt", "state_dict"),
    ):
        assert torch.equal(found["weight"], tensors["weight"])


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"weight": torch.zeros(1), "x": Trap(trap)}, tmp_path / "trap.pt")
    with pytest.raises(WeightsError, match="trap.pt is a pickle that holds more than"):
        read_tensors(tmp_path / "trap.pt")
    assert not trap.exists()
    # The trap works where it isn't refused.
    pickle.loads(pickle.dumps(Trap(trap))).close()
    assert trap.exists()


@pytest.mark.parametrize(
    ("content", "entry", "message"),
    [
        ({"weight": torch.zeros(1), "epoch": 3}, None, "'epoch' is of type int"),
        ([torch.zeros(1)], None, "it is of type list"),
        ({"weight": torch.zeros(1)}, "state_dict", "has no entry 'state_dict'"),
    ],
)
def test_anything_but_tensors_is_refused(tmp_path, content, entry, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path / "w.pt", entry)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_truncated_file_is_named(tmp_path, name):
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save({"weight": torch.zeros(100)}, path)
    else:
        save_file({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        read_tensors(path)


def test_a_state_dict_fits_or_is_refused_by_name():
    whole = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    with pytest.raises(WeightsError, match="head.pt.*lacks 'bias'"):
        load_strict(nn.Linear(3, 2), {"weight": whole["weight"]}, "head.pt")
    with pytest.raises(WeightsError, match="has the unknown 'extra'"):
        load_strict(nn.Linear(3, 2), whole | {"extra": whole["bias"]}, "head.pt")
    with pytest.raises(WeightsError, match="lacks 'bias' and 1 more"):
        load_strict(nn.Linear(3, 2), {}, "head.pt")
    with pytest.raises(
        WeightsError, match=re.escape("'weight' has shape (2, 3) and not (2, 4)")
    ):
        load_strict(nn.Linear(4, 2), whole, "head.pt")


def test_a_filled_network_is_frozen_and_in_float32():
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    tensors = {"0.weight": torch.ones(2, 3).half(), "0.bias": torch.zeros(2).half()}
    network = load_strict(empty, tensors, "head.pt")
    out = network(torch.ones(1, 3))
    assert out.tolist() == [[3.0, 3.0]]
    assert out.dtype == torch.float32
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


built = []


def build(weights):
    """A network that somebody may share."""
    built.append(weights)
    return nn.Linear(2, 2)


def test_a_network_is_built_once_while_anybody_holds_it(tmp_path):
    built.clear()
    first = shared(build, tmp_path)
    assert shared(build, tmp_path / ".." / tmp_path.name) is first
    assert shared(build, tmp_path / "other") is not first
    assert len(built) == 2
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    shared(build, tmp_path)
    assert len(built) == 3
