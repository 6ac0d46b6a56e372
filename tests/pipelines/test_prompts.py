from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from tdpo_pipeline.config import EvaluationSettings, RewardSettings
from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.prompts import create_pipeline
from tdpo_pipeline.pipelines.prompts.nodes import (
    OwnEvaluation,
    OwnEvaluations,
    PromptSettings,
    task_prompts,
)
from tdpo_pipeline.prompts import PromptError
from tests.conftest import parameters_of

MENAGERIE = PromptSettings(vocabulary="menagerie", files="none")
OPEN = PromptSettings(vocabulary="open", files="none")


def task(prompts: str | Path) -> RewardSettings:
    return RewardSettings(scorer="aesthetic-mini", train_prompts=str(prompts))


def evaluation(*sets: str, strip: str = "A dog on the moon") -> EvaluationSettings:
    return EvaluationSettings(
        prompt_sets=sets,
        images_per_prompt=1,
        etas=(1.0,),
        rewards=("aesthetic-mini", "pick-mini"),
        seed=0,
        chunk_size=4,
        strip_prompts=(strip,),
    )


EVALUATED = evaluation("simple_animals", strip="cat")
NOTHING = OwnEvaluations({})


def own(
    source: str, *sets: str, strip: Sequence[str] = (), alone: bool = False
) -> OwnEvaluations:
    its = OwnEvaluation(prompt_sets=sets, strip_prompts=tuple(strip), alone=alone)
    return OwnEvaluations({source: its})


def trained(source: str | Path, settings: PromptSettings = MENAGERIE) -> list[str]:
    """The training prompts of ``source``, which are evaluated."""
    beside = own(str(source), str(source))
    return task_prompts(task(source), EVALUATED, beside, settings)[0].splitlines()


def test_prompts_that_are_never_evaluated_are_an_error() -> None:
    with pytest.raises(PromptError, match="None of the prompts of 'activities'"):
        task_prompts(task("activities"), EVALUATED, NOTHING, MENAGERIE)


def test_a_named_set_is_written_a_prompt_a_line() -> None:
    text, _ = task_prompts(task("simple_animals"), EVALUATED, NOTHING, MENAGERIE)
    assert text.endswith("\n")
    assert len(text.splitlines()) == 45
    assert text.splitlines()[:3] == ["cat", "dog", "horse"]


def test_a_prompt_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a cat and a dog\n\n  zebra  \n")
    assert trained(path) == ["a cat and a dog", "zebra"]


def test_evaluation_sets_by_name() -> None:
    named = evaluation("simple_animals", "unseen_animals", "complex")
    _, evaluated = task_prompts(task("quick_animals"), named, NOTHING, MENAGERIE)
    sets = evaluated["prompt_sets"]
    assert list(sets) == ["simple_animals", "unseen_animals", "complex"]
    assert len(sets["unseen_animals"]) == 8
    assert sets["complex"][3] == "A dog on the moon"
    assert evaluated["strip_prompts"] == ["A dog on the moon"]


def test_what_is_trained_on_may_have_an_evaluation_of_its_own() -> None:
    bike = "a dolphin riding a bike"
    sets = ["activities/27", "one_prompt", "simple_animals"]
    beside = own("activities", *sets, strip=[bike, "cat"])
    _, evaluated = task_prompts(task("activities"), EVALUATED, beside, MENAGERIE)
    found = evaluated["prompt_sets"]
    assert list(found) == ["simple_animals", "activities/27", "one_prompt"]
    assert len(found["activities/27"]) == 27
    assert found["one_prompt"] == [bike]
    assert evaluated["strip_prompts"] == ["cat", bike]
    _, others = task_prompts(task("simple_animals"), EVALUATED, beside, MENAGERIE)
    assert list(others["prompt_sets"]) == ["simple_animals"]
    assert others["strip_prompts"] == ["cat"]


def test_an_evaluation_of_its_own_may_take_the_place_of_everybodys() -> None:
    beside = own(
        "activities", "activities/27", strip=["a dog playing chess"], alone=True
    )
    _, evaluated = task_prompts(task("activities"), EVALUATED, beside, MENAGERIE)
    assert list(evaluated["prompt_sets"]) == ["activities/27"]
    assert evaluated["strip_prompts"] == ["a dog playing chess"]


