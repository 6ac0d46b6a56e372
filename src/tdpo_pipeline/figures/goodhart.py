"""The gold over the distance from the base model, with the curve that fits it.

Gao, Schulman and Hilton 2023 draw it for language models (their figure 1); none of the
three papers has a gold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tdpo_pipeline.figures import intervals, style
from tdpo_pipeline.overoptimization.cubes import Cube, one_cube
from tdpo_pipeline.overoptimization.goodhart import (
    HAS_PEAK,
    Form,
    fit_goodhart,
    goodhart_bands,
    preferred_first,
)
from tdpo_pipeline.overoptimization.intervals import significant
from tdpo_pipeline.overoptimization.tables import (
    INDEX_COLUMNS,
    MAIN_ETA,
    gold_of,
    group_label,
)

_GROUP = "seen"
_MOST_COLUMNS = 4
_SIZES = {3: (3.6, 2.8), 4: (2.9, 2.45)}  # of panels side by side, in inches
_SMALL = 8.5  # letters of what the fit says
_LETTERS = 13.8  # of the small size, in an inch
_TITLE_LETTERS = 11.5
_CUT = 0.35  # of a band beyond points and fits, in parts of their height
_AIR = 0.06  # beyond what is shown of the bands, likewise
_STEP = 0.19  # between ticks at least, in parts of the panel's width
_NO_BREAK = "\u00a0"
_X = "KL to the base model (nats)"

_UPRIGHT: dict[str, Any] = {"color": style.INK, "linestyle": ":", "linewidth": 1.3}
_BAR: dict[str, Any] = {
    **{"color": style.INK, "linewidth": 3.0, "alpha": 0.7},
    "solid_capstyle": "butt",
}

_COLUMNS = [
    *("method", "reward", "group", "scored", "part", "form", "seed", "epoch"),
    *("kl_to_base", "kl_low", "kl_high", "mean", "low", "high", "base_sd"),
    *("statement", "other", "n_seeds", "n_prompts", "n_images"),
]


def goodhart(
    scores: pd.DataFrame, *, title: str = "Gold over the distance from the base model"
) -> style.Drawn:
    """Every checkpoint's gold over KL, and the form that fits it better: a panel a method.

    Panels of one trained reward stand together and have the same axes. The gold is the
    change since the base model on the prompts trained on, in base standard deviations.

    Args:
        scores: Score table of any number of runs.
        title: Title of the figure.

    Returns:
        The figure and its data, with the columns method, reward, group, scored (the
        gold), part, form ("linear" or "log": the preferred one), seed, epoch, kl_to_base
        with kl_low and kl_high (nats), mean with low and high (base standard
        deviations), base_sd (in the gold's units), statement, other, n_seeds, n_prompts
        and n_images. Its rows are by ``part``

        - "checkpoint": of one seed at one epoch, mean being over prompts;
        - "fit": a point of the fitted curve, low and high its simultaneous band;
        - "peak": one of each panel, what the fit says (statement) and what the other form
          says (other). Where it is a peak within the data, kl_to_base and mean are where
          and how high it is; elsewhere they are NaN.

        What can't be drawn has no rows: checkpoints without KL, curves without a fit. If
        no trained reward has a gold, a figure that says so and an empty table.
    """
    data = _data(scores)
    if data.empty:
        text = f"No trained reward has a gold that was scored on {group_label(_GROUP)}."
        return style.Drawn(style.notice(title, text), data)
    methods = {
        str(reward): style.sort_methods(rows["method"])
        for reward, rows in data.groupby("reward")
    }
    columns = min(_MOST_COLUMNS, max(map(len, methods.values())))
    lines = {reward: -(-len(names) // columns) for reward, names in methods.items()}
    panel = _SIZES.get(columns) or style.panel_size(columns)
    caption = _caption(data) + style.left_out(scores, data, "Without a gold to draw")
    legend = _legend(data)
    figure, axes = style.page(
        sum(lines.values()), columns, panel=panel, legend=legend, caption=caption
    )
    for reward, names in methods.items():
        block, axes = axes[: lines[reward]], axes[lines[reward] :]
        rows = data[data["reward"] == reward]
        panels = [ax for line in block for ax in line]
        _block(panels, names, rows, columns, panel[0])
    return style.drawn(figure, data, title=title, caption=caption, legend=legend)


def _data(scores: pd.DataFrame) -> pd.DataFrame:
    """The tidy table of the figure."""
    blocks: list[pd.DataFrame] = []
    images = scores[(scores["eta"] == MAIN_ETA) & scores["seen"].astype(bool)]
    for reward, unit in images.groupby("reward"):
        gold = gold_of(str(reward))
        if gold not in unit:
            continue
        scored = unit[gold].notna().groupby(unit["method"]).transform("any")
        rows = unit.loc[scored, [*INDEX_COLUMNS, gold]]
        if len(rows):
            blocks += _parts(rows)
    table = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame()
    return table.reindex(columns=_COLUMNS)


def _parts(scores: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each method, of scores by the gold of one trained reward alone."""
    fits = preferred_first(fit_goodhart(scores, group=_GROUP))
    bands = goodhart_bands(scores, group=_GROUP)
    for cube in one_cube(scores, group=_GROUP):
        (base_sd,) = cube.base_sd
        if not base_sd > 0:
            continue
        method = cube.names["method"]
        own = fits[fits["method"] == method]
        band = bands[(bands["method"] == method) & bands["preferred"].eq(True)]
        parts = [_checkpoints(cube), _curve(band), _peak(own)]
        table = pd.concat([part for part in parts if len(part)], ignore_index=True)
        table = table.reindex(columns=_COLUMNS)
        table[intervals.BOUNDS] = table[intervals.BOUNDS] / base_sd
        same: dict[str, Any] = {**cube.names, **cube.sizes()}
        yield table.assign(**same, scored=cube.rewards[0], base_sd=base_sd)


def _checkpoints(cube: Cube) -> pd.DataFrame:
    """Every seed's checkpoints after the base model, which is at 0 by definition."""
    change = cube.changes(cube.rewards)[..., 0].mean(axis=1)  # (seeds, epochs)
    seeds, epochs = np.meshgrid(cube.seeds, cube.epochs, indexing="ij")
    columns = {"seed": seeds, "epoch": epochs, "kl_to_base": cube.kl, "mean": change}
    away = {name: values[:, 1:].ravel() for name, values in columns.items()}
    rows = pd.DataFrame({"part": "checkpoint", **away})
    return rows[rows["kl_to_base"].notna()]


def _curve(bands: pd.DataFrame) -> pd.DataFrame:
    """The fitted curve with the band that holds along all of it."""
    names = {
        "kl": "kl_to_base",
        "fitted": "mean",
        "band_low": "low",
        "band_high": "high",
    }
    rows = bands[["form", *names]].rename(columns=names)
    return rows.assign(part="fit")


def _peak(fits: pd.DataFrame) -> pd.DataFrame:
    """What the preferred form says, and what the other one does.

    Args:
        fits: Both forms, the preferred one first.
    """
    fit, other = fits.to_dict("records")
    row = {"part": "peak", "statement": fit["statement"], "other": other["statement"]}
    if pd.notna(fit["rmse"]):
        row["form"] = fit["form"]
    if fit["statement"] == HAS_PEAK and pd.notna(fit["peak_kl"]):
        row |= {
            "kl_to_base": fit["peak_kl"],
            "kl_low": fit["peak_distance_low"] ** 2,
            "kl_high": fit["peak_distance_high"] ** 2,
            "mean": fit["peak_value"],
            "low": fit["peak_value_low"],
            "high": fit["peak_value_high"],
        }
    return pd.DataFrame([row])


def _block(
    axes: list[Axes],
    methods: list[str],
    data: pd.DataFrame,
    columns: int,
    width: float,
) -> None:
    """The panels of one trained reward; axes that are left over stay empty.

    Args:
        axes: Its axes, line by line.
        methods: Its methods, in the order of the panels.
        data: Its rows.
        columns: Panels side by side.
        width: Of a panel, in inches.
    """
    for ax, method in zip(axes, methods, strict=False):
        rows = data[data["method"] == method]
        _panel(ax, rows, style.method_style(method))
        _head(ax, rows, width)
    for ax in axes[len(methods) :]:
        ax.axis("off")
    _share(axes[: len(methods)], data, columns)


def _panel(ax: Axes, data: pd.DataFrame, look: style.MethodStyle) -> None:
    """One method: its checkpoints, the fit with its band, and the peak."""
    # Distance from the base goes with the root of KL (Gao et al. 2023).
    ax.set_xscale("function", functions=(_root, np.square))
    ax.axhline(0, color=style.INK, linewidth=0.8)
    part = dict(list(data.groupby("part")))
    if "checkpoint" in part:
        points = part["checkpoint"]
        ax.plot(points["kl_to_base"], points["mean"], **_dots(look))
    if "fit" in part:
        line = look._replace(marker="", line="-")
        style.band(ax, part["fit"], line, "kl_to_base")
    peak = part["peak"].iloc[0]
    if pd.notna(peak["kl_to_base"]):
        ax.axvline(peak["kl_to_base"], **_UPRIGHT)
        at = ax.get_xaxis_transform()
        ax.plot([peak["kl_low"], peak["kl_high"]], [0.025] * 2, transform=at, **_BAR)


def _root(kl: np.ndarray) -> np.ndarray:
    """The distance; an estimate of the KL may be a little below 0."""
    return np.sqrt(np.maximum(kl, 0))


def _dots(look: style.MethodStyle) -> dict[str, Any]:
    """Faint small markers, so many that they lie on each other."""
    return {
        **{"linestyle": "", "marker": look.marker, "markersize": 3.5},
        **{"color": look.color, "alpha": 0.5, "markeredgewidth": 0},
    }


def _head(ax: Axes, data: pd.DataFrame, width: float) -> None:
    """Method, and under it, smaller, what the fit says."""
    peak = data[data["part"] == "peak"].iloc[0]
    verdict = textwrap.wrap(_verdict(peak), int(_LETTERS * width))
    name = textwrap.fill(
        style.method_label(str(peak["method"])), int(_TITLE_LETTERS * width)
    )
    ax.annotate(
        "\n".join(verdict),
        (0, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=_SMALL,
        va="bottom",
        color=style.INK,
    )
    above = 9 + 1.25 * _SMALL * len(verdict)
    ax.set_title(
        name, fontsize=style.LABEL_SIZE, loc="left", color=style.INK, pad=above
    )


def _verdict(peak: pd.Series) -> str:
    """What the fit says, and whether the other form says so too."""
    text = str(peak["statement"])
    if pd.notna(peak["kl_to_base"]):
        at, *ends = (
            significant(peak[name]) for name in ("kl_to_base", "kl_low", "kl_high")
        )
        text = f"peak at {at} nats [{', '.join(ends)}]"
    if pd.isna(peak["form"]):
        return text
    whose = f"{peak['form']}{_NO_BREAK}form"
    if peak["statement"] != peak["other"]:
        (other,) = set(get_args(Form)) - {peak["form"]}
        whose += f"; {other}{_NO_BREAK}form differs"
    return f"{text} ({whose})"


def _share(axes: list[Axes], data: pd.DataFrame, columns: int) -> None:
    """The same axes for all panels of a trained reward, labelled at the edges.

    Checkpoints and fits set the limits: bands may be many times as high as they are.
    """
    drawn = data[data["part"] != "peak"]
    right = drawn["kl_to_base"].max()
    low, high = np.nanmin([0, drawn["mean"].min()]), np.nanmax([0, drawn["mean"].max()])
    most = _CUT * (high - low)
    bands = drawn[["low", "high"]].clip(low - most, high + most)
    low, high = np.nanmin([low, *bands.min()]), np.nanmax([high, *bands.max()])
    air = _AIR * (high - low)
    reward, gold = data[["reward", "scored"]].iloc[0]
    for place, ax in enumerate(axes):
        if right > 0 and high > low:
            ax.set(xlim=(0, 1.05 * right), ylim=(low - air, high + air))
            ax.set_xticks(_ticks(right))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        else:
            ax.set(xticks=[], yticks=[])
        beneath, left = place + columns < len(axes), place % columns == 0
        ax.tick_params(labelbottom=not beneath, labelleft=left)
        ax.set_xlabel("" if beneath else _X, fontsize=style.TICK_SIZE, color=style.INK)
        y = f"trained on {reward}\n{gold}, change in base SD"
        ax.set_ylabel(y if left else "", fontsize=style.TICK_SIZE, color=style.INK)


def _ticks(most: float) -> list[float]:
    """0 and round numbers of nats that stand well apart where the root is even."""
    largest = int(np.floor(np.log10(most)))
    decades = 10.0 ** np.arange(largest, largest - 3, -1)
    step = _STEP * most**0.5
    ticks, last = [0.0], np.inf
    for tick in np.outer(decades, [5, 2, 1]).ravel():
        if tick <= most and step <= min(last - tick**0.5, tick**0.5):
            ticks.append(float(tick))
            last = tick**0.5
    return ticks


def _legend(data: pd.DataFrame) -> list[Artist]:
    """The parts of a panel that there are; their colours are the methods'."""
    look = style.MethodStyle(style.GREY, "o", "-")
    entries: list[Artist] = []
    if (data["part"] == "checkpoint").any():
        dots = _dots(look)
        entries.append(Line2D([], [], label="checkpoint of one seed", **dots))
    if (data["part"] == "fit").any():
        entries += [
            Line2D([], [], label="fit", color=look.color, linewidth=style.LINE_WIDTH),
            Patch(label="its 95 % band", color=look.color, alpha=0.16, linewidth=0),
        ]
    if data.loc[data["part"] == "peak", "kl_to_base"].notna().any():
        entries.append(Line2D([], [], label="peak and its interval", **_UPRIGHT))
    return entries


def _caption(data: pd.DataFrame) -> str:
    linear, log = (
        form.replace(" ", _NO_BREAK) for form in ("d (a - b d)", "d (a - b log d)")
    )
    return (
        f"Points: means over {style.sizes_text(data)} on {group_label(_GROUP)}, "
        f"{style.seeds_text(data)}. Fit to all checkpoints of all seeds: the change is "
        f"{linear}, linear form, or {log}, log form, where d is the root of the KL; drawn "
        "is the one with the smaller residuals. Band: 95 % along the whole curve, "
        f"{style.over_text(data)}. Dotted: a peak, where the 95 % interval of its KL "
        "(bar) leaves out both ends of the data. KL is on a root scale; a band may go on "
        "beyond the axes. One base SD: standard deviation over the base model's images "
        "for the prompts trained on. Sampler: eta 1."
    )
