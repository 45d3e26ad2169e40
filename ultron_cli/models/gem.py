"""The GeM baseline: any backbone, generalised-mean pooling, an optional whitening layer (Radenovic et al., TPAMI 2019)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import one_of, within
from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import check_attention, put_attention
from ultron_cli.models.backbones import Backbone
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.pooling import POOLINGS, GeM, GGeM


@dataclass(frozen=True, kw_only=True)
class GemSettings:
    """Settings of the `gem` model. descriptor_dim: None keeps the backbone's channels; a number adds a whitening layer.

    groups: of `ggem`; None takes as many as the backbone's attention has heads. attention: one of attentions.py, put into the stages
    attention_stages (of 1 to 4) of a ResNet, attention_at "block" or "stage"; None for these means as its paper has it. genotype: of `hoga`,
    as hoga_genotype.py writes it; None is the published one.
    """

    backbone: str = "resnet50"
    pooling: str = "gem"
    p: float = 3.0
    p_learnable: bool = False
    descriptor_dim: int | None = None
    groups: int | None = None
    attention: str | None = None
    attention_stages: tuple[int, ...] | None = None
    attention_at: str | None = None
    genotype: str | None = None

    def __post_init__(self) -> None:
        one_of("pooling", self.pooling, list(POOLINGS))
        within("p", self.p, 0.1, 100.0)
        if self.descriptor_dim is not None:
            within("descriptor_dim", self.descriptor_dim, 1, 65536)
        check_attention(self)


def make_pooling(settings: GemSettings, backbone: Backbone) -> nn.Module:
    """The pooling that settings name. Raises UltronError if `ggem` has no number of groups that fits the backbone."""
    if settings.pooling == "gem":
        return GeM(settings.p, settings.p_learnable)
    if settings.pooling != "ggem":
        return POOLINGS[settings.pooling]()
    groups = settings.groups or n_heads(backbone)
    if groups is None or backbone.n_channels % groups:
        found = "has no attention heads to tell it" if groups is None else f"{groups} do not divide its {backbone.n_channels} channels"
        raise UltronError(f"ggem needs a number of groups and {backbone.name} {found}; give one with --set model.groups=N")
    return GGeM(backbone.n_channels, groups, settings.p)


def n_heads(backbone: Backbone) -> int | None:
    """Heads of the last attention layer of a ViT or Swin; None for other backbones."""
    heads = [module.num_heads for module in backbone.network.modules() if isinstance(getattr(module, "num_heads", None), int)]
    return heads[-1] if heads else None


class GemModel(RetrievalModel):
    """backbone -> pooling -> L2 -> (whitening layer) -> L2. Descriptors are (B, C), or (B, descriptor_dim) with whitening."""

    name = "gem"

    def __init__(self, settings: GemSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        put_attention(backbone, settings)
        self.preprocessing, self.min_side_px = backbone.preprocessing, backbone.min_side_px
        self.pooling = make_pooling(settings, backbone)
        self.descriptor_dim = settings.descriptor_dim or backbone.n_channels
        self.whitening = nn.Linear(backbone.n_channels, settings.descriptor_dim) if settings.descriptor_dim else None

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        pooled = self.pooling(feature_map)
        return pooled if self.whitening is None else self.whitening(F.normalize(pooled, dim=1))

    @property
    def label(self) -> str:
        """gem-resnet50, or gem-resnet50-cbam with an attention."""
        return super().label + (f"-{self.settings.attention}" if self.settings.attention else "")
