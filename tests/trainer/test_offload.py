"""Trajectories in host memory: the same run, and nothing is computed on them there."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from tdpo_pipeline.algorithms import base, rwr
from tdpo_pipeline.diffusion import trajectory
from tdpo_pipeline.diffusion.devices import to_device
from tdpo_pipeline.rewards import scoring
from tdpo_pipeline.trainer.state import run_identity
from tests import tiny
from tests.conftest import slow_but
from tests.trainer.test_loop import METHODS

OPTIMIZER = {"optimizer": tiny.OPTIMIZER}
CASES = {
    "dpok": tiny.DPOK,
    "ddpo, recomputed": tiny.DDPO | {"old_log_prob": "recompute"},
    "tdpo, KL off the reward": tiny.TDPO
    | {"critic": tiny.TDPO["critic"] | {"state": "x0hat"}, "kl": {}},
    "tdpo_constrained": METHODS["tdpo_constrained"],
    "tdpo_replay": METHODS["tdpo_replay"],
    "draft": {"algorithm": "draft", "last_steps": 1, "extra_noisings": 1} | OPTIMIZER,
    "refl": {"algorithm": "refl"} | OPTIMIZER,
    "rwr": {"algorithm": "rwr", "rounds": 1, "batch_size": 4} | OPTIMIZER,
}


class InHostMemory(Tensor):
    """Stands for a tensor on the CPU of a machine that computes on its GPU."""

    MAY: frozenset[str] = frozenset(
        # Looked at, indexed, cut, checked to be finite, kept in a state.
        ["__get__", "__getitem__", "split", "dim", "isfinite", "all", "__bool__"]
        + ["view_as", "size", "detach", "clone", "__reduce_ex__", "is_floating_point"]
    )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse whatever a GPU would refuse."""
        assert func.__name__ in cls.MAY, f"{func.__name__} in host memory"
        return super().__torch_function__(func, types, args, kwargs)


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """What ``to_device`` gives of a tensor in host memory."""
    with torch._C.DisableTorchFunctionSubclass():
        return to_device(tensor.as_subclass(Tensor), device)


@pytest.mark.parametrize("case", slow_but(("tdpo_replay", "refl", "rwr"), CASES))
def test_offloaded_trajectories_change_nothing(
    train: Any, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    short = {"epochs": 2, "checkpoint_every": 1}
    plain = tiny.run_config(CASES[case], **short)
    offloaded = tiny.run_config(CASES[case], **short, offload_trajectories=True)
    expected = train(plain, "plain")

    sample = base.rollout

    def into_host_memory(*args: Any, **options: Any) -> trajectory.Trajectory:
        assert options["offload"]
        sampled = sample(*args, **options)
        for name in ("latents", "noise_preds", "images"):
            setattr(sampled, name, getattr(sampled, name).as_subclass(InHostMemory))
        return sampled

    monkeypatch.setattr(base, "rollout", into_host_memory)
    for module in (trajectory, scoring, rwr):
        monkeypatch.setattr(module, "to_device", brought)
    found = train(offloaded, "offloaded")

    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    assert tiny.saved_weights(found) == tiny.saved_weights(expected)
    assert len(set(tiny.saved_weights(found).values())) == 2


def test_where_trajectories_lie_is_no_part_of_an_identity(tmp_path: Any) -> None:
    plain, offloaded = (
        run_identity(tiny.run_config(**changes), ["cat"], tmp_path, tmp_path)
        for changes in ({}, {"offload_trajectories": True})
    )
    assert plain == offloaded
