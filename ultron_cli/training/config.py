"""The configuration of a training run: preset, then --config, then --set; and where each value came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ultron_cli.configs import apply_set, flatten, from_dict, one_of, read_toml, to_dict, within
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import read_json

if TYPE_CHECKING:
    from ultron_cli.training.autola.network import SearchConfig

# How the work is done or told: a resumed run may change these and still gives the same numbers.
FREE_SETTINGS = ("workers", "log_every", "checkpoint_minutes", "keep_checkpoints")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training photo (torchvision v2). crop_area: range of the random crop's share of the photo;
    crop_aspect: range of its width over height, squeezed to the training shape (aspect distortion); pad_px: instead of
    such a crop, the photo at the training shape with a black edge of so many pixels, cropped to the shape at random (as
    CIFAR is trained on; 0: not); the rest as in ColorJitter, RandomGrayscale."""

    crop_area: tuple[float, ...] = (0.4, 1.0)
    crop_aspect: tuple[float, ...] = (0.75, 1.3333)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    grey: float = 0.0
    flip: bool = True
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
    """Photos held out, and how often they are scored. kind: "retrieval" among them (mAP), or "classification" of them
    with the class weights of the loss (top-1 and top-5): of the photos in val/ or test/ beside the training folder
    train/, where there is one of these, else of the share held out. crop_share: of classification; the photo's middle
    is taken whose side is so much of its shorter side. share: of the landmarks (by="landmarks": none of their photos is
    trained on) or of each landmark's photos (by="photos", as DOLG's 80/20); 0 holds out nothing. side_px: longest side,
    None: twice the training side. max_photos: of retrieval, scored photos at most."""

    kind: Literal["retrieval", "classification"] = "retrieval"
    crop_share: float = 1.0
    share: float = 0.1
    by: Literal["landmarks", "photos"] = "landmarks"
    every_epochs: int = 1
    max_photos: int = 2000
    side_px: int | None = None

    def __post_init__(self) -> None:
        within("validation.share", self.share, 0.0, 0.9)
        within("validation.crop_share", self.crop_share, 0.1, 1.0)
        if self.kind == "classification" and self.by != "photos":
            raise UltronError(
                "classification can be scored on classes that were trained on only; add --set "
                "validation.by=photos to validation.kind"
            )
        within("validation.every_epochs", self.every_epochs, 1, 100000)
        within("validation.max_photos", self.max_photos, 2, 20000)
        within("validation.side_px", self.side_px or 32, 32, 4096)


@dataclass(frozen=True, kw_only=True)
class SwitchConfig:
    """A second optimiser that takes over after `epoch` epochs, with fresh momentum; ULTRON's recipe goes from AdamW to
    SGD."""

    epoch: int = 0  # must be given
    optimizer: str = "sgd"
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        one_of("switch.optimizer", self.optimizer, OPTIMIZERS)
        within("switch.epoch", self.epoch, 1, 100000)
        _rate("switch.lr", self.lr)


