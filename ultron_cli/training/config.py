"""The configuration of a training run; presets/ makes it from a preset, --config and --set.

Importing this module loads no torch; the settings of a loss stand beside the loss, and bring it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ultron_cli.configs import one_of, to_dict, within
from ultron_cli.errors import UltronError
from ultron_cli.training.batches.of_users import user_sampler
from ultron_cli.training.losses import loss_settings
from ultron_cli.training.optimiser_table import check_optimizer
from ultron_cli.training.schedules import Share, share_of_schedule
from ultron_cli.user_code import is_import_path

if TYPE_CHECKING:
    from ultron_cli.training.losses.base import LossSettings, TupleSettings

# How the work is done or told: a resumed run may change these and still gives the same numbers.
FREE_SETTINGS = ("descriptors", "workers", "log_every", "checkpoint_minutes", "keep_checkpoints")
DEFAULT_MODEL = "gem"  # of a configuration that names none
DEFAULT_LOSS = "arcface"  # of a configuration that names none


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training photo (torchvision v2)."""

    # Range of the random crop's share of the photo.
    crop_area: tuple[float, ...] = (0.4, 1.0)
    # Range of the crop's width over height; it is squeezed to the training shape (aspect distortion).
    crop_aspect: tuple[float, ...] = (0.75, 1.3333)
    # As in ColorJitter and RandomGrayscale.
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    grey: float = 0.0
    flip: bool = True
    # Instead of such a crop: the photo at the training shape with a black edge of so many pixels, cropped to the shape
    # at random (as CIFAR is trained on). 0: not.
    pad_px: int = 0

    def __post_init__(self) -> None:
        within("augment.pad_px", self.pad_px, 0, 1024)
        for name, low, high in (("crop_area", 0.001, 1.0), ("crop_aspect", 0.05, 20.0)):
            value = getattr(self, name)
            if len(value) != 2 or not low <= value[0] <= value[1] <= high:
                raise UltronError(
                    f"augment.{name} must be two numbers, ascending, from {low} to {high}; found {list(value)}"
                )
        for name, high in (("brightness", 10.0), ("contrast", 10.0), ("saturation", 10.0), ("hue", 0.5), ("grey", 1.0)):
            within(f"augment.{name}", getattr(self, name), 0.0, high)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Photos held out, and how often they are scored."""

    # "retrieval" among the held-out photos (mAP), or "classification" of them with the class weights of the loss (top-1
    # and top-5). Classified are the photos in val/ or test/ beside the training folder train/, where there is one of
    # these, else the share held out.
    kind: Literal["retrieval", "classification"] = "retrieval"
    # Of classification: the photo's middle is taken whose side is so much of its shorter side.
    crop_share: float = 1.0
    # Of the landmarks (by="landmarks": none of their photos is trained on) or of each landmark's photos (by="photos",
    # as DOLG's 80/20); 0 holds out nothing.
    share: float = 0.1
    by: Literal["landmarks", "photos"] = "landmarks"
    every_epochs: int = 1
    # Of retrieval: at most so many photos are scored.
    max_photos: int = 2000
    # Longest side; None: twice the training side.
    side_px: int | None = None

    def __post_init__(self) -> None:
        within("validation.share", self.share, 0.0, 0.9)
        within("validation.crop_share", self.crop_share, 0.1, 1.0)
        if self.kind == "classification" and self.by != "photos":
            raise UltronError(
                "classification can be scored on classes that were trained on only; add "
                "`validation.by=photos` to validation.kind"
            )
        within("validation.every_epochs", self.every_epochs, 1, 100000)
        within("validation.max_photos", self.max_photos, 2, 20000)
        within("validation.side_px", self.side_px or 32, 32, 4096)


@dataclass(frozen=True, kw_only=True)
class SwitchConfig:
    """A second optimiser that takes over after `epoch` epochs, with fresh momentum; ULTRON's recipe goes from AdamW to
    SGD."""

    epoch: int = 0  # must be given
    optimizer: str = "sgd"  # one of OPTIMIZERS, or the import path of another
    optimizer_settings: dict[str, object] | None = None  # of an optimiser by import path
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        check_optimizer(self, "switch.")
        within("switch.epoch", self.epoch, 1, 100000)
        _rate("switch.lr", self.lr)


def _rate(name: str, value: float) -> None:
    if not 0 < value < 100:
        raise UltronError(f"{name} must lie between 0 and 100; found {value}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that shapes a run; stored whole in its folder and its checkpoint."""

    dataset: str = "toy"
    # A file of raw descriptors on which a head is trained (model.name=adapted), in place of a dataset's photos.
    descriptors: str | None = None
    # CSV of photo,landmark for these; None: as the dataset that was described has its landmarks.
    labels: str | None = None
    exclude: tuple[str, ...] = ()  # files of landmarks or photo ids to keep out
    # The model's name and its settings.
    model: dict[str, Any] = field(default_factory=lambda: {"name": DEFAULT_MODEL, "backbone": "resnet10t"})
    pretrained: bool = False
    # A checkpoint of ultron to start from, with its class weights of the landmarks that it knows.
    weights: str | None = None
    # The loss's name and its settings, as they were given; loss_settings has them checked and whole.
    loss: dict[str, Any] = field(default_factory=lambda: {"name": DEFAULT_LOSS})
    side_px: int = 128
    group_sizes: bool = False  # batches of one aspect ratio instead of squares
    batch_size: int = 32  # photos per optimiser step, over all processes and all `accumulate` parts
    accumulate: int = 1
    epochs: int = 10
    optimizer: str = "adamw"  # one of OPTIMIZERS, or the import path of another (my.py:Lion, torch.optim:RAdam)
    optimizer_settings: dict[str, object] | None = None  # of an optimiser by import path
    lr: float = 1e-3  # per optimiser step
    momentum: float = 0.9  # of sgd
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = False
    schedule: str = "cosine"  # one of SCHEDULES, or the import path of another
    schedule_settings: dict[str, object] | None = None  # of a schedule by import path
    # Of schedule = "cosine": epochs after which it begins anew from the full rate (SGDR, Loshchilov and Hutter, ICLR
    # 2017), as a run does that goes on after its end. None: it falls once, over all epochs.
    restart_epochs: tuple[int, ...] = ()
    step_epochs: tuple[float, ...] = ()  # of schedule = "steps": where the rate is multiplied by step_factor
    step_factor: float = 0.1
    warmup_epochs: float = 1.0
    switch: SwitchConfig | None = None
    clip_norm: float | None = None  # longest gradient, model and class weights together
    ema: float | None = None  # decay per step of a running mean of the weights, which is what is validated and kept
    precision: str = "float32"  # of the network's products: float32 | bfloat16 | float16
    compile: bool = False
    channels_last: bool = True
    sync_batchnorm: bool = True  # statistics over all GPUs; on CPUs each process has its own
    unused_parameters: bool = False  # the model has parameters that a step may not use (several processes only)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint_minutes: float = 10.0
    # States to go on from: the last so many. 0: one while the run goes on, and none of a finished one, which cannot go
    # on with more epochs then.
    keep_checkpoints: int = 2
    log_every: int = 50
    workers: int = 1  # decoding processes, of each process; 0: none of their own
    threads: int | None = None  # of the network's arithmetic on a CPU; None: one per core
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("float32", "bfloat16", "float16"))
        limits = {
            "side_px": (32, 2048),
            "batch_size": (2, 65536),
            "epochs": (1, 100000),
            "workers": (0, 64),
            "warmup_epochs": (0, self.epochs),
            "accumulate": (1, self.batch_size),
            "keep_checkpoints": (0, 1000),
            "log_every": (1, 10**9),
            "checkpoint_minutes": (0, 10**6),
            "momentum": (0, 0.9999),
            "weight_decay": (0, 10),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in limits.items():
            within(name, getattr(self, name), low, high)
        within("threads", self.threads or 1, 1, 1024)
        _rate("lr", self.lr)
        check_optimizer(self)
        share_of_schedule(self.schedule, self.schedule_settings)
        self._check_together()
        self._check_head()

    def _check_together(self) -> None:
        """Settings that must fit each other."""
        if self.validation.kind == "classification" and not self.loss_settings.has_class_weights:
            raise UltronError(
                f"classification needs the class weights of a loss, which {self.loss_name} does not have; add "
                "`validation.kind=retrieval`, or `loss.name=arcface`"
            )
        if self.validation.kind == "classification" and self.loss_settings.has_shards:
            raise UltronError(
                "classification needs all class weights in one process; found loss.sharded=true; add "
                "`loss.sharded=false`"
            )
        if self.weights and self.pretrained:
            raise UltronError(
                f"weights and pretrained exclude each other; found {self.weights} and pretrained=true; add "
                "`pretrained=false`"
            )
        if self.batch_size % self.accumulate:
            raise UltronError(
                f"batch_size must be a multiple of accumulate; found {self.batch_size} and {self.accumulate}"
            )
        self._check_batches()
        if self.loss_settings.photos_together > 1 and self.group_sizes:
            raise UltronError(
                f"loss {self.loss_name} takes batches of one shape; found group_sizes=true; add `group_sizes=false`"
            )
        if self.tuple_settings and self.model.get("pooling") == "cls":
            raise UltronError(
                f"loss {self.loss_name} matches places of the maps that the descriptor is pooled from; found "
                "model.pooling=cls, which takes the class token instead; add `model.pooling=gem`"
            )
        if (self.schedule == "steps") != bool(self.step_epochs):
            raise UltronError(
                f'step_epochs goes with schedule = "steps"; found {list(self.step_epochs)} with {self.schedule!r}'
            )
        ends = (self.warmup_epochs, *self.restart_epochs, self.epochs)
        if self.restart_epochs and (self.schedule != "cosine" or not all(a < b for a, b in itertools.pairwise(ends))):
            raise UltronError(
                "restart_epochs must ascend, between warmup_epochs and epochs, and goes with schedule = "
                f'"cosine"; found {list(self.restart_epochs)} with {self.schedule!r}, warmup_epochs='
                f"{self.warmup_epochs:g} and epochs={self.epochs}"
            )
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise UltronError(f"ema must lie between 0 and 1 (0.999), or be none; found {self.ema}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UltronError(f"clip_norm must be positive, or none; found {self.clip_norm}")
        if self.switch and self.switch.epoch >= self.epochs:
            raise UltronError(
                f"switch.epoch must lie before the end of {self.epochs} epochs; found {self.switch.epoch}"
            )

    def _check_batches(self) -> None:
        """Batches by import path."""
        settings = self.loss_settings
        if not is_import_path(settings.batches):
            return
        user_sampler(settings.batches)
        if settings.of_tuples:
            raise UltronError(
                f"loss {self.loss_name} makes tuples itself; found loss.batches={settings.batches}; leave it out"
            )
        if self.group_sizes:
            raise UltronError(
                f"batches of one's own are of one shape; found loss.batches={settings.batches} and group_sizes=true; "
                "add `group_sizes=false`"
            )

    def _check_head(self) -> None:
        """Settings that go with stored descriptors, or do not."""
        if self.labels and not self.descriptors:
            raise UltronError(
                f"labels are of stored descriptors; found {self.labels} without descriptors; photos are labelled by "
                "their folders, leave it out"
            )
        if not self.descriptors:
            return
        if self.model_name != "adapted":
            raise UltronError(
                f"descriptors train a head over the network that made them; found model {self.model_name}; add "
                "`model.name=adapted`"
            )
        if "base" in self.model:
            raise UltronError(
                f"the network under the head is the one that made {self.descriptors}; found model.base; leave it out"
            )
        for name, is_set in {
            "weights": self.weights is not None,
            "pretrained": self.pretrained,
            "group_sizes": self.group_sizes,
            "validation.kind": self.validation.kind != "retrieval",
            "loss": self.tuple_settings is not None,
        }.items():
            if is_set:
                raise UltronError(f"{name} needs photos; found {self.descriptors}, stored descriptors; leave it out")

    @property
    def model_name(self) -> str:
        """The model, as create_model takes it."""
        return self.model.get("name", DEFAULT_MODEL)

    @property
    def model_settings(self) -> dict[str, Any]:
        """The model's settings, without its name."""
        return {key: value for key, value in self.model.items() if key != "name"}

    @property
    def loss_name(self) -> str:
        """The loss, one of LOSSES."""
        return str(self.loss.get("name", DEFAULT_LOSS))

    @cached_property
    def loss_settings(self) -> LossSettings:
        """The settings of the loss, checked, defaults filled in."""
        return loss_settings(self.loss_name, {key: value for key, value in self.loss.items() if key != "name"})

    @cached_property
    def schedule_share(self) -> Share:
        """The schedule: (this configuration, step, steps per epoch) -> share of the full rate after the warm-up."""
        return share_of_schedule(self.schedule, self.schedule_settings)

    @property
    def tuple_settings(self) -> TupleSettings | None:
        """The settings of a loss that works on tuples (an anchor, a positive, negatives); None for the others."""
        return self.loss_settings.of_tuples

    def to_plain(self) -> dict[str, object]:
        """Plain data as JSON gives it back: every tuple a list."""
        return plain(to_dict(self))


def plain(values: dict[str, object]) -> dict[str, object]:
    """`values` with every tuple a list, at any depth."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return plain(value)
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def binding_settings(values: dict[str, object]) -> dict[str, object]:
    """The settings of a plain configuration that a resumed run may not change."""
    return {key: value for key, value in values.items() if key not in FREE_SETTINGS}
