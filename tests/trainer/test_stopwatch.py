"""Seconds of the parts of an epoch, on a CPU and on a pretended GPU."""

import pytest
import torch

from tdpo_pipeline.trainer import stopwatch


class Clock:
    """Time that passes when it is told to; a GPU's work passes when it is waited for."""

    def __init__(self):
        self.now = self.queued = 0.0

    def wait(self):
        self.now, self.queued = self.now + self.queued, 0.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch.cuda, "synchronize", clock.wait)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    return clock


def test_a_part_is_charged_with_the_work_that_it_has_given_a_gpu(clock):
    watch = stopwatch.Stopwatch()
    clock.queued = 5.0  # of nobody's
    with watch.measure("total"):
        with watch.measure("sampling"):
            clock.now += 1.0
            clock.queued = 3.0
        with watch.measure("update"):
            clock.now += 2.0
            clock.queued = 4.0
    # 1 + 3 and 2 + 4; what was queued before them counts for neither.
    assert watch.take() == {"sampling": 4.0, "update": 6.0, "total": 10.0}


def test_seconds_add_up_until_they_are_taken(clock):
    watch = stopwatch.Stopwatch()
    for seconds in (1.0, 2.0):
        with watch.measure("scoring"):
            clock.now += seconds
    with pytest.raises(KeyError), watch.measure("kl"):
        clock.now += 4.0
        raise KeyError
    assert watch.take() == {"scoring": 3.0, "kl": 4.0}
    assert watch.take() == {}


def test_a_process_without_a_gpu_waits_for_none(clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    clock.queued = 5.0
    watch = stopwatch.Stopwatch()
    with watch.measure("sampling"):
        clock.now += 1.0
    assert watch.take() == {"sampling": 1.0}
