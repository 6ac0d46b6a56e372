import re

import pytest

from tdpo_pipeline.algorithms.base import Algorithm
from tdpo_pipeline.algorithms.ddpo import Ddpo
from tdpo_pipeline.algorithms.registry import algorithm_class
from tdpo_pipeline.config import AlgorithmSettings


class Unfinished(Algorithm):
    Settings = AlgorithmSettings


class Own(Ddpo):
    pass


class WithoutSettings(Ddpo):
    Settings = dict


def test_names_and_classes_of_ones_own():
    assert algorithm_class("ddpo") is Ddpo
    assert algorithm_class(f"{__name__}:Own").__name__ == "Own"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpo", "did you mean"),
        ("nowhere:Nothing", "can't be imported"),
        (f"{__name__}:pytest", "must be a subclass of"),
        ("tests.tiny:Redness", "must be a subclass of"),
        (f"{__name__}:Unfinished", "lacks the methods load_state_dict, state_dict"),
        (f"{__name__}:WithoutSettings", "needs a class attribute Settings"),
    ],
)
def test_a_class_that_is_no_algorithm_is_an_error(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        algorithm_class(name)
    with pytest.raises(ValueError, match=re.escape(message)):
        AlgorithmSettings.model_validate({"algorithm": name})
