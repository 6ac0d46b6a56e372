from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from tdpo_pipeline.config import EvaluationSettings, RewardSettings
from tdpo_pipeline.grid import Run
from tdpo_pipeline.pipelines.prompts import create_pipeline
from tdpo_pipeline.pipelines.prompts.nodes import (
    PromptSettings,
    evaluation_prompts,
    training_prompts,
)
from tdpo_pipeline.prompts import PromptError

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


def test_prompts_that_are_never_evaluated_are_an_error() -> None:
    with pytest.raises(PromptError, match="None of the prompts of 'activities'"):
        training_prompts(task("activities"), EVALUATED, MENAGERIE)


def test_a_named_set_is_written_a_prompt_a_line() -> None:
    lines = training_prompts(task("simple_animals"), EVALUATED, MENAGERIE).splitlines()
    assert len(lines) == 45
    assert lines[:3] == ["cat", "dog", "horse"]


def test_a_prompt_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a cat and a dog\n\n  zebra  \n")
    assert (
        training_prompts(task(path), EVALUATED, MENAGERIE) == "a cat and a dog\nzebra\n"
    )


def test_evaluation_sets_by_name() -> None:
    prompts = evaluation_prompts(evaluation("unseen_animals", "complex"), MENAGERIE)
    assert list(prompts) == ["unseen_animals", "complex"]
    assert len(prompts["unseen_animals"]) == 8
    assert prompts["complex"][3] == "A dog on the moon"


def test_a_strip_shows_only_what_is_evaluated() -> None:
    with pytest.raises(PromptError, match="strip_prompts has 'cat', which no set of"):
        evaluation_prompts(evaluation("complex", strip="cat"), MENAGERIE)


def test_an_unknown_set_names_those_near() -> None:
    with pytest.raises(PromptError, match="did you mean simple_animals"):
        training_prompts(task("simple_animal"), EVALUATED, MENAGERIE)
    with pytest.raises(PromptError, match="Unknown prompt set 'komplex'"):
        evaluation_prompts(evaluation("komplex"), MENAGERIE)


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
        training_prompts(task(path), EVALUATED, OPEN)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no prompt file"):
        training_prompts(task(tmp_path / "none.txt"), EVALUATED, OPEN)


def test_menagerie_refuses_what_it_has_no_words_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("zebra\na zebbra on the moon\n")
    with pytest.raises(PromptError, match="a zebbra on the moon.*zebra"):
        training_prompts(task(path), EVALUATED, MENAGERIE)
    assert (
        training_prompts(task(path), EVALUATED, OPEN).splitlines()[1]
        == "a zebbra on the moon"
    )


def test_the_pipeline_writes_a_set_for_each_reward() -> None:
    runs = [Run("tdpo", "pick-mini", seed) for seed in (0, 1)]
    pipeline = create_pipeline([*runs, Run("tdpo", "aesthetic-mini", 0)])
    catalog = DataCatalog(
        {
            "params:prompts": MemoryDataset(MENAGERIE),
            "params:evaluation": MemoryDataset(EVALUATED),
            "params:rewards.pick-mini": MemoryDataset(task("quick_animals")),
            "params:rewards.aesthetic-mini": MemoryDataset(task("simple_animals")),
        }
    )
    outputs = SequentialRunner().run(pipeline, catalog)
    loaded = {name: dataset.load() for name, dataset in outputs.items()}
    assert len(loaded["train_prompts_pick-mini"].splitlines()) == 8
    assert len(loaded["train_prompts_aesthetic-mini"].splitlines()) == 45
    assert list(loaded["evaluation_prompts"]) == ["simple_animals"]
