"""Every parameter of a run: typed, validated before anything runs, and printed.

Configuration states the quantities that people get wrong in this field (samples per
epoch, pairs per update, updates per epoch); none of them depends on the number of
devices or on the micro-batch. A *pair* is one (sample, timestep) of a trajectory.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tdpo_pipeline.hints import did_you_mean
from tdpo_pipeline.rewards.registry import check_task, reward_path

CLIP_REFERENCE_DIMS = 4 * 64 * 64
"""Latent dimensions of Stable Diffusion, for which clip ranges are configured."""

TRAINING_TIMESTEPS = 1000
"""Noise levels that Stable Diffusion, and Menagerie, were trained at."""

TINY_DECODER = "tiny_decoder"
"""Folder of a base model in which an ``AutoencoderTiny`` of its latents lies."""


class Settings(BaseModel):
    """Parent of all parameter classes: unknown keys are errors, values are fixed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        """Name the keys that are near an unknown one, as ``extra="forbid"`` does not."""
        if isinstance(values, Mapping):
            unknown = [str(key) for key in values if key not in cls.model_fields]
            if unknown:
                problems = "; ".join(cls._unknown(key) for key in unknown)
                raise PydanticCustomError("unknown_key", "{what}", {"what": problems})
        return values

    @classmethod
    def _unknown(cls, key: str) -> str:
        hint = did_you_mean(key, cls.model_fields, most=1)
        return (
            f"unknown key '{key}'{hint or '; known are ' + ', '.join(cls.model_fields)}"
        )


def words(names: Any) -> Any:
    """Several names in one text, apart: ``--params`` can't hold a list."""
    return names.split() if isinstance(names, str) else names


class LoraSettings(Settings):
    """Low-rank adapters on the UNet (LoRA; alpha equals the rank, so the scale is 1).

    Attributes:
        rank: Rank of each adapter.
        target_modules: Ends of the names of the UNet's modules that get one.
    """

    rank: PositiveInt
    target_modules: tuple[str, ...] = Field(min_length=1)


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW with a constant learning rate; the gradient's norm is clipped."""

    learning_rate: PositiveFloat
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 1e-4
    max_grad_norm: PositiveFloat = 1.0


class MemorySettings(Settings):
    """What a device's memory decides: it changes the speed, and the result by rounding.

    Attributes are those of :class:`TrainingSettings` of the same names. Which rewards are
    monitored changes no result at all, but what is known of a run while it trains.
    """

    chunk_size: PositiveInt
    micro_batch_size: PositiveInt
    backprop_batch_size: PositiveInt | None = None
    critic_batch_size: PositiveInt | None = None
    gradient_checkpointing: bool = False
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload_trajectories: bool = False
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    monitor: tuple[str, ...] | None = None
    gpu_memory_gb: NonNegativeFloat = 0.0


class ResetSettings(Settings):
    """Neurons are drawn anew from time to time.

    Attributes:
        reset: Which neurons to re-draw.
        reset_fraction: A reset every this fraction of the run's epochs (F = 10 %).
        reset_adam_step: Also start Adam's bias correction of the touched tensors anew (the
            official code clears only the moments, so that a first step is three times
            the learning rate).
    """

    reset: str = "none"
    reset_fraction: float = Field(default=0.1, gt=0, le=1)
    reset_adam_step: bool = False

    def reset_every(self, epochs: int) -> int:
        """Epochs between resets, rounded up, so that short runs learn in between."""
        return math.ceil(round(self.reset_fraction * epochs, 6))

    def reset_due(self, epoch: int, epochs: int) -> bool:
        """Whether there is a reset after the 1-based ``epoch`` of ``epochs``."""
        return self.reset != "none" and epoch % self.reset_every(epochs) == 0


