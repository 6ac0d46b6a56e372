import pytest
import torch

from tdpo_pipeline import distributed
from tdpo_pipeline.algorithms.base import DivergedError
from tdpo_pipeline.algorithms.optimization import (
    GradientSpread,
    PolicyOptimizer,
    squared_norm,
)
from tdpo_pipeline.config import ComputeSettings, OptimizerSettings
from tdpo_pipeline.diffusion.policy import Policy
from tests import tiny


def optimizer(precision="fp16", **settings):
    policy = Policy(
        tiny.pipeline(),
        num_inference_steps=4,
        lora=tiny.LORA,
        compute=ComputeSettings(precision=precision),
    )
    return PolicyOptimizer(policy, OptimizerSettings(learning_rate=1e-2, **settings))


def loss_of(made, factor=1.0):
    """A loss whose gradient is ``factor`` in every weight."""
    return factor * torch.stack([p.sum() for p in made.parameters]).sum()


def test_the_loss_scale_is_taken_out_once():
    made = optimizer()
    count = sum(p.numel() for p in made.parameters)
    made.step([(0.25, loss_of(made, 4e-6)), (0.75, loss_of(made, 8e-6))])
    # 0.25 x 4e-6 + 0.75 x 8e-6 = 7e-6 in each of ``count`` weights.
    assert float(made.norms[0]) == pytest.approx(7e-6 * count**0.5, rel=1e-5)
    # The parts' gradients, each by its weight: deviation 2e-6 around 6e-6.
    assert made.metrics()["policy_grad_spread"] == pytest.approx(1 / 3, rel=1e-4)
    assert made.metrics()["skipped_updates"] == 0


def test_the_norm_is_clipped_after_unscaling():
    made = optimizer(max_grad_norm=1.0)
    count = sum(p.numel() for p in made.parameters)
    made.step([(1.0, loss_of(made, 3.0))])
    assert float(made.norms[0]) == pytest.approx(3.0 * count**0.5, rel=1e-5)
    clipped = torch.cat([p.grad.flatten() for p in made.parameters])
    assert float(clipped.norm()) == pytest.approx(1.0, rel=1e-4)


def test_steps_are_those_of_float32():
    weights = {}
    for precision in ("fp32", "fp16"):
        made = optimizer(precision)
        for factor in (1e-3, 2e-3, -1e-3):
            made.step([(1.0, loss_of(made, factor))])
        weights[precision] = torch.cat([p.detach().flatten() for p in made.parameters])
    torch.testing.assert_close(weights["fp16"], weights["fp32"], rtol=0, atol=1e-6)


def test_an_overflow_skips_the_step_and_halves_the_scale():
    made = optimizer()
    before = [p.detach().clone() for p in made.parameters]
    scale = made.scaler.get_scale()
    made.step([(1.0, loss_of(made, float("inf")))])
    assert all(map(torch.equal, before, made.parameters))
    assert made.scaler.get_scale() == scale / 2
    assert not made.norms
    assert made.metrics()["skipped_updates"] == 1
    made.step([(1.0, loss_of(made, 1e-3))])
    assert len(made.norms) == 1
    assert made.metrics()["policy_grad_spread"] == 0
    assert not torch.equal(before[0], made.parameters[0])


def test_endless_overflow_ends_the_run():
    made = optimizer()
    with pytest.raises(DivergedError, match="overflow fp16"):
        for _ in range(40):
            made.step([(1.0, loss_of(made, float("nan")))])


def test_the_scale_is_resumed():
    made, other = optimizer(), optimizer()
    made.step([(1.0, loss_of(made, float("inf")))])
    other.load_state_dict(made.state_dict())
    assert other.scaler.get_scale() == made.scaler.get_scale()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_scaled_otherwise(precision):
    made = optimizer(precision)
    made.step([(1.0, loss_of(made))])
    assert not made.scaler.is_enabled()
    assert "skipped_updates" not in made.metrics()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_to_learn_from_changes_nothing(precision):
    made = optimizer(precision)
    before = [p.detach().clone() for p in made.parameters]
    made.step([])
    assert all(map(torch.equal, before, made.parameters))


def test_spread_by_hand():
    # Gradients (1, 0) and (3, 0): mean 2, deviation 1.
    spread = GradientSpread()
    spread.add(torch.tensor([1.0, 0.0]))
    spread.add(torch.tensor([3.0, 0.0]))
    assert spread.value() == pytest.approx(0.5)


def test_a_long_gradient_is_squared_in_parts(monkeypatch):
    # |(1, 2, 2)|^2 = 9, a ninth of it 1; in parts of 2 and 1 elements.
    monkeypatch.setattr(distributed, "BUCKET", 2)
    gradient = torch.tensor([1.0, 2.0, 2.0])
    assert squared_norm(gradient) == 9
    assert squared_norm(gradient, 3) == pytest.approx(1)
