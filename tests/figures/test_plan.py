"""Which figures there are: their settings, their runs, and what the report configures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from tdpo_pipeline.figures import FORMS, FigureSettings, draw, style
from tdpo_pipeline.grid import GridError
from tdpo_pipeline.pipelines.reporting.configured import configured_figures
from tests.conftest import ROOT
from tests.synthetic_tables import synthetic_history

CONFIGURED = configured_figures()


def figure(**given: Any) -> FigureSettings:
    return FigureSettings.model_validate(
        {"draws": "sample_efficiency", "title": "A title", **given}
    )


# ------------------------------------------------------------------ which runs
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"a on x", "b on x", "c on x", "a on y", "c on y"}),
        ({"methods": ["a", "b"]}, {"a on x", "b on x", "a on y"}),
        ({"rewards": ["y"]}, {"a on y", "c on y"}),
        # Without b there is nothing to compare on y.
        ({"methods": ["a", "b"], "needs": ["b"]}, {"a on x", "b on x"}),
        ({"needs": ["b"]}, {"a on x", "b on x", "c on x"}),
        ({"methods": ["a", "d"], "needs": ["d"]}, set()),
        ({"rewards": ["z"]}, set()),
        ({"not_on": ["y", "z"]}, {"a on x", "b on x", "c on x"}),
        ({"rewards": ["y"], "not_on": ["y"]}, set()),
    ],
)
def test_methods_and_rewards_that_are_shown(
    given: dict[str, Any], shown: set[str]
) -> None:
    runs = [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("c", "y"), ("a", "x")]
    found = figure(**given).pairs(runs)
    assert {f"{method} on {reward}" for method, reward in found} == shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draws": "pie"}, "no figure draws 'pie'"),
        ({"title": ""}, "at least 1 character"),
        ({"title": "x" * 55}, "at most 54 characters"),
        ({"methods": ["a"], "needs": ["b"]}, r"needs \['b'\], which are not among"),
        (
            {"options": {"colour": "red"}},
            r"has no options \['colour'\]; it has \['x'\]",
        ),
        ({"options": {"title": "x"}}, "has no options"),
        ({"method": ["a"]}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_figure(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        figure(**given)


# ------------------------------------------------------------------ drawing
def histories(*methods: str) -> pd.DataFrame:
    return pd.concat(
        [synthetic_history(m, "pick-mini", 0, gain=1, epochs=3) for m in methods]
    )


def test_only_the_runs_of_the_figure_are_drawn() -> None:
    settings = figure(methods=["tdpo", "rwr"], title="Two of three")
    drawn = draw(settings, histories("tdpo", "ddpo_2", "rwr"))
    assert set(drawn.data["method"]) == {"tdpo", "rwr"}
    assert "Two of three" in [text.get_text() for text in drawn.figure.texts]


def test_options_reach_the_function() -> None:
    settings = figure(options={"x": "rounds"})
    drawn = draw(settings, histories("rwr").assign(updates=[1, 1, 1]))
    assert drawn.data["rounds"].tolist() == [0, 1, 2]


def test_missing_runs_are_named_with_what_makes_them() -> None:
    settings = figure(methods=["tdpo", "tdpo_kl"], needs=["tdpo", "tdpo_kl"])
    drawn = draw(settings, histories("tdpo", "ddpo_2"))
    assert drawn.data.empty
    text = " ".join(drawn.figure.axes[0].texts[0].get_text().split())
    assert "needs runs of tdpo and tdpo_kl" in text
    assert "There are ddpo_2 on pick-mini, tdpo on pick-mini." in text
    assert text.endswith(
        "experiment.runs in the parameters file of the environment, then run its pipeline "
        "again (the study: dvc repro --allow-missing)."
    )


# ------------------------------------------------------------------ the report's own
def papers_figures() -> set[str]:
    """Every figure of the three papers that shows results."""
    tdpo = [2, *range(3, 15)]
    ddpo = range(1, 13)
    names = {f"TDPO {n}" for n in tdpo} | {f"DDPO {n}" for n in ddpo} - {"DDPO 2"}
    diffexp = {"1a", "1b", *map(str, (3, *range(4, 9))), "9a", "9b"}
    diffexp |= {str(n) for n in range(10, 20)}
    return names | {f"DiffExp {n}" for n in diffexp}


def named(papers: str) -> set[str]:
    """``TDPO 5, 9 (left)`` and ``DiffExp 11 to 13`` as single figures."""
    if not papers:
        return set()
    paper, _, numbers = papers.partition(" ")
    found = set()
    for part in numbers.split(", "):
        first, _, last = part.partition(" to ")
        first = first.split(" (")[0]
        span = range(int(first), int(last) + 1) if last else [first]
        found |= {f"{paper} {number}" for number in span}
    return found


def test_every_figure_of_the_papers_has_a_counterpart() -> None:
    found = set().union(*(named(f.papers) for f in CONFIGURED.values()))
    assert found == papers_figures()


@pytest.mark.parametrize("name", CONFIGURED)
def test_methods_of_a_figure_look_different(name: str) -> None:
    methods = CONFIGURED[name].methods
    assert methods
    looks = [style.method_style(method) for method in methods]
    assert len({look.color for look in looks}) == len(methods)
    assert len({look.marker for look in looks}) == len(methods)
    labels = [style.method_label(method) for method in methods]
    assert len(set(labels)) == len(methods)
    assert not set(labels) & set(methods), "a method without a name"


def test_titles_leave_room_for_the_stamp() -> None:
    """On the narrowest figures: 7.2 inches of curves, 6.8 inches of samples."""
    for settings in CONFIGURED.values():
        grid = settings.draws == "sample_grid"
        page, _ = style.page(1, 1, panel=(6.8 if grid else 7.2, 1.0))
        stamp = "one seed" if grid else "one seed: 3 of 5"
        style.frame(page, title=settings.title, caption="", stamp=stamp)
        page.draw_without_rendering()
        extents = {text.get_text(): text.get_window_extent() for text in page.texts}
        assert extents[settings.title].x1 < extents[stamp].x0 - 10, settings.title


def test_every_form_is_used() -> None:
    assert {settings.draws for settings in CONFIGURED.values()} == set(FORMS)


def test_the_docs_have_every_form() -> None:
    text = (ROOT / "docs" / "figures.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| [`")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(FORMS)


def test_the_table_of_the_docs_has_every_figure() -> None:
    text = (ROOT / "docs" / "figures.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    names = [row.split("`")[1] for row in rows]
    assert names == list(CONFIGURED)
    for row, settings in zip(rows, CONFIGURED.values(), strict=True):
        _, _, papers, form, *_ = (cell.strip() for cell in row.split("|"))
        assert papers == settings.papers
        assert form == f"`{settings.draws}`"


# ------------------------------------------------------------------ reading them
def conf_with(tmp_path: Path, **entry: Any) -> Path:
    """A folder of parameters whose report has one figure."""
    for name in ("parameters_methods.yml", "parameters_rewards.yml"):
        (tmp_path / name).symlink_to(ROOT / "conf" / "base" / name)
    content = {"draws": "sample_efficiency", "title": "A title", **entry}
    report = {"reporting": {"folder": "x", "figures": {"mine": content}}}
    (tmp_path / "parameters_reporting.yml").write_text(yaml.safe_dump(report))
    return tmp_path


def test_figures_are_read_in_their_order(tmp_path: Path) -> None:
    found = configured_figures(conf_with(tmp_path, methods=["tdpo"]))
    assert list(found) == ["mine"]
    assert found["mine"].methods == ("tdpo",)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"methods": ["tdpoo"]},
            r"figures.mine: unknown name 'tdpoo' \(did you mean tdpo",
        ),
        (
            {"rewards": ["pick-min"]},
            r"unknown name 'pick-min' \(did you mean pick-mini",
        ),
        ({"draws": "pie"}, "figures.mine: .*no figure draws 'pie'"),
    ],
)
def test_a_figure_that_is_wrong_is_named(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    conf = conf_with(tmp_path, **entry)
    with pytest.raises(GridError) as caught:
        configured_figures(conf)
    words = " ".join(str(caught.value).split())
    assert pd.Series([words]).str.contains(message).all(), words
