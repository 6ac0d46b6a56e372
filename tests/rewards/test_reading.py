import warnings

import pytest
import torch

from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.reading import PromptReader, TruncatedPromptWarning


@pytest.fixture
def reader():
    # A letter is a token; 1 begins and 2 ends a prompt.
    return PromptReader(lambda p: [1, *map(ord, p), 2], 5, pad_id=0, reader="letters")


def test_short_prompts_are_filled_up(reader):
    ids, mask = reader(["ab", "abc"])
    assert ids.tolist() == [[1, 97, 98, 2, 0], [1, 97, 98, 99, 2]]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert ids.dtype == torch.int64


def test_a_long_prompt_is_cut_before_its_end_and_told_once(reader):
    with pytest.warns(TruncatedPromptWarning, match="first 5 of the 8 tokens.*abcdef"):
        ids, _ = reader(["abcdef"])
    assert ids.tolist() == [[1, 97, 98, 99, 2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(reader(["abcdef"])[0], ids)
    with pytest.warns(TruncatedPromptWarning, match="uvwxyz"):
        reader(["uvwxyz"])


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(reader, prompt):
    with pytest.raises(RewardError, match="'letters'.*a prompt is empty"):
        reader(["ab", prompt])
