"""A table from elsewhere is brought into form, or refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import (
    ScoreTableError,
    gold_of,
    reward_curves,
    with_group,
)
from tdpo_pipeline.overoptimization.own_tables import (
    counted,
    own_scores,
    read_table,
    remarks,
)
from tdpo_pipeline.overoptimization.tables import (
    SIZES,
    checkpoint_word,
    checkpoints_called,
    group_label,
    held_out_of,
    known_rewards,
    role_of,
)
from tdpo_pipeline.rewards.registry import REWARDS


def table(seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    """Two prompts, checkpoints at 0, 10 and 20 queries, one image each."""
    return pd.DataFrame(
        [
            ("mine", seed, queries, prompt, queries / 10 + len(prompt), height)
            for seed in seeds
            for queries in (0, 10, 20)
            for prompt, height in (("a cat", 0.3), ("a horse", 1.6))
        ],
        columns=["method", "seed", "reward_queries", "prompt", "aesthetic", "human"],
    )


def test_what_can_be_known_is_filled_in() -> None:
    scores = own_scores(table(), trained="aesthetic")
    assert scores["epoch"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert scores["run"].unique().tolist() == ["mine-aesthetic-s0", "mine-aesthetic-s1"]
    assert scores["kl_to_base"].isna().all()
    assert scores["seen"].all()
    assert set(scores["eta"]) == {1.0}
    assert list(scores.columns[-2:]) == ["aesthetic", "human"]


def test_a_shared_base_model_goes_to_every_run() -> None:
    own = table().query("reward_queries > 0")
    base = table((0,)).query("reward_queries == 0").assign(method=None, seed=None)
    shared = own_scores(pd.concat([base, own]), trained="aesthetic")
    whole = own_scores(table(), trained="aesthetic")
    order = ["seed", "epoch", "prompt"]
    pd.testing.assert_frame_equal(
        shared.sort_values(order, ignore_index=True),
        whole.sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_a_column_says_what_was_trained_on() -> None:
    both = pd.concat([table().assign(reward=name) for name in ("aesthetic", "human")])
    assert set(own_scores(both)["run"]) == {
        f"mine-{reward}-s{seed}" for reward in ("aesthetic", "human") for seed in (0, 1)
    }


def first_nan(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(human=[np.nan, *rows["human"][1:]])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns=["seed", "prompt"]), r"lacks.*'seed', 'prompt'"),
        (lambda t: t[:0], "no rows"),
        (
            first_nan,
            "'human' is NaN or infinite in 1 rows; the first is row 1, counted",
        ),
        (
            lambda t: pd.concat([t, t[3:4]]),
            "1 rows .* there before; the first is row 13, counted from 1, again after row "
            "4, .*Several images .* the column 'image'",
        ),
        (lambda t: t.assign(**{"Unnamed: 0": range(12)}), "no heading.*index=False"),
        (lambda t: t.assign(epochs=1), "'epochs' would count .* did you mean 'epoch'"),
        (lambda t: t.assign(prompt_sets="a"), "did you mean 'prompt_set'"),
        (
            lambda t: t.rename(columns={"seed": "sead"}),
            r"'seed'\] \(did you mean 'sead'",
        ),
        (lambda t: t[t["reward_queries"] > 0], "no row of the untouched base model"),
        (lambda t: t[t["reward_queries"] == 0], "only the base model"),
        (lambda t: t.assign(note="fine"), r"\['note'\] hold something else"),
        (
            lambda t: pd.DataFrame({";".join(t): ["a;0;0;a cat;1;1"]}),
            "separated by semicolons",
        ),
        (lambda t: t.drop(columns=["aesthetic", "human"]), "no reward column"),
        (lambda t: t.drop(columns="aesthetic"), r"\['aesthetic'\] are no columns"),
        (
            lambda t: t.rename(columns={"aesthetic": "aestetic"}),
            r"\['aesthetic'\] \(did you mean 'aestetic'\?\)",
        ),
        (lambda t: t.assign(prompt=None), "'prompt' is empty in 12 rows"),
        (
            lambda t: t.assign(prompt_set=["a", ""] * 6),
            "'prompt_set' is empty in 6 rows",
        ),
        (lambda t: t.assign(eta=[1.0] * 11 + [np.nan]), "'eta' is empty .* row 12, co"),
        (
            lambda t: t.astype({"reward_queries": str}).replace("10", "10k"),
            "'reward_queries' must hold numbers.* holds '10k' in row 3, counted from 1",
        ),
        (lambda t: t.assign(kl_to_base="a"), "'kl_to_base' must hold numbers"),
        (lambda t: t.assign(reward_queries=-1), "negative"),
        (lambda t: t.assign(reward=0.3), "'reward' names .* here it holds numbers"),
        (lambda t: t.assign(change=0.3), r"\['change'\] would count .* can have these"),
        (
            lambda t: t.assign(epoch=[0, 0, 2, 2, 1, 1] * 2),
            "fewer reward queries at a later epoch",
        ),
        (
            lambda t: pd.concat(
                [t.assign(eta=1.0), t.query("reward_queries > 0").assign(eta=0.0)]
            ),
            "run mine-aesthetic-s0, eta 0.0, has no row of the untouched base model",
        ),
        (
            lambda t: pd.concat(
                [t.assign(prompt_set="a"), t.assign(prompt_set="b", human=0.0)]
            ),
            "prompt a cat, image 0 is in several prompt sets, with different scores",
        ),
        (lambda t: t.assign(method=None), "0 reward queries; row 3, .* has more.* NA"),
        (
            lambda t: t.assign(
                epoch=[0, 0, 1, 1, 2, 2] * 2, reward_queries=[0, 0, 10, 11, 20, 20] * 2
            ),
            "several numbers of reward queries at one epoch",
        ),
    ],
)
def test_what_would_mislead_is_refused(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(ScoreTableError, match=message):
        own_scores(spoil(table()), trained="aesthetic")


def test_a_bad_score_of_a_shared_base_model_is_found_where_it_is(tmp_path) -> None:
    own = table().query("reward_queries > 0")
    base = table((0,)).query("reward_queries == 0").assign(method=None, seed=None)
    bad = base.assign(human=[*base["human"][:-1], np.nan])
    path = tmp_path / "scores.csv"
    for rows, message in (
        (pd.concat([own, bad]), f"in 1 rows; the first is line {len(own) + 3} of"),
        (
            pd.concat([own, base, base[:1]]),
            f"line {len(own) + 4} of the file, again after line {len(own) + 2} of",
        ),
    ):
        rows.to_csv(path, index=False)
        with pytest.raises(ScoreTableError, match=message):
            own_scores(read_table(path), trained="aesthetic")
        nullable = read_table(path).convert_dtypes()
        with pytest.raises(ScoreTableError, match=message):
            own_scores(nullable, trained="aesthetic")


def test_a_method_that_a_reward_never_scored_is_fine() -> None:
    other = table().assign(method="other", human=np.nan)
    scores = own_scores(pd.concat([table(), other]), trained="aesthetic")
    assert scores.groupby("method")["human"].count().to_dict() == {
        "mine": 12,
        "other": 0,
    }


def test_what_was_trained_on_must_be_said() -> None:
    with pytest.raises(ScoreTableError, match=r"measure\.trained"):
        own_scores(table())
    with pytest.raises(ScoreTableError, match="'reward' is empty in 9 rows.* row 4"):
        own_scores(table().assign(reward=["aesthetic"] * 3 + [None] * 9))


def test_methods_may_be_numbers() -> None:
    scores = own_scores(table().assign(method=1), trained="aesthetic")
    assert scores["run"].unique().tolist() == ["1-aesthetic-s0", "1-aesthetic-s1"]
    assert scores["method"].unique().tolist() == ["1"]
    # Empty cells, of a base model that is shared, make pandas read 1 as 1.0.
    own = table().query("reward_queries > 0").assign(method=1.0)
    base = table((0,)).query("reward_queries == 0").assign(method=np.nan, seed=np.nan)
    shared = own_scores(pd.concat([base, own]), trained="aesthetic")
    assert shared["method"].unique().tolist() == ["1"]


def test_equal_queries_are_the_same_checkpoint_for_all_methods() -> None:
    rows = table()
    sparse = rows[rows["reward_queries"] != 10].assign(method="sparse")
    scores = own_scores(pd.concat([rows, sparse]), trained="aesthetic")
    last = scores.groupby("method")["epoch"].max()
    assert last.to_dict() == {"mine": 2, "sparse": 2}


def test_sets_are_not_taken_for_this_projects_groups() -> None:
    rows = table().assign(prompt_set=["train", "unseen"] * 6, seen=[True, False] * 6)
    grouped = with_group(own_scores(rows, trained="aesthetic"))
    assert set(grouped["group"]) == {"seen", "unseen prompts"}
    assert group_label("unseen prompts") == "unseen prompts"


def test_a_prompt_of_two_sets_is_one() -> None:
    twice = pd.concat([table().assign(prompt_set=name) for name in ("a", "b")])
    scores = own_scores(twice, trained="aesthetic")
    curves = reward_curves(scores)
    assert set(curves["n_prompts"]) == {2}
    assert "The prompts of all sets (a, b) count as trained on" in remarks(scores)[0]


def test_what_does_not_pair_is_named() -> None:
    rows = table()
    lost = (rows["seed"] == 1) & (rows["prompt"] == "a cat")
    for gone in (lost, lost & (rows["reward_queries"] == 20)):
        scores = own_scores(rows[~gone], trained="aesthetic")
        with pytest.raises(
            ScoreTableError,
            match="method mine, reward aesthetic, .*epoch .: .*seed 1, .*prompt a cat",
        ):
            reward_curves(scores)


def test_the_kl_of_the_base_model_may_be_empty() -> None:
    rows = table().assign(kl_to_base=lambda t: t["reward_queries"] / 5)
    rows.loc[rows["reward_queries"] == 0, "kl_to_base"] = np.nan
    scores = own_scores(rows, trained="aesthetic")
    assert scores["kl_to_base"].tolist() == [0, 0, 2, 2, 4, 4] * 2
    unknown = own_scores(rows.assign(kl_to_base=np.nan), trained="aesthetic")
    assert unknown["kl_to_base"].isna().all()


def test_methods_that_share_no_checkpoint_are_told() -> None:
    rows = table()
    other = rows.assign(method="other", reward_queries=rows["reward_queries"] * 1.5)
    scores = own_scores(pd.concat([rows, other]), trained="aesthetic")
    (told,) = remarks(scores)
    assert told.startswith("Trained on aesthetic, mine and other have no checkpoint")


def test_files(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    table().to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        pd.testing.assert_frame_equal(
            read_table(tmp_path / name), table(), check_dtype=False
        )
    with pytest.raises(ScoreTableError, match="no file"):
        read_table(tmp_path / "b.csv")
    with pytest.raises(ScoreTableError, match=r"\.csv and \.parquet"):
        read_table(tmp_path / "a.txt")


@pytest.mark.parametrize("column", ["prompt", "reward_queries"])
def test_a_bad_cell_is_found_where_an_editor_shows_it(
    tmp_path: Path, column: str
) -> None:
    """Line 1 of a CSV file is the heading; a cell of text may take several lines."""
    rows = table().assign(prompt_set="a")
    bad = {"prompt": None, "reward_queries": "10k"}[column]
    rows[column] = [*rows[column][:3], bad, *rows[column][4:]]
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows.astype({column: str if bad else object}).to_parquet(tmp_path / "a.parquet")
    folded = rows.assign(prompt_set=["two\nlines", *rows["prompt_set"][1:]])
    folded.to_csv(tmp_path / "folded.csv", index=False)
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    (tmp_path / "gaps.csv").write_text(text.replace("\n", "\n\n  \n"), encoding="utf-8")
    places = {
        "a.csv": "line 5 of the file",
        "folded.csv": "line 6 of the file",
        "gaps.csv": "line 13 of the file",
        "a.parquet": "row 4, counted from 1",
    }
    for name, place in places.items():
        with pytest.raises(ScoreTableError, match=rf"'{column}' .* {place}\."):
            own_scores(read_table(tmp_path / name), trained="aesthetic")


def test_limits_are_told() -> None:
    assert remarks(own_scores(table(), trained="aesthetic")) == []
    (one,) = remarks(own_scores(table((0,)), trained="aesthetic"))
    assert "one seed" in one
    shorter = table().query("seed == 0 or reward_queries < 20")
    (unequal,) = remarks(own_scores(shorter, trained="aesthetic"))
    assert "different checkpoints, 1 to 2" in unequal
    single = table((0,)).query("prompt == 'a cat'")
    assert "no interval" in remarks(own_scores(single, trained="aesthetic"))[-1]


def test_a_column_and_a_setting_that_name_other_rewards() -> None:
    """A run on another reward would be reported as one on the named reward."""
    told = table().assign(reward="aesthetic")
    assert set(own_scores(told, trained="aesthetic")["reward"]) == {"aesthetic"}
    told.loc[told["seed"] == 1, "reward"] = "human"
    with pytest.raises(ScoreTableError, match=r"'aesthetic', .* says \['human'\]"):
        own_scores(told, trained="aesthetic")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("commas.csv", b"method,prompt\na,a cat\na,a cat, and a dog, running\n"),
        ("latin.csv", "method,prompt\na,caf\u00e9\n".encode("latin-1")),
        ("empty.csv", b""),
        ("broken.parquet", b"PAR1 and nothing more"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScoreTableError, match=f"{name} can't be read: ") as told:
        read_table(tmp_path / name)
    assert ("encoded as UTF-8" in str(told.value)) == name.endswith(".csv")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "seed",
            "first",
            "'seed' must hold a whole number in every row; it holds 'first'",
        ),
        ("seed", None, "'seed' must hold a whole number"),
        ("reward_queries", "-5", "'reward_queries' must hold no negative numbers"),
        ("human", "10,000", r"\['human'\] hold something else than numbers \('10,000'"),
        ("seen", "perhaps", "'seen' must hold true or false in every row"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_found_by_its_line(
    tmp_path: Path, column: str, value: str | None, message: str
) -> None:
    rows = (
        table().assign(seen=True).astype({column: object} if column in table() else {})
    )
    rows["seen"] = rows["seen"].astype(object)
    rows.loc[rows.index[3], column] = value
    rows.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ScoreTableError, match=rf"{message}.* in line 5 of the file"):
        own_scores(read_table(tmp_path / "bad.csv"), trained="aesthetic")


def test_seeds_with_the_base_model_alone_in_common_are_told() -> None:
    scores = table((0, 1))
    late = (scores["seed"] == 1) & (scores["reward_queries"] > 0)
    scores.loc[late, "reward_queries"] += 24
    told = remarks(own_scores(scores, trained="aesthetic"))
    assert any(
        "no checkpoint besides the base model in common" in text for text in told
    )


def test_what_counts_as_a_reward_is_told() -> None:
    # A loss is one number a checkpoint; numbered rewards are no misspelt columns.
    rows = table().assign(loss=[3.0, 3.0, 2.0, 2.0, 1.0, 1.0] * 2, reward_2=range(12))
    scores = own_scores(rows, trained="aesthetic")
    assert counted(scores) == "Counted as rewards: aesthetic, human, loss, reward_2."
    (flat,) = remarks(scores)
    assert "Equal for all images of each checkpoint" in flat
    assert ": loss. To leave" in flat
    picked = own_scores(rows, trained="aesthetic", rewards=["aesthetic", "human"])
    assert counted(picked) == "Counted as rewards: aesthetic, human."
    assert remarks(picked) == []


def test_golds_are_known_inside_the_block() -> None:
    with known_rewards(golds={"aesthetic": "human"}):
        assert role_of("human", "aesthetic") == "gold"
        assert gold_of("pick-mini") is None
    assert gold_of("aesthetic") is None
    assert gold_of("pick-mini") == "gold_match"


def test_parts_of_a_trained_sum_are_not_held_out() -> None:
    scored = ["both", "clip", "hps", "pick", "human"]
    with known_rewards(golds={"both": "human"}, parts={"both": ["clip", "hps"]}):
        roles = [role_of(name, "both") for name in scored]
        assert roles == ["trained", "part", "part", "cross", "gold"]
        assert held_out_of("both", scored) == ["pick"]
        # They are parts of that sum alone, and golds stay known inside.
        assert held_out_of("clip", scored) == ["both", "hps", "pick", "human"]
        with known_rewards(parts={}):
            assert role_of("human", "both") == "gold"
            assert role_of("clip", "both") == "cross"
    assert role_of("clip", "both") == "cross"


def test_sizes_are_held_against_nobody() -> None:
    assert set(SIZES) == {name for name in REWARDS if name.startswith("jpeg")}
    scored = ["jpeg_compressibility", "jpeg_incompressibility", "pick"]
    assert held_out_of("aesthetic", scored) == ["pick"]
    # Trained on the one, its negative holds nothing out either.
    roles = [role_of(name, "jpeg_compressibility") for name in scored]
    assert roles == ["trained", "size", "cross"]


def test_checkpoints_are_called_what_they_are() -> None:
    assert own_scores(table(), trained="human").attrs["checkpoint"] == "checkpoint"
    numbered = table().assign(epoch=[0, 0, 5, 5, 9, 9] * 2)
    assert own_scores(numbered, trained="human").attrs["checkpoint"] == "epoch"
    with checkpoints_called("checkpoint"):
        assert checkpoint_word() == "checkpoint"
    assert checkpoint_word() == "epoch"


def test_unseen_prompts_are_told_by_numbers_too() -> None:
    rows = table().assign(seen=[1, 0] * 6)
    assert own_scores(rows, trained="aesthetic")["seen"].tolist() == [True, False] * 6


@pytest.mark.parametrize(
    ("column", "value"), [("seen", "no"), ("seen", None), ("epoch", 0.5), ("seed", "a")]
)
def test_what_is_no_truth_value_or_no_whole_number_is_refused(
    column: str, value: object
) -> None:
    rows = table().assign(**{column: value})
    with pytest.raises(ScoreTableError, match=f"'{column}' must hold"):
        own_scores(rows, trained="aesthetic")


def test_the_row_of_a_wrong_seed_is_named() -> None:
    rows = table().astype({"seed": object})
    rows.loc[3, "seed"] = "one"
    with pytest.raises(ScoreTableError, match="holds 'one' in row 4, counted from 1"):
        own_scores(rows, trained="aesthetic")


def test_epochs_that_were_read_as_decimals_are_whole_numbers() -> None:
    rows = table().assign(epoch=[0.0, 0.0, 1.0, 1.0, 2.0, 2.0] * 2)
    assert own_scores(rows, trained="aesthetic")["epoch"].dtype == int
