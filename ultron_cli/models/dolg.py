"""DOLG: local features made orthogonal to the global one, in a single descriptor (Yang et al., ICCV 2021).

Checked against the authors' code (github.com/feymanpriv/DOLG). f3 and f4 are the maps of the ResNet's stages at stride
16 and 32.
"""

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import one_of, within
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import ResNetNetwork, n_channels_of_stages, require_resnet, up_to_stage_3
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts.pooling import GeM
from ultron_cli.models.weights.importers import State
from ultron_cli.models.weights.pycls import CheckpointLayout, renamed, resnet_name


@dataclass(frozen=True, kw_only=True)
class DolgSettings:
    """Settings of `dolg-r50` and `dolg-r101`: the defaults are the paper's, other values its ablations (tables 4 to
    6)."""

    backbone: str = "resnet50"
    descriptor_dim: int = 512
    local_from: Literal["f3", "f4"] = "f3"  # the map of the local branch
    fusion: Literal["orthogonal", "concat", "hadamard"] = "orthogonal"  # how local vectors meet the global one
    global_pooling: Literal["gem", "avg"] = "gem"  # of the global branch
    p: float = 3.0  # exponent of its GeM at first; learnable, as in the authors' code
    multi_atrous: bool = True
    self_attention: bool = True
    dilations: tuple[int, ...] = (6, 12, 18)  # of the multi-atrous 3x3 convolutions
    atrous_dim: int = 512
    local_dim: int = 1024  # of local vectors, and of the global one

    def __post_init__(self) -> None:
        one_of("model.local_from", self.local_from, ["f3", "f4"])
        one_of("model.fusion", self.fusion, ["orthogonal", "concat", "hadamard"])
        one_of("model.global_pooling", self.global_pooling, ["gem", "avg"])
        within("model.p", self.p, 0.1, 100.0)
        for name in ("descriptor_dim", "atrous_dim", "local_dim"):
            within(f"model.{name}", getattr(self, name), 1, 65536)


