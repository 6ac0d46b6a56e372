"""AlignProp, DRaFT and ReFL."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from tdpo_pipeline.algorithms import reward_backprop
from tdpo_pipeline.algorithms.alignprop import (
    Truncation,
    live_steps,
    truncated_normal,
)
from tdpo_pipeline.algorithms.draft import denoised_again
from tdpo_pipeline.algorithms.refl import ReFLSettings, foreseen_latents
from tdpo_pipeline.algorithms.registry import algorithm_class
from tdpo_pipeline.algorithms.reward_backprop import (
    LossSettings,
    final_latents,
    reward_loss,
    with_gradient_of,
)
from tdpo_pipeline.config import AlgorithmSettings, RunConfig
from tdpo_pipeline.diffusion.ddim import ddim_step_with_log_prob
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.diffusion.randomness import generator, noise
from tdpo_pipeline.diffusion.trajectory import Trajectory
from tdpo_pipeline.rewards.base import Reward, Scores
from tdpo_pipeline.rewards.registry import NoGradientError
from tdpo_pipeline.trainer.stopwatch import Stopwatch
from tests import tiny
from tests.conftest import ROOT

ALIGNPROP = {
    "algorithm": "alignprop",
    "optimizer": tiny.OPTIMIZER,
    "truncation": {"kind": "per_step"},
}
DRAFT = {"algorithm": "draft", "optimizer": tiny.OPTIMIZER}
REFL = {
    "algorithm": "refl",
    "optimizer": tiny.OPTIMIZER,
    "loss": {"kind": "hinge", "target": 2.0, "unit": "base_std"},
}
EXPLORATION = {"guidance": {"threshold": 600, "low": 1.0}, "prompt_weighting": {}}
METHODS = {
    "alignprop 2023": ALIGNPROP
    | {"eta": 0.0, "loss": {"kind": "distance", "target": 1.0, "coefficient": 0.01}},
    "alignprop trl": ALIGNPROP | {"truncation": {"kind": "normal"}},
    "alignprop diffexp": ALIGNPROP | {"exploration": EXPLORATION},
    "draft_k": DRAFT | {"last_steps": 2},
    "draft_lv": DRAFT | {"extra_noisings": 2},
    "refl": REFL,
}
ALL = torch.ones(4, 4, dtype=torch.bool)
GAPS = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()
FOUR = torch.arange(4)


def build(algorithm, **changes):
    """An algorithm on a policy that has left the base model, and its first epoch."""
    config = tiny.run_config(algorithm, **changes)
    policy = Policy(tiny.pipeline(), num_inference_steps=4, lora=tiny.LORA)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draws))
    made = algorithm_class(config.algorithm.algorithm)(
        config, policy, tiny.Redness(), None, Stopwatch()
    )
    return made, made.sample(1, ["cat", "dog"] * 4)


def gradients(policy: Policy, loss: torch.Tensor) -> list[torch.Tensor]:
    """Of the trained parameters; zeros where the loss doesn't depend on one."""
    for parameter in policy.parameters():
        parameter.grad = None
    loss.backward()
    return [
        torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()
    ]


def score(policy: Policy, latents: torch.Tensor) -> torch.Tensor:
    """Mean redness of decoded latents."""
    images = policy.decode(latents)
    return tiny.Redness()(images, ["cat"] * len(images)).values.mean()


def plain_sampler(
    policy: Policy, trajectory: Trajectory, live: torch.Tensor
) -> torch.Tensor:
    """x_0 of the first four trajectories by a plain sampler with one large graph.

    It starts from the addressed noise and calls the UNet in every step; predictions are
    detached where a step isn't live.
    """
    draws = [noise(0, "rollout", 1, range(4), i, policy.latent_shape) for i in range(5)]
    x = draws[0]
    for i, t in enumerate(trajectory.timesteps):
        timestep, step = t.expand(4), torch.full((4,), i)
        weight = trajectory.guidance_at(step)
        eps = policy.predict_noise(x, timestep, trajectory.embeds[:4], weight)
        eps = torch.where(live[:, i, None, None, None], eps, eps.detach())
        z = draws[i + 1] if trajectory.eta else torch.zeros_like(x)
        x, _ = ddim_step_with_log_prob(
            policy.scheduler, eps, timestep, x, eta=trajectory.eta, noise=z
        )
    return x


