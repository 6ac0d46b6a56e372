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


@pytest.mark.parametrize(
    ("precision", "vanishes"), [("official_fp16", True), ("fp32", False)]
)
def test_official_weights_fade_to_0_in_fp16(precision, vanishes):
    # Every layer of width n multiplies the norm of a vector by about sqrt(n) / 769. From
    # an embedding of norm 1 the outputs are about 1 / 769 = 1e-3 each, then
    # sqrt(1024) / 769 = 0.042 of that, then sqrt(128) / 769 = 0.015, then
    # sqrt(64) / 769 = 0.010: 8e-9 after four layers, three deviations 2.5e-8. Half of
    # fp16's smallest number, 2^-24, is 3e-8, and what is below that is rounded to 0.
    critic = learner(
        dim=768,
        hidden=(1024, 128, 64, 16),
        init="official",
        precision=precision,
    )
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, 768, generator=rng) + 2
    inputs = torch.nn.functional.normalize(inputs, dim=-1)
    found = critic.measure_and_reset(1, 4, inputs)
    assert (found["critic_dormant_pct_layer4"] == 100) == vanishes
    assert found["critic_dormant_pct_layer3"] < 100
    # Biases are 0, so the predictions fade with their inputs.
    values = critic.predict(inputs)
    assert bool(values.any()) != vanishes
    # And so does the gradient of the last weights, which is error x input.
    critic.step(inputs[:, 0], values[:, 0], torch.ones(8))
    assert bool(critic.critic.layers[-1].weight.grad.any()) != vanishes


def test_the_official_loss_scale_doubles_after_2000_finite_updates():
    # Each step calls update() twice, and gradients of 0 are finite.
    critic = learner(hidden=(1,), precision="official_fp16")
    nothing = torch.zeros(1)
    for _ in range(999):
        critic.step(torch.zeros(1, DIM), nothing, nothing)
    assert critic.scaler.get_scale() == 65_536
    critic.step(torch.zeros(1, DIM), nothing, nothing)
    assert critic.scaler.get_scale() == 131_072


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


def neurons(**changes):
    """A critic whose neurons are measured and reset as configured."""
    given = {"reset": "active", "reset_fraction": 0.5, "stats_samples": 4}
    critic = learner()
    critic.neurons = NeuronSettings.model_validate(given | changes)
    return critic


def before_and_after_a_reset(**changes):
    """Dormant masks, and the hidden layers' weights around a reset."""
    critic = neurons(**changes)
    inputs = torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(1))
    before = [layer.weight.detach().clone() for layer in critic.critic.layers[:-1]]
    metrics = critic.measure_and_reset(2, 4, inputs)
    after = [layer.weight.detach() for layer in critic.critic.layers[:-1]]
    changed = [(a != b).any(1) for a, b in zip(before, after, strict=True)]
    return critic.previous_dormant, changed, metrics


@pytest.mark.parametrize("kind", ["active", "dormant", "all"])
def test_the_neurons_that_are_configured_are_reset(kind):
    # A threshold at the layer's mean makes some dormant and some not.
    dormant, changed, metrics = before_and_after_a_reset(reset=kind, threshold=1.0)
    expected = {
        "active": [~mask for mask in dormant],
        "dormant": dormant,
        "all": [torch.ones_like(mask) for mask in dormant],
    }[kind]
    assert 0 < sum(int(mask.sum()) for mask in dormant) < 24
    # The incoming weights of a layer's own neurons are drawn anew, and no others.
    assert torch.equal(changed[0], expected[0])
    assert metrics["neurons_reset"] == sum(int(mask.sum()) for mask in expected)


def test_threshold_and_activation_say_what_is_dormant():
    inputs = torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(1))
    percents = {
        (threshold, activation): neurons(
            reset="none", threshold=threshold, activation=activation
        ).measure_and_reset(1, 4, inputs)["critic_dormant_pct"]
        for threshold in (0.0, 1.0)
        for activation in ("relu", "abs")
    }
    # Of absolute values no score is 0; scores have mean 1, so some are at most 1.
    assert percents[0.0, "abs"] == 0
    assert 0 < percents[1.0, "abs"] < 100
    assert percents[1.0, "relu"] != percents[1.0, "abs"]


