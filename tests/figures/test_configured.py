"""Every figure that the report configures is drawn, on made-up tables of its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tdpo_pipeline.figures import FORMS, FigureSettings, Strip, draw
from tdpo_pipeline.overoptimization import (
    RUN,
    Bootstrap,
    pairwise_agreement,
    reward_curves,
    with_group,
)
from tdpo_pipeline.overoptimization.tables import INDEX_COLUMNS
from tdpo_pipeline.pipelines.reporting.configured import configured_figures
from tests.synthetic_tables import synthetic_history, synthetic_scores

CONFIGURED = configured_figures()
FEW = Bootstrap(draws=20)
EPOCHS = (0, 4, 8)
PROMPTS = {
    "simple_animals": ["cat", "dog", "gorilla"],
    "unseen_animals": ["snail", "lobster"],
    "complex": ["a cat and a dog", "a dog on the moon"],
    "activities": ["a cat riding a bike", "a cat playing chess"],
}
TRAINED_ON = ("cat", "dog")


@cache
def scores(method: str, reward: str) -> pd.DataFrame:
    """Scores of two seeds; a reward that isn't Menagerie's own is another's column."""
    tables = [
        synthetic_scores(
            method,
            reward,
            seed,
            gains={"aesthetic-mini": [0, 0.6, 1.0], "gold_taste": [0, 0.2, -0.2]},
            epochs=EPOCHS,
            prompts=PROMPTS,
            trained_on=TRAINED_ON,
            images=2,
        )
        for seed in range(2)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(**{reward: table.get(reward, table["aesthetic-mini"])})


@cache
def history(method: str, reward: str) -> pd.DataFrame:
    """Histories of two seeds, with everything that a figure asks for."""
    resets = 4 if "reset" in method else 0
    table = pd.concat(
        [
            synthetic_history(
                method, reward, seed, gain=1, epochs=8, reset_every=resets
            )
            for seed in range(2)
        ]
    )
    return table.assign(
        updates=1,
        lora_dormant_pct_t0=0.5 * table["epoch"],
        lora_dormant_pct_t01=2.0 * table["epoch"],
        policy_neurons_reset=np.where(table["epoch"] % 4 == 0, resets, 0),
    )


@cache
def curves(method: str, reward: str) -> pd.DataFrame:
    return reward_curves(scores(method, reward), bootstrap=FEW)


@cache
def run_curves(method: str, reward: str) -> pd.DataFrame:
    table = scores(method, reward)
    trained = table[table["seen"]][[*INDEX_COLUMNS, reward]]
    return reward_curves(trained, by=RUN, bootstrap=FEW)


@cache
def agreement(method: str, reward: str) -> pd.DataFrame:
    return pairwise_agreement(scores(method, reward), bootstrap=FEW)


TABLES: dict[str, Callable[[str, str], pd.DataFrame]] = {
    "agreement": agreement,
    "history": history,
    "scores": scores,
    "curves": curves,
    "run_curves": run_curves,
}


def strips(table: pd.DataFrame) -> dict[str, Strip]:
    prompts = tuple(prompt for names in PROMPTS.values() for prompt in names)
    grey = np.full((len(prompts), 32, 32, 3), 128, np.uint8)
    strip = Strip(dict.fromkeys(EPOCHS, grey), prompts)
    return dict.fromkeys(table["run"], strip)


def inputs(figure: FigureSettings, reward: str) -> list[Any]:
    """What the figure is drawn from."""
    made = TABLES[FORMS[figure.draws].table]
    table = pd.concat([made(m, reward) for m in figure.methods], ignore_index=True)
    if figure.draws != "sample_grid":
        return [table]
    grouped = with_group(scores(figure.methods[0], reward))
    groups = dict(zip(grouped["prompt"], grouped["group"], strict=True))
    return [table, strips(table), {reward: groups}]


def words(figure: Figure) -> Iterator[Text]:
    """The texts of a figure but for ticks."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        if ax.axison:
            yield from (ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts)


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configured_figure_is_drawn(name: str) -> None:
    settings = CONFIGURED[name]
    reward = settings.rewards[0] if settings.rewards else "aesthetic-mini"
    figure, data = draw(settings, *inputs(settings, reward))
    assert set(data["method"]) == set(settings.methods)
    assert set(data["reward"]) == {reward}
    said = [text.get_text() for text in figure.texts]
    assert settings.title in said and "seed" in " ".join(said)
    figure.draw_without_rendering()
    boxes = {t: t.get_window_extent() for t in words(figure) if t.get_text()}
    page = figure.bbox
    for text, box in boxes.items():
        inside = page.x0 <= box.x0 and box.x1 <= page.x1
        assert inside and page.y0 <= box.y0 and box.y1 <= page.y1, text
    for one, two in combinations(boxes, 2):
        assert not Bbox.overlaps(boxes[one], boxes[two]), (one, two)
    panels = [ax.get_tightbbox() for ax in figure.axes if ax.axison]
    for one, two in combinations([box for box in panels if box], 2):
        assert not one.overlaps(two)
