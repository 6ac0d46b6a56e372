"""Evaluation: fixed-seed samples of every checkpoint, scored by every reward.

Beside the scores stand what needs no reward: plain statistics of every image, and how
different the images of a prompt are from each other.

The untouched base model is checkpoint 0. Image i of a prompt has the same noise in
every checkpoint of every run, whatever else is evaluated, so differences from the base
model are paired.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from tdpo_pipeline.config import EvaluationSettings, RunConfig
from tdpo_pipeline.diffusion.devices import resolve_device
from tdpo_pipeline.diffusion.loading import load_pipeline
from tdpo_pipeline.diffusion.policy import CheckpointError, Policy
from tdpo_pipeline.diffusion.trajectory import (
    Trajectory,
    kl_to_base,
    rollout_chunks,
)
from tdpo_pipeline.evaluation_state import EvaluationState
from tdpo_pipeline.overoptimization.diversity import diversity_by_prompt
from tdpo_pipeline.overoptimization.image_statistics import image_statistics
from tdpo_pipeline.rewards.base import ImageEncoder, PaperScale, Reward
from tdpo_pipeline.rewards.preprocessing import levels
from tdpo_pipeline.rewards.probe import probe_rewards
from tdpo_pipeline.rewards.registry import load_rewards
from tdpo_pipeline.rewards.scoring import scores
from tdpo_pipeline.trainer.state import (
    epoch_of,
    fingerprint,
    identity_digest,
    own_code,
    read_checkpoint_facts,
    run_identity,
)

log = logging.getLogger(__name__)

EVALUATION_CODE = tuple(
    Path(__file__).parent / name
    for name in (
        "evaluation.py",
        "overoptimization/diversity.py",
        "overoptimization/image_statistics.py",
    )
)
"""Files that can change what an evaluation finds, beside those that train."""


class EvaluationError(ValueError):
    """An evaluation whose settings don't fit the run or each other."""


@dataclass
class EvaluationResult:
    """What evaluating a run gives.

    Attributes:
        scores: One row an image: run, method, reward, seed, epoch, reward_queries,
            kl_to_base (of the checkpoint, on prompts trained on), eta, prompt_set, prompt,
            seen, image, and a column a reward.
            ``attrs["paper_scale"]`` has factor and offset to the units of a reward's
            paper where they are others; a Parquet file keeps it.
        statistics: The same rows, with the image statistics for rewards.
        diversity: One row a prompt instead: the same columns (image is 0), encoder,
            n_images, and the measures of diversity.
        strip: Sample strip, uint8, shape (checkpoints x H, strip prompts x W, 3).
        strip_index: Epochs of its rows, prompts of its columns, tile size.
    """

    scores: pd.DataFrame
    statistics: pd.DataFrame
    diversity: pd.DataFrame
    strip: np.ndarray
    strip_index: dict[str, Any]


class _Tables(NamedTuple):
    """The tables of ``EvaluationResult``, or those of a checkpoint."""

    scores: pd.DataFrame
    statistics: pd.DataFrame
    diversity: pd.DataFrame


class _Look(NamedTuple):
    """What is seen in the images of a chunk.

    Attributes:
        scores: A row an image, a column a reward.
        statistics: A row an image.
        embeddings: L2-normalised, shape (images, d).
        tiles: Images of the sample strip by their rows, uint8, shape (H, W, 3).
    """

    scores: pd.DataFrame
    statistics: pd.DataFrame
    embeddings: np.ndarray
    tiles: dict[int, np.ndarray]


class _Eyes(NamedTuple):
    """What looks at the samples: rewards, and the encoder that diversity is seen by."""

    rewards: Sequence[Reward]
    encoder: ImageEncoder
    encoder_name: str


