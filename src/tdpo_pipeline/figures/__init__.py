"""One function per form of the papers' figures, from tables.

Each returns a ``Drawn``: the figure and, as a tidy table, exactly what it shows. Which
figures the report has, and of which runs, is configuration (``FigureSettings``); what
each shows of the papers is in docs/figures.md. Nothing needs Kedro or PyTorch.
"""

from tdpo_pipeline.figures.cross_reward import cross_reward
from tdpo_pipeline.figures.evaluated_reward import evaluated_reward
from tdpo_pipeline.figures.final_rewards import final_rewards
from tdpo_pipeline.figures.goodhart import goodhart
from tdpo_pipeline.figures.neurons import neurons
from tdpo_pipeline.figures.pairwise_agreement import pairwise_agreement
from tdpo_pipeline.figures.plan import FORMS, FigureSettings, Pair, draw
from tdpo_pipeline.figures.prompt_curves import prompt_curves
from tdpo_pipeline.figures.proxy_vs_gold import proxy_vs_gold
from tdpo_pipeline.figures.sample_efficiency import sample_efficiency
from tdpo_pipeline.figures.sample_grid import sample_grid
from tdpo_pipeline.figures.strips import Strip
from tdpo_pipeline.figures.style import (
    Drawn,
    names_as_written,
    paper_scales,
    save_png,
)

__all__ = [
    "FORMS",
    "Drawn",
    "FigureSettings",
    "Pair",
    "Strip",
    "cross_reward",
    "draw",
    "evaluated_reward",
    "final_rewards",
    "goodhart",
    "names_as_written",
    "neurons",
    "pairwise_agreement",
    "paper_scales",
    "prompt_curves",
    "proxy_vs_gold",
    "sample_efficiency",
    "sample_grid",
    "save_png",
]
