import math

import pytest
import torch
from pydantic import ValidationError

from tdpo_pipeline.critic.critic import (
    CriticSettings,
    TemporalCritic,
    critic_loss,
    explained_variance,
)

OPTIMIZER = {"learning_rate": 1e-3}


def settings(**changes) -> CriticSettings:
    return CriticSettings.model_validate({"optimizer": OPTIMIZER} | changes)


@pytest.mark.parametrize(("dim", "count"), [(768, 927_969), (1024, 1_190_113)])
def test_paper_sizes(dim, count):
    critic = TemporalCritic(dim, settings())
    assert sum(p.numel() for p in critic.parameters()) == count
    assert sum(layer.out_features for layer in critic.linears[:-1]) == 1232


def test_paper_initialisation():
    critic = TemporalCritic(768, settings(init="official"))
    for linear in critic.linears[:2]:
        assert linear.weight.std().item() == pytest.approx(1 / 769, rel=0.05)
        assert not linear.bias.any()


def test_forward_by_hand():
    # Linear 2 -> 1 -> 1, no activation: 3 * (2 a - b + 1) - 2.
    critic = TemporalCritic(2, settings(hidden=(1,), dropout=())).eval()
    critic.linears[0].weight.data = torch.tensor([[2.0, -1.0]])
    critic.linears[0].bias.data = torch.tensor([1.0])
    critic.linears[1].weight.data = torch.tensor([[3.0]])
    critic.linears[1].bias.data = torch.tensor([-2.0])
    x = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    assert critic(x).tolist() == [4.0, -14.0]
    assert critic.hidden(x)[0].tolist() == [[2.0], [-4.0]]
    rectified = TemporalCritic(2, settings(hidden=(1,), dropout=(), activation="relu"))
    rectified.load_state_dict(critic.state_dict())
    assert rectified.eval()(x).tolist() == [4.0, -2.0]


def test_without_activation_the_critic_is_affine():
    critic = TemporalCritic(6, settings()).eval()
    a, b = torch.randn(2, 6)
    middle = critic(((a + b) / 2)[None])
    expected = (critic(a[None]) + critic(b[None])) / 2
    torch.testing.assert_close(middle, expected)


def test_value_clipped_loss_by_hand():
    # v 1, old 0, target 0, clip 0.2: max(1, 0.04) = 1      -> moved away: full loss
    # v 1, old 0, target 1, clip 0.2: max(0, 0.64) = 0.64   -> clipped, no gradient
    values = torch.tensor([1.0, 1.0], requires_grad=True)
    loss = critic_loss(values, torch.zeros(2), torch.tensor([0.0, 1.0]), 0.2)
    assert loss.item() == pytest.approx(0.5 * (1 + 0.64) / 2)
    loss.backward()
    assert values.grad.tolist() == [0.5, 0.0]
    plain = critic_loss(values, torch.zeros(2), torch.tensor([0.0, 1.0]), None)
    assert plain.item() == pytest.approx(0.25)


def test_explained_variance_by_hand():
    targets = torch.tensor([0.0, 2.0])
    assert explained_variance(targets, targets) == 1
    assert explained_variance(torch.ones(2), targets) == 0
    # Half the targets: residuals 0, 1, variance 0.25 against 1.
    assert explained_variance(targets / 2, targets) == pytest.approx(0.75)
    assert math.isnan(explained_variance(targets, torch.ones(2)))


def test_paper_dropout_is_of_the_first_layers():
    rates = [dropout.p for dropout in TemporalCritic(8, settings()).dropouts]
    assert rates == [0.2, 0.2, 0.1, 0.0]


def test_dropout_longer_than_the_hidden_layers_is_an_error():
    with pytest.raises(ValidationError, match="longer than"):
        settings(hidden=(4,), dropout=(0.1, 0.1))
