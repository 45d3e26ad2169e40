"""CFCD: GeM, a layer and batch normalisation, trained with MadaCos, then with local features too (Zhu et al., ICCV
2023).

The second stage changes the training only (training/losses/cfcd.py); checked against the authors' code
(github.com/bassyess/CFCD).
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from ultron_cli.configs import within
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts.pooling import GeM
from ultron_cli.models.weights.pycls import CheckpointLayout, renamed, resnet_name


@dataclass(frozen=True, kw_only=True)
class CfcdSettings:
    """Settings of `cfcd-r50` and `cfcd-r101`. The defaults are the authors' published configuration."""

    backbone: str = "resnet50"
    descriptor_dim: int = 512
    p: float = 3.0  # exponent of GeM
    p_learnable: bool = False

    def __post_init__(self) -> None:
        within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        within("model.p", self.p, 0.1, 100.0)


class CfcdModel(BackboneModel):
    """backbone -> GeM -> layer -> batch normalisation -> (B, descriptor_dim)."""

    settings_type = CfcdSettings
    settings: CfcdSettings
    recommended_scales = (0.3535, 0.5, 0.7071, 1.0, 1.4142)  # the authors' five

    def __init__(self, name: str, settings: CfcdSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        self.preprocessing = replace(backbone.preprocessing, scaling="bilinear-rounded", box_edges="truncated")
        self.descriptor_dim = settings.descriptor_dim
        self.pooling = GeM(settings.p, settings.p_learnable)
        self.head = nn.Linear(backbone.n_channels, settings.descriptor_dim)
        self.norm = nn.BatchNorm1d(settings.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.norm(self.head(self.pooling(feature_map)))


def cfcd_name(name: str) -> str | None:
    """CFCD (github.com/bassyess/CFCD), either stage: globalmodel, fc, bn; desc_cls is the classifier."""
    if name.startswith("desc_cls."):
        return None
    if name.startswith("globalmodel."):
        return resnet_name(name.removeprefix("globalmodel.")) or name
    return renamed(name, {"fc.": "head.", "bn.": "norm."})


PUBLISHED = CheckpointLayout({6: ("cfcd-r50", {}), 23: ("cfcd-r101", {})}, cfcd_name, bgr=True, scales="5")
