"""Names of rewards in configuration, and the classes behind them.

A reward of one's own needs no entry here: configuration takes ``module:Class`` for
any subclass of :class:`tdpo_pipeline.rewards.base.Reward` without arguments.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.rewards.model_files import (
    AESTHETIC_HEAD,
    BERT_TOKENIZER,
    CLIP_L,
    DEBERTA,
    HPS_V2,
    HPS_V2_1,
    IMAGE_REWARD,
    LLAVA,
    PICKSCORE,
    Repository,
)

if TYPE_CHECKING:
    from tdpo_pipeline.config import EnsemblePartSettings, RewardSettings
    from tdpo_pipeline.rewards.base import ImageEncoder, Reward


class RewardEntry(NamedTuple):
    """Where a reward is, and what a method may ask of it.

    Attributes:
        path: ``module:function``; the function takes the folder of weights and gives
            the reward.
        has_encoder: Whether it has an image encoder for a temporal critic.
        differentiable: Whether a gradient reaches the images.
        repositories: Published files that the reward is loaded from.
        lends: Those that its encoder is loaded from, where that isn't the reward's own.
        options: What a task may tell the reward, by the names of the function's
            arguments; all of them are text.
    """

    path: str
    has_encoder: bool
    differentiable: bool = False
    repositories: tuple[Repository, ...] = ()
    lends: tuple[Repository, ...] = ()
    options: tuple[str, ...] = ()


REWARDS = {
    "aesthetic-mini": RewardEntry(
        "tdpo_pipeline.rewards.aesthetic_mini:load", True, differentiable=True
    ),
    "pick-mini": RewardEntry(
        "tdpo_pipeline.rewards.pick_mini:load", True, differentiable=True
    ),
    "hps-mini": RewardEntry(
        "tdpo_pipeline.rewards.hps_mini:load", True, differentiable=True
    ),
    "imagereward-mini": RewardEntry(
        "tdpo_pipeline.rewards.imagereward_mini:load", True, differentiable=True
    ),
    "aesthetic": RewardEntry(
        "tdpo_pipeline.rewards.aesthetic:load",
        True,
        differentiable=True,
        repositories=(CLIP_L, AESTHETIC_HEAD),
    ),
    "pickscore": RewardEntry(
        "tdpo_pipeline.rewards.pickscore:load",
        True,
        differentiable=True,
        repositories=(PICKSCORE,),
    ),
    "hpsv2": RewardEntry(
        "tdpo_pipeline.rewards.hpsv2:load",
        True,
        differentiable=True,
        repositories=(HPS_V2,),
    ),
    "hpsv2_1": RewardEntry(
        "tdpo_pipeline.rewards.hpsv2:load_v2_1",
        True,
        differentiable=True,
        repositories=(HPS_V2_1,),
    ),
    "imagereward": RewardEntry(
        "tdpo_pipeline.rewards.imagereward:load",
        True,
        differentiable=True,
        repositories=(IMAGE_REWARD, BERT_TOKENIZER),
        lends=(CLIP_L,),
    ),
    "llava_bertscore": RewardEntry(
        "tdpo_pipeline.rewards.llava_bertscore:load",
        True,
        repositories=(LLAVA, DEBERTA),
        lends=(CLIP_L,),
        options=("question", "reference"),
    ),
    "llava_strict": RewardEntry(
        "tdpo_pipeline.rewards.llava_bertscore:load_strict_mode",
        True,
        repositories=(LLAVA,),
        lends=(CLIP_L,),
    ),
    "gold_match": RewardEntry("tdpo_pipeline.rewards.gold_match:load", False),
    "gold_taste": RewardEntry("tdpo_pipeline.rewards.gold_taste:load", False),
    "jpeg_compressibility": RewardEntry(
        "tdpo_pipeline.rewards.jpeg:load_compressibility", False
    ),
    "jpeg_incompressibility": RewardEntry(
        "tdpo_pipeline.rewards.jpeg:load_incompressibility", False
    ),
}


class UnknownRewardError(ValueError):
    """A reward that is in no registry and can't be imported."""


class NoEncoderError(ValueError):
    """A temporal critic was asked to read a reward that has no image encoder."""


class UnknownOptionError(ValueError):
    """A task gives a reward an option that the reward doesn't have."""


class UnmeasuredError(ValueError):
    """An ensemble has no mean or deviation to normalise one of its rewards by."""


