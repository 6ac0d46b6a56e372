import pytest
import torch

from tdpo_pipeline.critic.critic import CriticSettings
from tdpo_pipeline.critic.learner import CriticLearner
from tdpo_pipeline.critic.neurons import NeuronSettings

DIM = 8


def learner(dim=DIM, **changes):
    settings = {
        "hidden": (16, 8),
        "dropout": (),
        "value_clip": None,
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.0},
    }
    return CriticLearner(
        dim,
        CriticSettings.model_validate(settings | changes),
        NeuronSettings(reset="active", reset_fraction=0.5, stats_samples=4),
        seed=0,
        device=torch.device("cpu"),
    )


def linear_problem(count=512):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, DIM, generator=rng)
    return inputs, inputs @ torch.linspace(-1, 1, DIM)


def fit(critic, updates):
    inputs, targets = linear_problem()
    old = torch.zeros(64)
    for i in range(updates):
        at = slice(64 * (i % 8), 64 * (i % 8 + 1))
        critic.step(inputs[at], old, targets[at])
    residual = targets - critic.predict(inputs[:, None])[:, 0]
    return 1 - float(residual.var() / targets.var())


def test_a_mended_critic_learns():
    assert fit(learner(), 200) > 0.9


def test_the_official_critic_does_not_learn():
    # At the official size the initial weights are so small, N(0, 1/769^2), that the
    # gradient, divided by 65536 once too often, is below Adam's eps. The same critic
    # with one division moves.
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 768, generator=rng) + 2
    inputs = torch.nn.functional.normalize(inputs, dim=-1)
    targets = inputs @ torch.randn(768, generator=rng)
    targets = (targets - targets.mean()) / targets.std() + 0.3
    found = {}
    for precision in ("fp32", "official_fp16"):
        critic = learner(
            dim=768,
            hidden=(256, 64, 16),
            init="official",
            precision=precision,
            optimizer={"learning_rate": 1e-3},
        )
        for i in range(60):
            at = slice(64 * (i % 4), 64 * (i % 4 + 1))
            critic.step(inputs[at], torch.zeros(64), targets[at])
        deviation = critic.predict(inputs[:, None]).std()
        found[precision] = critic.metrics()["critic_weight_change"], float(deviation)
    assert found["official_fp16"][0] < 0.1 * found["fp32"][0]
    assert found["official_fp16"][1] < 1e-6
    assert found["fp32"][1] > 0.01


def test_double_unscale_divides_by_the_scale_once_more(monkeypatch):
    # SGD in Adam's place shows the gradient itself: loss 1/2 (v - y)^2 has the bias
    # gradient v - y of the last layer; the step is lr x that / scale.
    critic = learner(precision="official_fp16")
    bias = critic.critic.layers[-1].bias
    critic.optimizer = torch.optim.SGD(critic.parameters, lr=1.0)
    inputs, targets = linear_problem(4)
    value = critic.predict(inputs[:, None])[:, 0]
    expected = float((value - targets).mean())
    total = critic.settings.optimizer.max_grad_norm
    critic.step(inputs, torch.zeros(4), targets)
    step = -float(bias.detach())
    norm = float(critic.norms[0])
    scaled = expected * min(1.0, total / norm) / 65536
    assert step == pytest.approx(scaled, rel=2e-2)


def test_weight_change_starts_at_0():
    critic = learner()
    critic.losses = critic.norms = [torch.zeros(())]
    assert critic.metrics()["critic_weight_change"] == 0


def test_resets_come_every_other_epoch_of_four():
    critic = learner()
    inputs = torch.randn(6, 3, DIM)
    counts = [
        critic.measure_and_reset(epoch, 4, inputs)["neurons_reset"]
        for epoch in (1, 2, 3, 4)
    ]
    assert counts[0] == counts[2] == 0
    assert min(counts[1], counts[3]) > 0