def assert_same_gradients(actual, expected, rtol=1e-4):
    scale = max(float(g.abs().max()) for g in expected)
    assert scale > 1e-6
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * scale)


# The loss


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Rewards 1 and 3, target 2, coefficient 1/2: -r, |r - 2|, relu(2 - r), halved.
    [("negative", [-0.5, -1.5]), ("distance", [0.5, 0.5]), ("hinge", [0.5, 0.0])],
)
def test_reward_loss_by_hand(kind, expected):
    target = None if kind == "negative" else 2.0
    settings = LossSettings(kind=kind, target=target, coefficient=0.5)
    losses = reward_loss(torch.tensor([1.0, 3.0]), settings, target)
    assert losses.tolist() == expected


def test_a_target_belongs_to_the_losses_that_have_one():
    with pytest.raises(ValidationError, match=r"loss\.target"):
        LossSettings(kind="hinge")
    with pytest.raises(ValidationError, match=r"loss\.target"):
        LossSettings(kind="negative", target=1.0)


def test_a_target_in_deviations_is_that_of_the_first_epoch():
    # Rewards -1 and 3 have mean 1 and (population) deviation 2: 1 + 2 * 2 = 5.
    made, trajectory = build(REFL)
    made.update(1, trajectory, torch.tensor([-1.0, 3.0]))
    made.update(2, trajectory, torch.tensor([10.0, 20.0]))
    assert made.target == 5.0
    other, _ = build(REFL)
    other.load_state_dict(made.state_dict())
    assert other.target == 5.0


def test_hinge_lets_go_of_images_that_reached_the_target():
    settings = {"kind": "hinge", "target": -2.0}  # redness is never below -1
    made, trajectory = build(DRAFT | {"loss": settings})
    before = [p.detach().clone() for p in made.policy.parameters()]
    metrics = made.update(1, trajectory, torch.zeros(8))
    assert (metrics["loss"], metrics["policy_grad_norm"]) == (0.0, 0.0)
    decay = 1 - 1e-4 * 1e-2  # all that AdamW does without a gradient
    for old, new in zip(before, made.policy.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), decay * old)


# The truncation


def truncation(**settings):
    return TypeAdapter(Truncation).validate_python(settings)


def draw_many(settings, steps, count=4000):
    drawn = [live_steps(settings, generator(i, "test"), steps) for i in range(count)]
    return np.stack(drawn)


def test_per_step_truncation_draws_a_number_for_each_step():
    # Step i is live if i >= U{0, 1, 2, 3, 4}: with probability (i + 1) / 5.
    live = draw_many(truncation(kind="per_step"), 4)
    expected = np.array([0.2, 0.4, 0.6, 0.8])
    error = np.sqrt(expected * (1 - expected) / len(live))
    assert (np.abs(live.mean(0) - expected) < 4 * error).all()
    # Independently: steps 2 and 3 are live together with 0.6 * 0.8.
    both = (live[:, 2] & live[:, 3]).mean()
    assert abs(both - 0.48) < 4 * np.sqrt(0.48 * 0.52 / len(live))


def test_normal_truncation_is_a_normal_number_drawn_again_until_it_fits():
    # mean 8.4, std 1, T = 10: int(N) is kept if N is in [1, 10), which has probability
    # Phi(1.6) - Phi(-7.4) = 0.94520. int(N) = 9: (0.94520 - Phi(0.6)) / 0.94520 =
    # (0.94520 - 0.72575) / 0.94520 = 0.2322. int(N) = 8: (0.72575 - Phi(-0.4)) /
    # 0.94520 = (0.72575 - 0.34458) / 0.94520 = 0.4033.
    grid = (np.arange(20000) + 0.5) / 20000
    first = np.array([truncated_normal(u, 8.4, 1.0, 10) for u in grid])
    assert abs((first == 9).mean() - 0.2322) < 2e-4
    assert abs((first == 8).mean() - 0.4033) < 2e-4
    live = draw_many(truncation(kind="normal"), 10)
    assert live[:, 9].all()
    error = np.sqrt(0.2322 * 0.7678 / len(live))
    assert abs((live.sum(1) == 1).mean() - 0.2322) < 4 * error


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("mean", [-100.0, 0.0, 1.7, 50.0])
def test_normal_truncation_stays_within_the_sampler(uniform, mean):
    assert truncated_normal(uniform, mean, 0.2, 2) == 1
    assert 1 <= truncated_normal(uniform, mean, 0.2, 5) <= 4


