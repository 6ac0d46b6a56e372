"""The Stable Diffusion environments: values of the papers, and nothing left of base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from tdpo_pipeline.config import (
    AlgorithmSettings,
    EvaluationSettings,
    RewardSettings,
    RunConfig,
    TrainingSettings,
)
from tdpo_pipeline.figures.plan import FigureSettings
from tdpo_pipeline.grid import SCALES, Run, runs
from tdpo_pipeline.overoptimization.tables import IMAGE_KEYS, with_group
from tdpo_pipeline.pipelines.prompts.nodes import OwnEvaluation
from tdpo_pipeline.pipelines.training.nodes import RunSettings, build_config
from tdpo_pipeline.prompts import PROMPT_SETS, prompt_set
from tests.conftest import ROOT, catalog_of, parameters_of

PRESETS = ("gpu_24gb", "gpu_40gb", "gpu_80gb", "gpu_141gb")


def merged(env: str) -> dict[str, Any]:
    """An environment's parameters, merged as Kedro merges them, in no time."""
    files = [
        path
        for folder in ("base", env)
        for path in sorted((ROOT / "conf" / folder).glob("parameters*.yml"))
    ]
    whole = OmegaConf.merge(*(OmegaConf.load(path) for path in files))
    found = OmegaConf.to_container(whole)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@pytest.fixture(scope="module", params=SCALES)
def environment(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """An environment and its parameters."""
    return request.param, merged(request.param)


@pytest.fixture(scope="module")
def sd14() -> dict[str, Any]:
    return merged("sd14")


@pytest.mark.parametrize("env", SCALES)
def test_kedro_reads_the_same(env: str) -> None:
    found, expected = parameters_of(env), merged(env)
    own = TrainingSettings.model_validate(expected["training"])
    assert found["training"] == own.model_dump(mode="json")
    assert found["evaluation"]["prompt_sets"] == expected["evaluation"]["prompt_sets"]
    assert found["methods"]["tdpo_r"]["critic"]["hidden"] == [1024, 128, 64, 16]
    catalog = catalog_of(env)
    roots = ROOT / "data" / env, ROOT / "data" / "06_models"
    for name in catalog.keys():
        path = getattr(catalog[name], "_filepath", None)
        if path is not None:
            assert any(Path(str(path)).is_relative_to(root) for root in roots), name


def test_environments_share_nothing_but_reward_weights() -> None:
    folders = [
        yaml.safe_load((ROOT / "conf" / env / "globals.yml").read_text())
        for env in (*SCALES, "base", "study", "smoke")
    ]
    for name in ("data", "models"):
        given = [folder[name] for folder in folders if name in folder]
        assert len(set(given)) == len(given)
    assert {folder["weights"] for folder in folders[:3]} == {"data/06_models/rewards"}


def config(parameters: dict[str, Any], run: Run, **training: Any) -> RunConfig:
    built = build_config(
        RunSettings(method=run.method, reward=run.reward, seed=run.seed),
        TrainingSettings.model_validate(parameters["training"] | training),
        AlgorithmSettings.model_validate(parameters["methods"][run.method]),
        RewardSettings.model_validate(parameters["rewards"][run.reward]),
    )
    return RunConfig.model_validate(built)


def files_of(env: str) -> dict[str, Any]:
    """An environment's own parameters, by group."""
    found: dict[str, Any] = {}
    for path in (ROOT / "conf" / env).glob("parameters*.yml"):
        found |= yaml.safe_load(path.read_text())
    return found


def test_every_run_fits(environment: tuple[str, dict[str, Any]]) -> None:
    env, parameters = environment
    for run in runs(env):  # type: ignore[arg-type]
        built = config(parameters, run)
        assert built.key == run.key
        assert built.training.device == "cuda"
        assert built.training.precision == "fp16"
        assert built.training.num_inference_steps == 50


def test_what_figures_show_of_prompts_is_evaluated(
    environment: tuple[str, dict[str, Any]],
) -> None:
    env, parameters = environment
    grid = {(run.method, run.reward) for run in runs(env)}  # type: ignore[arg-type]
    trained = {parameters["rewards"][reward]["train_prompts"] for _, reward in grid}
    own = [parameters["own_evaluation"].get(name, {}) for name in sorted(trained)]
    sets = [*parameters["evaluation"]["prompt_sets"]]
    sets += [name for its in own for name in its.get("prompt_sets", [])]
    index = dict.fromkeys(IMAGE_KEYS, 0) | {"prompt_set": sets, "prompt": sets}
    there = set(with_group(pd.DataFrame(index).assign(seen=False))["group"])
    asked = set()
    for given in parameters["reporting"]["figures"].values():
        figure = FigureSettings.model_validate(given)
        if figure.pairs(grid):
            options = figure.options
            asked |= {options.get("group", "seen"), *options.get("groups", [])}
    assert "unseen" in asked
    assert asked - {"seen"} <= there


def test_every_run_fits_every_preset(environment: tuple[str, dict[str, Any]]) -> None:
    env, parameters = environment
    presets = parameters["training"]["presets"]
    assert tuple(presets) == PRESETS
    assert parameters["training"]["preset"] == "gpu_80gb"
    for preset, given in presets.items():
        for run in runs(env):  # type: ignore[arg-type]
            training = config(parameters, run, preset=preset).training
            assert training.chunk_size == given["chunk_size"]
            assert training.gpu_memory_gb == given["gpu_memory_gb"]


def test_every_method_has_a_learning_rate_of_the_scale(
    environment: tuple[str, dict[str, Any]],
) -> None:
    env, parameters = environment
    own = files_of(env)["methods"]
    for method, settings in parameters["methods"].items():
        assert method in own, f"{env} has Menagerie's learning rate for {method}"
        assert own[method]["optimizer"]["learning_rate"] <= 1e-3
        if "critic" in settings:
            assert tuple(settings["critic"]["hidden"]) == (1024, 128, 64, 16)
            assert settings["critic"]["optimizer"]["learning_rate"] == 1e-4


def test_names_of_prompt_sets_are_known(
    environment: tuple[str, dict[str, Any]],
) -> None:
    env, parameters = environment
    assert parameters["prompts"]["vocabulary"] == "open"
    evaluation = EvaluationSettings.model_validate(parameters["evaluation"])
    for reward, task in parameters["rewards"].items():
        trained = task["train_prompts"]
        own = OwnEvaluation.model_validate(
            parameters["own_evaluation"].get(trained, {})
        )
        names, _ = own.of(evaluation)
        evaluated = {name.partition("/")[0] for name in names}
        assert evaluated <= set(PROMPT_SETS)
        # Eight of simple_animals.
        assert trained in evaluated | {"quick_animals"}, (
            f"{env} never evaluates what {reward} trains on"
        )


def test_the_models_are_pinned(environment: tuple[str, dict[str, Any]]) -> None:
    models = files_of(environment[0])["models"]
    for model in models.values():
        assert len(model["revision"]) == 40
        assert int(model["revision"], 16)
        weights = {name for name in model["files"] if name.endswith(".safetensors")}
        assert set(model["sizes_gb"]) == weights
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors"} < set(
        models["base_model"]["files"]
    )
    assert models["tiny_decoder"]["files"] == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


