"""HOGA, high-order group attention: four groups of channels through a graph of small attentions (AutoLA, Ma et al.,
NeurIPS 2020).

Checked against the authors' code (github.com/btma48/AutoLA). A genotype (genotype.py) says which operation each edge
has; training/autola/ searches for one. Legend: B batch, C channels, c = C / 4, H W map size.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.attentions.gates import Cbam, ChannelGate, maximum_and_mean
from ultron_cli.models.attentions.genotype import N_NODES, OPERATIONS, PUBLISHED, parse_genotype

OPERATION_REDUCTION = 4  # of gates that are operations of the graph; all as in the authors' code
# Of the gates around the graph, that of the groups' sum and that at the end; the network that is searched in has
# others.
OUTER_REDUCTIONS, SEARCH_REDUCTIONS = (8, 8), (4, 16)


def separable(n_in: int, n_hidden: int, n_out: int, *, affine: bool) -> nn.Sequential:
    """Depthwise 3x3, 1x1, BN, ReLU, depthwise 3x3, 1x1, BN."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in, bias=False),
        nn.Conv2d(n_in, n_hidden, 1, bias=False),
        nn.BatchNorm2d(n_hidden, affine=affine),
        nn.ReLU(),
        nn.Conv2d(n_hidden, n_hidden, 3, padding=1, groups=n_hidden, bias=False),
        nn.Conv2d(n_hidden, n_out, 1, bias=False),
        nn.BatchNorm2d(n_out, affine=affine),
    )


def dilated(n_in: int, n_hidden: int, n_out: int, n_groups: int, *, affine: bool) -> nn.Sequential:
    """3x3 of dilation 2, 1x1, BN."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_hidden, 3, padding=2, dilation=2, groups=n_groups, bias=False),
        nn.Conv2d(n_hidden, n_out, 1, bias=False),
        nn.BatchNorm2d(n_out, affine=affine),
    )


class ConvolutionGate(nn.Module):
    """x * sigmoid(op(x)), or with `spatial` x * sigmoid(op([max; mean] of x over channels)). (B, c, H, W) -> the same
    shape."""

    def __init__(self, op: nn.Module, *, spatial: bool = False) -> None:
        super().__init__()
        self.op, self.spatial = op, spatial

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps * self.op(maximum_and_mean(maps) if self.spatial else maps).sigmoid()


class Zero(nn.Module):
    """No edge: 0."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(maps)


MAKERS: dict[str, Callable[[int, bool], nn.Module]] = {
    "none": lambda c, affine: Zero(),
    "skip": lambda c, affine: nn.Identity(),
    "sep": lambda c, affine: ConvolutionGate(separable(c, c, c, affine=affine)),
    "dil": lambda c, affine: ConvolutionGate(dilated(c, c, c, c, affine=affine)),
    "sep_spatial": lambda c, affine: ConvolutionGate(separable(2, 2, 1, affine=affine), spatial=True),
    "dil_spatial": lambda c, affine: ConvolutionGate(dilated(2, 1, 1, 1, affine=affine), spatial=True),
    "se": lambda c, affine: ChannelGate(c, reduction=OPERATION_REDUCTION),
    "se_max": lambda c, affine: ChannelGate(c, reduction=OPERATION_REDUCTION, with_maximum=True),
    "cbam": lambda c, affine: Cbam(c, reduction=OPERATION_REDUCTION),
}


def make_operation(name: str, n_channels: int, *, affine: bool = True) -> nn.Module:
    """An operation on maps (B, c, H, W) -> the same shape. affine: whether the convolutions' norms learn scale and
    shift, which they do not during the search."""
    return MAKERS[name](n_channels, affine)


def group_channels(n_channels: int) -> int:
    """c. Raises UltronError unless the channels divide into four groups."""
    if n_channels % N_NODES:
        raise UltronError(
            f"hoga splits channels into {N_NODES} groups and {n_channels} do not divide; choose other stages "
            "with `model.attention_stages`"
        )
    return n_channels // N_NODES


