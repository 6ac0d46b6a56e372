"""Published weights into frozen networks: strictly, offline, and each only once.

A file is read as tensors and nothing else: safetensors, or a pickle that torch's
restricted reader accepts. A state dict fits its network exactly, or is refused with the
names that don't fit.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class WeightsError(ValueError):
    """A file of weights that can't be read, is not just tensors, or doesn't fit."""


def read_tensors(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU, by their names.

    Args:
        path: A ``.safetensors`` file, or a pickle of ``torch.save``.
        entry: Key of a pickle's dictionary under which the tensors are.

    Raises:
        WeightsError: If the file is damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(
                f"{path} is damaged ({error}). Fetch it again."
            ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _not_just_tensors(path, str(error).splitlines()[0]) from error
    except (RuntimeError, EOFError) as error:
        raise WeightsError(f"{path} is damaged ({error}). Fetch it again.") from error
    if entry is not None:
        if not isinstance(found, Mapping) or entry not in found:
            raise WeightsError(f"{path} has no entry '{entry}'.")
        found = found[entry]
    if not isinstance(found, Mapping):
        raise _not_just_tensors(path, f"it is of type {type(found).__name__}")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise _not_just_tensors(path, f"'{name}' is of type {kind}")
    return dict(found)


def _not_just_tensors(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} is a pickle that holds more than tensors, and is refused, because "
        f"reading it could run code: {reason}"
    )


def load_strict(network: M, tensors: Mapping[str, Tensor], source: Path | str) -> M:
    """Fill a network, all of it and with nothing left over; then freeze it.

    Args:
        network: May be on the meta device (``accelerate.init_empty_weights``).
        tensors: Its state dict; floats are converted to float32.
        source: Where they are from, for messages.

    Raises:
        WeightsError: If names are missing or surplus, or shapes differ.
    """
    expected = network.state_dict()
    check_names(expected, tensors, source)
    shapes = {k: (tensors[k].shape, v.shape) for k, v in expected.items()}
    _check_shapes({k: (a, b) for k, (a, b) in shapes.items() if a != b}, source)
    filled = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    network.load_state_dict(filled, assign=True)
    return frozen(network)


def check_names(
    expected: Collection[str], found: Collection[str], source: Path | str
) -> None:
    """Raise WeightsError unless both have the same names."""
    missing = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    parts = [
        f"{kind} '{names[0]}'{_more(names)}"
        for kind, names in (("lacks", missing), ("has the unknown", surplus))
        if names
    ]
    if parts:
        raise WeightsError(f"{source} doesn't fit: it {' and '.join(parts)}.")


def _check_shapes(
    other: Mapping[str, tuple[Sequence[int], Sequence[int]]], source: Path | str
) -> None:
    """Raise WeightsError if there are weights of another shape: found, and expected."""
    for name, (found, expected) in other.items():
        raise WeightsError(
            f"{source} doesn't fit: '{name}' has shape {tuple(found)} and not "
            f"{tuple(expected)}{_more(other)}."
        )


def _more(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def frozen(network: M) -> M:
    """The network in evaluation mode, its weights without gradient."""
    return network.requires_grad_(False).eval()


def load_pretrained(
    model_class: type[M],
    folder: Path,
    *,
    unused: tuple[str, ...] = (),
    dtype: torch.dtype | str = torch.float32,
    **options: Any,
) -> M:
    """A frozen model of transformers or diffusers, from a folder laid out as on the hub.

    Args:
        model_class: A class with ``from_pretrained``.
        folder: With ``config.json`` and the weights.
        unused: Beginnings of names of weights that the class has no use for.
        dtype: Of its weights; ``auto`` as they are stored.
        **options: Of ``from_pretrained``.

    Raises:
        WeightsError: If weights are missing or surplus, or a file is damaged.
    """
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    pretrained: Any = model_class
    offline = {"local_files_only": True, "output_loading_info": True}
    if issubclass(model_class, PreTrainedModel):
        # Else it says that there are some, and not which. Diffusers names the first.
        options["ignore_mismatched_sizes"] = True
    try:
        with quiet_libraries():
            model, info = pretrained.from_pretrained(
                folder, dtype=dtype, **offline, **options
            )
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise _not_just_tensors(folder, reason) from error
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise WeightsError(f"The model in {folder} can't be loaded: {error}") from error
    surplus = [
        name for name in info["unexpected_keys"] if not name.startswith(tuple(unused))
    ]
    check_names(info["missing_keys"], surplus, folder)
    _check_shapes(
        {name: (theirs, ours) for name, theirs, ours in info["mismatched_keys"]}, folder
    )
    return frozen(model)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the libraries' progress bars and their report of names, checked here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()


_ALIVE: WeakValueDictionary[tuple[str, Path], Any] = WeakValueDictionary()


def shared(build: Callable[[Path], T], weights: Path) -> T:
    """What ``build(weights)`` gives, built once for as long as anybody holds it.

    Rewards and critics of a process share networks in this way. A network is kept by
    those who use it, not here; when the last one is gone, so is the memory. Networks
    are told apart by who builds them, which settles their number format, and by the
    folder of weights; not by the device, because they are moved in place, for all of
    their users at once.

    Args:
        build: A function of a module.
        weights: Folder of weights.
    """
    key = (f"{build.__module__}:{build.__qualname__}", weights.resolve())
    found = _ALIVE.get(key)
    if found is None:
        found = _ALIVE[key] = build(weights)
    return found