def _rate(name: str, value: float) -> None:
    if not 0 < value < 100:
        raise UltronError(f"{name} must lie between 0 and 100; found {value}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that shapes a run; stored whole in its folder and its checkpoint.

    Sides in pixels. batch_size: photos per optimiser step, over all processes and all `accumulate` parts; lr is per
    such a step.
    """

    dataset: str = "toy"
    exclude: tuple[str, ...] = ()  # files of landmarks or photo ids to keep out
    model: dict[str, Any] = field(default_factory=lambda: {"name": "gem", "backbone": "resnet10t"})
    pretrained: bool = False
    weights: str | None = (
        None  # a checkpoint of ultron to start from, with its class weights of the landmarks that it knows
    )
    loss: dict[str, Any] = field(default_factory=lambda: {"name": "arcface"})
    side_px: int = 128
    group_sizes: bool = False  # batches of one aspect ratio instead of squares
    batch_size: int = 32
    accumulate: int = 1
    epochs: int = 10
    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = False
    schedule: str = "cosine"  # cosine | steps | constant
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
    keep_checkpoints: int = 2
    log_every: int = 50
    workers: int = 1  # decoding processes, of each process; 0: none of their own
    threads: int | None = None  # of the network's arithmetic on a CPU; None: one per core
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, ("cosine", "steps", "constant"))
        one_of("precision", self.precision, ("float32", "bfloat16", "float16"))
        limits = {
            "side_px": (32, 2048),
            "batch_size": (2, 65536),
            "epochs": (1, 100000),
            "workers": (0, 64),
            "warmup_epochs": (0, self.epochs),
            "accumulate": (1, self.batch_size),
            "keep_checkpoints": (1, 1000),
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
        self._check_together()

    def _check_together(self) -> None:
        """Settings that must fit each other."""
        from ultron_cli.training.losses import loss_settings

        loss_settings(
            str(self.loss.get("name", "arcface")), {key: value for key, value in self.loss.items() if key != "name"}
        )
        if self.validation.kind == "classification" and self.loss.get("sharded"):
            raise UltronError(
                "classification needs all class weights in one process; found loss.sharded=true; add --set "
                "loss.sharded=false"
            )
        if self.weights and self.pretrained:
            raise UltronError(
                f"weights and pretrained exclude each other; found {self.weights} and pretrained=true; add "
                "--set pretrained=false"
            )
        if self.batch_size % self.accumulate:
            raise UltronError(
                f"batch_size must be a multiple of accumulate; found {self.batch_size} and {self.accumulate}"
            )
        if self.tuple_size and self.group_sizes:
            raise UltronError(
                f"loss {self.loss['name']} takes batches of one shape; found group_sizes=true; add --set "
                "group_sizes=false"
            )
        if self.tuple_size and self.model.get("pooling") == "cls":
            name, found = self.loss["name"], "model.pooling=cls, which takes the class token instead"
            raise UltronError(
                f"loss {name} matches places of the maps that the descriptor is pooled from; found {found}; "
                "add --set model.pooling=gem"
            )
        if (self.schedule == "steps") != bool(self.step_epochs):
            raise UltronError(
                f'step_epochs goes with schedule = "steps"; found {list(self.step_epochs)} with {self.schedule!r}'
            )
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise UltronError(f"ema must lie between 0 and 1 (0.999), or be none; found {self.ema}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UltronError(f"clip_norm must be positive, or none; found {self.clip_norm}")
        if self.switch and self.switch.epoch >= self.epochs:
            raise UltronError(
                f"switch.epoch must lie before the end of {self.epochs} epochs; found {self.switch.epoch}"
            )

    @property
    def tuple_size(self) -> int | None:
        """Photos of a tuple, for a loss that works on tuples (an anchor, a positive, negatives); None for the
        others."""
        from ultron_cli.training.losses import loss_settings

        settings = loss_settings(
            str(self.loss.get("name", "arcface")), {key: value for key, value in self.loss.items() if key != "name"}
        )
        return getattr(settings, "tuple_size", None)

    def to_plain(self) -> dict[str, Any]:
        """Plain data as JSON gives it back: every tuple a list."""
        return plain(to_dict(self))


def plain(value: Any) -> Any:
    """`value` with every tuple a list, at any depth."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def list_presets() -> list[str]:
    """Names that --preset takes."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in (resources.files("ultron_cli.training") / "presets").iterdir()
        if entry.name.endswith(".toml")
    )


def read_preset(name: str) -> dict[str, Any]:
    """The values that a preset sets. Raises UltronError for an unknown name."""
    if name not in list_presets():
        raise UltronError(
            f"unknown preset {name!r}{nearest_names(name, list_presets())} (known: {', '.join(list_presets())})"
        )
    with resources.as_file(resources.files("ultron_cli.training") / "presets" / f"{name}.toml") as path:
        return read_toml(path)


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes` over them. A table that names another loss or model starts anew: the old one's settings
    are not its own."""
    merged = dict(values)
    for key, change in changes.items():
        before = merged.get(key)
        if not isinstance(change, dict) or not isinstance(before, dict):
            merged[key] = change
        else:
            renamed = "name" in change and change["name"] != before.get("name") and "name" in before
            merged[key] = dict(change) if renamed else before | change
    return merged


def make_config(values: dict[str, Any]) -> "TrainConfig | SearchConfig":
    """The configuration of a training, or of a search where `task` says so. Raises UltronError for an unknown key or
    value."""
    if "task" not in values:
        return from_dict(TrainConfig, values)
    from ultron_cli.training.autola.network import SearchConfig

    return from_dict(SearchConfig, values)


def load_config(preset: str, file: Path | None, assignments: Sequence[str]) -> "TrainConfig | SearchConfig":
    """The final configuration. Raises UltronError for an unknown preset, key or value, naming near ones."""
    values = read_preset(preset)
    if file:
        values = _merge(values, read_toml(file))
    return make_config(_assign(values, assignments))


def _assign(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with --set applied; model.name and loss.name first, as they start their table anew."""
    for assignment in sorted(assignments, key=lambda text: not text.startswith(("model.name=", "loss.name="))):
        key, _, name = assignment.partition("=")
        if key in ("model.name", "loss.name") and values.get(key[:-5], {}).get("name") != name.strip("\"'"):
            values = values | {key[:-5]: {}}
        values = apply_set(values, [assignment])
    return values


def resumed_config(
    stored: Path, preset: str | None, file: Path | None, assignments: Sequence[str]
) -> "TrainConfig | SearchConfig":
    """The configuration of an interrupted run, whose config.json is `stored`. Raises UltronError if what is asked for
    now is another one."""
    from ultron_cli.configs import differences

    before = make_config(read_json(stored, "configuration of the run")["config"])
    if preset is not None:
        now = load_config(preset, file, assignments)
    else:
        now = make_config(
            _assign(_merge(before.to_plain(), read_toml(file)) if file else before.to_plain(), assignments)
        )
    kept = [
        {key: value for key, value in config.to_plain().items() if key not in FREE_SETTINGS} for config in (before, now)
    ]
    differing = differences(*kept)
    if differing:
        raise UltronError(
            f"{stored.parent} was started with another configuration: {'; '.join(differing)}; resume without "
            "them, or start a new run"
        )
    return now


def explain_config(preset: str, file: Path | None, assignments: Sequence[str]) -> list[tuple[str, Any, str]]:
    """(key, final value, where it came from) of every setting, in the order of TrainConfig."""
    final = flatten(load_config(preset, file, assignments).to_plain())
    sources = [(f"preset {preset}", flatten(read_preset(preset)))]
    if file:
        sources.append((str(file), flatten(read_toml(file))))
    sources.append(("--set", flatten(apply_set({}, assignments))))
    origin = {key: name for name, values in sources for key in values}
    return [(key, value, origin.get(key, "default")) for key, value in final.items()]