class NoGradientError(ValueError):
    """A method that needs a reward's gradient was given a reward without one."""


def reward_path(name: str) -> str:
    """``module:attribute`` behind a name; only one's own is imported, to check it.

    Raises:
        UnknownRewardError: If the name is in no registry and isn't such a path itself.
        RewardError: If one's own is no reward, or can't be made without arguments.
    """
    if name in REWARDS:
        return REWARDS[name].path
    if ":" in name:
        _check_own_class(name, _attribute(name))
        return name
    raise UnknownRewardError(
        f"Unknown reward '{name}'{did_you_mean(name, REWARDS)}. There are "
        f"{', '.join(REWARDS)}; or give 'module:Class' of your own."
    )


def _check_own_class(path: str, found: Any) -> None:
    """Raise RewardError unless ``found`` is a reward class to call without arguments."""
    from tdpo_pipeline.rewards.base import Reward, RewardError

    if not (isinstance(found, type) and issubclass(found, Reward)):
        raise RewardError(
            f"'{path}' is not a reward: it must be a subclass of "
            "tdpo_pipeline.rewards.base.Reward."
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise RewardError(f"The reward '{path}' lacks the method {missing}.")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise RewardError(
            f"The reward '{path}' can't be made without arguments ({error}); give "
            "them defaults, or make a subclass that sets them."
        ) from error


def check_task(
    scorer: str,
    encoder_of: str | None,
    *,
    needs_encoder: bool,
    needs_gradient: bool = False,
    parts: Mapping[str, EnsemblePartSettings] | None = None,
    options: Collection[str] = (),
) -> None:
    """Hold a task against the registry, without loading anything.

    Args:
        scorer: The trained reward.
        encoder_of: The reward that lends the critic its encoder, or None.
        needs_encoder: Whether the method has a temporal critic.
        needs_gradient: Whether the method backpropagates the trained reward.
        parts: The rewards that the trained one is made of, if it is an ensemble.
        options: Names of what the task tells the trained reward.

    Raises:
        UnknownRewardError: If a name is unknown.
        UnknownOptionError: If the trained reward has no such option.
        ValueError: If an ensemble has the name of another reward.
        UnmeasuredError: If the statistics of an ensemble have not been measured.
        NoEncoderError: If a registered reward has no encoder and one is needed.
        NoGradientError: If a registered reward has no gradient and one is needed.
    """
    if parts is not None and (scorer in REWARDS or ":" in scorer):
        raise ValueError(
            f"'{scorer}' is a reward by itself. Give the ensemble a name of its own, "
            "such as 'ensemble-mini'."
        )
    scored = (scorer,) if parts is None else tuple(parts)
    for name in scored:
        reward_path(name)
    check_measured(scorer, parts or {})
    known = REWARDS[scorer].options if scorer in REWARDS else ()
    if unknown := [name for name in options if name not in known]:
        raise UnknownOptionError(
            f"The reward '{scorer}' has no option '{unknown[0]}'; it has "
            f"{', '.join(known) or 'none'}."
        )
    if encoder_of is not None:
        reward_path(encoder_of)
    owner = encoder_of or scorer
    has_none = owner in REWARDS and not REWARDS[owner].has_encoder
    if needs_encoder and (has_none or (parts is not None and owner == scorer)):
        raise _no_encoder(owner)
    for name in scored:
        if needs_gradient and name in REWARDS and not REWARDS[name].differentiable:
            raise no_gradient(name)


def check_measured(name: str, parts: Mapping[str, EnsemblePartSettings]) -> None:
    """Raise UnmeasuredError unless all parts of an ensemble can be normalised."""
    open_parts = [
        key for key, part in parts.items() if part.mean is None or part.std is None
    ]
    if open_parts:
        raise UnmeasuredError(
            f"The ensemble '{name}' has no mean and std of {', '.join(open_parts)}, "
            "which are those of your base model's images. Measure them with "
            f"`python benchmarks/reward_statistics.py --env <env> --task {name}`, and "
            "put what it prints into conf/<env>/parameters_rewards.yml."
        )


def no_gradient(name: str) -> NoGradientError:
    """The error of a method that can't backpropagate the reward ``name``."""
    able = ", ".join(key for key, entry in REWARDS.items() if entry.differentiable)
    return NoGradientError(
        f"No gradient of reward '{name}' reaches the images, and this method learns by "
        f"it. There is one in {able}; a reward of your own says so by `differentiable = "
        "True`. Policy-gradient methods, such as ddpo and tdpo, train on any reward."
    )


def _no_encoder(name: str) -> NoEncoderError:
    able = ", ".join(key for key, entry in REWARDS.items() if entry.has_encoder)
    return NoEncoderError(
        f"Reward '{name}' has no image encoder for a temporal critic. Set "
        "'critic_encoder' of the reward in the environment's parameters_rewards.yml to "
        f"one that has: {able}."
    )


def load_reward(
    name: str, weights: Path, options: Mapping[str, str] | None = None
) -> Reward:
    """The reward ``name``, ready to score, on the CPU in float32.

    Published models are loaded once and shared by all who ask for them (see
    :func:`tdpo_pipeline.rewards.loading.shared`).

    Args:
        name: Name in the registry, or ``module:Class``.
        weights: Folder that holds the weights of trained rewards.
        options: What the reward is told, by name (``RewardEntry.options``).

    Raises:
        UnknownRewardError: If there is no such reward.
        RewardError: If one's own is no reward, or has no name of its own.
        FileNotFoundError: If its weights are missing; the message says what to run.
    """
    path = reward_path(name)
    if name in REWARDS:
        if options:
            return _attribute(path)(weights, **options)
        if REWARDS[name].repositories:
            from tdpo_pipeline.rewards.loading import shared

            return shared(_attribute(path), weights)
        return _attribute(path)(weights)
    reward = _attribute(path)()
    _check_own_name(path, getattr(reward, "name", None))
    return reward


def _check_own_name(path: str, name: Any) -> None:
    """Raise RewardError unless ``name`` can name a reward of one's own."""
    from tdpo_pipeline.rewards.base import RewardError

    if not (isinstance(name, str) and name):
        raise RewardError(f"The reward '{path}' needs a 'name', such as 'sharpness'.")
    if name in REWARDS:
        raise RewardError(
            f"The reward '{path}' has the name of another reward, '{name}'. Give it a "
            "name of its own."
        )


def load_rewards(
    names: Iterable[str],
    weights: Path,
    task: RewardSettings | None = None,
) -> dict[str, Reward]:
    """Rewards that are scored side by side, each loaded once, by what was asked for.

    Args:
        names: Names in the registry, ``module:Class`` or the task's ensemble.
        weights: Folder that holds the weights of trained rewards.
        task: What its trained reward is made of, and told.

    Raises:
        RewardError: If two of them have the same name; see also :func:`load_reward`.
        UnmeasuredError: If the statistics of the ensemble have not been measured.
    """
    from tdpo_pipeline.rewards.base import RewardError
    from tdpo_pipeline.rewards.ensemble import Ensemble

    made_of = task.ensembles if task else {}
    told = {task.scorer: task.options} if task else {}
    asked_for = list(dict.fromkeys(names))
    for name in asked_for:
        check_measured(name, made_of.get(name, {}))
    single = dict.fromkeys(
        part for name in asked_for for part in made_of.get(name, [name])
    )
    loaded = {name: load_reward(name, weights, told.get(name)) for name in single}
    rewards: dict[str, Reward] = {
        name: Ensemble(name, loaded, made_of[name]) if name in made_of else loaded[name]
        for name in asked_for
    }
    owners: dict[str, str] = {}
    for asked, reward in rewards.items():
        first = owners.setdefault(reward.name, asked)
        if first != asked:
            raise RewardError(
                f"The rewards '{first}' and '{asked}' are both named '{reward.name}'. "
                "Give each a name of its own."
            )
    return rewards


def _attribute(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownRewardError(
            f"Reward '{path}' can't be imported: {error}"
        ) from error


def critic_encoder(
    reward: Reward, encoder_of: str | None, weights: Path
) -> ImageEncoder:
    """The image encoder that a temporal critic reads.

    Args:
        reward: The trained reward.
        encoder_of: Name of the reward whose encoder is to be used instead of its own.
        weights: Folder that holds the weights of trained rewards.

    Raises:
        NoEncoderError: If the reward that should give the encoder has none.
    """
    owner = load_reward(encoder_of, weights) if encoder_of else reward
    if owner.encoder is None:
        raise _no_encoder(owner.name)
    return owner.encoder
