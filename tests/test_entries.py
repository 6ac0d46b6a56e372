"""The entries of conf/base/parameters_methods.yml are what they are called after."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest
import yaml

from tdpo_pipeline.config import AlgorithmSettings
from tests.conftest import ROOT

ENTRIES: dict[str, Any] = yaml.safe_load(
    (ROOT / "conf/base/parameters_methods.yml").read_text()
)["methods"]


def settings(entry: str) -> AlgorithmSettings:
    return AlgorithmSettings.model_validate(ENTRIES[entry])


# What belongs to the scale (learning rates, widths) is not here, nor what is this
# project's own choice but where a comment says so. One that names no code is the paper's.

# TDPO's policy, in paper and code.
POLICY: dict[str, Any] = {
    # Algorithm 1: one timestep of all samples, then the next.
    "loop": "timestep_major",
    # Table 1: 100 updates an epoch, 2T at T = 50 (the code: two half batches a timestep).
    "updates_per_timestep": 2,
    # Table 1: PPO's clip, of 1e-4.
    "surrogate": "clipped",
    "clip_range": 1e-4,
    # Equation 6 clips no temporal reward, nor does the code (the clip of 5 is DDPO's).
    "advantage_clip": None,
    # Table 1, and the code: AdamW.
    "optimizer.betas": (0.9, 0.999),
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 1e-4,
    "optimizer.max_grad_norm": 1.0,
}

# The same of its critic.
CRITIC: dict[str, Any] = {
    "algorithm": "tdpo",
    # Equation 6 has no discount (the code: gamma = 1).
    "gamma": 1.0,
    # The inductive bias: a critic on the trained reward's own encoder.
    "critic.encoder": None,
    # "5 linear layers"; in the code nothing is between them but dropout.
    "critic.activation": "none",
    "critic.dropout": (0.2, 0.2, 0.1),
    # Table 1, and the code: the prediction's clip, and an AdamW of its own.
    "critic.value_clip": 0.2,
    "critic.optimizer.weight_decay": 1e-4,
    "critic.optimizer.max_grad_norm": 1.0,
    # The base model's own decoder.
    "critic.decoder": "full",
    # Equation 11 and "A > 0" (the code: score above 0); F is 10 of 100 epochs.
    "neurons.reset": "none",
    "neurons.reset_fraction": 0.1,
    "neurons.activation": "relu",
    "neurons.threshold": 0.0,
}

# The official code's policy where it is not the paper's.
CODE_POLICY = POLICY | {
    # shuffle_timestep: each sample's timesteps in an order of its own.
    "timestep_order": "shuffled",
    # After R - V, over all N x T.
    "whiten": True,
    # PerPromptRunningMoments: the last 32, the batch's below 16.
    "per_prompt.buffer_size": 32,
    "per_prompt.min_count": 16,
}

CODE = (
    CODE_POLICY
    | CRITIC
    | {
        # The per-prompt z-score.
        "critic.target": "normalised",
        # The latent is embedded before the step.
        "critic.state": "pre",
        # The image tower alone.
        "critic.inputs": "image",
    }
)

FAITHFUL: dict[str, dict[str, Any]] = {
    "tdpo_paper": POLICY
    | CRITIC
    | {
        # Algorithm 1: t = T ... 1.
        "timestep_order": "ordered",
        # Equation 6: R - V, neither whitened nor with a KL.
        "whiten": False,
        "kl": None,
        # Equation 9: the squared error to R(x_0, c).
        "critic.target": "raw",
        # Equation 4: the state that the action led to.
        "critic.state": "post",
        # Equation 8: Encoder_R(x_t, c).
        "critic.inputs": "image_prompt",
        # It states no precision.
        "critic.precision": "fp32",
    },
    "tdpo_official": CODE
    | {
        # Its default.
        "kl": None,
        # All weights from N(0, 1 / (d + 1)^2).
        "critic.init": "official",
        # Half precision, one loss scaler of two optimizers.
        "critic.precision": "official_fp16",
        # The first 8 samples of 8 GPUs, one column of timesteps.
        "neurons.stats_samples": 64,
        "neurons.stats_steps": "one",
        # torch.numel(previous & current).
        "neurons.overlap": "official",
        # manual_seed(42) before every reset; Adam's moments to 0, its step kept.
        "neurons.reset_seed": "fixed",
        "neurons.reset_adam_step": False,
    },
    # An ablation: TDPO with V = 0.
    "tdpo_no_critic": CODE_POLICY | {"algorithm": "ddpo"},
    "tdpo_kl": CODE
    | {
        # The code's default penalty, max(log p - log p_base, 0), taken off the rewards.
        "kl.penalty": "clip",
        "kl.applied_to": "reward",
        # The code's controller: it begins at 0.2, with a horizon of 2000 samples. That
        # it steers takes a target, which neither paper nor code gives.
        "kl.coefficient": 0.2,
        "kl.horizon": 2000,
        "kl.target": 1.0,
    },
    # All of the official code.
    "dpok": {
        "algorithm": "dpok",
        # The ratio is clamped to 1 +- 1e-4, without PPO's max.
        "surrogate": "clamped",
        "clip_range": 1e-4,
        # r - V as it is.
        "whiten": False,
        "advantage_clip": None,
        # On many prompts: w_r = 1000, beta = 0.1 (on one: 10, 0.01).
        "reward_weight": 1000.0,
        "kl_weight": 0.1,
        # mean (eps_theta - eps_ref)^2, without 1 / sigma^2.
        "kl": "epsilon",
        "optimizer.weight_decay": 0.0,
        "optimizer.max_grad_norm": 0.1,
        # Batches of 256 pairs.
        "value.batch_size": 256,
    },
    "draft_lv": {
        "algorithm": "draft",
        # Low variance is of K = 1, with n = 2 further noisings.
        "last_steps": 1,
        "extra_noisings": 2,
        # The reward itself is raised.
        "loss.kind": "negative",
        "optimizer.weight_decay": 0.1,
    },
    # All of ReFL.py.
    "refl": {
        "algorithm": "refl",
        # mean relu(2 - r) 1e-3, r the normalised ImageReward, whose unit is a deviation.
        "loss.kind": "hinge",
        "loss.target": 2.0,
        "loss.unit": "base_std",
        "loss.coefficient": 1e-3,
        # No guidance.
        "guidance_scale": 1.0,
        # randint(30, 39) of 40 steps.
        "last_part": 0.25,
        "optimizer.weight_decay": 1e-2,
        "optimizer.max_grad_norm": 1.0,
    },
}


@pytest.mark.parametrize("entry", FAITHFUL)
def test_an_entry_is_what_its_paper_or_code_dictates(entry: str) -> None:
    built = settings(entry)
    found = {name: attrgetter(name)(built) for name in FAITHFUL[entry]}
    assert found == FAITHFUL[entry]


@pytest.mark.parametrize("kind", ["", "_paper", "_official"])
def test_tdpo_r_is_tdpo_with_resets_of_the_active_neurons(kind: str) -> None:
    expected = settings(f"tdpo{kind}").model_dump()
    expected["neurons"]["reset"] = "active"
    assert settings(f"tdpo_r{kind}").model_dump() == expected


def test_every_entry_is_described() -> None:
    page = (ROOT / "docs/algorithms.md").read_text()
    assert not [name for name in ENTRIES if f"`{name}`" not in page]
