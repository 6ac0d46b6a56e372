import math

import pytest
import torch

from tdpo_pipeline.critic.critic import CriticSettings, TemporalCritic
from tdpo_pipeline.critic.neurons import (
    NeuronSettings,
    dormant_masks,
    masked_percent,
    neuron_scores,
    overlap_percent,
    reset_neurons,
)

OUTPUTS = torch.tensor([[1.0, -1.0, 3.0], [3.0, -5.0, 1.0]])


def test_scores_by_hand():
    # relu means 2, 0, 2, their mean 4/3: scores 1.5, 0, 1.5.
    assert neuron_scores(OUTPUTS).tolist() == pytest.approx([1.5, 0, 1.5])
    # |.| means 2, 3, 2, mean 7/3.
    expected = [6 / 7, 9 / 7, 6 / 7]
    assert neuron_scores(OUTPUTS, "abs").tolist() == pytest.approx(expected)


def test_leaky_relu_leaves_nothing_dormant_at_threshold_0():
    masks = dormant_masks([OUTPUTS], 0.0, "leaky_relu")
    assert not masks[0].any()
    assert dormant_masks([OUTPUTS], 0.0)[0].tolist() == [False, True, False]


def test_dead_layer_is_all_dormant():
    assert dormant_masks([-torch.ones(2, 3)], 0.0)[0].all()


def test_percentages_by_hand():
    a = [torch.tensor([True, False]), torch.tensor([True, True])]
    b = [torch.tensor([True, True]), torch.tensor([False, False])]
    assert masked_percent(a) == 75
    # 1 shared; sizes 3 and 2.
    assert overlap_percent(a, b) == 50
    assert overlap_percent(a, a) == 100
    none = [torch.tensor([False, True]), torch.tensor([False, False])]
    assert overlap_percent([~m for m in a], b) == 100
    assert overlap_percent(a, none) == 0
    assert math.isnan(overlap_percent(a, [torch.zeros(2, dtype=torch.bool)] * 2))


def trained_critic():
    torch.manual_seed(0)
    settings = CriticSettings.model_validate(
        {"hidden": (4, 3), "dropout": (), "optimizer": {"learning_rate": 0.1}}
    )
    critic = TemporalCritic(5, settings)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        critic(torch.randn(8, 5)).square().sum().backward()
        optimizer.step()
    return critic, optimizer


def test_reset_touches_the_masked_neurons_and_nothing_else():
    critic, optimizer = trained_critic()
    old = [p.detach().clone() for p in critic.parameters()]
    masks = [torch.tensor([True, False, False, True]), torch.zeros(3, dtype=torch.bool)]
    assert reset_neurons(critic, masks, optimizer) == 2
    first, second, third = critic.linears
    kept = ~masks[0]
    assert torch.equal(first.weight[kept], old[0][kept])
    assert not torch.isclose(first.weight[masks[0]], old[0][masks[0]]).any()
    assert first.bias[masks[0]].tolist() == [0, 0]
    assert torch.equal(first.bias[kept], old[1][kept])
    assert torch.equal(second.weight[:, kept], old[2][:, kept])
    assert not torch.isclose(second.weight[:, masks[0]], old[2][:, masks[0]]).any()
    # Drawn anew, and not set to 0 as in ReDo.
    assert second.weight[:, masks[0]].all()
    assert torch.equal(second.bias, old[3])
    assert torch.equal(third.weight, old[4])


def test_reset_clears_the_moments_of_what_it_redrew():
    critic, optimizer = trained_critic()
    masks = [torch.tensor([True, False, False, False]), torch.zeros(3).bool()]
    steps = [float(optimizer.state[p]["step"]) for p in critic.parameters()]
    reset_neurons(critic, masks, optimizer)
    first, second, _ = critic.linears
    for moment in ("exp_avg", "exp_avg_sq"):
        assert not optimizer.state[first.weight][moment][0].any()
        assert optimizer.state[first.weight][moment][1:].any()
        assert not optimizer.state[first.bias][moment][0].any()
        assert not optimizer.state[second.weight][moment][:, 0].any()
        assert optimizer.state[second.weight][moment][:, 1:].any()
        assert optimizer.state[second.bias][moment].any()
    assert steps == [float(optimizer.state[p]["step"]) for p in critic.parameters()]


def test_adams_step_is_reset_on_request():
    critic, optimizer = trained_critic()
    masks = [torch.tensor([True, False, False, False]), torch.zeros(3).bool()]
    reset_neurons(critic, masks, optimizer, reset_adam_step=True)
    first, second, third = critic.linears
    assert float(optimizer.state[first.weight]["step"]) == 0
    assert float(optimizer.state[second.weight]["step"]) == 0
    assert float(optimizer.state[third.weight]["step"]) == 3


def test_reset_draws_from_the_initial_distribution():
    torch.manual_seed(0)
    settings = CriticSettings.model_validate(
        {"init": "official", "optimizer": {"learning_rate": 0.1}}
    )
    critic = TemporalCritic(64, settings)
    for linear in critic.linears:
        linear.weight.data.fill_(7.0)
    masks = [torch.ones(n, dtype=torch.bool) for n in settings.hidden]
    reset_neurons(critic, masks, torch.optim.AdamW(critic.parameters()))
    weight = critic.linears[0].weight
    assert weight.std().item() == pytest.approx(1 / 65, rel=0.05)
    assert all(linear.weight.abs().max() < 1 for linear in critic.linears)


def test_a_fixed_seed_gives_a_neuron_other_weights_among_others():
    drawn = []
    for mask in ([False, True, False, False], [True, True, False, False]):
        critic, optimizer = trained_critic()
        torch.manual_seed(42)
        reset_neurons(critic, [torch.tensor(mask), torch.zeros(3).bool()], optimizer)
        drawn.append(critic.linears[0].weight.detach())
    # The first row of the block goes to the first of the masked neurons.
    assert torch.equal(drawn[0][1], drawn[1][0])
    assert not torch.equal(drawn[0][1], drawn[1][1])


def test_reset_period_is_a_fraction_of_the_epochs():
    settings = NeuronSettings(reset="active", reset_fraction=0.1)
    assert settings.reset_every(100) == 10
    assert settings.reset_every(30) == 3
    # 1.6, 1.2 and 2.5 epochs are rounded up.
    assert settings.reset_every(16) == 2
    assert settings.reset_every(12) == 2
    assert settings.reset_every(25) == 3
    assert settings.reset_every(3) == 1
