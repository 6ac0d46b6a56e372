from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tdpo_pipeline.auditing.perturbations import AuditError
from tdpo_pipeline.config import TrainingSettings
from tdpo_pipeline.diffusion import trajectory
from tdpo_pipeline.diffusion.policy import Policy
from tdpo_pipeline.pipelines.audit import create_pipeline, nodes
from tdpo_pipeline.pipelines.audit.nodes import AuditSettings, probe, report
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings
from tdpo_pipeline.prompts import PromptError
from tdpo_pipeline.rewards.registry import UnknownRewardError
from tests import tiny
from tests.conftest import ROOT

OPEN = PromptSettings(vocabulary="open", files="prompts")
TASKS = {
    "both": {
        "scorer": "both",
        "train_prompts": "simple_animals",
        "ensemble": {
            "tests.tiny:Redness": {"mean": 0.0, "std": 0.1},
            "tests.tiny:Brightness": {"mean": 0.5, "std": 0.1},
        },
    }
}


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.pipeline().save_pretrained(folder)
    (folder / "prompts.txt").write_text("cat\ndog\n")
    return folder


def settings(folder: Path, **changes: Any) -> AuditSettings:
    values = {
        "reward": "tests.tiny:Redness",
        "gold": None,
        "prompts": str(folder / "prompts.txt"),
        "images_per_prompt": 3,
        "seed": 0,
        "negligible": 0.2,
        "perturbations": {"warm": [0.2, 0.1], "darken": [0.5], "swap_prompt": [1]},
    }
    return AuditSettings.model_validate(values | changes)


def run(
    folder: Path, sampler: TrainingSettings | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    given, sampler = settings(folder, **changes), sampler or tiny.training()
    return probe(given, sampler, TASKS, OPEN, folder, folder / "no_weights")


def test_an_audit_from_the_name_to_the_words(base_model: Path) -> None:
    scores, examples = run(base_model)
    (key,) = scores
    assert key == "tests.tiny.Redness"
    # 6 pictures, clean and under 4 probes.
    assert len(scores[key]) == 6 * 5
    assert examples[key].shape == (4 * 8, 8, 3)
    others = {"another": pd.DataFrame}
    tables, figures, texts = report(
        settings(base_model),
        others | {key: lambda: scores[key]},  # type: ignore[arg-type]
        {key: lambda: examples[key]},
    )
    assert set(tables) == set(figures) == set(texts) == {key}
    warm = tables[key][tables[key]["perturbation"] == "warm"]
    assert (warm["change"] > 1).all()
    assert warm["strength"].tolist() == [0.2, 0.1]
    assert tables[key]["gold"].unique().tolist() == [""]
    assert "doesn't read the prompt" in texts[key]
    assert "Audit of redness" in texts[key]


def test_a_picture_depends_on_the_seed(base_model: Path) -> None:
    first, _ = run(base_model)
    again, _ = run(base_model)
    other, _ = run(base_model, seed=1)
    column = "redness"
    (key,) = first
    np.testing.assert_array_equal(first[key][column], again[key][column])
    assert (first[key][column] != other[key][column]).any()


def test_pictures_are_drawn_in_chunks_by_a_base_model_that_is_not_trained(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[int] = []
    policies: list[Policy] = []

    def rollout(policy: Policy, prompts: list[str], **options: Any) -> Any:
        policies.append(policy)
        chunks.append(len(prompts))
        return whole(policy, prompts, **options)

    whole = trajectory.rollout
    monkeypatch.setattr(trajectory, "rollout", rollout)
    (scores,) = run(base_model, tiny.training(precision="bf16"))[0].values()
    assert chunks == [4, 2]
    unet = policies[0].unet
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in unet.parameters())
    images = whole(
        policies[0], ["cat"] * 3 + ["dog"] * 3, seed=0, epoch=0, guidance_scale=2.0,
        eta=1.0, chunk_size=4, purpose="audit",
    ).images  # fmt: skip
    clean = scores[scores["perturbation"] == "clean"]
    expected = tiny.Redness()(images, ["cat"] * 6).values
    assert clean["redness"].tolist() == expected.tolist()


def test_a_gold_of_ones_own(base_model: Path) -> None:
    scores, _ = run(base_model, gold="tests.tiny:Brightness")
    (table,) = scores.values()
    assert table.columns[-2:].tolist() == ["redness", "brightness"]


def test_an_ensemble_is_audited_by_its_task(base_model: Path) -> None:
    scores, _ = run(base_model, reward="both")
    assert scores["both"].columns[-1] == "both"


def test_the_gold_of_a_proxy_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tdpo_pipeline.auditing import audit

    calls: list[list[str]] = []

    def audit_reward(rewards: list[str], *_: Any, **__: Any) -> audit.Audited:
        calls.append(rewards)
        return audit.Audited(pd.DataFrame(), np.zeros((1, 1, 3), np.uint8))

    monkeypatch.setattr(audit, "audit_reward", audit_reward)
    for reward in ("pick-mini", "gold_match"):
        changes = {"reward": reward, "prompts": "simple_animals"}
        probe(settings(Path(), **changes), tiny.training(), {}, OPEN, Path(), Path())
    assert calls == [["pick-mini", "gold_match"], ["gold_match"]]


def test_bad_settings_are_errors_before_anything_is_drawn(base_model: Path) -> None:
    with pytest.raises(AuditError, match="did you mean blur"):
        run(base_model, perturbations={"blurr": [0.1]})
    with pytest.raises(UnknownRewardError, match="did you mean pick-mini"):
        run(base_model, reward="pick-mimi")
    (base_model / "empty").mkdir(exist_ok=True)
    changes = {"reward": "pick-mimi", "prompts": str(base_model / "prompts.txt")}
    with pytest.raises(UnknownRewardError):  # before a base model is looked for
        run(base_model / "empty", **changes)
    with pytest.raises(PromptError, match="nowhere"):
        run(base_model, prompts="nowhere.txt")
    (base_model / "one.txt").write_text("cat\n")
    with pytest.raises(ValueError, match="two or more"):
        run(base_model, prompts=str(base_model / "one.txt"))
    with pytest.raises(ValueError, match="perturbations"):
        settings(base_model, perturbations={})


def test_the_configured_perturbations_are_known() -> None:
    from tdpo_pipeline.auditing.perturbations import (
        PERTURBATIONS,
        check_perturbations,
    )

    configured = AuditSettings.model_validate(
        yaml.safe_load((ROOT / "conf/base/parameters_audit.yml").read_text())["audit"]
    )
    check_perturbations(configured.perturbations)
    assert set(configured.perturbations) == set(PERTURBATIONS)


def test_type_hints_are_readable_at_run_time() -> None:
    """Kedro skips the validation of a node whose hints it can't resolve."""
    assert get_type_hints(nodes.probe)["settings"] is AuditSettings
    assert "return" in get_type_hints(nodes.report)


def test_it_starts_from_the_base_model_and_the_weights() -> None:
    free = create_pipeline().inputs()
    assert {name for name in free if not name.startswith("params:")} == {
        "base_model",
        "reward_weights",
    }
