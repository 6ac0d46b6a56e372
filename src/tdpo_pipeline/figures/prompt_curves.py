"""A reward of single prompts and of classes of prompts (DDPO, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.curves import METHOD, checkpoint_rows
from tdpo_pipeline.overoptimization.tables import (
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    with_group,
)

_THICK = 2.8
_LOOKS = (
    (style.BLUE, "s", "-"),
    (style.VERMILLION, "o", "--"),
    (style.GREEN, "v", "-."),
    (style.PURPLE, "P", ":"),
)


def prompt_curves(
    scores: pd.DataFrame,
    *,
    title: str = "Reward of single prompts and of their classes",
    classes: Sequence[str],
    scored: str | None = None,
) -> style.Drawn:
    """Thick curves for classes of prompts, faint ones for the prompts themselves.

    A row of panels per trained reward, a panel a method.

    Args:
        scores: Score table of any number of runs.
        title: Title of the figure.
        classes: What prompts of a class have in common, such as the activity that they
            end with; at most 4. Prompts without any of these words are left out.
        scored: The reward to draw; by default the trained one.

    Returns:
        The figure and its data: a row per method, reward, class, prompt and epoch, with
        reward_queries, mean, low, high (the ends of the change since the base model,
        added to the base model's mean). A class' own rows have an empty ``prompt``; a
        prompt's have no interval if there is one training seed. If no prompt is of any
        class, a figure that says so and an empty table.

    Raises:
        ScoreTableError: If there are more classes than looks, or the table is not what
            it should be (``check_scores``).
    """
    if not 1 <= len(classes) <= len(_LOOKS):
        raise ScoreTableError(
            f"A figure of classes shows 1 to {len(_LOOKS)} of them; its options name "
            f"{list(classes)}."
        )
    data = _data(scores, classes, scored)
    if data.empty:
        text = (
            f"No prompt with the words {' or '.join(map(repr, classes))} was evaluated "
            f"by {scored or 'the trained reward'}. "
            f"{style.remedy('Evaluate a set that has them (own_evaluation)')}"
        )
        return style.Drawn(style.notice(title, text), data)
    looks = {
        name: style.MethodStyle(*look)
        for name, look in zip(classes, _LOOKS, strict=False)
    }
    caption = _caption(data)
    legend = _handles({name: looks[name] for name in data["class"].unique()})
    panels = data[["reward", "method"]].drop_duplicates()
    rewards = sorted(panels["reward"].unique())
    columns = panels.groupby("reward").size().max()
    figure, axes = style.page(
        len(rewards),
        columns,
        panel=style.panel_size(columns),
        legend=legend,
        caption=caption,
    )
    for line, reward in zip(axes, rewards, strict=True):
        rows = data[data["reward"] == reward]
        methods = style.sort_methods(rows["method"])
        for ax, method in zip(line, methods, strict=False):
            _panel(ax, rows[rows["method"] == method], looks)
        for ax in line[len(methods) :]:
            ax.axis("off")
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _data(
    scores: pd.DataFrame, classes: Sequence[str], scored: str | None
) -> pd.DataFrame:
    """The tidy table of the figure."""
    check_scores(scores)
    # A class may cut across the prompts' groups, so that all prompts are of one here:
    # one that is in two prompt sets is counted once.
    scores = with_group(scores[scores["eta"] == MAIN_ETA].assign(seen=True))
    found: list[dict[str, object]] = []
    for (method, reward), unit in scores.groupby(list(METHOD), sort=True):
        name = str(reward) if scored is None else scored
        if name not in unit or unit[name].isna().all():
            continue
        for words in classes:
            images = unit[unit["prompt"].str.contains(words, regex=False)]
            head = {"method": method, "reward": reward, "scored": name, "class": words}
            if images.empty:
                continue
            parts = {"": images, **dict(list(images.groupby("prompt", sort=True)))}
            for prompt, rows in parts.items():
                for row in checkpoint_rows(rows, [name]):
                    found.append({**head, "prompt": prompt, **row})
    columns = ["method", "reward", "scored", "class", "prompt", "epoch"]
    columns += ["reward_queries", "mean", "low", "high", "base_mean"]
    table = pd.DataFrame(found, columns=[*columns, "n_seeds", "n_prompts", "n_images"])
    return style.levels(table).drop(columns="base_mean")


def _panel(ax: Axes, data: pd.DataFrame, looks: dict[str, style.MethodStyle]) -> None:
    """All prompts, then all classes, of one method."""
    for (name, _), rows in data[data["prompt"] != ""].groupby(["class", "prompt"]):
        look = looks[str(name)]
        ordered = rows.sort_values("epoch")
        x, y = ordered["reward_queries"], ordered["mean"]
        ax.plot(x, y, color=look.color, linewidth=0.6, alpha=0.3, zorder=1.2)
    for name, rows in data[data["prompt"] == ""].groupby("class"):
        ordered = rows.sort_values("epoch")
        look = looks[str(name)]
        style.points(ax, ordered["reward_queries"], ordered, look, line_width=_THICK)
    method, reward = data["method"].iloc[0], data["reward"].iloc[0]
    title = f"{style.method_label(str(method))}, trained on {reward}"
    scored = str(data["scored"].iloc[0])
    style.label(ax, title=title, x="reward queries", y=scored)
    style.paper_axes(ax, y=scored)
    ax.xaxis.set_major_locator(style.whole_numbers(6))


def _handles(looks: dict[str, style.MethodStyle]) -> list[Artist]:
    """Legend entries of the classes."""
    return [style.handle(name, look, line_width=_THICK) for name, look in looks.items()]


def _caption(data: pd.DataFrame) -> str:
    return (
        "Thick: means over the prompts of a class, prompts weighing equally; faint: "
        f"single prompts. {style.images_text(data[data['prompt'] == ''])}, "
        f"{style.seeds_text(data)}. Bars: {intervals.change_text(data, as_level=True)}. "
        "Sampler: eta 1."
    )
