"""Which figures there are, and of which runs: what the configuration says of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tdpo_pipeline.figures import style
from tdpo_pipeline.figures.cross_reward import cross_reward
from tdpo_pipeline.figures.evaluated_reward import evaluated_reward
from tdpo_pipeline.figures.final_rewards import final_rewards
from tdpo_pipeline.figures.goodhart import goodhart
from tdpo_pipeline.figures.neurons import neurons
from tdpo_pipeline.figures.pairwise_agreement import pairwise_agreement
from tdpo_pipeline.figures.prompt_curves import prompt_curves
from tdpo_pipeline.figures.proxy_vs_gold import proxy_vs_gold
from tdpo_pipeline.figures.sample_efficiency import sample_efficiency
from tdpo_pipeline.figures.sample_grid import sample_grid

Pair = tuple[str, str]
"""A method and the reward that it trains on."""

Table = Literal["agreement", "history", "scores", "curves", "run_curves"]


LONGEST_TITLE = 54
"""Letters that the narrowest figure has room for beside its stamp."""


class Form(NamedTuple):
    """A way to draw.

    Attributes:
        function: Draws a table; its keyword arguments are the figure's options.
        table: The table that it takes: the history or the scores of all runs, the
            curves by method or by run, or the agreement of their rewards.
    """

    function: Callable[..., style.Drawn]
    table: Table


FORMS: dict[str, Form] = {
    "cross_reward": Form(cross_reward, "curves"),
    "evaluated_reward": Form(evaluated_reward, "curves"),
    "final_rewards": Form(final_rewards, "curves"),
    "goodhart": Form(goodhart, "scores"),
    "neurons": Form(neurons, "history"),
    "pairwise_agreement": Form(pairwise_agreement, "agreement"),
    "prompt_curves": Form(prompt_curves, "scores"),
    "proxy_vs_gold": Form(proxy_vs_gold, "curves"),
    "sample_efficiency": Form(sample_efficiency, "history"),
    "sample_grid": Form(sample_grid, "run_curves"),
}


class FigureSettings(BaseModel):
    """A figure of the report.

    Attributes:
        draws: Name in ``FORMS``.
        title: Title of the figure.
        papers: The papers' figures that it is the counterpart of.
        methods: Methods to draw, where there are runs of them; none: all.
        needs: Those of them without which there is nothing to compare.
        rewards: Trained rewards to draw, where there are runs; none: all.
        not_on: Trained rewards that it leaves to other figures.
        options: Further arguments of the function that draws.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    draws: str
    title: str = Field(min_length=1, max_length=LONGEST_TITLE)
    papers: str = ""
    methods: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    not_on: tuple[str, ...] = ()
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.draws not in FORMS:
            known = ", ".join(sorted(FORMS))
            raise ValueError(f"no figure draws '{self.draws}'; there are {known}.")
        stray = [name for name in self.needs if name not in self.methods]
        if self.methods and stray:
            raise ValueError(f"needs {stray}, which are not among its methods.")
        known_options = self.option_names()
        unknown = [name for name in self.options if name not in known_options]
        if unknown:
            raise ValueError(
                f"'{self.draws}' has no options {unknown}; it has {known_options}."
            )
        return self

    def option_names(self) -> list[str]:
        """Options that the function takes."""
        parameters = inspect.signature(FORMS[self.draws].function).parameters.values()
        names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        return [name for name in names if name != "title"]

    def pairs(self, available: Iterable[Pair]) -> set[Pair]:
        """Which methods and trained rewards the figure shows of those at hand.

        A trained reward is shown if all methods that the figure needs were trained on
        it, and then with each of the figure's methods that was.
        """
        found = set(available)
        return {
            (method, reward)
            for method, reward in found
            if (not self.rewards or reward in self.rewards)
            and reward not in self.not_on
            and (not self.methods or method in self.methods)
            and all((needed, reward) in found for needed in self.needs)
        }


def draw(settings: FigureSettings, table: pd.DataFrame, *more: Any) -> style.Drawn:
    """Draw a figure of those rows of a table that it shows.

    Args:
        settings: The figure.
        table: The table that its form takes, of any runs.
        *more: What the form takes after the table: for ``sample_grid`` the strips and
            the prompts' groups.

    Returns:
        The figure and its data; if the table lacks the runs, a figure that says what
        to do, and an empty table.
    """
    function = FORMS[settings.draws].function
    if table.empty:  # whose function knows best what it lacks
        return function(table, *more, title=settings.title, **settings.options)
    shown = settings.pairs(zip(table["method"], table["reward"], strict=True))
    if not shown:
        text = _lacking(settings, table)
        return style.Drawn(style.notice(settings.title, text), table.iloc[:0])
    of_row = pd.MultiIndex.from_frame(table[["method", "reward"]])
    rows = table[of_row.isin(sorted(shown))]
    return function(rows, *more, title=settings.title, **settings.options)


def _lacking(settings: FigureSettings, table: pd.DataFrame) -> str:
    """What a table without the figure's runs lacks, and how to make it."""
    wanted = settings.needs or settings.methods
    runs = table[["method", "reward"]].drop_duplicates().itertuples(index=False)
    there = sorted(f"{method} on {reward}" for method, reward in runs)
    on = f" on {' or '.join(settings.rewards)}" if settings.rewards else ""
    joint = " and " if settings.needs else " or "
    return (
        f"This figure needs runs of {joint.join(wanted) or 'any method'}{on}. There are "
        f"{', '.join(there) or 'none'}. "
        f"{style.remedy('Add a line for each to experiment.runs')}"
    )
