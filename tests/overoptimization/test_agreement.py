"""How often two rewards rank two pictures of a prompt alike, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tdpo_pipeline.overoptimization import (
    RUN,
    ScoreTableError,
    known_rewards,
    pairwise_agreement,
)
from tdpo_pipeline.overoptimization.agreement import agreement_by_prompt
from tdpo_pipeline.overoptimization.report import agreement_finding
from tests.synthetic_tables import synthetic_scores

PROMPTS = {"simple_animals": ["cat", "dog"], "complex": ["a cat and a dog"]}


def table(
    proxy: dict[str, list[float]],
    gold: dict[str, list[float]],
    *,
    epoch: int = 0,
    seed: int = 0,
    prompt_set: str = "simple_animals",
) -> pd.DataFrame:
    """Scores of one checkpoint, by prompt; all prompts are trained on."""
    head = {
        "run": f"m-aesthetic-mini-s{seed}",
        "method": "m",
        "reward": "aesthetic-mini",
    }
    head |= {"seed": seed, "epoch": epoch, "reward_queries": 100 * epoch}
    head |= {"kl_to_base": float(epoch), "eta": 1.0, "prompt_set": prompt_set}
    rows = [
        {**head, "prompt": prompt, "seen": True, "image": image}
        | {"aesthetic-mini": score, "gold_taste": gold[prompt][image]}
        for prompt, scores in proxy.items()
        for image, score in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_one_prompt_of_the_base_model_has_no_interval() -> None:
    proxy, gold = {"cat": [1.0, 2.0, 3.0]}, {"cat": [1.0, 3.0, 2.0]}
    same = [table(proxy, gold, seed=seed) for seed in range(3)]
    other = [
        table({"cat": [float(seed), 2.0, 1.5]}, gold, epoch=4, seed=seed)
        for seed in range(3)
    ]
    found = gold_rows(pairwise_agreement(pd.concat([*same, *other])))
    assert found.loc[0, "agreement"] == pytest.approx(2 / 3)
    assert found.loc[0, ["agreement_low", "agreement_high"]].isna().all()
    assert found.loc[4, ["agreement_low", "agreement_high"]].notna().all()


def test_checkpoints_with_other_images_are_refused() -> None:
    proxy, gold = {"cat": [1.0, 2.0, 3.0]}, {"cat": [1.0, 2.0, 3.0]}
    fewer = table(proxy, gold, epoch=4).query("image < 2")
    with pytest.raises(ScoreTableError, match="epoch 4, prompt cat: not all images"):
        pairwise_agreement(pd.concat([table(proxy, gold), fewer]))


def gold_rows(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["role"] == "gold"].set_index("epoch")


def test_pairs_by_hand() -> None:
    # Pairs (0,1), (0,2), (1,2). Cat: the proxy prefers 1, 2, 2 and the gold 1, 2, 1: two
    # of three. Dog: the proxy prefers 0, 0 and is undecided (one half); the gold 0, 2, 2:
    # 1 + 0 + 1/2 of three.
    proxy = {"cat": [1.0, 2.0, 3.0], "dog": [9.0, 5.0, 5.0]}
    gold = {"cat": [0.1, 0.3, 0.2], "dog": [0.2, 0.1, 0.3]}
    by_prompt = agreement_by_prompt(table(proxy, gold)).set_index("prompt")
    assert by_prompt["gold_taste"].to_dict() == pytest.approx(
        {"cat": 2 / 3, "dog": 1.5 / 3}
    )
    assert by_prompt["aesthetic-mini"].isna().all()
    assert (by_prompt["n_images"] == 3).all()
    (row,) = pairwise_agreement(table(proxy, gold)).to_dict("records")
    assert row["agreement"] == pytest.approx(
        (2 / 3 + 1 / 2) / 2
    )  # prompts weigh equally
    assert (row["scored"], row["role"], row["group"]) == ("gold_taste", "gold", "seen")
    assert (row["change"], row["n_prompts"], row["n_images"]) == (0, 2, 6)


def test_the_levels_of_prompts_have_no_part_in_it() -> None:
    # Over all images the two are nearly equal, and within each prompt they are opposite.
    proxy = {"cat": [10.0, 11.0], "dog": [50.0, 51.0]}
    gold = {"cat": [11.0, 10.0], "dog": [51.0, 50.0]}
    (row,) = pairwise_agreement(table(proxy, gold)).to_dict("records")
    assert row["agreement"] == 0


def test_what_became_of_it_is_paired_with_the_base_model() -> None:
    base = {"cat": [1.0, 2.0], "dog": [1.0, 2.0], "fox": [1.0, 2.0]}
    turned = {"cat": [2.0, 1.0], "dog": [1.0, 2.0], "fox": [2.0, 2.0]}
    scores = pd.concat(
        [table(base, base, seed=s) for s in (0, 1)]
        + [table(turned, base, epoch=5, seed=s) for s in (0, 1)]
    )
    rows = gold_rows(pairwise_agreement(scores))
    assert rows["agreement"].to_dict() == pytest.approx({0: 1, 5: (0 + 1 + 0.5) / 3})
    assert rows["change"].to_dict() == pytest.approx({0: 0, 5: -0.5})
    assert rows["reward_queries"].to_dict() == {0: 0, 5: 500}
    assert (rows["n_seeds"] == 2).all() and (rows["n_images"] == 12).all()
    # No seed deviates, so that the interval is that over three prompts.
    assert rows["change_low"].loc[5] < -0.5 < rows["change_high"].loc[5]


def test_intervals_end_where_shares_do() -> None:
    rng = np.random.default_rng(0)
    proxy, gold = (
        {name: rng.normal(size=3).tolist() for name in ("cat", "dog")} for _ in "ab"
    )
    (row,) = pairwise_agreement(table(proxy, gold)).to_dict("records")
    assert 0 <= row["agreement_low"] <= row["agreement"] <= row["agreement_high"] <= 1


def test_every_group_reward_and_run() -> None:
    scores = pd.concat(
        [
            synthetic_scores(
                *("tdpo", "aesthetic-mini", seed),
                gains={"aesthetic-mini": [0, 1]},
                epochs=(0, 4),
                prompts=PROMPTS,
                trained_on=("cat",),
            )
            for seed in range(2)
        ]
    )
    found = pairwise_agreement(scores)
    assert set(found["group"]) == {"seen", "untrained", "complex"}
    assert set(found["scored"]) == set(scores.columns[11:]) - {"seen", "image"} - {
        "aesthetic-mini"
    }
    # Each prompt's own gain moves all its images alike, and ranks none anew.
    assert (found["change"] == 0).all()
    assert (found["n_images"] == 2 * 4).all()
    runs = pairwise_agreement(scores, by=RUN)
    assert len(runs) == 2 * len(found) and (runs["n_images"] == 4).all()
    said = dict(agreement_finding(found).said)
    assert list(said) == ["aesthetic-mini and gold_taste"]
    assert [text.split()[0] for text in said["aesthetic-mini and gold_taste"]] == [
        "base",
        "tdpo",
    ]
    with known_rewards(golds={}):
        held_out = agreement_finding(pairwise_agreement(scores)).said
    assert len(held_out) == 5  # three other proxies, and two that are nobody's gold now


def test_a_prompt_with_one_image_has_no_pair() -> None:
    alone = table({"cat": [1.0]}, {"cat": [1.0]})
    assert pairwise_agreement(alone).empty
    ((_, why),) = agreement_finding(pairwise_agreement(alone)).said
    assert why == ["it takes two images of a prompt"]
    both = pd.concat([alone, table({"dog": [1.0, 2.0]}, {"dog": [1.0, 2.0]})])
    (row,) = pairwise_agreement(both).to_dict("records")
    assert (row["agreement"], row["n_prompts"], row["n_images"]) == (1, 1, 2)


def test_a_prompt_in_two_sets_is_counted_once() -> None:
    proxy, gold = {"cat": [1.0, 2.0]}, {"cat": [1.0, 2.0]}
    twice = [table(proxy, gold, prompt_set=name) for name in ("a", "b")]
    (row,) = pairwise_agreement(pd.concat(twice)).to_dict("records")
    assert (row["n_prompts"], row["n_images"]) == (1, 2)


def test_pictures_numbered_on_from_set_to_set_are_those_of_one_prompt() -> None:
    proxy, gold = {"cat": [1.0, 2.0]}, {"cat": [1.0, 2.0]}
    more = table({"cat": [3.0, 4.0]}, {"cat": [4.0, 3.0]}, prompt_set="more")
    scores = pd.concat([table(proxy, gold), more.assign(image=more["image"] + 2)])
    (row,) = pairwise_agreement(scores).to_dict("records")
    assert row["agreement"] == pytest.approx(5 / 6)  # all pairs but (2, 3)
    assert (row["n_prompts"], row["n_images"]) == (1, 4)


def test_where_all_prompts_agree_the_interval_is_that_of_so_many_trials() -> None:
    same = {name: [1.0, 2.0] for name in ("cat", "dog", "fox")}
    (row,) = pairwise_agreement(table(same, same)).to_dict("records")
    # Clopper and Pearson, three of three: (0.025) ** (1 / 3).
    assert (row["agreement"], row["agreement_high"]) == (1, 1)
    assert row["agreement_low"] == pytest.approx(0.025 ** (1 / 3))


def test_the_trained_reward_has_to_be_scored() -> None:
    scores = table({"cat": [1.0, 2.0]}, {"cat": [1.0, 2.0]})
    with pytest.raises(ScoreTableError, match="'aesthetic-mini' were not scored by it"):
        pairwise_agreement(scores.drop(columns="aesthetic-mini"))