def test_uniform_truncation():
    # T = 10: the first live step is one of 6, 7, 8, 9, so 4, 3, 2 or 1 are live.
    live = draw_many(truncation(kind="uniform"), 10)
    counts = np.bincount(live.sum(1), minlength=5)
    assert counts[0] == 0
    assert (np.abs(counts[1:] / len(live) - 0.25) < 0.03).all()
    assert len(counts) == 5


def test_fixed_truncation():
    live = live_steps(truncation(kind="fixed", last_steps=2), generator(0, ""), 4)
    assert live.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ALIGNPROP | {"truncation": {"kind": "normal", "low": 0.1}}, "low"),
        (ALIGNPROP | {"truncation": {"kind": "uniform", "low": 1.0}}, "below"),
        (ALIGNPROP | {"truncation": {"kind": "fixed", "last_steps": 5}}, "more than"),
        (DRAFT | {"last_steps": 5}, "more than num_inference_steps 4"),
        (DRAFT | {"last_steps": 2, "extra_noisings": 2}, "needs last_steps: 1"),
        (
            DRAFT | {"exploration": {"guidance": {}, "log_prob": "target"}},
            "no log-probs",
        ),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValidationError, match=message):
        tiny.run_config(settings)


def test_every_sample_and_epoch_has_its_own_truncation():
    made, _ = build(ALIGNPROP)
    live = made.live(1, torch.arange(64), 4)
    assert len({tuple(row) for row in live.tolist()}) > 8
    assert torch.equal(made.live(1, torch.arange(8, 16), 4), live[8:16])
    assert not torch.equal(made.live(2, torch.arange(64), 4), live)


# The chain


def test_with_gradient_of_has_one_tensors_value_and_the_others_gradient():
    path = torch.tensor([3.0], requires_grad=True)
    joined = with_gradient_of(torch.tensor([0.1]), path**2)
    assert joined.item() == torch.tensor(0.1).item()
    joined.backward()
    assert path.grad.item() == 6.0


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("live", [ALL, GAPS], ids=["all", "gaps"])
def test_images_are_bitwise_those_of_the_rollout(eta, live):
    made, trajectory = build(ALIGNPROP | {"eta": eta})
    latents = final_latents(made.policy, trajectory, FOUR, live)
    assert latents.requires_grad
    assert torch.equal(latents, trajectory.latents[:4, -1])
    assert torch.equal(made.policy.decode(latents), trajectory.images[:4])
    # That they are kept and not made again hides nothing: a sampler that calls the
    # UNet in every step, with gradient and truncation, gives the same bits.
    plain = plain_sampler(made.policy, trajectory, live)
    assert plain.requires_grad
    assert torch.equal(made.policy.decode(plain), trajectory.images[:4])