class GroupFrame(nn.Module):
    """What surrounds the graph: (B, C, H, W) and the four nodes' outputs (B, c, H, W) -> (B, C, H, W).

    The nodes and SE(sum of the groups) are joined by 1x1, BN, ReLU, 1x1, BN; the map is added; an SE comes last. The
    last norm starts at 0 and the SE almost open, so that a pretrained network hardly changes at first.
    reductions: of the SE of the sum and of the SE at the end.
    """

    def __init__(self, n_channels: int, reductions: tuple[int, ...]) -> None:
        super().__init__()
        c = group_channels(n_channels)
        self.sum_gate = ChannelGate(c, reduction=reductions[0])
        self.join, self.join_norm = nn.Conv2d((N_NODES + 1) * c, n_channels, 1, bias=False), nn.BatchNorm2d(n_channels)
        self.back, self.back_norm = nn.Conv2d(n_channels, n_channels, 1, bias=False), nn.BatchNorm2d(n_channels)
        self.gate = ChannelGate(n_channels, reduction=reductions[1])
        nn.init.zeros_(self.back_norm.weight)

    def forward(self, maps: torch.Tensor, nodes: list[torch.Tensor]) -> torch.Tensor:
        summed = self.sum_gate(maps.unflatten(1, (N_NODES, -1)).sum(1))
        hidden = F.relu(self.join_norm(self.join(torch.cat([*nodes, summed], dim=1))))
        return self.gate(maps + self.back_norm(self.back(hidden)))


def _total(terms: list[torch.Tensor]) -> torch.Tensor:
    """0 + the first + the second ..., in order."""
    return cast(torch.Tensor, sum(terms))


class Hoga(nn.Module):
    """The attention of one genotype, given as text (genotype.py). Raises UltronError unless C divides by 4.

    About 3.1 C^2 parameters, most of them in the 1x1 convolutions of the frame: in every block of ResNet50, where C is
    up to 2048, 63 M on top of 24 M.
    """

    def __init__(self, n_channels: int, genotype: str = PUBLISHED) -> None:
        super().__init__()
        c = group_channels(n_channels)
        self.genotype = parse_genotype(genotype)
        self.frame = GroupFrame(n_channels, OUTER_REDUCTIONS)
        self.operations = nn.ModuleList(
            nn.ModuleList(make_operation(edge.operation, c) for edge in edges) for edges in self.genotype.nodes
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        for group, edges, operations in zip(
            maps.chunk(N_NODES, dim=1), self.genotype.nodes, self.operations, strict=True
        ):
            inputs = [group, *outputs]
            terms = [
                operation(inputs[edge.source])
                for edge, operation in zip(edges, cast(nn.ModuleList, operations), strict=True)
            ]
            outputs.append(_total(terms))
        return self.frame(maps, outputs)


class HogaSearch(nn.Module):
    """All operations on all edges at once, weighed: what AutoLA's search trains.

    forward: (B, C, H, W), weights (10, 9) -> (B, C, H, W). A row of the weights is an edge: nodes in order, and for
    each its inputs 0 to node - 1. A column is one of OPERATIONS. Rows sum to 1. reductions: as of GroupFrame.
    """

    def __init__(self, n_channels: int, reductions: tuple[int, ...] = SEARCH_REDUCTIONS) -> None:
        super().__init__()
        c = group_channels(n_channels)
        self.frame = GroupFrame(n_channels, reductions)
        # The network is trained from nothing: at 0 the first steps would not reach the graph.
        nn.init.ones_(self.frame.back_norm.weight)
        names = [name for name in OPERATIONS if name != "none"]
        self.edges = nn.ModuleList(
            nn.ModuleList(make_operation(name, c, affine=False) for name in names)
            for _ in range(N_NODES * (N_NODES + 1) // 2)
        )

    def forward(self, maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        edges = iter(zip(self.edges, weights, strict=True))
        for group in maps.chunk(N_NODES, dim=1):
            mixed: list[torch.Tensor] = []
            for source in (group, *outputs):
                operations, row = next(edges)
                pairs = zip(row[1:], cast(nn.ModuleList, operations), strict=True)  # row[0], of `none`, would add 0
                mixed.append(_total([weight * operation(source) for weight, operation in pairs]))
            outputs.append(_total(mixed))
        return self.frame(maps, outputs)