def test_tdpo_is_as_in_the_papers_table(sd14: dict[str, Any]) -> None:
    built = config(sd14, Run("tdpo_r", "aesthetic", 0))
    # 256 samples x 50 steps in 2 x 50 updates are 128 pairs an update.
    assert "100 updates an epoch of 128 pairs" in built.summary()
    training = built.training
    assert (training.epochs, training.samples_per_epoch) == (100, 256)
    assert (training.guidance_scale, training.eta) == (5.0, 1.0)
    assert training.lora is not None and training.lora.rank == 4
    settings = built.algorithm.model_dump()
    assert settings["optimizer"]["learning_rate"] == 1e-4
    assert settings["optimizer"]["weight_decay"] == 1e-4
    assert settings["clip_range"] == 1e-4
    assert settings["critic"]["value_clip"] == 0.2
    # 10 % of 100 epochs.
    assert settings["neurons"]["reset_fraction"] == 0.1


def test_no_method_reads_a_reward_of_menagerie(
    environment: tuple[str, dict[str, Any]],
) -> None:
    _, parameters = environment
    for method in parameters["methods"]:
        used = config(parameters, Run(method, "hpsv2", 0)).rewards_in_use
        assert not [name for name in used if name.endswith("-mini")], method
    constrained = config(parameters, Run("tdpo_constrained", "hpsv2", 0)).algorithm
    assert constrained.auxiliary_rewards == ("imagereward",)
    gain = config(parameters, Run("tdpo_constrained_gain", "hpsv2", 0)).algorithm
    assert gain.model_dump()["constraints"] == {"imagereward": {"slack": -0.5}}


def test_a_constraint_is_taken_away_by_null() -> None:
    base = yaml.safe_load((ROOT / "conf/base/parameters_methods.yml").read_text())
    method = base["methods"]["tdpo_constrained"]
    assert method["constraints"] == {"imagereward-mini": {"slack": 0.2}}
    with pytest.raises(ValidationError, match="at least 1 item"):
        AlgorithmSettings.model_validate(
            method | {"constraints": {"imagereward-mini": None}}
        )


