import re
from pathlib import Path

import pytest

from tdpo_pipeline.rewards.model_files import (
    AESTHETIC_HEAD,
    BERT_TOKENIZER,
    CLIP_L,
    DEBERTA,
    MissingWeightsError,
    missing_files,
    require_files,
)
from tdpo_pipeline.rewards.registry import REWARDS, load_reward
from tdpo_pipeline.rewards.repositories import repositories_of

PUBLISHED = {name: entry for name, entry in REWARDS.items() if entry.repositories}


def test_the_real_rewards_are_registered():
    assert set(PUBLISHED) == {
        *("aesthetic", "pickscore", "hpsv2", "hpsv2_1", "imagereward"),
        *("llava_bertscore", "llava_strict"),
    }
    assert {n for n, e in PUBLISHED.items() if e.differentiable} == {
        *("aesthetic", "pickscore", "hpsv2", "hpsv2_1", "imagereward")
    }
    assert all(entry.has_encoder for entry in PUBLISHED.values())


def test_revisions_and_checksums_are_whole():
    for repository in repositories_of(PUBLISHED):
        assert re.fullmatch("[0-9a-f]{40}", repository.revision)
        for file in repository.files:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.sha256 is None or file.size is not None


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def test_every_file_of_weights_has_a_size():
    weights = [
        file
        for repository in repositories_of(PUBLISHED)
        for file in repository.files
        if Path(file.name).suffix in WEIGHTS
    ]
    assert len(weights) == 10
    assert all(file.size for file in weights)


def test_what_is_loaded_is_no_more_than_the_files_in_full_precision():
    for repository in repositories_of(PUBLISHED):
        sizes = [f.size for f in repository.files if Path(f.name).suffix in WEIGHTS]
        if repository.loaded:
            # The files may be of half precision, and hold more than is loaded.
            assert repository.loaded <= 2.01 * sum(sizes)
            assert repository.loaded >= 0.7 * sum(sizes)


def test_where_a_file_is_and_comes_from(tmp_path):
    assert CLIP_L.folder(tmp_path) == tmp_path / "openai--clip-vit-large-patch14"
    assert CLIP_L.url(CLIP_L.files[0]).endswith(
        "/openai/clip-vit-large-patch14/resolve/"
        "32bd64288804d66eefd0ccbe215aa642df71cc41/config.json"
    )
    # A plus in a path stays a plus, but not everywhere; quoted, it does.
    assert AESTHETIC_HEAD.url(AESTHETIC_HEAD.files[0]).endswith(
        "/6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth"
    )


def test_missing_files_are_named_with_their_size_and_what_to_run(tmp_path):
    folder = CLIP_L.folder(tmp_path)
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert [file.name for file in missing_files(CLIP_L, tmp_path)] == [
        "model.safetensors"
    ]
    with pytest.raises(MissingWeightsError) as caught:
        require_files(CLIP_L, tmp_path)
    message = str(caught.value)
    assert "model.safetensors (1.71 GB) is missing" in message
    assert "kedro run --pipelines fetch --env <env>" in message
    assert str(folder) in message
    with pytest.raises(FileNotFoundError, match=re.escape("vocab.txt (232 kB)")):
        require_files(BERT_TOKENIZER, tmp_path)
    with pytest.raises(
        FileNotFoundError, match=re.escape("pytorch_model.bin (3.04 GB)")
    ):
        require_files(DEBERTA, tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_reward_says_what_it_lacks(name, tmp_path):
    with pytest.raises(MissingWeightsError, match="pipelines fetch"):
        load_reward(name, Path(tmp_path))