class MultiAtrous(nn.Module):
    """Context at several reaches: a 1x1, dilated 3x3 convolutions and the whole map's mean, joined by a 1x1 convolution
    and ReLU.

    forward: (B, C, h, w) -> (B, local_dim, h, w).
    """

    def __init__(self, n_channels: int, settings: DolgSettings) -> None:
        super().__init__()
        width = settings.atrous_dim
        self.branches = nn.ModuleList([nn.Conv2d(n_channels, width, 1)])
        self.branches.extend(nn.Conv2d(n_channels, width, 3, padding=d, dilation=d) for d in settings.dilations)
        self.whole = nn.Conv2d(n_channels, width, 1)
        self.join = nn.Conv2d(width * (len(self.branches) + 1), settings.local_dim, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        whole = F.relu(self.whole(maps.mean(dim=(-2, -1), keepdim=True))).expand(-1, -1, *maps.shape[-2:])
        return F.relu(self.join(torch.cat([whole, *(branch(maps) for branch in self.branches)], dim=1)))


class AtrousBranch(nn.Module):
    """Multi-atrous context, then unit vectors times an attention of their own. forward: (B, C, h, w) -> (B, local_dim,
    h, w)."""

    def __init__(self, n_channels: int, settings: DolgSettings) -> None:
        super().__init__()
        self.atrous = MultiAtrous(n_channels, settings) if settings.multi_atrous else None
        self.reduce = nn.Conv2d(settings.local_dim if settings.multi_atrous else n_channels, settings.local_dim, 1)
        self.norm = nn.BatchNorm2d(settings.local_dim)
        self.attention = nn.Conv2d(settings.local_dim, 1, 1) if settings.self_attention else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        reduced = self._reduced(maps)
        weights = self._weights(reduced)
        return reduced if weights is None else weights * F.normalize(reduced, dim=1)

    def weights(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, h, w) attention, or the norm of local vectors where there is none."""
        reduced = self._reduced(maps)
        weights = self._weights(reduced)
        return reduced.norm(dim=1) if weights is None else weights[:, 0]

    def _reduced(self, maps: torch.Tensor) -> torch.Tensor:
        return self.norm(self.reduce(maps if self.atrous is None else self.atrous(maps)))

    def _weights(self, reduced: torch.Tensor) -> torch.Tensor | None:
        return None if self.attention is None else F.softplus(self.attention(F.relu(reduced)))


def orthogonal_part(local: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """What of each local vector (B, C, h, w) is orthogonal to the global vector (B, C): equation 4 of the paper."""
    along = torch.einsum("bchw,bc->bhw", local, whole) / whole.square().sum(1)[:, None, None]
    return local - along[:, None] * whole[:, :, None, None]


class DolgModel(BackboneModel):
    """ResNet -> local branch on f3, GeM and a layer on f4 -> fusion -> (B, descriptor_dim)."""

    settings_type = DolgSettings
    settings: DolgSettings
    recommended_scales = (0.3535, 0.5, 0.7071, 1.0, 1.4142)  # the authors' five

    def __init__(self, name: str, settings: DolgSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        network = require_resnet(backbone.network, backbone.name, name)
        self.preprocessing = replace(backbone.preprocessing, scaling="bilinear-rounded", box_edges="truncated")
        self.descriptor_dim = settings.descriptor_dim
        n_stage_3, n_stage_4 = n_channels_of_stages(network)
        self.local = AtrousBranch(n_stage_3 if settings.local_from == "f3" else n_stage_4, settings)
        self.global_pooling = GeM(settings.p, learnable=True) if settings.global_pooling == "gem" else None
        self.global_layer = nn.Linear(n_stage_4, settings.local_dim)
        self.head = nn.Linear((1 if settings.fusion == "hadamard" else 2) * settings.local_dim, settings.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> f3 (B, C3, H/16, W/16), from which `pool` makes all the rest."""
        return up_to_stage_3(self._resnet(), images)

    def place_weights(self, feature_map: torch.Tensor) -> torch.Tensor:
        """The local branch's attention on f3; as RetrievalModel has it where that branch is on f4."""
        if self.settings.local_from == "f3":
            return self.local.weights(feature_map)
        return super().place_weights(feature_map)

    def _resnet(self) -> ResNetNetwork:
        return cast(ResNetNetwork, self.backbone.network)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        deep = self._resnet().layer4(feature_map)
        pooled = deep.mean(dim=(-2, -1)) if self.global_pooling is None else self.global_pooling(deep)
        whole = self.global_layer(pooled)
        local = self.local(feature_map if self.settings.local_from == "f3" else deep)
        if self.settings.fusion == "hadamard":
            return self.head((local * whole[:, :, None, None]).mean(dim=(-2, -1)))
        if self.settings.fusion == "orthogonal":
            local = orthogonal_part(local, whole)
        return self.head(torch.cat([whole, local.mean(dim=(-2, -1))], dim=1))


def dolg_name(name: str) -> str | None:
    """DOLG (github.com/feymanpriv/DOLG): globalmodel, localmodel, pool_g, fc_t, fc; desc_cls is the classifier."""
    if name.startswith("desc_cls."):
        return None
    if name.startswith("globalmodel."):
        return resnet_name(name.removeprefix("globalmodel.")) or name
    if name == "pool_g.p":
        return "global_pooling.p"
    return renamed(
        name,
        {
            "localmodel.aspp.aspp.": "local.atrous.branches.",
            "localmodel.aspp.im_pool.1.": "local.atrous.whole.",
            "localmodel.aspp.conv_after.0.": "local.atrous.join.",
            "localmodel.conv1.": "local.reduce.",
            "localmodel.bn.": "local.norm.",
            "localmodel.conv2.": "local.attention.",
            "fc_t.": "global_layer.",
            "fc.": "head.",
        },
    )


def _dolg_settings(state: State) -> dict[str, object]:
    return {"multi_atrous": any(".aspp." in key for key in state)}


PUBLISHED = CheckpointLayout(
    {6: ("dolg-r50", {}), 23: ("dolg-r101", {})}, dolg_name, bgr=True, scales="5", settings=_dolg_settings
)
