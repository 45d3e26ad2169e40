"""The settings of AutoLA's search, as the authors' code (github.com/btma48/AutoLA) has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import timm

from ultron_cli.configs import to_dict, within
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.attentions.genotype import N_NODES
from ultron_cli.models.attentions.hoga import SEARCH_REDUCTIONS
from ultron_cli.models.backbones.own import is_cifar_resnet
from ultron_cli.training.config import AugmentConfig, plain


@dataclass(frozen=True, kw_only=True)
class AutolaConfig:
    """Settings of AutoLA's search, stored whole in its run's folder; the defaults are the authors' for CIFAR-10."""

    task: Literal["search"] = "search"  # tells the configuration from that of a training
    dataset: str = "toy"
    exclude: tuple[str, ...] = ()  # files of classes or photo ids to keep out
    backbone: str = "resnet34"  # a timm ResNet or one of backbones/own.py, trained from nothing
    width: int | None = 16  # channels of the first stage, doubled from stage to stage; None keeps the backbone's own
    # A 3x3 convolution without pooling instead of 7x7 and pooling, for photos of 32 or 64 px.
    small_stem: bool = True
    # Of the SE of the groups' sum and of the SE at the end, in every block.
    reductions: tuple[int, ...] = SEARCH_REDUCTIONS
    statistics: Literal["cifar", "imagenet"] = "cifar"  # mean and deviation by which photos are normalised
    side_px: int = 32  # of the square training crops
    epochs: int = 50
    batch_size: int = 128
    lr: float = 0.025  # falls to lr_min along a cosine, epoch by epoch
    lr_min: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    # Of the logits, by Adam.
    architecture_lr: float = 3e-3
    architecture_weight_decay: float = 1e-3
    seed: int = 0
    # As in TrainConfig.
    workers: int = 1
    threads: int | None = None
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            crop_area=(0.6, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
        )
    )

    def __post_init__(self) -> None:
        if not timm.is_model(self.backbone) and not is_cifar_resnet(self.backbone):
            raise UltronError(
                f"unknown backbone {self.backbone!r}{nearest_names(self.backbone, timm.list_models())}; the "
                "search takes a ResNet of timm"
            )
        for name, low, high in (
            ("side_px", 16, 4096),
            ("epochs", 1, 100000),
            ("batch_size", 2, 65536),
            ("lr", 0.0, 100.0),
            ("clip_norm", 1e-6, 1e6),
        ):
            within(name, getattr(self, name), low, high)
        for name, high in (("seed", 2**31 - 1), ("workers", 64), ("checkpoint_minutes", 10**6)):
            within(name, getattr(self, name), 0, high)
        for name, high in (("threads", 1024), ("keep_checkpoints", 1000)):
            within(name, getattr(self, name) or 1, 1, high)
        if len(self.reductions) != 2 or min(self.reductions) < 1:
            raise UltronError(
                "reductions must be two numbers from 1, of the SE of the sum and of the SE at the end; found "
                f"{list(self.reductions)}"
            )
        for name in ("lr_min", "momentum", "weight_decay", "architecture_lr", "architecture_weight_decay"):
            within(name, getattr(self, name), 0.0, 10.0)
        if self.width is not None and (self.width < N_NODES or self.width % N_NODES):
            raise UltronError(
                f"width must be a multiple of {N_NODES}, as channels are split in {N_NODES} groups; found {self.width}"
            )

    def to_plain(self) -> dict[str, object]:
        """Plain data as JSON gives it back: every tuple a list."""
        return plain(to_dict(self))


def as_stored(values: Mapping[str, object]) -> dict[str, object]:
    """A search's stored configuration with what 0.1.0 did not store, so that its runs can be resumed."""
    return {"reductions": [8, 8], "statistics": "imagenet", **values}