def test_an_evaluation_alone_needs_all_prompts() -> None:
    with pytest.raises(ValueError, match="prompt_sets and strip_prompts of its own"):
        own("activities", "activities/27", alone=True)


EMBEDDED = {
    name: RewardSettings.model_validate(given)
    for name, given in parameters_of("base")["rewards"].items()
    if name.endswith("-mini") or name.startswith("jpeg")
}


@pytest.mark.parametrize("reward", EMBEDDED)
def test_the_embedded_tasks_are_evaluated(reward: str) -> None:
    configured = parameters_of("base")
    text, evaluated = task_prompts(
        EMBEDDED[reward],
        EvaluationSettings.model_validate(configured["evaluation"]),
        OwnEvaluations.model_validate(configured["own_evaluation"]),
        MENAGERIE,
    )
    shown = set(evaluated["strip_prompts"])
    assert shown & set(text.splitlines()), "the strip shows nothing that is trained on"


def test_a_strip_shows_only_what_is_evaluated() -> None:
    named = evaluation("complex", strip="cat")
    with pytest.raises(PromptError, match="has 'cat', which no evaluated set .complex"):
        task_prompts(task("complex"), named, NOTHING, MENAGERIE)
    beside = own("complex", strip=["zebra"])
    with pytest.raises(PromptError, match="has 'zebra', which no evaluated set"):
        task_prompts(task("complex"), evaluation("complex"), beside, MENAGERIE)


def test_an_unknown_set_names_those_near() -> None:
    with pytest.raises(PromptError, match="did you mean simple_animals"):
        task_prompts(task("simple_animal"), EVALUATED, NOTHING, MENAGERIE)
    with pytest.raises(PromptError, match="Unknown prompt set 'komplex'"):
        task_prompts(task("complex"), evaluation("komplex"), NOTHING, MENAGERIE)
    # In an entry of another task's, too.
    for beside in (own("activites/27", "complex"), own("complex", "activites")):
        with pytest.raises(PromptError, match="did you mean activities"):
            task_prompts(task("simple_animals"), EVALUATED, beside, MENAGERIE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\xff", "not a UTF-8 text file"),
        (b"cat\0dog", "binary"),
    ],
)
def test_an_unusable_file_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message) as caught:
        trained(path, OPEN)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no prompt file"):
        trained(tmp_path / "none.txt", OPEN)


def test_menagerie_refuses_what_it_has_no_words_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("zebra\na zebbra on the moon\n")
    with pytest.raises(PromptError, match="a zebbra on the moon.*zebra"):
        trained(path)
    assert trained(path, OPEN)[1] == "a zebbra on the moon"


def test_the_pipeline_writes_both_sets_for_each_reward() -> None:
    runs = [Run("tdpo", "pick-mini", seed) for seed in (0, 1)]
    pipeline = create_pipeline([*runs, Run("tdpo", "aesthetic-mini", 0)])
    catalog = DataCatalog(
        {
            "params:prompts": MemoryDataset(MENAGERIE),
            "params:evaluation": MemoryDataset(EVALUATED),
            "params:own_evaluation": MemoryDataset(own("quick_animals", "complex")),
            "params:rewards.pick-mini": MemoryDataset(task("quick_animals")),
            "params:rewards.aesthetic-mini": MemoryDataset(task("simple_animals")),
        }
    )
    outputs = SequentialRunner().run(pipeline, catalog)
    loaded = {name: dataset.load() for name, dataset in outputs.items()}
    assert len(loaded["train_prompts_pick-mini"].splitlines()) == 8
    assert len(loaded["train_prompts_aesthetic-mini"].splitlines()) == 45
    for reward, sets in (
        ("pick-mini", ["simple_animals", "complex"]),
        ("aesthetic-mini", ["simple_animals"]),
    ):
        assert list(loaded[f"evaluation_prompts_{reward}"]["prompt_sets"]) == sets