class ComputeSettings(Settings):
    """Where the models compute, how exactly, and what memory is traded for time.

    Attributes:
        device: ``auto`` is ``cuda`` where there is a GPU, else ``cpu``.
        precision: Of the frozen weights and of what the networks compute. Trained
            weights, states, noise and log-probs are float32 always; with ``fp16`` the
            loss is scaled, so that small gradients don't vanish.
        tf32: Whether a GPU multiplies and convolves float32 numbers in TF32, with 10 bits
            of mantissa in place of 23: faster, and less exact. It concerns the networks
            that are in float32 whatever ``precision`` is: rewards, the critic and its
            encoder. Log-probs are sums, to which it makes no difference.
        gradient_checkpointing: Recompute the activations of UNet and VAE in the backward
            pass: less memory, a third more time for an update.
        attention_slicing: Compute attention head by head; needless where torch has a
            memory-efficient kernel.
        vae_slicing: Encode and decode images one at a time.
        vae_tiling: Decode in overlapping tiles, which changes the images a little.
        compile: Compile the UNet (``torch.compile``), one graph for sampling and
            updates, so that both give the same numbers.
        channels_last: Memory format of convolutions; faster on GPUs in half precision.
        gpu_memory_gb: GPU memory that these settings need; a run doesn't start on less.
    """

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    tf32: bool = False
    gradient_checkpointing: bool = False
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    compile: bool = False
    channels_last: bool = False
    gpu_memory_gb: NonNegativeFloat = 0.0


class EarlyStopSettings(Settings):
    """When a run ends before its last epoch.

    Attributes:
        rule: ``onset`` ends it when held-out rewards begin to fall while the trained one
            rises (docs/overoptimization.md says how that is tested); ``none`` doesn't.
        held_out: Rewards to watch, from ``training.monitor``. The trained reward is left
            out where it is among them, and so are the parts of an ensemble.
        alpha: Probability that a run in which no held-out reward falls is ended.
        min_epochs: Epochs before which no run is ended.
        action: ``rollback`` makes the last kept checkpoint before the onset the run's
            last; ``stop`` makes it the one at which the fall was found.
    """

    rule: Literal["none", "onset"] = "none"
    held_out: tuple[str, ...] = ()
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_epochs: PositiveInt = 5
    action: Literal["stop", "rollback"] = "rollback"


def _bare_if_off(settings: EarlyStopSettings) -> EarlyStopSettings:
    """All defaults where the rule is off: unused settings don't make another run."""
    return settings if settings.rule != "none" else EarlyStopSettings()