def test_the_ddpo_paper_trains_the_whole_unet(sd14: dict[str, Any]) -> None:
    for method in ("ddpo_sf", "ddpo_is", "rwr", "rwr_sparse"):
        built = config(sd14, Run(method, "aesthetic", 0))
        assert built.training.finetune == "full"
        assert built.training.epochs == 200
        assert built.algorithm.model_dump()["optimizer"]["learning_rate"] == 1e-5
    assert config(sd14, Run("ddpo_2", "aesthetic", 0)).training.finetune == "lora"
    # Five rounds of 40 epochs of 256 samples, and 5 x 10240 / 128 = 400 updates each.
    rwr = config(sd14, Run("rwr", "aesthetic", 0))
    assert "5 rounds of 10240 images, 5 passes" in rwr.summary()
    assert "in batches of 128" in rwr.summary()


def test_diffexp_is_as_in_its_paper() -> None:
    parameters = merged("sd15")
    ddpo = config(parameters, Run("ddpo_diffexp", "pickscore", 0))
    assert "2 updates an epoch of 1600 pairs" in ddpo.summary()  # 64 x 50 / 2
    assert ddpo.algorithm.model_dump()["optimizer"]["betas"] == (0.9, 0.99)
    assert ddpo.task.train_prompts == "activities"
    alignprop = config(parameters, Run("alignprop_diffexp", "aesthetic", 0))
    assert alignprop.training.guidance_scale == 7.5
    assert alignprop.algorithm.model_dump()["optimizer"]["learning_rate"] == 1e-3


def test_sdxls_alignprop_is_as_in_diffexp() -> None:
    built = config(merged("sdxl"), Run("alignprop_diffexp", "aesthetic", 0))
    training, settings = built.training, built.algorithm.model_dump()
    assert (training.samples_per_epoch, training.guidance_scale) == (64, 7.5)
    assert "1 update an epoch on 64 images" in built.summary()
    optimizer = settings["optimizer"]
    assert (optimizer["learning_rate"], optimizer["betas"]) == (1e-3, (0.9, 0.99))
    # Weak guidance above step 900, words up to 1.2, for 3/4 of the epochs.
    assert settings["exploration"]["guidance"]["threshold"] == 900
    assert settings["exploration"]["prompt_weighting"] == {"low": 1.0, "high": 1.2}
    assert settings["exploration"]["fraction"] == 0.75


def test_alignprop_2023_is_as_in_its_code(sd14: dict[str, Any]) -> None:
    built = config(sd14, Run("alignprop_2023", "aesthetic", 0))
    training, settings = built.training, built.algorithm.model_dump()
    # 7 epochs of two updates of 128 images.
    assert (training.epochs, training.samples_per_epoch) == (14, 128)
    assert training.guidance_scale == 7.5
    assert settings["eta"] == 0.0
    assert settings["truncation"] == {"kind": "per_step"}
    optimizer = settings["optimizer"]
    assert optimizer["learning_rate"] == 1e-3
    assert optimizer["weight_decay"] == 0.1
    assert optimizer["max_grad_norm"] == 5.0
    assert optimizer["betas"] == (0.9, 0.999)


def test_dpok_trains_on_prompts_with_a_period() -> None:
    dpok = config(merged("sd15"), Run("dpok", "imagereward", 0))
    assert prompt_set(dpok.task.train_prompts)[2] == "A cat and a dog."


# ------------------------------------------------------------------ presets
PRESET = {
    "preset": "small",
    "presets": {"small": {"chunk_size": 2, "micro_batch_size": 1}},
}
SCALE = {
    "epochs": 1,
    "samples_per_epoch": 8,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "finetune": "full",
    "checkpoint_every": 1,
    "kl_samples": 1,
}


def test_a_preset_fills_what_is_null() -> None:
    filled = TrainingSettings.model_validate(
        SCALE | PRESET | {"chunk_size": None, "micro_batch_size": 4}
    )
    assert (filled.chunk_size, filled.micro_batch_size) == (2, 4)
    # As kept with a run: the values, and where they came from.
    kept = filled.model_dump()
    assert kept["preset"] == "small"
    assert "presets" not in kept
    assert TrainingSettings.model_validate(kept).chunk_size == 2


def test_an_unknown_preset() -> None:
    with pytest.raises(ValidationError, match="no preset 'tiny'; .*presets has small"):
        TrainingSettings.model_validate(SCALE | PRESET | {"preset": "tiny"})


def test_a_method_and_its_scale_have_to_agree(sd14: dict[str, Any]) -> None:
    run = Run("ddpo_sf", "aesthetic", 0)
    built = config(sd14, run)
    training = built.training.model_copy(update={"finetune": "lora"})
    values = built.model_dump() | {"training": training.model_dump()}
    with pytest.raises(ValidationError, match="ddpo_sf has scale.finetune: full"):
        RunConfig.model_validate(values)


@pytest.mark.parametrize("env", ["base", *SCALES])
def test_diversity_is_seen_by_a_reward_that_no_task_trains_on(env: str) -> None:
    parameters = merged(env)
    encoders = set(parameters["diversity"]["encoders"])
    for task in parameters["rewards"].values():
        assert encoders - {task["scorer"], *task.get("ensemble", {})}