def evaluate_run(
    config: RunConfig,
    settings: EvaluationSettings,
    *,
    prompt_sets: Mapping[str, Sequence[str]],
    train_prompts: Sequence[str],
    checkpoints: Path,
    base_model: Path,
    weights: Path,
    diversity_encoders: Sequence[str],
    state_dir: Path | None = None,
) -> EvaluationResult:
    """Sample from the base model and every checkpoint, and score the samples.

    At the first eta; at the others from the base model and the last checkpoint. The
    reward that the run trained on is scored too where ``settings`` leave it out.

    Args:
        config: The run whose checkpoints these are.
        settings: Prompts, images and rewards.
        prompt_sets: Name -> prompts, for each of ``settings.prompt_sets``.
        train_prompts: Prompts that the run trained on ("seen").
        checkpoints: Folder of checkpoint folders, as the trainer leaves it.
        base_model: Diffusers pipeline directory.
        weights: Folder of reward weights.
        diversity_encoders: Rewards by whose image encoder diversity may be seen; the
            first that the run didn't train on is.
        state_dir: Where what is done is kept until all is, so that an interrupted
            evaluation goes on; None: nowhere.

    Raises:
        EvaluationError: If the run trained on all ``diversity_encoders``.
        CheckpointError: If there are no checkpoints, or one is truncated or of another
            run.
        RewardError: If a reward can't score the base model's pictures.
        DeviceError: If the device is not there.
    """
    identity = run_identity(config, train_prompts, base_model, weights)
    policy = _policy(config, base_model)
    eyes = _load_eyes(config, settings, weights, diversity_encoders, policy.device)
    images = _image_table(settings, prompt_sets, train_prompts)
    _strip_rows(settings, images)
    policy.tell_truncated(images["prompt"].tolist())
    folders = checkpoint_folders(checkpoints, config, identity_digest(identity))
    probe_rewards(eyes.rewards, policy, images["prompt"].tolist())
    state = None
    if state_dir is not None:
        what = {
            "run": identity,
            "evaluation": settings.model_dump(mode="json"),
            "prompts": {name: list(prompts) for name, prompts in prompt_sets.items()},
            "encoder": eyes.encoder_name,
            "code": fingerprint([*EVALUATION_CODE, *own_code(settings.rewards)]),
        }
        state = EvaluationState(state_dir, what)
        if done := state.epochs():
            log.info("%s: epochs %s are evaluated already", config.key, done)
    tables, rows, epochs = [], [], []
    for folder in tqdm([None, *folders], desc=f"evaluate {config.key}", disable=None):
        facts = BASE_FACTS if folder is None else read_checkpoint_facts(folder)
        epoch = facts["epoch"]
        kept = state.load(epoch) if state else None
        if kept is not None:
            found, row = _Tables(**kept[0]), kept[1]
        else:
            if folder is not None:
                policy.load(folder)
            ends = folder in (None, folders[-1])
            etas = settings.etas if ends else settings.etas[:1]
            found, row = _evaluate_checkpoint(
                policy, config, settings, eyes, images, etas
            )
            if state:
                state.save(epoch, found._asdict(), row)
        head = _head(config, facts)
        tables.append(_Tables(*(_headed(table, head) for table in found)))
        rows.append(row)
        epochs.append(epoch)
    whole = _Tables(*map(_concatenate, zip(*tables, strict=True)))
    whole.scores.attrs |= _paper_scales(eyes.rewards)
    if state:
        state.clear()
    index = {
        "epochs": epochs,
        "prompts": list(settings.strip_prompts),
        "tile": rows[0].shape[0],
    }
    return EvaluationResult(*whole, np.concatenate(rows, 0), index)


BASE_FACTS = {"epoch": 0, "reward_queries": 0}
"""Of the base model, as of a checkpoint."""


def _policy(config: RunConfig, base_model: Path) -> Policy:
    """The base model on the run's device, ready to load its checkpoints."""
    scale = config.training
    resolve_device(scale)
    if scale.threads:
        torch.set_num_threads(scale.threads)
    return Policy(
        load_pipeline(base_model),
        num_inference_steps=scale.num_inference_steps,
        lora=scale.adapters,
        seed=config.seed,
        compute=scale,
    )