@pytest.mark.parametrize("exploration", [None, EXPLORATION], ids=["plain", "diffexp"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("live", [ALL, GAPS], ids=["all", "gaps"])
def test_gradient_is_that_of_a_plain_sampler(eta, live, exploration):
    made, trajectory = build(ALIGNPROP | {"eta": eta, "exploration": exploration})
    if exploration:
        assert trajectory.guidance.tolist() == [1.0, 2.0, 2.0, 2.0]
        plain_embeds = made.policy.encode(trajectory.prompts)
        assert not torch.equal(trajectory.embeds.tokens, plain_embeds.tokens)
    policy = made.policy
    expected = gradients(policy, score(policy, plain_sampler(policy, trajectory, live)))
    actual = gradients(
        policy, score(policy, final_latents(policy, trajectory, FOUR, live))
    )
    assert_same_gradients(actual, expected)


def test_truncation_changes_the_gradient():
    made, trajectory = build(ALIGNPROP)
    whole, part = (
        gradients(
            made.policy,
            score(made.policy, final_latents(made.policy, trajectory, FOUR, live)),
        )
        for live in (ALL, GAPS)
    )
    assert any(
        not torch.allclose(a, b, rtol=0.05) for a, b in zip(whole, part, strict=True)
    )


def test_the_unet_is_called_for_live_steps_only(monkeypatch):
    made, trajectory = build(ALIGNPROP)
    sizes = []
    original = Policy.predict_noise

    def counted(self, latents, *args):
        sizes.append(len(latents))
        return original(self, latents, *args)

    monkeypatch.setattr(Policy, "predict_noise", counted)
    final_latents(made.policy, trajectory, FOUR, GAPS)
    assert sizes == [1, 1, 1, 2]
    one = torch.zeros_like(ALL)
    one[:, -1] = True
    sizes.clear()
    score(made.policy, final_latents(made.policy, trajectory, FOUR, one)).backward()
    assert sizes == [4]  # a single graph isn't computed twice


# The methods


def assert_same_weights(first, second):
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_draft_of_all_steps_is_full_backpropagation():
    made, trajectory = build(DRAFT | {"last_steps": 4}, samples_per_epoch=4)
    trajectory = made.sample(1, ["cat", "dog"] * 2)
    x0 = plain_sampler(made.policy, trajectory, ALL)
    expected = gradients(made.policy, -score(made.policy, x0))
    metrics = made.update(1, trajectory, torch.zeros(4))
    assert metrics["policy_grad_norm"] < 1  # so that nothing has been clipped
    assert_same_gradients([p.grad for p in made.policy.parameters()], expected)


@pytest.mark.parametrize("last_steps", [1, 2, 4])
def test_alignprop_with_a_fixed_truncation_is_draft(last_steps):
    draft, trajectory = build(DRAFT | {"last_steps": last_steps})
    fixed = {"kind": "fixed", "last_steps": last_steps}
    alignprop, same = build(ALIGNPROP | {"truncation": fixed, "eta": 1.0})
    assert torch.equal(trajectory.latents, same.latents)
    draft.update(1, trajectory, torch.zeros(8))
    alignprop.update(1, trajectory, torch.zeros(8))
    assert_same_weights(draft.policy, alignprop.policy)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_change_nothing(method):
    updated = []
    for size in (4, 3):
        made, trajectory = build(METHODS[method], micro_batch_size=size)
        metrics = made.update(
            1, trajectory, tiny.Redness()(trajectory.images, [""] * 8).values
        )
        updated.append((metrics, [p.grad for p in made.policy.parameters()]))
    (metrics, whole), (others, parts) = updated
    assert_same_gradients(parts, whole, rtol=1e-3)
    for name in ("loss", "loss_reward", "policy_grad_norm"):
        assert others[name] == pytest.approx(metrics[name], rel=1e-4)


def test_draft_lv_averages_the_image_and_its_denoised_noisings():
    made, trajectory = build(DRAFT | {"extra_noisings": 2}, micro_batch_size=8)
    assert made.settings.queries_per_sample == 3
    policy, eight = made.policy, torch.arange(8)
    last = torch.zeros(8, 4, dtype=torch.bool)
    last[:, -1] = True
    draws = [
        noise(0, "low variance", 1, range(8), j, policy.latent_shape) for j in (0, 1)
    ]
    latents = [
        final_latents(policy, trajectory, eight, last),
        *(denoised_again(policy, trajectory, eight, z) for z in draws),
    ]
    loss = -sum(score(policy, x) for x in latents) / 3
    expected = gradients(policy, loss)
    metrics = made.update(1, trajectory, torch.zeros(8))
    assert metrics["loss"] == pytest.approx(float(loss.detach()))
    assert_same_gradients([p.grad for p in policy.parameters()], expected)


def test_denoising_again_with_a_perfect_prediction_gives_the_image_back(monkeypatch):
    made, trajectory = build(DRAFT | {"extra_noisings": 1})
    z = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    # abar_1 = (1 - 0.00085) (1 - beta_1) with beta_1 = (sqrt(0.00085) + (sqrt(0.012) -
    # sqrt(0.00085)) / 999)^2 = 0.00085473: 0.998296.
    expected = 0.998296**0.5 * trajectory.latents[:4, -1] + 0.001704**0.5 * z

    def perfect(self, latents, timesteps, *args):
        assert timesteps.tolist() == [1] * 4
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
        return z

    monkeypatch.setattr(Policy, "predict_noise", perfect)
    again = denoised_again(made.policy, trajectory, FOUR, z)
    torch.testing.assert_close(again, trajectory.latents[:4, -1])


def test_refl_draws_one_of_the_last_quarter_of_the_steps():
    assert [ReFLSettings(**REFL).first_step(steps) for steps in (1, 2, 4, 10, 40)] == [
        0,
        1,
        3,
        8,
        30,
    ]
    made, _ = build(REFL)
    steps = [made.step(1, sample, 40) for sample in range(400)]
    assert set(steps) == set(range(30, 40))


def test_refl_scores_the_image_that_a_step_foresees():
    made, trajectory = build(REFL | {"last_part": 1.0})
    policy = made.policy
    assert trajectory.guidance == 1.0
    pairs = torch.tensor([[0, 2], [3, 0]])
    foreseen = foreseen_latents(policy, trajectory, pairs)
    for row, (sample, step) in enumerate(pairs.tolist()):
        x, t = trajectory.latents[sample, step], trajectory.timesteps[step]
        eps = policy.predict_noise(
            x[None], t[None], trajectory.embeds[sample : sample + 1], 1.0
        )[0]
        a = policy.scheduler.alphas_cumprod[t]
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        torch.testing.assert_close(foreseen[row], x0, rtol=1e-4, atol=1e-4)


def test_refl_takes_one_live_step_of_each_sample(monkeypatch):
    made, trajectory = build(REFL)
    sizes = []
    original = Policy.predict_noise

    def counted(self, latents, timesteps, embeds, guidance_scale):
        sizes.append(len(latents))
        assert guidance_scale == 1.0
        assert timesteps.tolist() == [1] * 4  # the last quarter of four steps
        return original(self, latents, timesteps, embeds, guidance_scale)

    monkeypatch.setattr(Policy, "predict_noise", counted)
    made.update(1, trajectory, torch.tensor([-1.0, 1.0]))
    assert sizes == [4, 4]


@pytest.mark.parametrize("method", METHODS)
def test_a_step_raises_the_reward_of_the_same_noise(method):
    settings = METHODS[method] | {"optimizer": {"learning_rate": 1e-3}}
    made, trajectory = build(settings)
    before = tiny.Redness()(trajectory.images, trajectory.prompts).values
    made.update(1, trajectory, before)
    after = made.sample(1, trajectory.prompts)
    assert tiny.Redness()(after.images, after.prompts).values.mean() > before.mean()


def test_an_epoch_without_a_live_step_teaches_nothing(monkeypatch):
    made, trajectory = build(ALIGNPROP)
    monkeypatch.setattr(
        type(made), "live", lambda *_: torch.zeros(4, 4, dtype=torch.bool)
    )
    metrics = made.update(1, trajectory, torch.zeros(8))
    assert metrics["policy_grad_norm"] == 0.0
    values = tiny.Redness()(trajectory.images, trajectory.prompts).values
    assert metrics["loss"] == pytest.approx(-float(values.mean()))


def test_summary_says_what_an_update_is_made_of():
    summaries = {name: tiny.run_config(m).summary() for name, m in METHODS.items()}
    assert "1 update an epoch on 8 images" in summaries["draft_k"]
    assert "last 2 of 4 steps" in summaries["draft_k"]
    assert "last 1 of 4 steps and 2 more noisings" in summaries["draft_lv"]
    assert "guidance 1, eta 1, 1 update" in summaries["refl"]
    assert "guidance 2, eta 0, 1 update" in summaries["alignprop 2023"]


# The entries


def entries():
    path = ROOT / "conf" / "base" / "parameters_methods.yml"
    methods = yaml.safe_load(path.read_text())["methods"]
    family = ("alignprop", "draft", "refl")
    return {k: v for k, v in methods.items() if v["algorithm"] in family}


@pytest.mark.parametrize("name", entries())
@pytest.mark.parametrize("steps", [2, 10, 50])
def test_entries_fit_every_scale(name, steps):
    settings = AlgorithmSettings.model_validate(entries()[name])
    settings.check(tiny.training(num_inference_steps=steps))


def test_diffexp_changes_nothing_but_the_exploration():
    plain = entries()["alignprop_trl"]
    explored = {k: v for k, v in entries().items() if "exploration" in v}
    assert len(explored) == 6
    for settings in explored.values():
        assert {k: v for k, v in settings.items() if k != "exploration"} == plain


# Rewards without gradient


class Opaque(tiny.Redness):
    """A reward that doesn't say that it is differentiable."""

    differentiable = False


class Lying(tiny.Redness):
    """A reward that says so and isn't."""

    def score(
        self,
        images: torch.Tensor,
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, object]] | None = None,
    ) -> Scores:
        return super().score(images.detach(), prompts)


