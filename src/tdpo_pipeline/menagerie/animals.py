"""All animals of the world under their names."""

from collections.abc import Callable
from functools import partial

from tdpo_pipeline.menagerie.beasts import BEASTS
from tdpo_pipeline.menagerie.birds import BIRDS
from tdpo_pipeline.menagerie.canvas import Pen
from tdpo_pipeline.menagerie.crawlers import CRAWLERS
from tdpo_pipeline.menagerie.quadrupeds import QUADRUPEDS, draw_quadruped
from tdpo_pipeline.menagerie.swimmers import SWIMMERS

DRAWINGS: dict[str, Callable[[Pen], None]] = {
    **{name: partial(draw_quadruped, plan=plan) for name, plan in QUADRUPEDS.items()},
    **BEASTS,
    **BIRDS,
    **CRAWLERS,
    **SWIMMERS,
}
"""How each animal is painted, facing left."""
