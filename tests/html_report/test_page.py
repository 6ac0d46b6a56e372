"""The page holds what the tables say, and needs nothing but itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tdpo_pipeline.html_report.page import distinct_looks
from tdpo_pipeline.html_report.prompts import prompt_changes
from tdpo_pipeline.html_report.provenance import parameters_hash
from tdpo_pipeline.overoptimization import (
    count_alarms,
    judge_alarms,
    pairwise_agreement,
    stopping_report,
    summarise_regrets,
)
from tdpo_pipeline.overoptimization.report import rate_text
from tests.html_report.made_up import FEW, made_up_scores, made_up_strips, page_of


class Elements(HTMLParser):
    """Every element's name and attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return made_up_scores()


@pytest.fixture(scope="module")
def page(scores: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(scores, tmp_path_factory.mktemp("root"), strips=made_up_strips())


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    assert match
    return json.loads(match[1])


def words(page: str) -> str:
    return " ".join(Elements(page).text.split())


def test_a_prompt_in_two_sets_is_one_of_the_page(tmp_path: Path) -> None:
    both = {"simple_animals": ["cat", "dog", "fox"], "imagenet_animals/2": ["fox"]}
    scores = made_up_scores(prompts=both)
    page = page_of(scores, tmp_path)
    tables = [t for t in data_of(page)["prompts"] if t["group"] == "seen"]
    assert [t["prompts"] for t in tables] == [["cat", "dog", "fox"]] * 2


def test_it_refers_to_nothing_outside(page: str) -> None:
    elements = Elements(page)
    for attributes in elements.of("a"):
        assert attributes["href"].startswith("#")
    for attributes in elements.of("img"):
        assert attributes["src"].startswith("data:image/webp;base64,")
    assert not elements.of("link", "iframe", "object", "embed")
    assert not [a for a in elements.of("script") if "src" in a]
    # Namespaces are names; no other address is in the page.
    addresses = set(re.findall(r"https?://[^\"' )]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_links_lead_somewhere(page: str) -> None:
    elements = Elements(page)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in elements.of("a")} <= set(ids)


def test_the_verdicts(page: str) -> None:
    text = words(page)
    assert "The gold fell below the base model DDPO-2 on aesthetic-mini" in text
    assert (
        "The gold rose and has not been seen to fall TDPO-R on aesthetic-mini" in text
    )
    # Of six rewards that are neither trained nor gold, the one that was made to fall.
    assert text.count("1 of 4: hps-mini") == 2


def test_without_a_gold_it_says_so(scores: pd.DataFrame, tmp_path: Path) -> None:
    text = words(page_of(scores.drop(columns="gold_taste"), tmp_path))
    assert "No trained reward has a gold that was scored" in text
    assert "none known" in text


def test_curves_in_the_page_are_those_of_the_table(
    page: str, scores: pd.DataFrame
) -> None:
    curves = data_of(page)["curves"]
    (found,) = [
        c
        for c in curves
        if (c["method"], c["group"], c["scored"]) == ("ddpo_2", "seen", "gold_taste")
    ]
    rows = scores.query("method == 'ddpo_2' and seen").set_index(
        ["seed", "prompt", "image"]
    )["gold_taste"]
    epochs = scores.query("method == 'ddpo_2' and seen")["epoch"].to_numpy()
    base = rows[epochs == 0]
    expected = [(rows[epochs == e] - base).mean() for e in (0, 4, 8)]
    assert found["change"] == pytest.approx(expected, abs=1e-4)
    assert found["epoch"] == [0, 4, 8]
    assert found["queries"] == [0, 512, 1024]
    assert found["role"] == "gold"
    assert all(
        low <= change <= high
        for low, change, high in zip(
            found["low"], found["change"], found["high"], strict=True
        )
    )


def test_the_page_opens_on_the_reward_that_most_methods_have(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    scores = scores.assign(a_reward=scores["aesthetic-mini"])
    one = scores.query("method == 'ddpo_2'")
    one = one.assign(reward="a_reward", run="a_reward of " + one["run"])
    data = data_of(page_of(pd.concat([scores, one]), tmp_path))
    assert data["rewards"] == ["aesthetic-mini", "a_reward"]


def test_changes_by_prompt(scores: pd.DataFrame) -> None:
    table = prompt_changes(scores)
    row = table.query(
        "method == 'ddpo_2' and prompt == 'snail' and scored == 'gold_taste'"
    )
    images = scores.query("method == 'ddpo_2' and prompt == 'snail'")
    means = images.groupby("epoch")["gold_taste"].mean()
    assert row["change"].item() == pytest.approx(means[8] - means[0])
    assert row["group"].item() == "unseen"
    assert row["n_images"].item() == 4  # 2 images of 2 seeds


def test_a_page_is_of_the_sampler_that_was_trained(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    other = scores.assign(eta=0.0, gold_taste=scores["gold_taste"] + scores["epoch"])
    both = page_of(pd.concat([scores, other]), tmp_path)
    assert data_of(both)["curves"] == data_of(page_of(scores, tmp_path))["curves"]


def test_one_prompt_and_one_seed_have_no_interval(tmp_path: Path) -> None:
    scores = made_up_scores(seeds=1).query("prompt == 'cat'")
    page = page_of(scores, tmp_path)
    assert {value for c in data_of(page)["curves"] for value in c["low"]} == {None}
    assert "no interval" in words(page)
    assert "NaN" not in page


def test_no_name_ends_the_script(scores: pd.DataFrame, tmp_path: Path) -> None:
    bad = "</script><b>"
    page = page_of(scores.replace({"prompt": {"cat": bad}}), tmp_path)
    assert not Elements(page).of("b")
    assert any(bad in table["prompts"] for table in data_of(page)["prompts"])


def test_samples_are_of_the_first_seed_and_are_described(page: str) -> None:
    pictures = Elements(page).of("img")
    assert len(pictures) == 3  # epochs 0, 4 and 8 of one seed
    for picture, epoch in zip(pictures, (0, 4, 8), strict=True):
        assert picture["alt"] == (
            f"Samples of tdpo_r-aesthetic-mini-s0 at epoch {epoch} for the prompts "
            "cat, snail"
        )


def test_the_onset_is_told_and_marked(scores: pd.DataFrame, tmp_path: Path) -> None:
    # DDPO-2's gold rises until epoch 4, and is lower at 8. The set is widened to the
    # neighbours.
    page = page_of(scores, tmp_path, strips=made_up_strips("ddpo_2"))
    assert "epoch 4 (0 to 8)" in words(page)
    assert "no fall shown" in words(page)  # TDPO-R's
    figures = [a.get("class") for a in Elements(page).of("figure")]
    assert figures == [None, "onset", None]


def captions(page: str) -> list[str]:
    """What stands below each sample."""
    found = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    return [text.replace("<br>", " ") for text in found]


def test_without_a_gold_the_first_held_out_fall_under_a_rise_is_marked(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    strips = made_up_strips("ddpo_2")
    known = page_of(scores, tmp_path, strips=strips)
    assert captions(known) == ["base", "epoch 4 onset of gold_taste", "epoch 8"]
    # hps-mini falls from the start on while the trained reward rises, pick-mini from
    # epoch 4 on.
    unknown = scores.drop(columns="gold_taste")
    unknown["pick-mini"] += unknown["epoch"].map({0: 0, 4: 1, 8: -2})
    told = page_of(unknown, tmp_path, strips=strips)
    assert captions(told) == ["base onset of hps-mini", "epoch 4", "epoch 8"]
    assert "where no gold was scored" in section(told, "samples")
    later = page_of(unknown.drop(columns="hps-mini"), tmp_path, strips=strips)
    assert captions(later) == ["base", "epoch 4 onset of pick-mini", "epoch 8"]


def test_a_held_out_fall_together_with_the_trained_reward_is_no_onset(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    both = scores.drop(columns="gold_taste")
    both["aesthetic-mini"] -= both["epoch"] / 2  # from 0, 1, 2 to 0, -1, -2
    page = page_of(both, tmp_path, strips=made_up_strips("ddpo_2"))
    assert captions(page) == ["base", "epoch 4", "epoch 8"]


def test_a_gold_that_was_not_shown_to_fall_leaves_no_mark(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    # TDPO-R's gold rises; that hps-mini falls is no overoptimization.
    page = page_of(scores, tmp_path, strips=made_up_strips())
    assert captions(page) == ["base", "epoch 4", "epoch 8"]


def test_without_samples_there_is_no_such_section(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    assert 'id="samples"' not in page_of(scores, tmp_path)


def test_equal_tables_give_equal_pages(
    page: str, scores: pd.DataFrame, tmp_path: Path
) -> None:
    shuffled = scores.sample(frac=1, random_state=0)
    again = page_of(scores, tmp_path, strips=made_up_strips())
    assert again == page
    assert data_of(page_of(shuffled, tmp_path)) == data_of(page)


def test_looks_are_distinct() -> None:
    few = distinct_looks(["ddpo_2", "tdpo", "tdpo_r"])
    assert [look.marker for look in few.values()] == ["v", "^", "o"]
    names = [f"method_{i}" for i in range(60)]
    looks = distinct_looks(names)
    assert list(looks) == names
    assert len({look[:3] for look in looks.values()}) == len(names)


def test_a_reward_that_does_not_vary_has_no_ruler(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    page = page_of(scores.assign(gold_taste=np.float64(0)), tmp_path)
    assert "the base did not vary" in words(page)
    tables = data_of(page)["prompts"]
    assert {v for table in tables for v in table["changes"]["gold_taste"]} == {None}


def test_parameters_are_shown_with_their_hash(page: str) -> None:
    text = section(page, "lineage")
    hash_ = parameters_hash({"tdpo_r": {"gamma": 1}})
    assert f"SHA-256 {hash_} tdpo_r: gamma: 1" in text
    assert "keys in order, no spaces" in text


def test_what_dvc_knows_of_a_run_is_shown_where_it_knows_any(page: str) -> None:
    assert "dvc.lock" not in section(page, "lineage")


def test_a_run_that_dvc_does_not_know_is_said_to_be_in_no_lock(
    scores: pd.DataFrame, tmp_path: Path
) -> None:
    run = scores["run"].iloc[0]
    method, reward, seed = scores.loc[
        scores["run"] == run, ["method", "reward", "seed"]
    ].iloc[0]
    kept = f"data/07_model_output/scores/{method}/{reward}/s{seed}.parquet"
    stages = {"evaluate@0": {"outs": [{"path": kept, "md5": "abc123"}]}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    text = section(page_of(scores, tmp_path), "lineage")
    assert "Scores in dvc.lock History in dvc.lock" in text
    assert "abc123 not in it" in text
    assert "not in it not in it" in text


def section(page: str, name: str) -> str:
    """The words of a section."""
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found
    return words(found[0])


def test_methods_are_compared_on_equal_terms(page: str) -> None:
    text = section(page, "equal")
    # At the 1024 queries that both have had, TDPO-R's proxy is 0.5 lower and its gold 4
    # higher; hps-mini was made to fall alike.
    row = re.search(r"TDPO-R DDPO-2 1,024 queries (.*?) 2 and 2", text)
    assert row
    trained, gold = re.findall(r"([+−][\d.]+) \[", row[1])
    assert trained.startswith("−") and gold.startswith("+")
    assert row[1].endswith("0 of 4 0 of 4")
    assert "At equal training reward" in text
    # A level at the end of a path has means and no interval; it isn't left out in silence.
    dropped = (
        r"the last level that both reached, \+[\d.]+ base SD, is too near the end "
    )
    dropped += r"of the path for an interval; there: gold_taste [+−][\d.]+ base SD"
    assert re.search(dropped, text)
    assert "not trained on" in text
    # TDPO-R rises more slowly: what it takes is more than DDPO-2, of queries and KL.
    for cost in ("reward queries", "KL to the base model"):
        told = rf"TDPO-R DDPO-2 {cost} \+[\d.]+ base SD [\d,.]+ [\d,.]+ ([\d.]+) \["
        row = re.search(told, text)
        assert row and float(row[1]) > 1
    assert "Equal seconds need the timings of all runs" in text


def test_methods_are_tested_against_each_other(page: str, tmp_path: Path) -> None:
    text = section(page, "compared")
    assert "Higher TDPO-R minus DDPO-2 on aesthetic-mini: gold_taste" in text
    # The gold is 4 higher for every seed and prompt.
    row = re.search(r"TDPO-R DDPO-2 gold_taste, its gold (.*?) 2 and 2", text)
    assert row and re.search(r"100% \[.*\] < 0.001 higher \d+ 8$", row[1])
    one = section(page_of(made_up_scores(seeds=1), tmp_path), "compared")
    assert "Cannot tell: one seed of it or of the reference says nothing" in one
    row = re.search(r"TDPO-R DDPO-2 gold_taste, its gold (.*?) 1 and 1", one)
    dash = "\N{EN DASH}"
    assert row and row[1].endswith(
        f"] {dash} {dash} 8"
    )  # no p-value, no number of seeds


def test_pairs_that_two_rewards_rank_alike_are_told(
    page: str, scores: pd.DataFrame, tmp_path: Path
) -> None:
    title = "How often two rewards prefer the same of two pictures"
    text = section(page, "summary")
    found = pairwise_agreement(scores, bootstrap=FEW).query("group == 'seen'")
    base = found.query("role == 'gold' and epoch == 0 and method == 'ddpo_2'").iloc[0]
    share = rate_text(base.to_dict(), "agreement")
    # The made-up gains are a prompt's own, so that no pair changes its order.
    told = f"aesthetic-mini DDPO-2 gold_taste {share} {share} +0.00 [+0.00, +0.00] 3 2"
    assert told in text
    assert title in text
    without = page_of(scores.drop(columns="gold_taste"), tmp_path)
    held_out = section(without, "summary")
    assert "aesthetic-mini DDPO-2 hps-mini" in held_out[held_out.index(title) :]
    single = page_of(scores.query("image == 0"), tmp_path)
    assert title not in section(single, "summary")


def test_hypervolumes_are_told(page: str, scores: pd.DataFrame, tmp_path: Path) -> None:
    text = section(page, "tradeoff")
    rewards = "aesthetic-mini, gold_taste"
    rows = [rf"{name} {rewards} [\d.]+ \[[\d.]+, [\d.]+\] 2 3 2" for name in ("DDPO-2", "TDPO-R")]  # fmt: skip
    assert all(re.search(row, text) for row in rows)
    shorter = scores.query("method == 'tdpo_r' or epoch < 8")
    text = section(page_of(shorter, tmp_path), "tradeoff")
    why = "fewer checkpoints, seeds or images than another method: not comparable"
    assert text.count(why) == 1
    alone = scores.query("method == 'tdpo_r'")
    page = page_of(alone, tmp_path)
    assert "No other method was trained on aesthetic-mini" in section(page, "compared")


def test_few_checkpoints_have_no_peak_and_it_says_so(page: str) -> None:
    text = section(page, "peaks")
    assert text.count("and it takes 4") == 1 + 2  # the statement, and a row a method
    assert "o fit: 2 checkpoints at different distances" in text


def test_joint_outcomes_are_told(page: str, tmp_path: Path) -> None:
    assert "gold_match" in section(page, "joint")
    scores = made_up_scores()
    falling = scores.drop(columns="gold_match")
    falling["pick-mini"] -= 2.0 * falling["epoch"]
    falling["imagereward-mini"] -= 2.0 * falling["epoch"]
    text = section(page_of(falling, tmp_path), "joint")
    # Three prompts of three: like a coin that fell on one side three times.
    assert "Cannot tell which was on more prompts DDPO-2 on aes" in text
    assert "100% [29%, 100%] \N{MINUS SIGN}100% [\N{MINUS SIGN}100%, 42%]" in text
    assert "pick-mini, hps-mini, imagereward-mini 0% " in text


def test_rules_for_stopping_are_in_the_page_where_there_are_histories(
    page: str, scores: pd.DataFrame, tmp_path: Path
) -> None:
    assert 'id="stopping"' not in page
    history = pd.DataFrame(
        {
            "run": "tdpo_r-aesthetic-mini-s0",
            "method": "tdpo_r",
            "reward": "aesthetic-mini",
            "seed": 0,
            "epoch": [1, 2, 3],
            "reward_queries": [64, 128, 192],
            "kl_to_base": [0.0, 1.0, 2.0],
        }
        | {f"{name}_std": 0.5 for name in ("aesthetic-mini", "gold_taste", "hps-mini")}
        | {f"{name}_mean": [0.0, 1, 0.5] for name in ("gold_taste", "hps-mini")}
        | {"aesthetic-mini_mean": [0.0, 1, 2]}
    )
    regrets = summarise_regrets(stopping_report(history, held_out=["hps-mini"]))
    runs = judge_alarms(
        pd.concat([history, history.assign(reward="pick-mini", run="b")]),
        held_out=["hps-mini"],
        **{"min_epochs": 3, "alpha": 1e-12},  # which gives none
    )
    alarms = count_alarms(runs)
    text = section(
        page_of(scores, tmp_path, regrets=regrets, alarms=alarms), "stopping"
    )
    # To the end: 0.5 below the best, in deviations of 0.5. A regret has no sign.
    assert "TDPO-R gold_taste 1.00, no interval" in text
    assert "no other seed that can be judged, to tune it on" in text
    # One run without an alarm, whose gold fell by 0.5 in one epoch: a difference
    # of 64 samples each has the standard error 0.088.
    none = "–"
    row = f"aesthetic-mini gold_taste by the end 0 0 1 0 0% [0%, 98%] {none} {none}"
    assert row in text
    assert "pick-mini no gold was scored in training" in text
    alone = section(page_of(scores, tmp_path, regrets=regrets), "stopping")
    assert "alarms against the gold" not in alone