@pytest.mark.parametrize("settings", [ALIGNPROP, DRAFT, REFL])
def test_a_registered_reward_without_gradient_stops_the_configuration(settings):
    name = "jpeg_compressibility"
    with pytest.raises(ValidationError) as caught:
        tiny.run_config(settings, scorer=name, reward=name)
    assert f"No gradient of reward '{name}'" in str(caught.value)
    assert "aesthetic-mini, pick-mini, hps-mini, imagereward-mini" in str(caught.value)
    assert isinstance(tiny.run_config(tiny.DDPO, scorer=name, reward=name), RunConfig)


@pytest.mark.parametrize("reward", [Opaque, Lying])
def test_a_reward_of_ones_own_without_gradient_stops_the_run(
    train, reward: type[Reward]
):
    with pytest.raises(NoGradientError, match="No gradient of reward 'redness'"):
        train(tiny.run_config(DRAFT, scorer=f"{__name__}:{reward.__name__}"))


# Whole runs


def weights(result):
    return [p.read_bytes() for p in sorted(result.checkpoints.rglob("*.safetensors"))]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_resumes_bitwise(train, method):
    config = tiny.run_config(METHODS[method], epochs=3)
    whole = train(config, "whole")
    history = whole.history
    queries = 3 if method == "draft_lv" else 1
    assert history["reward_queries"].tolist() == [8 * queries * e for e in (1, 2, 3)]
    columns = ["loss", "loss_reward", "policy_grad_norm", "policy_grad_spread"]
    assert np.isfinite(history[[*columns, "redness_mean", "kl_to_base"]]).all(axis=None)
    assert (history["policy_grad_norm"] > 0).all()
    assert history["kl_to_base"].iloc[-1] > 0
    if method not in ("draft_lv", "refl"):
        # What learning sees is what the history measures.
        np.testing.assert_allclose(
            history["loss_reward"], history["redness_mean"], rtol=1e-5
        )

    with tiny.killed_after(1):
        train(config, "killed")
    resumed = train(config, "killed")
    assert weights(resumed) == weights(whole)
    pd.testing.assert_frame_equal(resumed.history, history, check_exact=True)


def test_checkpointing_changes_no_gradient(monkeypatch):
    made, trajectory = build(ALIGNPROP)
    policy = made.policy
    kept = gradients(
        policy, score(policy, final_latents(policy, trajectory, FOUR, ALL))
    )
    monkeypatch.setattr(
        reward_backprop, "checkpoint", lambda f, *args, use_reentrant: f(*args)
    )
    plain = gradients(
        policy, score(policy, final_latents(policy, trajectory, FOUR, ALL))
    )
    for a, b in zip(kept, plain, strict=True):
        assert torch.equal(a, b)
