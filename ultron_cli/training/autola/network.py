"""The network that AutoLA's search trains: a ResNet with every operation of HOGA's graph in every block, weighed by
shared logits.

As in the authors' code (github.com/btma48/AutoLA); the search itself is in autola.py.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import timm
import torch
from torch import nn

from ultron_cli.configs import to_dict, within
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.attentions import STAGES
from ultron_cli.models.attentions.genotype import N_NODES, OPERATIONS, Edge, Genotype
from ultron_cli.models.attentions.hoga import HogaSearch
from ultron_cli.models.backbones.own import is_cifar_resnet, make_cifar_resnet
from ultron_cli.training.config import AugmentConfig, plain

EDGES = tuple((node, source) for node in range(1, N_NODES + 1) for source in range(node))
"""(node, input) of each row of weights."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of a search; the defaults are the authors' for CIFAR-10. All that shapes the run is stored whole in its
    folder.

    task tells its configuration from that of a training. exclude: files of classes or photo ids to keep out. backbone:
    a timm ResNet or one of backbones/own.py, trained from nothing. width: channels of its first stage, doubled from
    stage to stage; None keeps its own. small_stem: a 3x3 convolution without pooling instead of 7x7 and pooling, for
    photos of 32 or 64 px. side_px: of the square training crops. lr falls to lr_min along a cosine, epoch by epoch.
    architecture_*: of the logits (Adam). workers, threads, checkpoint_minutes and keep_checkpoints as in TrainConfig.
    """

    task: Literal["search"] = "search"
    dataset: str = "toy"
    exclude: tuple[str, ...] = ()
    backbone: str = "resnet34"
    width: int | None = 16
    small_stem: bool = True
    side_px: int = 32
    epochs: int = 50
    batch_size: int = 128
    lr: float = 0.025
    lr_min: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    architecture_lr: float = 3e-3
    architecture_weight_decay: float = 1e-3
    seed: int = 0
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
        for name in ("lr_min", "momentum", "weight_decay", "architecture_lr", "architecture_weight_decay"):
            within(name, getattr(self, name), 0.0, 10.0)
        if self.width is not None and (self.width < N_NODES or self.width % N_NODES):
            raise UltronError(
                f"width must be a multiple of {N_NODES}, as channels are split in {N_NODES} groups; found {self.width}"
            )

    def to_plain(self) -> dict[str, Any]:
        """Plain data as JSON gives it back: every tuple a list."""
        return plain(to_dict(self))


class Architecture(nn.Module):
    """Logits of the operations on the edges, which all blocks share. forward: () -> (10, 9) weights."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(OPERATIONS)))

    def forward(self) -> torch.Tensor:
        return self.logits.softmax(dim=1)


class SharedSearch(nn.Module):
    """The search form of HOGA in one block; its edge weights come from an Architecture that is not part of it. (B, C,
    H, W) -> the same shape."""

    def __init__(self, n_channels: int, architecture: Architecture) -> None:
        super().__init__()
        self.mixed = HogaSearch(n_channels)
        self.shared = (architecture,)  # in a tuple, so that its logits are not among this module's weights

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.mixed(maps, self.shared[0]())


def make_network(config: SearchConfig, n_classes: int, architecture: Architecture) -> nn.Module:
    """A ResNet with a classifier and the search form in every block. Raises UltronError for a backbone that is no
    ResNet, or has attentions."""
    network = (
        _cifar_network(config, n_classes) if is_cifar_resnet(config.backbone) else _timm_network(config, n_classes)
    )
    for number in STAGES:
        n_channels = network.feature_info[number]["num_chs"]
        for block in getattr(network, f"layer{number}"):
            if block.se is not None:
                raise UltronError(
                    f"{config.backbone} has attentions in its blocks already; choose one without, such as resnet34"
                )
            block.se = SharedSearch(n_channels, architecture)
    return network


def _cifar_network(config: SearchConfig, n_classes: int) -> nn.Module:
    is_named = config.width is None or "_w" in config.backbone
    return make_cifar_resnet(config.backbone if is_named else f"{config.backbone}_w{config.width}", n_classes)


def _timm_network(config: SearchConfig, n_classes: int) -> nn.Module:
    widths = {} if config.width is None else {"channels": tuple(config.width * 2**i for i in range(4))}
    try:
        network = timm.create_model(config.backbone, num_classes=n_classes, zero_init_last=False, **widths)
    except TypeError:
        found = f"{config.backbone} takes no {'width' if widths else 'such options'}"
        raise UltronError(
            f"the search takes a ResNet of timm, and {found}; choose resnet18 or resnet34, or leave width out (none)"
        ) from None
    if not all(hasattr(network, f"layer{number}") for number in STAGES):
        raise UltronError(f"the search takes a ResNet of timm (resnet18, resnet34, ...), found {config.backbone}")
    if config.small_stem:
        last = network.bn1.num_features
        network.conv1 = nn.Conv2d(3, last, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def choose_genotype(edge_weights: np.ndarray) -> tuple[Genotype, list[list[float]]]:
    """The strongest operation but `none` on every edge, a node's edges in falling order; and their weights.
    edge_weights: (10, 9)."""
    nodes, strengths = [], []
    for node in range(1, N_NODES + 1):
        rows = [(source, edge_weights[row]) for row, (to, source) in enumerate(EDGES) if to == node]
        best = [(float(row[1:].max()), Edge(OPERATIONS[1 + int(row[1:].argmax())], source)) for source, row in rows]
        best.sort(key=lambda item: -item[0])
        nodes.append(tuple(edge for _, edge in best))
        strengths.append([strength for strength, _ in best])
    return Genotype(tuple(nodes)), strengths
