"""The configuration of a training run: preset, then --config, then --set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ultron_cli.configs import apply_set, from_dict, one_of, read_toml, within
from ultron_cli.errors import UltronError, nearest_names


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training photo (torchvision v2). crop_area: range of the random crop's share of the photo."""

    crop_area: tuple[float, ...] = (0.4, 1.0)
    crop_aspect: tuple[float, ...] = (0.75, 1.3333)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    grey: float = 0.0
    flip: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that shapes a run; stored whole in its folder and its checkpoint. Sides in pixels, lr per step of one batch."""

    dataset: str = "toy"
    model: dict[str, Any] = field(default_factory=lambda: {"name": "gem", "backbone": "resnet10t"})
    pretrained: bool = False
    loss: dict[str, Any] = field(default_factory=lambda: {"name": "arcface"})
    side_px: int = 128
    batch_size: int = 32
    epochs: int = 10
    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    workers: int = 1
    threads: int | None = None  # of the network's arithmetic on a CPU; None: one per core
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, ("adamw", "sgd"))
        within("side_px", self.side_px, 32, 2048)
        within("batch_size", self.batch_size, 2, 65536)
        within("epochs", self.epochs, 1, 100000)
        within("workers", self.workers, 0, 64)
        within("threads", self.threads or 1, 1, 1024)
        within("warmup_epochs", self.warmup_epochs, 0, self.epochs)
        if not 0 < self.lr < 100:
            raise UltronError(f"lr must lie between 0 and 100; found {self.lr}")


def list_presets() -> list[str]:
    """Names that --preset takes."""
    return sorted(entry.name.removesuffix(".toml") for entry in (resources.files("ultron_cli.training") / "presets").iterdir() if entry.name.endswith(".toml"))


def load_config(preset: str, file: Path | None, assignments: Sequence[str]) -> TrainConfig:
    """The final configuration. Raises UltronError for an unknown preset, key or value, naming near ones."""
    if preset not in list_presets():
        raise UltronError(f"unknown preset {preset!r}{nearest_names(preset, list_presets())} (known: {', '.join(list_presets())})")
    with resources.as_file(resources.files("ultron_cli.training") / "presets" / f"{preset}.toml") as path:
        values = read_toml(path)
    if file:
        for key, value in read_toml(file).items():
            values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    return from_dict(TrainConfig, apply_set(values, assignments))
