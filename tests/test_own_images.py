from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tdpo_pipeline.config import EvaluationSettings
from tdpo_pipeline.grid import ROOT
from tdpo_pipeline.overoptimization.own_tables import own_scores
from tdpo_pipeline.own_images import OwnImagesError, alike, score_images
from tdpo_pipeline.pipelines.score.nodes import ScoreSettings, score, scoring_rewards
from tdpo_pipeline.rewards.registry import load_reward
from tests import tiny
from tests.conftest import parameters_of

CPU = torch.device("cpu")
WEIGHTS = ROOT / "data" / "06_models" / "menagerie" / "proxy_rewards"


@pytest.fixture
def pictures(tmp_path: Path) -> pd.DataFrame:
    """Three pictures of one colour, of two sizes, and their table."""
    colours = {"a.png": (255, 0, 51), "b.png": (0, 51, 255), "c.png": (102, 0, 0)}
    for (name, colour), size in zip(colours.items(), (8, 16, 8), strict=True):
        Image.new("RGB", (size, size), colour).save(tmp_path / name)
    return pd.DataFrame(
        {"file": list(colours), "prompt": ["cat", "dog", "cat"], "mine": [1, 2, 3]}
    )


def scored(table: pd.DataFrame, folder: Path, **how: object) -> pd.DataFrame:
    rewards = {"redness": tiny.Redness()}
    return score_images(table, folder, rewards, chunk_size=2, device=CPU, **how)


def test_values_by_hand(pictures: pd.DataFrame, tmp_path: Path) -> None:
    found = scored(pictures, tmp_path)
    # Red minus blue: 1 - 0.2, 0 - 1, 0.4 - 0.
    assert found["redness"].tolist() == pytest.approx([0.8, -1.0, 0.4])
    assert found[list(pictures)].equals(pictures)


def test_pictures_of_one_size_go_together() -> None:
    sizes = [(8, 8), (16, 8), (8, 8), (8, 8)]
    assert list(alike(sizes, 2)) == [[0, 2], [3], [1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": ["a.png", "no.png", "c.png"]}, "1 of 3 files .* no.png"),
        ({"prompt": ["cat", None, "cat"]}, "'prompt' is empty in 1 rows.* row 2,"),
        ({"redness": 0.0}, "has columns .'redness'. already"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_scored(
    pictures: pd.DataFrame, tmp_path: Path, change: dict, said: str
) -> None:
    with pytest.raises(OwnImagesError, match=said):
        scored(pictures.assign(**change), tmp_path)
    with pytest.raises(OwnImagesError, match=r"lacks the columns \['file'\]"):
        scored(pictures.drop(columns="file"), tmp_path)
    with pytest.raises(OwnImagesError, match="no rows"):
        scored(pictures[:0], tmp_path)


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_pictures_of_more_than_8_bits_are_refused(
    pictures: pd.DataFrame, tmp_path: Path, mode: str
) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "deep.tiff")
    table = pictures.assign(file=["a.png", "deep.tiff", "c.png"])
    with pytest.raises(OwnImagesError, match=f"deep.tiff .mode {mode}; save it with 8"):
        scored(table, tmp_path)


def test_a_truncated_picture_is_named(pictures: pd.DataFrame, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OwnImagesError, match="b.png can't be read"):
        scored(pictures, tmp_path)


def settings(folder: Path, **changes: object) -> ScoreSettings:
    values = {"images": str(folder / "images.csv"), "rewards": ["aesthetic-mini"]}
    rest = {"chunk_size": 2, "device": "cpu"}
    return ScoreSettings.model_validate(values | rest | changes)


def evaluation() -> EvaluationSettings:
    return EvaluationSettings.model_validate(parameters_of("base")["evaluation"])


def test_from_pictures_to_a_table_that_can_be_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for queries in (0, 128):
        for number in range(2):
            name = f"{queries}_{number}.png"
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name)
            rows.append(
                {"method": "mine", "seed": 0, "reward_queries": queries}
                | {"prompt": "cat", "image": number, "file": name}
            )
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    found = score(settings(tmp_path), evaluation(), WEIGHTS)
    images = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(tmp_path / row["file"]))).permute(
                2, 0, 1
            )
            / 255
            for row in rows
        ]
    )
    expected = load_reward("aesthetic-mini", WEIGHTS)(images, ["cat"] * 4).values
    assert found["aesthetic-mini"].tolist() == pytest.approx(
        expected.tolist(), rel=1e-5
    )
    assert own_scores(found, trained="aesthetic-mini")["epoch"].tolist() == [0, 0, 1, 1]


def test_a_reward_that_can_not_score_a_picture_names_it(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    table = pd.DataFrame({"file": ["a.png"], "prompt": ["cat"]})
    table.to_csv(tmp_path / "images.csv", index=False)
    for reward in ("gold_taste", "aesthetic-mini"):
        with pytest.raises(OwnImagesError, match=f"'{reward}' can't score a.png"):
            score(settings(tmp_path, rewards=[reward]), evaluation(), WEIGHTS)


def test_the_rewards_are_those_of_the_evaluation_unless_they_are_named() -> None:
    given = settings(Path("x"), rewards=[])
    assert scoring_rewards(given, evaluation()) == list(evaluation().rewards)
    assert scoring_rewards(settings(Path("x")), evaluation()) == ["aesthetic-mini"]
    # As --params gives them.
    two = settings(Path("x"), rewards="aesthetic pickscore")
    assert two.rewards == ("aesthetic", "pickscore")
    with pytest.raises(OwnImagesError, match="Name the table of pictures"):
        score(settings(Path("x"), images=None), evaluation(), WEIGHTS)
