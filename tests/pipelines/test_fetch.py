from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from tdpo_pipeline.config import EvaluationSettings, TrainingSettings
from tdpo_pipeline.datasets.directory import DirectoryDataset
from tdpo_pipeline.fetching.manifest import read_manifest
from tdpo_pipeline.fetching.plan import ModelSettings, remote_files
from tdpo_pipeline.grid import SCALES, runs
from tdpo_pipeline.pipelines.evaluation.nodes import DiversitySettings
from tdpo_pipeline.pipelines.fetch import nodes
from tdpo_pipeline.pipelines.fetch.nodes import FetchSettings
from tdpo_pipeline.pipelines.prompts.nodes import PromptSettings
from tdpo_pipeline.prompts import PUBLISHED
from tdpo_pipeline.rewards.model_files import CLIP_L, HPS_V2, HPS_V2_1, PICKSCORE
from tdpo_pipeline.rewards.registry import REWARDS
from tdpo_pipeline.rewards.repositories import files_of_others, repositories_of
from tests.conftest import ROOT, Project, plain
from tests.fetching.fake_hub import FakeHub, running_hub
from tests.tiny import training

BASE_MODEL = {
    "id": "org/model",
    "revision": "a" * 40,
    "files": ["model_index.json", "unet/weights.safetensors"],
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        yield server


def settings(folder: Path, **changes: Any) -> FetchSettings:
    values = {
        "base_model": str(folder / "base_model"),
        "reward_weights": str(folder / "rewards"),
        "grid": None,
        "rewards": None,
        "prompts": {},
    }
    return FetchSettings.model_validate(values | changes)


def evaluation(*rewards: str) -> EvaluationSettings:
    return EvaluationSettings(
        prompt_sets=("complex",),
        images_per_prompt=1,
        etas=(1.0,),
        rewards=rewards,
        seed=0,
        chunk_size=1,
        strip_prompts=("A dog on the moon",),
    )


def test_a_base_model_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", "model_index.json", b"{}")
    hub.add("org/model", "unet/weights.safetensors", b"x" * 5000)
    hub.add("org/tiny", "config.json", b"small")
    decoder = BASE_MODEL | {"id": "org/tiny", "files": ["config.json"]}
    models = ModelSettings.model_validate(
        {"base_model": BASE_MODEL, "tiny_decoder": decoder}
    )
    folder = nodes.fetch_base_model(settings(tmp_path), models)
    assert folder == tmp_path / "base_model"
    assert (folder / "tiny_decoder" / "config.json").read_bytes() == b"small"
    assert (folder / "unet" / "weights.safetensors").stat().st_size == 5000


def test_an_environment_with_a_base_model_of_its_own(tmp_path: Path) -> None:
    folder = nodes.fetch_base_model(settings(tmp_path), ModelSettings(base_model=None))
    assert folder == tmp_path / "base_model"
    assert not folder.exists()


def test_weights_go_where_rewards_read_them(hub: FakeHub, tmp_path: Path) -> None:
    for file in PICKSCORE.files:
        path = PICKSCORE.url(file).removeprefix("https://huggingface.co/")
        hub.files[path] = file.name.encode()
    folder = nodes.fetch_reward_weights(
        settings(tmp_path, rewards="pickscore jpeg_compressibility"),
        training(),
        evaluation("aesthetic"),
        DiversitySettings(encoders=("aesthetic",)),
        {},
        {},
    )
    found = {p.name for p in PICKSCORE.folder(folder).iterdir()}
    assert found == {file.name for file in PICKSCORE.files} | {"fetched.json"}


def test_rewards_that_load_nothing_leave_a_folder_that_runs_can_start_from(
    tmp_path: Path,
) -> None:
    folder = nodes.fetch_reward_weights(
        settings(tmp_path, rewards="jpeg_compressibility"),
        training(),
        evaluation("aesthetic"),
        DiversitySettings(encoders=("aesthetic",)),
        {},
        {},
    )
    assert DirectoryDataset(filepath=folder).load() == folder
    assert [path.name for path in folder.iterdir()] == ["fetched.json"]


def test_a_folder_of_weights_is_left_as_it_is_where_nothing_is_fetched(
    tmp_path: Path,
) -> None:
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "shipped.safetensors").write_bytes(b"x")
    folder = nodes.fetch_reward_weights(
        settings(tmp_path, rewards="jpeg_compressibility"),
        training(),
        evaluation("aesthetic"),
        DiversitySettings(encoders=("aesthetic",)),
        {},
        {},
    )
    assert [path.name for path in folder.iterdir()] == ["shipped.safetensors"]


def test_misspelt_names_are_found_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean pickscore"):
        settings(tmp_path, rewards=("pikscore",))
    with pytest.raises(ValueError, match="'party'.*did you mean parti"):
        settings(tmp_path, prompts={"party": "x"})


