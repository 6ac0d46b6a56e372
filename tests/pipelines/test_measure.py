"""Scores from elsewhere, measured through the command line."""

from __future__ import annotations

import runpy

import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import ScoreTableError
from tdpo_pipeline.pipelines.measure.nodes import MeasureSettings, read
from tests.conftest import ROOT, Project

TRAINED = "measure.trained=aesthetic"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The example of docs/own_tables.md."""
    made = runpy.run_path(str(ROOT / "docs" / "examples" / "own_scores.py"))["table"]()
    assert isinstance(made, pd.DataFrame)
    return made


@pytest.fixture(scope="module")
def own_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("own"))


def test_the_example(own_project: Project, table: pd.DataFrame) -> None:
    table.to_csv(own_project.root / "my_scores.csv", index=False)
    done = own_project.kedro(
        *("run", "--pipelines", "measure", "--params"),
        f"measure.scores=my_scores.csv,{TRAINED},measure.golds.aesthetic=human",
    )
    folder = own_project.root / "data" / "08_reporting" / "own"
    golds = pd.read_csv(folder / "tables" / "golds.csv").set_index("method")
    # It was made to rise by 0.6 for the one method, and to fall by 1.2 for the other.
    assert golds["verdict"].to_dict() == {"careful": "rose", "fast": "fell"}
    assert golds["change"].to_dict() == pytest.approx(
        {"careful": 0.6, "fast": -1.2}, abs=0.1
    )
    onsets = pd.read_csv(folder / "tables" / "onsets.csv")
    fast = onsets.query("method == 'fast' and scored == 'human'")
    assert fast["onset_queries"].item() == 256
    matched = pd.read_csv(folder / "tables" / "matched.csv")
    assert set(matched["reference"]) == {"careful"}
    drawn = {"proxy_vs_gold", "evaluated_reward", "cross_reward", "final_rewards"}
    assert {path.stem for path in (folder / "figures").iterdir()} == drawn
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert "<dd>fast on aesthetic</dd>" in page
    assert "Counted as rewards: aesthetic, human, prompt_match." in page
    assert "eta 1" not in page and "nan" not in text.lower()
    output = done.stdout + done.stderr
    assert "Did the true reward, human, fall" in output
    # The gold of "fast" is highest after 256 of 1024 queries.
    falls = "fast on aesthetic: human, its gold, since checkpoint 1 ("
    for told in (falls, "Counted as rewards: aesthetic, human, prompt_match."):
        assert told in output
        assert told in text
    assert "samples" not in output[output.index("The whole summary") :]


def test_without_a_gold_and_with_names_of_the_project(
    own_project: Project, table: pd.DataFrame
) -> None:
    names = {"fast": "tdpo_r", "careful": "ddpo"}
    renamed = table.assign(method=table["method"].replace(names), loss=1.0)
    renamed.to_csv(own_project.root / "named.csv", index=False)
    stale = own_project.root / "data" / "08_reporting" / "own" / "figures"
    stale.mkdir(parents=True, exist_ok=True)
    (stale / "proxy_vs_gold.png").write_bytes(b"of an earlier table")
    done = own_project.kedro(
        *("run", "--pipelines", "measure", "--params"),
        f"measure.scores=named.csv,{TRAINED}",
    )
    output = done.stdout + done.stderr
    assert not (stale / "proxy_vs_gold.png").exists()
    assert "proxy_vs_gold.png" not in output
    assert "tdpo_r on aesthetic: human since checkpoint 1 (" in output
    assert "Equal for all images of each checkpoint" in output
    folder = stale.parent
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "TDPO-R" not in page + (folder / "summary.md").read_text(encoding="utf-8")
    assert "{'" not in page  # no Python in what is read


def test_methods_that_are_numbers(own_project: Project, table: pd.DataFrame) -> None:
    numbered = table.assign(method=table["method"].map({"fast": 1, "careful": 2}))
    numbered.to_csv(own_project.root / "numbered.csv", index=False)
    own_project.kedro(
        *("run", "--pipelines", "measure", "--params"),
        f"measure.scores=numbered.csv,{TRAINED},measure.golds.aesthetic=human,"
        "measure.folder=data/08_reporting/numbered",
    )
    folder = own_project.root / "data" / "08_reporting" / "numbered"
    assert "2 minus 1 on aesthetic" in (folder / "summary.md").read_text(
        encoding="utf-8"
    )
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"golds": {"aesthetic": "aesthetic"}},
            "measure.golds names 'aesthetic' for itself",
        ),
        (
            {"golds": {"human": "aesthetic"}},
            "measure.golds has an entry for 'human', on",
        ),
        (
            {"golds": {"aesthetic": "prompt"}},
            "'prompt', which is no reward of the table",
        ),
        ({"parts": {"both": ["human"]}}, "measure.parts has an entry for 'both', on"),
    ],
)
def test_golds_and_parts_are_those_of_trained_rewards(
    own_project: Project,
    table: pd.DataFrame,
    settings: dict[str, object],
    message: str,
) -> None:
    path = own_project.root / "golds.csv"
    table.to_csv(path, index=False)
    given = {"scores": str(path), "trained": "aesthetic", "rewards": (), "golds": {}}
    whole = given | {"folder": "own"} | settings
    with pytest.raises(ScoreTableError, match=message):
        read(MeasureSettings.model_validate(whole))


def test_what_is_wrong_is_told(own_project: Project, table: pd.DataFrame) -> None:
    spoiled = table.rename(columns={"reward_queries": "steps"})
    spoiled.to_csv(own_project.root / "bad.csv", index=False)
    done = own_project.kedro(
        *("run", "--pipelines", "measure", "--params"),
        f"measure.scores=bad.csv,{TRAINED}",
        check=False,
    )
    assert done.returncode != 0
    words = " ".join((done.stdout + done.stderr).split())
    assert "The table lacks the columns ['reward_queries']" in words
