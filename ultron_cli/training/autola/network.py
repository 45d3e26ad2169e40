"""The network that AutoLA's search trains: a ResNet with every operation of HOGA's graph in every block, weighed by
shared logits.

As in the authors' code (github.com/btma48/AutoLA); the search itself is in search.py.
"""

from collections.abc import Iterable
from typing import Protocol, cast

import numpy as np
import timm
import torch
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import STAGES
from ultron_cli.models.attentions.genotype import N_NODES, OPERATIONS, Edge, Genotype
from ultron_cli.models.attentions.hoga import HogaSearch
from ultron_cli.models.backbones.names import is_cifar_resnet
from ultron_cli.models.backbones.narrow import guard_narrow_convolutions
from ultron_cli.models.backbones.own import make_cifar_resnet
from ultron_cli.training.autola.config import AutolaConfig

EDGES = tuple((node, source) for node in range(1, N_NODES + 1) for source in range(node))
"""(node, input) of each row of weights."""


class AutolaLogits(nn.Module):
    """Logits of the operations on the edges, which all blocks share. forward: () -> (10, 9) weights."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(OPERATIONS)))

    def forward(self) -> torch.Tensor:
        return self.logits.softmax(dim=1)


class AutolaAttention(nn.Module):
    """The search form of HOGA in one block; its edge weights come from AutolaLogits that are not part of it. (B, C, H,
    W) -> the same shape."""

    def __init__(self, n_channels: int, architecture: AutolaLogits, reductions: tuple[int, ...]) -> None:
        super().__init__()
        self.mixed = HogaSearch(n_channels, reductions)
        self.shared = (architecture,)  # in a tuple, so that its logits are not among this module's weights

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.mixed(maps, self.shared[0]())


class _ResNet(Protocol):
    """What the search needs of a ResNet of timm, beside its layer1 to layer4."""

    feature_info: list[dict[str, int]]
    bn1: nn.BatchNorm2d
    conv1: nn.Module
    maxpool: nn.Module


def make_network(config: AutolaConfig, n_classes: int, architecture: AutolaLogits) -> nn.Module:
    """A ResNet with a classifier and the search form in every block. Raises UltronError for a backbone that is no
    ResNet, or has attentions."""
    is_cifar = is_cifar_resnet(config.backbone)
    network = _cifar_network(config, n_classes) if is_cifar else _timm_network(config, n_classes)
    guard_narrow_convolutions(network)
    feature_info = cast(_ResNet, network).feature_info
    for number in STAGES:
        n_channels = feature_info[number]["num_chs"]
        blocks: Iterable[nn.Module] = getattr(network, f"layer{number}")
        for block in blocks:
            if block.se is not None:
                raise UltronError(
                    f"{config.backbone} has attentions in its blocks already; choose one without, such as resnet34"
                )
            block.se = AutolaAttention(n_channels, architecture, config.reductions)
    return network


def _cifar_network(config: AutolaConfig, n_classes: int) -> nn.Module:
    is_named = config.width is None or "_w" in config.backbone
    return make_cifar_resnet(config.backbone if is_named else f"{config.backbone}_w{config.width}", n_classes)


def _timm_network(config: AutolaConfig, n_classes: int) -> nn.Module:
    options: dict[str, tuple[int, ...]] = {}
    if config.width is not None:
        options["channels"] = tuple(config.width * 2**i for i in range(4))
    try:
        network = timm.create_model(
            config.backbone,
            num_classes=n_classes,
            zero_init_last=False,
            **options,  # pyright: ignore[reportArgumentType]: timm hands what it does not know to the network
        )
    except TypeError:
        problem = f"{config.backbone} takes no {'width' if options else 'such options'}"
        raise UltronError(
            f"the search takes a ResNet of timm, and {problem}; choose resnet18 or resnet34, or leave width out (none)"
        ) from None
    if not all(hasattr(network, f"layer{number}") for number in STAGES):
        raise UltronError(
            f"the search takes a ResNet of timm (resnet18, resnet34, ...), found {config.backbone}; name one"
        )
    if config.small_stem:
        resnet = cast(_ResNet, network)
        resnet.conv1 = nn.Conv2d(3, resnet.bn1.num_features, 3, padding=1, bias=False)
        resnet.maxpool = nn.Identity()
    return network


def choose_genotype(edge_weights: np.ndarray) -> tuple[Genotype, list[list[float]]]:
    """The strongest operation but `none` on every edge, a node's edges in falling order; and their weights.
    edge_weights: (10, 9)."""
    nodes: list[tuple[Edge, ...]] = []
    strengths: list[list[float]] = []
    for node in range(1, N_NODES + 1):
        rows = [(source, edge_weights[row]) for row, (to, source) in enumerate(EDGES) if to == node]
        best = [(float(row[1:].max()), Edge(OPERATIONS[1 + int(row[1:].argmax())], source)) for source, row in rows]
        best.sort(key=lambda item: -item[0])
        nodes.append(tuple(edge for _, edge in best))
        strengths.append([strength for strength, _ in best])
    return Genotype(tuple(nodes)), strengths
