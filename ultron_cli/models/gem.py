"""The GeM baseline: any backbone, generalised-mean or another pooling, an optional whitening layer (Radenovic et al.,
TPAMI 2019)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import one_of, within
from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import check_attention, put_attention
from ultron_cli.models.backbones import Backbone
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.parts.attention_pooling import SimPool
from ultron_cli.models.parts.pooling import Average, GeM, GGeM, Maximum


@dataclass(frozen=True, kw_only=True)
class GemSettings:
    """Settings of the `gem` model. descriptor_dim: None keeps the backbone's channels; a number adds a whitening layer.

    pooling: cls is the class token of a ViT; the others are of the patch map. groups: of `ggem`; None takes as many as
    the backbone's attention has heads. gamma: of `simpool`; None is the published 1.25 for transformers and 2 for
    others, 0 the published form without a power. pooling_shift: of `simpool`; None is "left", as published; with
    "undone" training starts sooner, see AttentionPooling. scale_gem: descriptors of several scales are joined by GeM
    with the pooling's exponent instead of by their mean, as cirtorch tests networks without a whitening layer.
    attention: one of attentions.py, put into the stages attention_stages (of 1 to 4) of a ResNet, attention_at "block"
    or "stage"; None for these means as its paper has it. genotype: of `hoga`, as attentions/genotype.py writes it; None
    is the published one.
    """

    backbone: str = "resnet50"
    pooling: str = "gem"
    p: float = 3.0
    p_learnable: bool = False
    descriptor_dim: int | None = None
    groups: int | None = None
    gamma: float | None = None
    pooling_shift: Literal["undone", "left"] | None = None
    scale_gem: bool = False
    attention: str | None = None
    attention_stages: tuple[int, ...] | None = None
    attention_at: str | None = None
    genotype: str | None = None

    def __post_init__(self) -> None:
        one_of("pooling", self.pooling, list(POOLINGS))
        within("p", self.p, 0.1, 100.0)
        if self.gamma is not None:
            within("gamma", self.gamma, 0.0, 100.0)
        for name, value in (("gamma", self.gamma), ("pooling_shift", self.pooling_shift)):
            if value is not None and self.pooling != "simpool":
                raise UltronError(
                    f"{name} belongs to pooling simpool, found pooling {self.pooling}; add --set "
                    "model.pooling=simpool, or leave it out"
                )
        if self.descriptor_dim is not None:
            within("descriptor_dim", self.descriptor_dim, 1, 65536)
        if self.scale_gem and (self.pooling != "gem" or self.descriptor_dim is not None):
            found = (
                f"pooling {self.pooling}"
                if self.pooling != "gem"
                else f"descriptor_dim {self.descriptor_dim}, a whitening layer,"
            )
            raise UltronError(
                "scale_gem needs pooling gem and no whitening layer, whose descriptors may be negative; found "
                f"{found}; leave scale_gem out"
            )
        check_attention(self)


class ClassToken(nn.Module):
    """The class token as it is. (B, C) -> (B, C) float32 (float64 stays)."""

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        return token if token.dtype == torch.float64 else token.float()


def _ggem(settings: GemSettings, backbone: Backbone) -> nn.Module:
    groups = settings.groups or n_heads(backbone)
    if groups is None or backbone.n_channels % groups:
        found = (
            "has no attention heads to tell it"
            if groups is None
            else f"{groups} do not divide its {backbone.n_channels} channels"
        )
        raise UltronError(
            f"ggem needs a number of groups and {backbone.name} {found}; give one with --set model.groups=N"
        )
    return GGeM(backbone.n_channels, groups, settings.p)


def _class_token(settings: GemSettings, backbone: Backbone) -> nn.Module:
    if not backbone.has_class_token:
        raise UltronError(
            f"pooling cls takes the class token of a ViT and {backbone.name} has none; choose another --set "
            "model.pooling or backbone"
        )
    return ClassToken()


def _simpool(settings: GemSettings, backbone: Backbone) -> nn.Module:
    gamma = settings.gamma
    if gamma is None:
        gamma = 2.0 if n_heads(backbone) is None else 1.25
    return SimPool(backbone.n_channels, gamma=gamma, shift=settings.pooling_shift or "left")


def n_heads(backbone: Backbone) -> int | None:
    """Heads of the last attention layer of a ViT or Swin; None for other backbones."""
    heads = [
        module.num_heads for module in backbone.network.modules() if isinstance(getattr(module, "num_heads", None), int)
    ]
    return heads[-1] if heads else None


class GemModel(RetrievalModel):
    """backbone -> pooling -> L2 -> (whitening layer) -> L2. Descriptors are (B, C), or (B, descriptor_dim) with
    whitening."""

    name = "gem"
    switches = ("scale_gem",)

    def __init__(self, settings: GemSettings, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        put_attention(backbone, settings)
        self.preprocessing, self.min_side_px = backbone.preprocessing, backbone.min_side_px
        self.pooling = POOLINGS[settings.pooling](settings, backbone)
        if settings.pooling == "cls":
            # what the last block's attention gathers into the class token
            self.cam_layer = f"blocks.{max(0, len(backbone.network.blocks) - 2)}"
        self.descriptor_dim = settings.descriptor_dim or backbone.n_channels
        self.whitening = nn.Linear(backbone.n_channels, settings.descriptor_dim) if settings.descriptor_dim else None

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "cls":
            raise ValueError("a class token is not pooled from the map; use describe(images)")
        return self._whitened(self.pooling(feature_map))

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "cls":
            return self._whitened(self.pooling(self.backbone.class_token(images)))
        return super().describe(images)

    def _whitened(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled if self.whitening is None else self.whitening(F.normalize(pooled, dim=1))

    def join_scales(self, descriptors: torch.Tensor) -> torch.Tensor:
        if not self.settings.scale_gem:
            return super().join_scales(descriptors)
        return descriptors.pow(self.pooling.p).mean(dim=0).pow(1 / self.pooling.p)

    @property
    def label(self) -> str:
        """gem-resnet50, or gem-resnet50-cbam with an attention."""
        return super().label + (f"-{self.settings.attention}" if self.settings.attention else "")


POOLINGS: dict[str, Callable[[GemSettings, Backbone], nn.Module]] = {
    "gem": lambda settings, backbone: GeM(settings.p, settings.p_learnable),
    "avg": lambda settings, backbone: Average(),
    "max": lambda settings, backbone: Maximum(),
    "ggem": _ggem,
    "cls": _class_token,
    "simpool": _simpool,
}