class TrainingSettings(ComputeSettings):
    """What the scale owns: the sampler, the adapter and the budget of a run.

    Attributes:
        preset: Name among ``presets``. It gives each of its settings that is null here.
        presets: Settings for devices of different memory, by name.
        epochs: Outer epochs: sample, score, update.
        samples_per_epoch: Images sampled (= reward queries) an epoch, N.
        num_inference_steps: Denoising steps of a trajectory, T.
        guidance_scale: Classifier-free guidance weight w; 1 switches guidance off.
        eta: DDIM's eta; 1 is ancestral sampling, and 0 has no log-prob to train on.
            Evaluation samples with its own, whatever a run is trained with.
        chunk_size: Samples computed together in a rollout. Chunks are dealt whole to
            processes, so the samples don't depend on the number of processes.
        micro_batch_size: Pairs of one forward and backward pass of an update. With
            micro_batch_size equal to chunk_size, sampling and replay share one
            batch shape and the importance ratio starts at exactly 1 on a CPU.
        backprop_batch_size: Images of one pass where the reward is backpropagated, through
            the decoder too, which takes most of the memory; None: micro_batch_size.
        critic_batch_size: States decoded and embedded together for a temporal critic, of
            one step or of several, whatever vae_slicing says; None: chunk_size states of
            a step, as images are decoded.
        offload_trajectories: Keep an epoch's trajectories and images in host memory, and
            what a method keeps beyond an epoch; of them only chunks and micro-batches
            are on the device. It changes no result.
        finetune: ``lora`` trains adapters, ``full`` the whole UNet.
        lora: The adapters (unused with ``full``).
        monitor: Rewards scored on every epoch's samples besides the trained one.
        early_stop: When the run ends before its last epoch.
        checkpoint_every: Epochs between the checkpoints that are kept for evaluation
            (the last epoch is always kept).
        disk_budget_mb: Most that a run may write (checkpoints, their copy, and the
            states to resume from), in MB.
        kl_samples: Samples an epoch on which the KL to the base model is measured.
        min_reward_std: The run stops as collapsed when the rewards of an epoch have
            a smaller standard deviation than this.
        threads: Threads of the training process on a CPU (0: torch's default).
        processes: Processes that train together, a GPU each; of all machines.
        machines: Machines that they run on, as many on each.
        main_address: ``host:port`` of the first of several machines.
    """

    preset: str | None = None
    presets: dict[str, MemorySettings] = Field(
        default_factory=dict, exclude=True, repr=False
    )
    epochs: PositiveInt
    samples_per_epoch: PositiveInt
    num_inference_steps: Annotated[int, Field(gt=0, lt=TRAINING_TIMESTEPS)]
    guidance_scale: NonNegativeFloat
    eta: float = Field(default=1.0, gt=0.0, le=1.0)
    chunk_size: PositiveInt
    micro_batch_size: PositiveInt
    backprop_batch_size: PositiveInt | None = None
    critic_batch_size: PositiveInt | None = None
    offload_trajectories: bool = False
    finetune: Literal["lora", "full"] = "lora"
    lora: LoraSettings | None = None
    monitor: tuple[str, ...] = ()
    early_stop: Annotated[EarlyStopSettings, AfterValidator(_bare_if_off)] = (
        EarlyStopSettings()
    )
    checkpoint_every: PositiveInt
    disk_budget_mb: PositiveFloat = 2000.0
    kl_samples: PositiveInt
    min_reward_std: NonNegativeFloat = 1e-6
    threads: NonNegativeInt = 0
    processes: PositiveInt = 1
    machines: PositiveInt = 1
    main_address: str | None = Field(default=None, pattern=r"^[^:]+:\d+$")

    @model_validator(mode="before")
    @classmethod
    def _filled_from_preset(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("preset") is None:
            return data
        fields, presets = MemorySettings.model_fields, data.get("presets") or {}
        open_settings = {name for name in fields if data.get(name) is None}
        if not presets and not any(
            fields[name].is_required() for name in open_settings
        ):
            return data  # filled before, as a run's record has it
        if data["preset"] not in presets:
            raise ValueError(
                f"there is no preset '{data['preset']}'; training.presets has "
                f"{', '.join(presets) or 'none'}."
            )
        preset = MemorySettings.model_validate(presets[data["preset"]])
        values = preset.model_dump(exclude_none=True)
        return {**data, **{k: v for k, v in values.items() if k in open_settings}}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.finetune == "lora" and self.lora is None:
            raise ValueError("finetune: lora needs the key 'lora' (rank, targets).")
        if self.samples_per_epoch % self.chunk_size:
            raise ValueError(
                f"chunk_size {self.chunk_size} must divide samples_per_epoch "
                f"{self.samples_per_epoch}."
            )
        self._check_early_stop()
        if self.kl_samples > self.samples_per_epoch:
            raise ValueError(
                f"kl_samples {self.kl_samples} is more than samples_per_epoch "
                f"{self.samples_per_epoch}."
            )
        self._check_processes()
        return self

    def _check_processes(self) -> None:
        if self.processes % self.machines:
            raise ValueError(
                f"machines {self.machines} must divide processes {self.processes}."
            )
        if self.machines > 1 and self.main_address is None:
            raise ValueError(
                "several machines need main_address, the host:port of the first."
            )
        self.check_dealt("chunk_size", self.samples_per_epoch, "samples of an epoch")

    def check_dealt(self, name: str, count: int, what: str) -> None:
        """Raise ValueError if a process would get none of the parts of something.

        Args:
            name: The setting that is the size of a part.
            count: Size of the whole.
            what: The whole, in words.
        """
        size = getattr(self, name)
        if count < self.processes * size:
            raise ValueError(
                f"{self.processes} processes share the {count} {what} in parts of {name} "
                f"{size}, so that some would get none. Set {name} to "
                f"{max(1, count // self.processes)} or less, or take fewer processes."
            )

    def _check_early_stop(self) -> None:
        if self.early_stop.rule == "none":
            return
        strange = [n for n in self.early_stop.held_out if n not in self.monitor]
        if strange:
            raise ValueError(
                f"early_stop.held_out has {strange}, which training.monitor has not: "
                f"{list(self.monitor)}."
            )
        if self.early_stop.min_epochs > self.epochs:
            raise ValueError(
                f"early_stop.min_epochs {self.early_stop.min_epochs} is more than epochs "
                f"{self.epochs}, so that no run would ever be ended."
            )

    @property
    def adapters(self) -> LoraSettings | None:
        """The LoRA that is trained; None where the whole UNet is."""
        return self.lora if self.finetune == "lora" else None

    def kept_epochs(self, last: int | None = None) -> list[int]:
        """Epochs (1-based) whose checkpoints are kept for evaluation.

        Args:
            last: The epoch that the run ended with, if that was before its time.
        """
        last = self.epochs if last is None else last
        every = range(self.checkpoint_every, last + 1, self.checkpoint_every)
        return sorted({*every, last})


class EnsemblePartSettings(Settings):
    """What one reward r contributes to an ensemble: weight x (r - mean) / std.

    Attributes:
        weight: Weight w; below 0 for a reward that should fall.
        mean: Mean of r over the base model's images; None: not measured yet.
        std: Standard deviation of r over the base model's images; None: not measured yet.
    """

    weight: float = 1.0
    mean: float | None = None
    std: PositiveFloat | None = None

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if self.weight == 0:
            raise ValueError("a weight of 0 says nothing; leave the reward out.")
        return self


EnsembleParts = Annotated[dict[str, EnsemblePartSettings], Field(min_length=1)]


class RewardSettings(Settings):
    """A task: a reward to train on, and the prompts to train it with.

    Attributes:
        scorer: Name in the reward registry, or ``module:Class`` of one's own; with
            ``ensemble`` a new name, that of the ensemble.
        train_prompts: Name of a prompt set, or path of a text file (a prompt a line).
        critic_encoder: Reward whose image encoder the temporal critic reads; by
            default the trained reward's own. An ensemble has none.
        ensemble: The rewards that the trained one is the weighted sum of, by name.
        options: What the trained reward is told, by the names of its options in the
            reward registry.
    """

    scorer: str
    train_prompts: str
    critic_encoder: str | None = None
    ensemble: EnsembleParts | None = None
    options: dict[str, str] = Field(default_factory=dict)

    @property
    def scored_by(self) -> tuple[str, ...]:
        """The rewards that score: the trained one, or the parts of an ensemble."""
        return tuple(self.ensemble or (self.scorer,))

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The trained reward, and its parts if it is an ensemble: none is held out."""
        return (self.scorer, *(self.ensemble or ()))

    @property
    def ensembles(self) -> dict[str, dict[str, EnsemblePartSettings]]:
        """The parts of the trained reward by its name; empty if it is no ensemble."""
        return {} if self.ensemble is None else {self.scorer: self.ensemble}


class GuidanceScheduleSettings(Settings):
    """DiffExp's dynamic guidance: weak while the picture's layout is still open.

    Attributes:
        threshold: Training timestep above which the guidance is ``low``.
        low: Guidance weight above the threshold.
        high: Guidance weight at and below it; None: the scale's.
    """

    threshold: Annotated[float, Field(ge=0, le=1000)] = 900
    low: NonNegativeFloat = 1.0
    high: NonNegativeFloat | None = None


class PromptWeightingSettings(Settings):
    """DiffExp's prompt weighting: one random word of each prompt is stressed.

    Attributes:
        low: Smallest weight of the word.
        high: Largest weight of the word; each sample draws its own, uniformly.
    """

    low: PositiveFloat = 1.0
    high: PositiveFloat = 1.2

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("prompt_weighting.low is above prompt_weighting.high.")
        return self


class ExplorationSettings(Settings):
    """DiffExp: more varied samples in the first part of training; never in evaluation.

    Attributes:
        guidance: Dynamic guidance, or None.
        prompt_weighting: Random prompt weighting, or None.
        fraction: Part of the run's epochs in which to explore.
        log_prob: What a policy-gradient loss is taken of, which the paper leaves open:
            ``behaviour`` replays with the guidance and the embeddings that sampled;
            ``target`` with the plain ones, the old log-prob being recomputed for them.
    """

    guidance: GuidanceScheduleSettings | None = None
    prompt_weighting: PromptWeightingSettings | None = None
    fraction: float = Field(default=0.75, gt=0, le=1)
    log_prob: Literal["behaviour", "target"] = "behaviour"

    @model_validator(mode="after")
    def _explores(self) -> Self:
        if self.guidance is None and self.prompt_weighting is None:
            raise ValueError("exploration needs guidance, prompt_weighting, or both.")
        return self

    def active(self, epoch: int, epochs: int) -> bool:
        """Whether the 1-based ``epoch`` of ``epochs`` explores."""
        return epoch <= self.last_epoch(epochs)

    def last_epoch(self, epochs: int) -> int:
        """The last of ``epochs`` that explores; 0 if none does."""
        return int(self.fraction * epochs + 1e-9)

    def weak_steps(self, steps: int) -> int:
        """Steps of ``steps`` at which the guidance is weak.

        They are at 1, 1 + k, 1 + 2k, ... of the training timesteps, k apart.
        """
        if self.guidance is None:
            return 0
        timesteps = range(1, TRAINING_TIMESTEPS, TRAINING_TIMESTEPS // steps)[:steps]
        return sum(timestep > self.guidance.threshold for timestep in timesteps)

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where no epoch would explore, or no step be weakly guided."""
        if not self.last_epoch(training.epochs):
            raise ValueError(
                f"exploration.fraction {self.fraction:g} of {training.epochs} epochs is "
                "less than one, so that none would explore."
            )
        steps = training.num_inference_steps
        if self.guidance is not None and not self.weak_steps(steps):
            raise ValueError(
                f"exploration.guidance.threshold {self.guidance.threshold:g} is above all "
                f"of the {steps} timesteps, so that the guidance would never be weak."
            )

    def summary(self, training: TrainingSettings) -> str:
        """When there is exploration, and of what kind."""
        steps, what = training.num_inference_steps, []
        if self.guidance is not None:
            what.append(f"weak guidance at {self.weak_steps(steps)} of {steps} steps")
        if self.prompt_weighting is not None:
            what.append("weighted words")
        return f"{' and '.join(what)} up to epoch {self.last_epoch(training.epochs)}"


class MethodScaleSettings(Settings):
    """What a method's own paper does at another scale than its neighbours'.

    One environment may stand for several papers. Each value that is given takes the
    place of the scale's for the runs of the method.

    Attributes:
        epochs: Outer epochs.
        samples_per_epoch: Images sampled an epoch.
        guidance_scale: Guidance weight, in training and evaluation.
        finetune: Adapters, or the whole UNet.
        gradient_checkpointing: For the activations of a whole UNet.
        checkpoint_every: Epochs between kept checkpoints.
    """

    epochs: PositiveInt | None = None
    samples_per_epoch: PositiveInt | None = None
    guidance_scale: NonNegativeFloat | None = None
    finetune: Literal["lora", "full"] | None = None
    gradient_checkpointing: bool | None = None
    checkpoint_every: PositiveInt | None = None

    def given(self) -> dict[str, Any]:
        """The values that are given, by name."""
        return self.model_dump(exclude_none=True)


class UnetVisits(NamedTuple):
    """How often learning evaluates the UNet in an epoch, in the mean over a run.

    Both count one latent, with the guidance of sampling.

    Attributes:
        trained: Evaluations with a backward pass.
        forward: Those without.
    """

    trained: float
    forward: float = 0.0


class AlgorithmSettings(Settings):
    """Parent of every algorithm's settings; ``algorithm`` picks the class.

    Validating a mapping against this class gives the settings of the algorithm that
    it names, so that a misspelt key is found before anything runs.

    Attributes:
        algorithm: Name in the algorithm registry, or ``module:Class`` of one's own.
        exploration: DiffExp's exploration while sampling, or None.
        scale: What the method does at another scale than the environment's.
    """

    needs_encoder: ClassVar[bool] = False
    """Whether the algorithm has a temporal critic on a reward's image encoder."""

    needs_gradient: ClassVar[bool] = False
    """Whether the algorithm needs a reward whose gradient reaches the images."""

    algorithm: str
    exploration: ExplorationSettings | None = None
    scale: MethodScaleSettings = MethodScaleSettings()

    @model_validator(mode="wrap")
    @classmethod
    def _of_algorithm(cls, data: Any, handler: Callable[[Any], Self]) -> Any:
        if cls is not AlgorithmSettings or not isinstance(data, Mapping):
            return handler(data)
        from tdpo_pipeline.algorithms.registry import algorithm_class

        if "algorithm" not in data:
            raise ValueError("a method needs the key 'algorithm'.")
        return algorithm_class(data["algorithm"]).Settings.model_validate(data)

    def scaled(self, training: TrainingSettings) -> TrainingSettings:
        """The scale's settings, with what this method has otherwise."""
        values = training.model_dump() | self.scale.given()
        return TrainingSettings.model_validate(values)

    @property
    def critic_encoder(self) -> str | None:
        """Reward whose image encoder a critic reads instead of that of the task."""
        return None

    @property
    def needs_tiny_decoder(self) -> bool:
        """Whether a critic sees states by the base model's tiny decoder."""
        return False

    def kept_numbers(
        self, training: TrainingSettings, latent_dims: int, epoch: int
    ) -> int:
        """Numbers of past samples that are kept, in memory and in states, after an epoch.

        Args:
            training: The scale.
            latent_dims: Number D of latent dimensions.
            epoch: 1-based.
        """
        return 0

    def sampling_guidance(self, training: TrainingSettings) -> float:
        """Guidance weight of plain sampling: the scale's, unless the method has one."""
        return training.guidance_scale

    def sampling_eta(self, training: TrainingSettings) -> float:
        """DDIM's eta in sampling: the scale's, unless the method has one."""
        return training.eta

    def unet_visits(self, training: TrainingSettings) -> UnetVisits:
        """What an epoch's updates cost, for the estimate before a run.

        A method that doesn't say visits every step of every sample once.

        Args:
            training: The scale.
        """
        return UnetVisits(training.samples_per_epoch * training.num_inference_steps)

    @property
    def auxiliary_rewards(self) -> tuple[str, ...]:
        """Rewards that learning reads besides the trained one."""
        return ()

    @property
    def needs_base_samples(self) -> str | None:
        """The setting that takes the first samples' rewards for the base model's, if any."""
        return None

    @property
    def queries_per_sample(self) -> int:
        """Reward queries that learning takes for each sample of an epoch."""
        return 1

    def check(self, training: TrainingSettings) -> None:
        """Raise ValueError where these settings don't fit the scale's."""

    def check_task(self, task: RewardSettings) -> None:
        """Raise ValueError where these settings don't fit the task's."""

    def summary(self, training: TrainingSettings) -> str:
        """The quantities people get wrong, in a line."""
        return ""


class EvaluationSettings(Settings):
    """How checkpoints are evaluated: samples on fixed noise, of every method alike.

    Attributes:
        prompt_sets: Names of prompt sets.
        images_per_prompt: Images of each prompt, each with its own fixed noise.
        etas: DDIM etas to sample with: first 1, ancestral sampling, which figures and
            verdicts are of; the others at the base model and the last checkpoint alone.
            0 is as people deploy.
        rewards: Rewards to score with.
        seed: Seed of the evaluation noise, the same for every run and checkpoint.
        chunk_size: Images computed together.
        strip_prompts: Prompts shown in the run's sample strip (image 0 of each, at
            the first eta); each must be in one of the prompt sets.
    """

    prompt_sets: tuple[str, ...] = Field(min_length=1)
    images_per_prompt: PositiveInt
    etas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    rewards: tuple[str, ...] = Field(min_length=1)
    seed: NonNegativeInt
    chunk_size: PositiveInt
    strip_prompts: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_complete_and_without_doubles(self) -> Self:
        if self.etas[0] != 1:
            raise ValueError("the first of etas must be 1, ancestral sampling.")
        for name in ("prompt_sets", "etas", "rewards", "strip_prompts"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names something twice: {list(values)}.")
        for name in self.rewards:
            reward_path(name)
        return self


class RunConfig(Settings):
    """One run of the grid, whole: what the trainer takes, and the record of it."""

    method: str
    reward: str
    seed: NonNegativeInt
    training: TrainingSettings
    algorithm: SerializeAsAny[AlgorithmSettings]
    task: RewardSettings

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, value in self.algorithm.scale.given().items():
            if getattr(self.training, name) != value:
                raise ValueError(
                    f"the method {self.method} has scale.{name}: {value}, but "
                    f"training.{name} is {getattr(self.training, name)}."
                )
        self.algorithm.check(self.training)
        if self.algorithm.exploration is not None:
            self.algorithm.exploration.check(self.training)
            stops = self.training.early_stop.rule != "none"
            setting = (
                "training.early_stop" if stops else self.algorithm.needs_base_samples
            )
            if setting is not None:
                raise ValueError(
                    f"{setting} measures rewards against those of the first samples, "
                    "which are the base model's, but not plain ones under exploration: "
                    "use one of the two."
                )
        for name in self.training.monitor:
            reward_path(name)
        if self.training.early_stop.rule != "none" and not self.held_out_rewards:
            raise ValueError(
                "early_stop.held_out has no reward besides what is trained on, "
                f"{', '.join(self.learned_from)}; name some of training.monitor."
            )
        if ":" not in self.task.scorer and self.task.scorer != self.reward:
            raise ValueError(
                f"the task '{self.reward}' must have the name of its reward, "
                f"'{self.task.scorer}'."
            )
        self.algorithm.check_task(self.task)
        check_task(
            self.task.scorer,
            self.critic_encoder,
            needs_encoder=self.algorithm.needs_encoder,
            needs_gradient=self.algorithm.needs_gradient,
            parts=self.task.ensemble,
            options=self.task.options,
        )
        return self

    @property
    def critic_encoder(self) -> str | None:
        """Reward whose image encoder the critic reads; None: the trained reward."""
        return self.algorithm.critic_encoder or self.task.critic_encoder

    @property
    def rewards_in_use(self) -> tuple[str, ...]:
        """Every reward that is loaded: trained on, monitored, or read by the method."""
        trained = self.task.scored_by
        encoder = () if self.critic_encoder is None else (self.critic_encoder,)
        names = (*trained, *encoder, *self.algorithm.auxiliary_rewards)
        return tuple(dict.fromkeys((*names, *self.training.monitor)))

    @property
    def held_out_rewards(self) -> tuple[str, ...]:
        """Rewards that are watched for their fall; never one that learning reads."""
        watched = self.training.early_stop.held_out
        return tuple(name for name in watched if name not in self.learned_from)

    @property
    def learned_from(self) -> tuple[str, ...]:
        """Rewards whose scores learning reads: the trained one, its parts, constraints."""
        return (*self.task.trained_on, *self.algorithm.auxiliary_rewards)

    @property
    def key(self) -> str:
        """The run's key in the grid, ``<method>-<reward>-s<seed>``."""
        return f"{self.method}-{self.reward}-s{self.seed}"

    def summary(self) -> str:
        """One line to print before the run starts."""
        scale = self.training
        parts = [
            f"{self.key}: {scale.epochs} epochs of {scale.samples_per_epoch} samples",
            self.sampler_summary(),
            self.algorithm.summary(scale),
        ]
        return ", ".join(part for part in parts if part)

    def sampler_summary(self) -> str:
        """How the method's samples are drawn while it trains."""
        scale, algorithm = self.training, self.algorithm
        parts = [
            f"{scale.num_inference_steps} steps",
            f"guidance {algorithm.sampling_guidance(scale):g}",
            f"eta {algorithm.sampling_eta(scale):g}",
        ]
        if algorithm.exploration is not None:
            parts.append(algorithm.exploration.summary(scale))
        return ", ".join(parts)