def test_prompts_from_files_of_ones_own(tmp_path: Path) -> None:
    sources = {}
    for name, file in PUBLISHED.items():
        sources[name] = str(tmp_path / f"my {file.name}")
        Path(sources[name]).write_text(name)
    prompts = PromptSettings(vocabulary="open", files=str(tmp_path / "prompts"))
    folder = nodes.fetch_prompts(settings(tmp_path, prompts=sources), prompts)
    for name, file in PUBLISHED.items():
        assert (folder / file.name).read_text() == name


@pytest.mark.parametrize(
    "env",
    ["sd14", *(pytest.param(env, marks=pytest.mark.slow) for env in SCALES[1:])],
)
def test_an_environment_fetches_all_that_its_grid_uses(env: str) -> None:
    bootstrap_project(ROOT)
    with KedroSession.create(project_path=ROOT, env=env) as session:
        context = session.load_context()
    params, catalog = plain(context.params), context.catalog
    names = nodes._rewards(
        FetchSettings.model_validate(params["fetch"]),
        TrainingSettings.model_validate(params["training"]),
        EvaluationSettings.model_validate(params["evaluation"]),
        DiversitySettings.model_validate(params["diversity"]),
        params["rewards"],
        params["methods"],
    )
    assert {run.reward for run in runs(env)} <= set(names)  # type: ignore[arg-type]
    assert set(params["training"]["monitor"]) <= set(names)
    assert set(params["evaluation"]["rewards"]) <= set(names)
    assert CLIP_L in repositories_of(names)
    folders = params["fetch"] | {"prompt_files": params["prompts"]["files"]}
    for name in ("base_model", "reward_weights", "prompt_files"):
        assert catalog[name]._filepath == ROOT / folders[name], name


def test_every_repository_is_fetched_at_a_fixed_commit() -> None:
    for repository in repositories_of(REWARDS):
        assert len(repository.revision) == 40
        assert set(repository.revision) <= set("0123456789abcdef")


def test_sizes_are_asked_for_and_checksums_held_to() -> None:
    """The sizes that are known beforehand may be rounded."""
    found, known = remote_files(CLIP_L)[1], CLIP_L.files[1]
    assert (found.size, found.sha256) == (None, known.sha256)


def test_files_of_rewards_that_are_not_asked_for(tmp_path: Path) -> None:
    others = files_of_others(["hpsv2", "jpeg_compressibility"], tmp_path)
    folder = HPS_V2.folder(tmp_path)
    assert folder / HPS_V2_1.files[0].name in others
    assert folder / HPS_V2.files[0].name not in others
    assert files_of_others(REWARDS, tmp_path) == set()


def test_the_command(project: Project) -> None:
    """`kedro run --env sd14 --pipelines fetch`, and once more with the hub off."""
    conf = project.root / "conf" / "sd14"
    models = yaml.safe_load((conf / "parameters_models.yml").read_text())["models"]
    for name, file in PUBLISHED.items():
        (project.root / file.name).write_text(name)
    own = {name: str(project.root / file.name) for name, file in PUBLISHED.items()}
    fetch = {"grid": "sd14", "rewards": ["pickscore"], "prompts": own}
    (conf / "parameters_fetch.yml").write_text(yaml.safe_dump({"fetch": fetch}))
    command = ("run", "--env", "sd14", "--pipelines", "fetch")
    with running_hub() as hub:
        for source in models.values():
            for name in source["files"]:
                path = f"{source['id']}/resolve/{source['revision']}/{name}"
                hub.files[path] = name.encode()
        for file in PICKSCORE.files:
            path = PICKSCORE.url(file).removeprefix("https://huggingface.co/")
            hub.files[path] = file.name.encode()
        done = project.run("kedro", *command, HF_ENDPOINT=hub.endpoint)
        count = len(hub.ranges)
    files = {part: set(source["files"]) for part, source in models.items()}
    assert count == sum(map(len, files.values())) + len(PICKSCORE.files)
    base_model = project.root / "data" / "06_models" / "sd14" / "base_model"
    assert set(read_manifest(base_model)) == files["base_model"]
    assert set(read_manifest(base_model / "tiny_decoder")) == files["tiny_decoder"]
    assert f"1/{len(files['base_model'])} model_index.json" in done.stdout + done.stderr
    # What is there needs no hub. What isn't is the user's to mend, and no traceback.
    more = ("--params", "fetch.rewards=pickscore aesthetic")
    again = project.run("kedro", *command, *more, check=False, HF_HUB_OFFLINE="1")
    output = again.stdout + again.stderr
    assert "all 4 files are in" in output
    assert again.returncode == 1
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "config.json must be downloaded from" in last
    assert "HF_HUB_OFFLINE" in last
