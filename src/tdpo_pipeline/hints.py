"""What somebody may have meant who misspelt a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[object], most: int = 3) -> str:
    """The known names nearest to a misspelt one, in brackets; empty if none is near.

    Args:
        name: The misspelt name.
        known: Names that there are.
        most: How many to tell at most.

    Returns:
        Such as " (did you mean tdpo or tdpo_r?)", to stand behind the name.
    """
    near = difflib.get_close_matches(str(name), sorted(map(str, known)), n=most)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
