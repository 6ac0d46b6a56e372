"""One function per figure of the papers, from tables; nothing needs Kedro or PyTorch.

Each returns a ``Drawn``: the figure and, as a tidy table, exactly what it shows.
"""

from tdpo_pipeline.figures.cross_reward import cross_reward
from tdpo_pipeline.figures.dormant import dormant
from tdpo_pipeline.figures.proxy_vs_gold import proxy_vs_gold
from tdpo_pipeline.figures.sample_efficiency import sample_efficiency
from tdpo_pipeline.figures.sample_grid import sample_grid
from tdpo_pipeline.figures.strips import Strip, pack_strips, unpack_strips
from tdpo_pipeline.figures.style import Drawn, save_png

__all__ = [
    "Drawn",
    "Strip",
    "cross_reward",
    "dormant",
    "pack_strips",
    "proxy_vs_gold",
    "sample_efficiency",
    "sample_grid",
    "save_png",
    "unpack_strips",
]