def _head(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What says of a row of any table which run and checkpoint it is of."""
    return {
        "run": config.key,
        "method": config.method,
        "reward": config.reward,
        "seed": config.seed,
        "epoch": facts["epoch"],
        "reward_queries": facts["reward_queries"],
    }


def _paper_scales(rewards: Sequence[Reward]) -> dict[str, Any]:
    """Attributes of a table of scores: the papers' scales that aren't the scores' own."""
    scales = {
        reward.name: asdict(reward.paper_scale)
        for reward in rewards
        if reward.paper_scale != PaperScale()
    }
    return {"paper_scale": scales} if scales else {}


def diversity_encoder(names: Sequence[str], config: RunConfig) -> str:
    """The first of these rewards that a run did not train on.

    What a policy was trained to please doesn't see well that its images grow alike.

    Raises:
        EvaluationError: If there is none.
    """
    trained = config.task.trained_on
    left = [name for name in names if name not in trained]
    if not left:
        raise EvaluationError(
            f"{config.key} trains on {', '.join(sorted(trained))}: no reward of "
            f"diversity.encoders ({', '.join(names)}) is left to see diversity by. Add "
            "one in the parameters_evaluation.yml of the environment."
        )
    return left[0]


def _load_eyes(
    config: RunConfig,
    settings: EvaluationSettings,
    weights: Path,
    diversity_encoders: Sequence[str],
    device: torch.device,
) -> _Eyes:
    """Load the rewards to score with, and the encoder, each once, to a device."""
    chosen = diversity_encoder(diversity_encoders, config)
    scorers = list(dict.fromkeys((*settings.rewards, config.task.scorer)))
    loaded = load_rewards((*scorers, chosen), weights, config.task)
    encoder = loaded[chosen].encoder
    if encoder is None:
        raise EvaluationError(
            f"diversity.encoders names '{chosen}', which has no image encoder. Take "
            "another one in the parameters_evaluation.yml of the environment."
        )
    rewards = [loaded[name].to(device) for name in scorers]
    return _Eyes(rewards, encoder.to(device), chosen)


def _headed(table: pd.DataFrame, head: Mapping[str, Any]) -> pd.DataFrame:
    """The table with these values in front of every row."""
    return pd.concat([pd.DataFrame(dict(head), index=table.index), table], axis=1)


def checkpoint_folders(
    checkpoints: Path, config: RunConfig, identity: str
) -> list[Path]:
    """The run's checkpoints in order of their epochs.

    Args:
        checkpoints: Folder of checkpoint folders.
        config: The run.
        identity: Digest of the run's configuration and inputs.

    Raises:
        CheckpointError: If checkpoints are missing or surplus, or belong to another
            run, another configuration or other inputs.
    """
    train = (
        f"Train {config.key} again, with the --env and the pipeline that its other "
        "files are made by (training, or that of a Stable Diffusion environment): "
        f"--namespaces {config.method}.{config.reward}.s{config.seed}"
    )
    folders = [p for p in checkpoints.glob("epoch_*") if p.is_dir()]
    folders.sort(key=epoch_of)
    found, settings = [epoch_of(p) for p in folders], config.training
    stopped = settings.early_stop.rule != "none" and found[-1:] < [settings.epochs]
    expected = settings.kept_epochs(found[-1] if stopped and found else None)
    if found != expected:
        raise CheckpointError(
            f"{checkpoints} has checkpoints of the epochs {found}, and the run keeps "
            f"{expected}. {train}"
        )
    for folder in folders:
        facts = read_checkpoint_facts(folder)
        if facts.get("run") != config.key:
            raise CheckpointError(
                f"{folder} belongs to run {facts.get('run')}, not {config.key}. {train}"
            )
        if facts.get("identity") != identity:
            raise CheckpointError(
                f"{folder} was trained with another configuration, base model, reward "
                f"weights or prompts. {train}"
            )
    return folders


def _image_table(
    settings: EvaluationSettings,
    prompt_sets: Mapping[str, Sequence[str]],
    train_prompts: Sequence[str],
) -> pd.DataFrame:
    """One row for each image of a checkpoint: prompt_set, prompt, seen, image."""
    seen = set(train_prompts)
    rows = [
        (name, prompt, prompt in seen, image)
        for name in settings.prompt_sets
        for prompt in prompt_sets[name]
        for image in range(settings.images_per_prompt)
    ]
    return pd.DataFrame(rows, columns=["prompt_set", "prompt", "seen", "image"])


def _evaluate_checkpoint(
    policy: Policy,
    config: RunConfig,
    settings: EvaluationSettings,
    eyes: _Eyes,
    images: pd.DataFrame,
    etas: Sequence[float],
) -> tuple[_Tables, np.ndarray]:
    """What is seen in all images of a checkpoint, and its row of the sample strip."""
    tables, rows = [], []
    for eta in etas:
        measured, looks = _sample(policy, config, settings, eyes, images, eta)
        head = {
            "kl_to_base": _kl(policy, measured, eta, settings.chunk_size),
            "eta": eta,
        }
        scored, statistics = (
            pd.concat([images, _concatenate(parts)], axis=1)
            for parts in ([x.scores for x in looks], [x.statistics for x in looks])
        )
        embeddings = np.concatenate([look.embeddings for look in looks])
        diversity = _diversity(images, embeddings).assign(encoder=eyes.encoder_name)
        found = _Tables(scored, statistics, diversity)
        tables.append(_Tables(*(_headed(kind, head) for kind in found)))
        tiles = {row: tile for look in looks for row, tile in look.tiles.items()}
        strip = [tiles[row] for row in _strip_rows(settings, images)]
        rows.append(np.concatenate(strip, axis=1))
    return _Tables(*map(_concatenate, zip(*tables, strict=True))), rows[0]


def _concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def _diversity(images: pd.DataFrame, embeddings: np.ndarray) -> pd.DataFrame:
    """How different the images of each prompt are, a row a prompt."""
    return diversity_by_prompt(images, embeddings, ["prompt_set", "prompt", "seen"])


def _strip_rows(settings: EvaluationSettings, images: pd.DataFrame) -> list[int]:
    """Where image 0 of each strip prompt is among the images.

    Raises:
        EvaluationError: If a strip prompt is in none of the evaluated prompt sets.
    """
    first = images[images["image"] == 0].drop_duplicates("prompt")
    position = dict(zip(first["prompt"], first.index, strict=True))
    missing = [p for p in settings.strip_prompts if p not in position]
    if missing:
        raise EvaluationError(
            f"strip_prompts names {missing}, which are in none of the "
            f"prompt sets {list(settings.prompt_sets)}."
        )
    return [int(position[prompt]) for prompt in settings.strip_prompts]


def _sample(
    policy: Policy,
    config: RunConfig,
    settings: EvaluationSettings,
    eyes: _Eyes,
    images: pd.DataFrame,
    eta: float,
) -> tuple[Trajectory, list[_Look]]:
    """Trajectories to measure the KL on, and what is seen in all images, by chunk.

    An image is looked at when it is there, and not kept: those of a checkpoint would
    fill a GPU.
    """
    measured, strip = _measured_rows(config, images), _strip_rows(settings, images)
    keys = zip(images["prompt"], images["image"], strict=True)
    kept, looks = [], []
    for start, chunk in rollout_chunks(
        policy,
        images["prompt"].tolist(),
        seed=settings.seed,
        epoch=0,
        guidance_scale=config.training.guidance_scale,
        eta=eta,
        chunk_size=settings.chunk_size,
        purpose="evaluation",
        addresses=[_address(prompt, image) for prompt, image in keys],
    ):
        own = range(start, start + len(chunk))
        rows = [row - start for row in measured if row in own]
        kept.append(chunk.select(torch.tensor(rows, dtype=torch.int64)))
        shown = [row for row in strip if row in own]
        looks.append(_look(eyes, chunk, start, shown))
    return Trajectory.cat(kept), looks


@torch.no_grad()
def _look(eyes: _Eyes, chunk: Trajectory, start: int, shown: Sequence[int]) -> _Look:
    """What is seen in the images of a chunk.

    Args:
        eyes: What looks at them.
        chunk: Its trajectories.
        start: Row of its first image.
        shown: Those of its rows that are in the sample strip.
    """
    samples = chunk.images
    values = {
        reward.name: _numbers(scores(reward, samples, chunk.prompts, len(chunk)))
        for reward in eyes.rewards
    }
    return _Look(
        scores=pd.DataFrame(values),
        statistics=image_statistics(_numbers(samples)),
        embeddings=_numbers(eyes.encoder(samples)),
        tiles={row: _tile(samples[row - start]) for row in shown},
    )


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _measured_rows(config: RunConfig, images: pd.DataFrame) -> list[int]:
    """Rows of the images that the KL is measured on, spread over those that are seen."""
    seen = np.flatnonzero(images["seen"])
    count = min(config.training.kl_samples, len(seen))
    spread_out = np.linspace(0, len(seen) - 1, count).round().astype(int)
    return [int(row) for row in seen[spread_out]]


def _address(prompt: str, image: int) -> int:
    """A number for image ``image`` of a prompt, the same wherever it is evaluated."""
    digest = hashlib.sha256(f"{image} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _kl(policy: Policy, trajectory: Trajectory, eta: float, chunk_size: int) -> float:
    """KL to the base model along trajectories; NaN for deterministic sampling."""
    if eta == 0:
        return float("nan")
    every = torch.arange(len(trajectory))
    return kl_to_base(policy, trajectory, every, chunk_size=chunk_size, eta=eta)


def _tile(image: Tensor) -> np.ndarray:
    """An image (3, H, W) as uint8, shape (H, W, 3)."""
    return levels(image).cpu().permute(1, 2, 0).numpy()
