"""Several processes that act as one.

Every process runs the same program on the same data and takes the same decisions. Only
what is expensive is dealt out: a computation is cut into parts whose size doesn't depend
on the number of processes, each part is computed whole by one of them, and the results
are sent to all. So a sample is bit for bit the same however many processes there are, and
a gradient differs by the order of its sum alone.

With one process nothing is sent, and nothing happens but the plain computation. All
functions but :func:`rank`, :func:`world_size`, :func:`is_main` and :func:`deal` have to
be called by all processes, in the same order.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another that is alive; one that died ends all at once."""

BUCKET = 2**24
"""Elements of gradients that are sent together."""


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and reports progress."""
    return rank() == 0


@contextlib.contextmanager
def joined(*, cpu: bool) -> Iterator[None]:
    """Within this context the processes of one launch are joined, each to its device.

    After an error they are not taken apart in order, which may wait for peers that wait
    for this process: it has to end, and the launcher ends the others.

    Args:
        cpu: Whether to compute on CPUs.
    """
    from accelerate import PartialState

    PartialState(cpu=cpu, timeout=PATIENCE)
    yield
    dist.destroy_process_group()


def deal(parts: Sequence[T]) -> Sequence[T]:
    """This process' own of the parts, which are dealt in turn."""
    return parts[rank() :: world_size()]


def compute_parts(
    compute: Callable[[T], tuple[Tensor, ...]], parts: Sequence[T]
) -> list[tuple[Tensor, ...]]:
    """``compute`` of every part, each computed by one process and known to all.

    Args:
        compute: Gives tensors without gradient, on the device of the computation or on
            the CPU; they arrive where they were. Where it raises, all processes raise
            the same.
        parts: What to compute; their number may be any.
    """
    if world_size() == 1:
        return [compute(part) for part in parts]
    numbers = range(rank(), len(parts), world_size())
    own = all_or_none(lambda: {n: compute(parts[n]) for n in numbers})
    forms: dict[int, list[Form]] = {}
    for found in _gathered({n: _forms(tensors) for n, tensors in own.items()}):
        forms |= found
    return [
        tuple(
            _sent(n % world_size(), own[n][i] if n in own else None, *like)
            for i, like in enumerate(forms[n])
        )
        for n in range(len(parts))
    ]


def all_or_none(function: Callable[[], T]) -> T:
    """What ``function`` returns; if it raises in a process, all raise the same.

    If it raises in several, that is the error of the first of them.
    """
    if world_size() == 1:
        return function()
    result: T | None = None
    error: Exception | None = None
    try:
        result = function()
    except Exception as raised:
        error = raised
    for process, found in enumerate(_gathered(_portable(error))):
        if found is not None:
            raise error if error is not None and process == rank() else found
    return result  # type: ignore[return-value]


def main_first(first: Callable[[], T], then: Callable[[], T]) -> T:
    """``first`` in the main process, and when it is done ``then`` in the others.

    Where ``first`` raises, all processes raise the same.
    """
    if is_main():
        return all_or_none(first)
    all_or_none(lambda: None)
    return then()


def collect(values: Sequence[T]) -> list[T]:
    """The values of all processes, one process after the other."""
    if world_size() == 1:
        return list(values)
    return [value for part in _gathered(list(values)) for value in part]


def sum_over(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes, which each have it in the same shape."""
    if world_size() == 1:
        return value
    total = value.detach().clone().to(_device())
    dist.all_reduce(total)
    return total.to(value.device)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients over the processes; one without a gradient adds nothing."""
    if world_size() == 1:
        return
    have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    present = [
        p
        for p, any_has in zip(parameters, sum_over(have).tolist(), strict=True)
        if any_has
    ]
    for bucket in _buckets(present):
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                for p in bucket
            ]
        )
        dist.all_reduce(flat)
        for p, part in zip(
            bucket, flat.split([p.numel() for p in bucket]), strict=True
        ):
            p.grad = part.view_as(p).clone()


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average gradients that every process has computed on the same data.

    They are equal but for what a device rounds differently from run to run; after this
    they are equal without exception, so that the processes' weights never drift apart.
    """
    if world_size() == 1:
        return
    sum_gradients(parameters)
    for p in parameters:
        if p.grad is not None:
            p.grad /= world_size()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in groups of at most ``BUCKET`` elements, or of one."""
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(q.numel() for q in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def _device() -> torch.device:
    """Where tensors have to be, to be sent."""
    nccl = dist.get_backend() == "nccl"
    return (
        torch.device("cuda", torch.cuda.current_device())
        if nccl
        else torch.device("cpu")
    )


Form = tuple[torch.Size, torch.dtype, str]
"""Shape, number format and kind of device of a tensor."""


def _forms(tensors: Sequence[Tensor]) -> list[Form]:
    return [(tensor.shape, tensor.dtype, tensor.device.type) for tensor in tensors]


def _sent(
    owner: int,
    tensor: Tensor | None,
    shape: torch.Size,
    dtype: torch.dtype,
    device: str,
) -> Tensor:
    """The owner's tensor, in every process."""
    if tensor is None:
        sent = torch.empty(shape, dtype=dtype, device=_device())
    else:
        sent = tensor.detach().to(_device()).contiguous()
    dist.broadcast(sent, src=owner)
    return sent.to(device)


def _gathered(value: T) -> list[T]:
    """Every process' value, in the order of the processes."""
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def _portable(error: Exception | None) -> Exception | None:
    """The error itself, or its words if it can't be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
