"""Names of algorithms in configuration, and the classes behind them.

An algorithm of one's own needs no entry here: configuration takes ``module:Class``
for any subclass of :class:`tdpo_pipeline.algorithms.base.Algorithm`. Classes are
imported when asked for, so that listing pipelines needs no torch.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from tdpo_pipeline.hints import did_you_mean

if TYPE_CHECKING:
    from tdpo_pipeline.algorithms.base import Algorithm

ALGORITHMS = {
    "ddpo": "tdpo_pipeline.algorithms.ddpo:Ddpo",
    "tdpo": "tdpo_pipeline.algorithms.tdpo:Tdpo",
    "tdpo_constrained": "tdpo_pipeline.algorithms.tdpo_constrained:TdpoConstrained",
    "tdpo_replay": "tdpo_pipeline.algorithms.tdpo_replay:TdpoReplay",
    "dpok": "tdpo_pipeline.algorithms.dpok:Dpok",
    "rwr": "tdpo_pipeline.algorithms.rwr:Rwr",
    "alignprop": "tdpo_pipeline.algorithms.alignprop:AlignProp",
    "draft": "tdpo_pipeline.algorithms.draft:Draft",
    "refl": "tdpo_pipeline.algorithms.refl:ReFL",
}


def algorithm_class(name: str) -> type[Algorithm]:
    """The class of the algorithm ``name``, or of ``module:Class``.

    Raises:
        ValueError: If there is no such algorithm, or the class is none.
    """
    path = ALGORITHMS.get(name, name)
    if ":" not in path:
        raise ValueError(
            f"unknown algorithm '{name}'{did_you_mean(name, ALGORITHMS)}; there are "
            f"{', '.join(ALGORITHMS)}, or give 'module:Class' of your own."
        )
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"algorithm '{path}' can't be imported: {error}") from error
    _check_class(path, found)
    return found


def _check_class(path: str, found: Any) -> None:
    """Raise ValueError unless ``found`` is a whole algorithm class."""
    from tdpo_pipeline.algorithms.base import Algorithm
    from tdpo_pipeline.config import AlgorithmSettings

    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise ValueError(
            f"'{path}' is not an algorithm: it must be a subclass of "
            "tdpo_pipeline.algorithms.base.Algorithm."
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ValueError(f"algorithm '{path}' lacks the methods {missing}.")
    settings = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, AlgorithmSettings)):
        raise ValueError(
            f"algorithm '{path}' needs a class attribute Settings, a subclass of "
            "tdpo_pipeline.config.AlgorithmSettings."
        )
