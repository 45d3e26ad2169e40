"""SENet: a ResNet whose last map is joined with how each place resembles the places around it (Lee et al., CVPR 2023).

Checked against the authors' code (github.com/sungonce/SENet): self-similarity of the channels within a window, encoded
by convolutions over the window alone, added to the map; two layers; GeM with p = 3; a layer. Not to be taken for
squeeze-and-excitation, which has the same name.
"""

import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import require_resnet
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts.pooling import GeM
from ultron_cli.models.weights.importers import State
from ultron_cli.models.weights.pycls import CheckpointLayout, renamed, resnet_name


@dataclass(frozen=True, kw_only=True)
class SenetSettings:
    """Settings of `senet-r50` and `senet-r101`. The defaults are the authors' published configuration."""

    backbone: str = "resnet50"
    descriptor_dim: int = 2048
    similarity_dim: int = 256  # channels that are compared
    window: int = 7  # side of the surroundings that a place is compared with, odd
    kernel: int = (
        3  # of the convolutions over the window; there are as many as leave one place of it with a kernel of 3
    )
    p: float = 3.0  # exponent of GeM

    def __post_init__(self) -> None:
        within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        within("model.similarity_dim", self.similarity_dim, 1, 65536)
        within("model.window", self.window, 3, 31)
        within("model.kernel", self.kernel, 1, 3)
        within("model.p", self.p, 0.1, 100.0)
        if self.window % 2 == 0:
            raise UltronError(f"window is the odd side of a place's surroundings; found {self.window}")


class SelfSimilarity(nn.Module):
    """(B, C, h, w) -> the same shape: the map plus its encoded self-similarity, through two 1x1 layers."""

    def __init__(self, n_channels: int, settings: SenetSettings) -> None:
        super().__init__()
        width = settings.similarity_dim
        self.window = settings.window
        self.reduce = nn.Conv2d(n_channels, width, 1, bias=False)
        steps: list[nn.Module] = []
        for _ in range(settings.window // 2):
            steps += [nn.Conv2d(width, width, settings.kernel), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.encode = nn.Sequential(*steps)
        self.widen = nn.Sequential(nn.Conv2d(width, n_channels, 1), nn.BatchNorm2d(n_channels))
        self.join = nn.Sequential(
            nn.Conv2d(n_channels, n_channels, 1), nn.ReLU(inplace=True), nn.Conv2d(n_channels, n_channels, 1)
        )

    def similarity(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B h w, c, window, window): per channel the product of a place's unit vector with the unit
        vectors around it, not below 0.

        Beyond the map's edge the product is 0.
        """
        unit = F.normalize(self.reduce(maps), dim=1)
        n, channels, height, width = unit.shape
        side = self.window
        around = F.unfold(unit, side, padding=side // 2).view(n, channels, side, side, height, width)
        product = (around * unit[:, :, None, None]).clamp(min=0)
        return product.permute(0, 4, 5, 1, 2, 3).reshape(-1, channels, side, side)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        encoded = self.encode(self.similarity(maps)).mean(dim=(-2, -1))
        encoded = encoded.view(maps.shape[0], *maps.shape[-2:], -1).permute(0, 3, 1, 2)
        return self.join(maps + self.widen(encoded))


class SenetModel(BackboneModel):
    """ResNet -> self-similarity -> GeM -> layer -> (B, descriptor_dim)."""

    settings_type = SenetSettings
    settings: SenetSettings

    def __init__(self, name: str, settings: SenetSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        require_resnet(backbone.network, backbone.name, name)
        self.preprocessing = replace(backbone.preprocessing, scaling="area", box_edges="truncated")
        self.descriptor_dim = settings.descriptor_dim
        self.similarity = SelfSimilarity(backbone.n_channels, settings)
        self.pooling = GeM(settings.p)
        self.head = nn.Linear(backbone.n_channels, settings.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.similarity(self.backbone(images))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.head(self.pooling(feature_map))


def senet_name(name: str) -> str | None:
    """SENet (github.com/sungonce/SENet): a ResNet, SSM, head.fc."""
    encoding = re.fullmatch(r"SSM\.SSE\.conv_in\.(\d+)\.([01])\.(.+)", name)
    if encoding:  # blocks of convolution, norm and ReLU; ours stand in one row
        return f"similarity.encode.{3 * int(encoding[1]) + int(encoding[2])}.{encoding[3]}"
    return resnet_name(name) or renamed(
        name,
        {
            "SSM.ch_reduction_encoder.": "similarity.reduce.",
            "SSM.SSE.conv1x1_out.": "similarity.widen.",
            "SSM.FFN.": "similarity.join.",
            "head.fc.": "head.",
        },
    )


def _senet_settings(state: State) -> dict[str, object]:
    blocks = [tensor for key, tensor in state.items() if re.fullmatch(r"SSM\.SSE\.conv_in\.\d+\.0\.weight", key)]
    if not blocks:
        return {}
    return {"similarity_dim": blocks[0].shape[0], "window": 2 * len(blocks) + 1, "kernel": blocks[0].shape[-1]}


PUBLISHED = CheckpointLayout(
    {6: ("senet-r50", {}), 23: ("senet-r101", {})}, senet_name, bgr=True, scales="3", settings=_senet_settings
)
