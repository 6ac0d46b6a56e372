"""Paired differences by hand, and intervals that cover what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tdpo_pipeline.overoptimization import (
    Bootstrap,
    ScoreTableError,
    drop_from_peak,
    paired_difference,
)
from tdpo_pipeline.overoptimization.intervals import (
    Cells,
    cell_means,
    crossed_deviations,
    deviations,
    estimates,
    simultaneous,
    stretch,
)

REWARD = "gold_taste"


def table(
    values: dict[tuple[int, str, int], list[float]], seed: int = 0
) -> pd.DataFrame:
    """Score table from ``{(epoch, prompt, first image): scores of the images}``."""
    rows = [
        {
            "run": f"tdpo-aesthetic-mini-s{seed}",
            "method": "tdpo",
            "reward": "aesthetic-mini",
            "seed": seed,
            "epoch": epoch,
            "eta": 1.0,
            "prompt_set": "simple_animals",
            "prompt": prompt,
            "image": first + offset,
            REWARD: score,
        }
        for (epoch, prompt, first), scores in values.items()
        for offset, score in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_difference_is_paired_and_prompts_weigh_equally() -> None:
    scores = table(
        {
            (0, "cat", 0): [1.0, 2.0, 3.0],
            (4, "cat", 0): [2.0, 2.0, 5.0],  # changes 1, 0, 2: mean 1
            (0, "dog", 0): [10.0],
            (4, "dog", 0): [14.0],  # change 4
        }
    )
    found = paired_difference(scores, REWARD, epoch=4)
    assert found.mean == pytest.approx((1 + 4) / 2)
    assert (found.n_seeds, found.n_prompts, found.n_images) == (1, 2, 4)
    assert found.low < 2.5 < found.high


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    scores = table(
        {(e, p, 0): list(rng.normal(size=4)) for e in (0, 4) for p in "abcde"}
    )
    shuffled = scores.sample(frac=1, random_state=1)
    assert paired_difference(scores, REWARD, epoch=4) == paired_difference(
        shuffled, REWARD, epoch=4
    )


def test_equal_change_everywhere_has_an_interval_of_no_width() -> None:
    levels = {"cat": [0.0, 5.0], "dog": [-3.0, 1.0], "fox": [2.0, 2.0]}
    scores = table(
        {(0, p, 0): v for p, v in levels.items()}
        | {(4, p, 0): [x + 0.5 for x in v] for p, v in levels.items()}
    )
    found = paired_difference(scores, REWARD, epoch=4)
    assert found[:3] == pytest.approx((0.5, 0.5, 0.5))


def test_two_seeds_are_paired_within_the_seed() -> None:
    one = table({(0, "cat", 0): [1.0], (4, "cat", 0): [2.0]}, seed=0)
    two = table({(0, "cat", 0): [5.0], (4, "cat", 0): [8.0]}, seed=1)
    found = paired_difference(pd.concat([one, two]), REWARD, epoch=4)
    assert found.mean == pytest.approx((1 + 3) / 2)
    assert (found.n_seeds, found.n_prompts) == (2, 1)
    # Two seeds alone: the bootstrap of [1, 3] deviates by 1 at most, stretched by
    # sqrt(2) * 12.706 / 1.96.
    assert found.high == pytest.approx(2 + np.sqrt(2) * 12.7062 / 1.959964, rel=1e-4)


def test_one_prompt_and_one_seed_have_no_interval() -> None:
    scores = table({(0, "cat", 0): [1.0, 2.0], (4, "cat", 0): [2.0, 3.0]})
    found = paired_difference(scores, REWARD, epoch=4)
    assert found.mean == 1
    assert np.isnan(found.low) and np.isnan(found.high)


def test_an_image_without_partner_is_an_error() -> None:
    scores = table({(0, "cat", 0): [1.0, 2.0], (4, "cat", 0): [2.0]})
    with pytest.raises(
        ScoreTableError,
        match="1 images are of the base model or .* prompt_set .*, prompt ",
    ):
        paired_difference(scores, REWARD, epoch=4)


def test_two_methods_in_one_table_are_an_error() -> None:
    scores = table({(0, "cat", 0): [1.0], (4, "cat", 0): [2.0]})
    with pytest.raises(ScoreTableError, match="more than once"):
        paired_difference(pd.concat([scores, scores]), REWARD, epoch=4)


def test_a_missing_checkpoint_is_an_error_that_lists_those_there() -> None:
    scores = table({(0, "cat", 0): [1.0], (4, "cat", 0): [2.0]})
    with pytest.raises(ScoreTableError, match=r"No image of epoch 8 .*\[.*0.*4.*\]"):
        paired_difference(scores, REWARD, epoch=8)


def test_seeds_on_other_prompts_are_an_error() -> None:
    one = table({(0, "cat", 0): [1.0], (4, "cat", 0): [2.0]}, seed=0)
    two = table({(0, "dog", 0): [1.0], (4, "dog", 0): [2.0]}, seed=1)
    with pytest.raises(ScoreTableError, match="same 2 prompts"):
        paired_difference(pd.concat([one, two]), REWARD, epoch=4)


def test_cells_are_means_by_seed_and_prompt() -> None:
    keys = ["seed", "prompt_set", "prompt", "image", "eta"]
    images = pd.DataFrame(
        [(s, "x", p, i, 1.0, 10 * s + (p == "b") + i) for s in (0, 1) for p in "ab" for i in (0, 2)],
        columns=[*keys, "r"],
    ).set_index(keys)  # fmt: skip
    cells = cell_means(images)
    assert cells.n_images == 8
    assert cells.values[:, :, 0].tolist() == [[1.0, 2.0], [11.0, 12.0]]


def test_stretch_by_hand() -> None:
    # n = 5: sqrt(5 / 4) * t(0.975; 4) / z(0.975) = 1.11803 * 2.77645 / 1.95996
    assert stretch(5, 0.95) == pytest.approx(1.11803 * 2.77645 / 1.95996, rel=1e-5)
    assert stretch(10_000, 0.95) == pytest.approx(1, abs=1e-3)


def test_interval_of_normal_units_is_nearly_the_t_interval() -> None:
    values = np.random.default_rng(3).normal(2, 1, 12)
    found = estimates(Cells(values[None, :, None], 12), Bootstrap(draws=20_000))[0]
    t = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert found.low == pytest.approx(t[0], abs=0.08)
    assert found.high == pytest.approx(t[1], abs=0.08)


def test_equal_rng_equal_interval() -> None:
    values = np.random.default_rng(0).normal(size=(3, 7, 2))
    one, two = (deviations(values, Bootstrap(rng=5)) for _ in range(2))
    assert (one == two).all()
    assert (deviations(values, Bootstrap(rng=6)) != one).any()
    assert one.shape == (2000, 2)


@pytest.mark.parametrize(
    ("seeds", "prompts", "seed_sd", "prompt_sd"),
    [(1, 4, 0.0, 1.0), (1, 8, 0.0, 1.0), (3, 8, 1.0, 1.0), (5, 8, 1.0, 0.3)],
)
def test_interval_covers_a_known_effect(
    seeds: int, prompts: int, seed_sd: float, prompt_sd: float
) -> None:
    rng = np.random.default_rng(1)
    hits, n = 0, 400
    for trial in range(n):
        by_seed = rng.normal(0, seed_sd, (seeds, 1, 1))
        by_prompt = rng.normal(0, prompt_sd, (1, prompts, 1))
        cells = Cells(0.7 + by_seed + by_prompt, 1)
        found = estimates(cells, Bootstrap(draws=500, rng=trial))[0]
        hits += found.low <= 0.7 <= found.high
    # 95 % of 400, less three standard errors; a plain bootstrap gets 80 % at n = 4.
    assert hits / n > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n)


def test_drop_from_peak_by_hand() -> None:
    prompts = {"cat": 0.0, "dog": 5.0, "fox": -2.0}
    gains = {0: 0.0, 4: 2.0, 8: 1.0, 12: 0.5}
    scores = table(
        {(e, p, 0): [level + gain] for p, level in prompts.items() for e, gain in gains.items()}
    )  # fmt: skip
    drop = drop_from_peak(scores, REWARD)
    assert (drop.peak_epoch, drop.final_epoch) == (4, 12)
    assert drop.change[:3] == pytest.approx((-1.5, -1.5, -1.5))


def test_last_checkpoint_may_be_the_peak() -> None:
    scores = table({(e, p, 0): [float(e)] for e in (0, 4, 8) for p in "abc"})
    drop = drop_from_peak(scores, REWARD)
    assert (drop.peak_epoch, drop.final_epoch, drop.change.mean) == (8, 8, 0)
    assert np.isnan(drop.change.low)


def test_drop_needs_two_checkpoints() -> None:
    with pytest.raises(ScoreTableError, match="at least two"):
        drop_from_peak(table({(0, "cat", 0): [1.0]}), REWARD)


def test_drop_uses_checkpoints_that_all_seeds_have() -> None:
    full = table({(e, p, 0): [float(e)] for e in (0, 4, 8) for p in "ab"}, seed=0)
    stopped = table({(e, p, 0): [float(-e)] for e in (0, 4) for p in "ab"}, seed=1)
    assert drop_from_peak(pd.concat([full, stopped]), REWARD).final_epoch == 4


def test_choosing_the_peak_is_paid_for() -> None:
    """With no true fall among 11 checkpoints, few falls may be found."""
    rng = np.random.default_rng(0)
    falls, n = 0, 400
    for trial in range(n):
        levels = rng.normal(size=(1, 8, 11))
        changes = levels[:, :, -1:] - levels[:, :, :-1]
        means, reach = simultaneous(changes, Bootstrap(draws=500, rng=trial))
        falls += (means + reach)[means.argmin()] < 0
    # Minding the choice: about 5 %. An ordinary interval finds 14 % here.
    assert falls / n < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


def test_simultaneous_intervals_pay_for_their_number() -> None:
    changes = np.random.default_rng(0).normal(0.5, 1, (1, 20, 30))
    means, reach = simultaneous(changes)
    np.testing.assert_allclose(means, changes.mean(axis=(0, 1)))
    # Alone, a change of 20 prompts has the t interval: t(19) = 2.093.
    alone = changes[..., :1]
    expected = 2.093 * alone.std(ddof=1) / np.sqrt(20)
    assert simultaneous(alone)[1] == pytest.approx(expected, rel=0.1)
    # Thirty together need the t(19) of 1 - 0.05 / 30 and not of 0.05: 3.69 / 2.09 = 1.8.
    assert 1.5 < reach[0] / expected < 2.1
    assert np.isnan(simultaneous(changes[:, :1])[1]).all()


@pytest.mark.parametrize(("seeds", "coverage"), [(2, 0.7), (3, 0.9), (5, 0.95)])
def test_few_seeds_have_long_tails_together_too(seeds: int, coverage: float) -> None:
    """Ten checkpoints that differ by seed: what "95 %" comes to, as the code says."""
    rng = np.random.default_rng(1)
    held, n = 0, 200
    for trial in range(n):
        by_seed = rng.normal(size=(seeds, 1, 10))
        rest = 0.3 * rng.normal(size=(1, 8, 10)) + 0.3 * rng.normal(size=(seeds, 8, 10))
        means, reach = simultaneous(by_seed + rest, Bootstrap(draws=300, rng=trial))
        held += (np.abs(means) <= reach).all()
    # With the tails of 95 % for each of the ten it would be 0.74 with 3 seeds.
    assert held / n == pytest.approx(coverage, abs=0.06)


def test_crossed_deviations_of_a_mean_are_those_of_its_parts() -> None:
    """Two prompts and one seed: a prompt is drawn 0, 1 or 2 times of 2."""
    values = np.array([[[1.0], [3.0]]])
    joint = deviations(values, Bootstrap(draws=500))
    reach = np.sqrt(2) * 12.7062 / 1.959964  # stretch(2), see above
    expected = {-1.0, 0.0, 1.0}
    found = {round(float(d), 6) for d in joint[:, 0] / reach}
    assert found == expected


def test_crossed_deviations_follow_a_statistic_that_is_not_linear() -> None:
    """max of the means of two seeds: resampling only ever repeats one of them."""
    values = np.array([0.0, 1.0])

    def largest(seeds: np.ndarray) -> np.ndarray:
        return (values * (seeds > 0)).max(axis=1, keepdims=True)

    joint = crossed_deviations(largest, [2], Bootstrap(draws=400))
    drawn = joint[:, 0] / stretch(2, 0.95)
    # Only if the first seed is drawn twice (one in four) is the maximum 0 and not 1.
    assert set(np.round(drawn, 9)) == {-1.0, 0.0}
    assert (drawn < -0.5).mean() == pytest.approx(0.25, abs=0.07)