def test_resets_draw_anew_or_the_same_each_time():
    drawn = {}
    for seed in ("epoch", "fixed"):
        for epoch in (2, 4):
            critic = neurons(reset="all", reset_seed=seed)
            critic.measure_and_reset(epoch, 4, torch.randn(6, 3, DIM))
            drawn[seed, epoch] = critic.critic.layers[0].weight.detach()
    assert torch.equal(drawn["fixed", 2], drawn["fixed", 4])
    assert not torch.equal(drawn["epoch", 2], drawn["epoch", 4])


@pytest.mark.parametrize("anew", [False, True])
def test_a_reset_may_begin_adams_bias_correction_anew(anew):
    critic = neurons(reset="all", reset_adam_step=anew)
    fit(critic, 3)
    critic.measure_and_reset(2, 4, torch.randn(6, 3, DIM))
    state = critic.optimizer.state[critic.critic.layers[0].weight]
    assert float(state["step"]) == (0 if anew else 3)
    assert not state["exp_avg"].any()


def test_statistics_are_over_the_samples_and_steps_that_are_configured():
    inputs = torch.arange(6 * 3, dtype=torch.float32).view(6, 3, 1).expand(-1, -1, DIM)
    every = neurons(stats_steps="all")._statistics_inputs(1, inputs)
    assert every.shape == (4 * 3, DIM)
    one = neurons(stats_steps="one", stats_samples=5)._statistics_inputs(1, inputs)
    assert one.shape == (5, DIM)
    # One step of each of five different samples.
    assert len({int(value) // 3 for value in one[:, 0]}) == 5


def test_overlap_is_with_the_epoch_before():
    critic = neurons(reset="none", threshold=1.0)
    inputs = torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(1))
    first = critic.measure_and_reset(1, 4, inputs)
    assert torch.isnan(torch.tensor(first["critic_overlap_pct"]))
    before = [mask.clone() for mask in critic.previous_dormant]
    with torch.no_grad():  # another first layer makes others dormant
        other = torch.randn(16, DIM, generator=torch.Generator().manual_seed(2))
        critic.critic.layers[0].weight.copy_(other)
    found = critic.measure_and_reset(2, 4, inputs)["critic_overlap_pct"]
    now = critic.previous_dormant
    shared = sum(int((a & b).sum()) for a, b in zip(before, now, strict=True))
    sizes = [sum(int(mask.sum()) for mask in masks) for masks in (before, now)]
    expected = 100 * shared / min(sizes)
    assert found == pytest.approx(expected)
    assert found < 100


def test_dropout_acts_in_training_alone_and_keeps_the_mean():
    critic = learner(hidden=(4096,), dropout=(0.5,), activation="none")
    inputs = torch.ones(1, DIM)
    hidden = critic.critic.layers[0](inputs)
    critic.critic.train()
    torch.manual_seed(0)
    dropped = critic.critic.dropouts[0](hidden)
    kept = dropped != 0
    assert 0.45 < kept.float().mean() < 0.55
    torch.testing.assert_close(dropped[kept], 2 * hidden[kept])
    critic.step(inputs, torch.zeros(1), torch.zeros(1))
    assert critic.critic.training
    assert torch.equal(critic.predict(inputs[None]), critic.predict(inputs[None]))
    assert not critic.critic.training


def test_the_critics_gradient_is_clipped_as_configured():
    # SGD at rate 1 moves by the clipped gradient itself.
    critic = learner(optimizer={"learning_rate": 1e-3, "max_grad_norm": 0.25})
    critic.optimizer = torch.optim.SGD(critic.parameters, lr=1.0)
    before = critic._flat_weights()
    inputs, targets = linear_problem(64)
    critic.step(inputs, torch.zeros(64), 100 * targets)
    assert float((critic._flat_weights() - before).norm()) == pytest.approx(
        0.25, rel=1e-3
    )


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_that_is_no_part_is_refused(dropout):
    with pytest.raises(ValueError, match="dropout"):
        learner(dropout=(dropout,))
