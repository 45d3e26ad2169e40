"""SuperGlobal's extraction: a CVNet-Global ResNet whose poolings are refined without training (Shao et al., ICCV 2023).

Checked against the authors' code (github.com/ShihaoShao-GH/SuperGlobal). Its re-ranking is in
retrieval/rerank/superglobal.py.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from ultron_kernels import ops

from ultron_cli.configs import within
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import ResNetNetwork, require_resnet
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts.pooling import GeM, power_mean
from ultron_cli.models.weights.pycls import CheckpointLayout, resnet_name

REGION_SIDE, REGION_P = 5, 2.5  # regional GeM, section 3.1 and the authors' code


@dataclass(frozen=True, kw_only=True)
class SuperGlobalSettings:
    """Settings of `superglobal`; every module of the paper can be switched off."""

    backbone: str = "resnet101"
    descriptor_dim: int = 2048
    p: float = 3.0  # exponent of GeM, trained
    gem_plus: bool = True  # GeM with exponent p_plus instead of the trained p
    p_plus: float = 4.6
    relup: float = 0.014  # the threshold of ReLUP (section 3.1); 0 for plain ReLU
    regional_gem: bool = True  # half of each place is the GeM of the 5 x 5 places around it
    scale_gem: bool = True  # descriptors of several scales are joined by their maximum instead of their mean

    def __post_init__(self) -> None:
        within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        within("model.p", self.p, 0.1, 100.0)
        within("model.p_plus", self.p_plus, 0.1, 100.0)
        within("model.relup", self.relup, 0.0, 10.0)


class ReLUP(nn.Module):
    """max(x, threshold): a ReLU whose floor is above 0, so that places without a response still count a little."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.clamp(min=self.threshold)


def put_relup(network: ResNetNetwork, threshold: float) -> None:
    """Replaces the ReLU that ends each block of stages 1 to 3, and in stage 1 those inside too, as the authors' code
    has it."""
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            names = [name for name in ("act1", "act2", "act3") if hasattr(block, name)]
            for name in names if stage is network.layer1 else names[-1:]:
                setattr(block, name, ReLUP(threshold))


def regional_gem(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) without negative values -> the same shape: the mean of each value and the GeM (p 2.5) of its 5 x 5
    surroundings."""
    padded = _padded(maps, REGION_SIDE // 2)
    # The root of 0 has an infinite gradient: where all surroundings are 0, training and CAMs would meet numbers that
    # are not finite.
    surroundings = F.avg_pool2d(padded.pow(REGION_P), REGION_SIDE, stride=1).clamp(min=1e-20).pow(1 / REGION_P)
    return (maps + surroundings) / 2


def _padded(maps: torch.Tensor, reach: int) -> torch.Tensor:
    """(B, C, h, w) -> (B, C, h + 2 reach, w + 2 reach): reflected, or replicated where a map of 1 or 2 places has
    nothing to reflect."""
    if not ops.takes_standard:
        mode = "reflect" if min(maps.shape[-2:]) > reach else "replicate"
        return F.pad(maps, [reach] * 4, mode=mode)
    lasts = [torch.full((1,), side - 1, device=maps.device) for side in maps.shape[-2:]]
    reflects = torch.minimum(*lasts) >= reach
    for axis, last in zip((2, 3), lasts, strict=True):
        places = torch.arange(-reach, maps.shape[axis] + reach, device=maps.device)
        replicated = torch.minimum(places.clamp(min=0), last)
        reflected = last - (last - places.abs()).abs()
        maps = maps.index_select(axis, torch.where(reflects, reflected, replicated))
    return maps


class SuperGlobalModel(BackboneModel):
    """ResNet with ReLUP -> regional GeM -> GeM+ -> L2 -> layer -> (B, descriptor_dim)."""

    settings_type = SuperGlobalSettings
    settings: SuperGlobalSettings
    switches = ("gem_plus", "p_plus", "relup", "regional_gem", "scale_gem")

    def __init__(self, name: str, settings: SuperGlobalSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        network = require_resnet(backbone.network, backbone.name, name)
        if settings.relup:
            put_relup(network, settings.relup)
        self.preprocessing = replace(backbone.preprocessing, scaling="antialias", box_edges="truncated")
        self.descriptor_dim = settings.descriptor_dim
        self.pooling = GeM(settings.p, learnable=True)
        self.head = nn.Linear(backbone.n_channels, settings.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        maps = regional_gem(feature_map.float()) if self.settings.regional_gem else feature_map
        if self.settings.gem_plus:
            pooled = power_mean(maps.float().clamp(min=1e-8), self.settings.p_plus)
        else:
            pooled = self.pooling(maps)
        return self.head(F.normalize(pooled, dim=1))

    def join_scales(self, descriptors: torch.Tensor) -> torch.Tensor:
        return descriptors.amax(dim=0) if self.settings.scale_gem else super().join_scales(descriptors)


def cvnet_name(name: str) -> str | None:
    """CVNet as SuperGlobal uses it: encoder_q is the network; the rest (momentum encoder, re-ranking, unused layers) is
    not part of it."""
    if not name.startswith("encoder_q."):
        return None
    inner = name.removeprefix("encoder_q.")
    if inner.startswith(("seb1.", "seb2.", "sefc.")):
        return None  # layers of the authors' class that its forward pass never uses
    if inner == "head.pool.p":
        return "pooling.p"
    if inner.startswith("head.fc."):
        return f"head.{inner.removeprefix('head.fc.')}"
    return resnet_name(inner) or name


PUBLISHED = CheckpointLayout(
    {6: ("superglobal", {"backbone": "resnet50"}), 23: ("superglobal", {"backbone": "resnet101"})},
    cvnet_name,
    bgr=True,
    scales="3",
)
