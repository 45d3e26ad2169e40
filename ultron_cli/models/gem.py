"""The GeM baseline: any backbone, generalised-mean or another pooling, an optional whitening layer (Radenovic et al.,
TPAMI 2019)."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.models.attentions import check_attention
from ultron_cli.models.attentions.placing import put_attention
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import ViTAttention
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts import check_pooling, make_pooling
from ultron_cli.models.parts.pooling import GeM, pooled_dim, power_mean
from ultron_cli.user_code import is_import_path


@dataclass(frozen=True, kw_only=True)
class GemSettings:
    """Settings of the `gem` model."""

    backbone: str = "resnet50"
    # One of POOLINGS, or the import path of another (my.py:Mixed); cls is the class token of a ViT, the others are of
    # the patch map.
    pooling: str = "gem"
    pooling_settings: dict[str, object] | None = None  # of poolings that are made of settings of their own
    p: float = 3.0
    p_learnable: bool = False
    descriptor_dim: int | None = None  # None keeps the backbone's channels; a number adds a whitening layer
    groups: int | None = None  # of `ggem`; None takes as many as the backbone's attention has heads
    # Of `simpool`; None is the published 1.25 for transformers and 2 for others, 0 the published form without a power.
    gamma: float | None = None
    # Of `simpool`; None is "left", as published; with "undone" training starts sooner, see AttentionPooling.
    pooling_shift: Literal["undone", "left"] | None = None
    beta: bool = False  # of `simpool`: a learnable number added to the result, as its code offers (use_beta)
    # Descriptors of several scales are joined by GeM with the pooling's exponent instead of by their mean, as cirtorch
    # tests networks without a whitening layer.
    scale_gem: bool = False
    attention: str | None = None  # one of ATTENTIONS or the import path of another, put into stages of a ResNet
    attention_settings: dict[str, object] | None = None  # of an attention by import path
    # Which stages, of 1 to 4, and "block" or "stage"; None for these is where the attention's paper has it.
    attention_stages: tuple[int, ...] | None = None
    attention_at: str | None = None
    genotype: str | None = None  # of `hoga`, as attentions/genotype.py writes it; None is the published one

    def __post_init__(self) -> None:
        check_pooling(self)
        within("model.p", self.p, 0.1, 100.0)
        if self.groups is not None:
            within("model.groups", self.groups, 1, 65536)
        if self.gamma is not None:
            within("model.gamma", self.gamma, 0.0, 100.0)
        if self.beta and self.gamma == 0.0:
            raise UltronError("beta is added after the power mean, which gamma 0 leaves out; leave one of them out")
        for name, value in (("gamma", self.gamma), ("pooling_shift", self.pooling_shift), ("beta", self.beta or None)):
            if value is not None and self.pooling != "simpool":
                raise UltronError(
                    f"{name} belongs to pooling simpool, found pooling {self.pooling}; add "
                    "`model.pooling=simpool`, or leave it out"
                )
        if self.descriptor_dim is not None:
            within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        if self.scale_gem and (self.pooling != "gem" or self.descriptor_dim is not None):
            obstacle = (
                f"pooling {self.pooling}"
                if self.pooling != "gem"
                else f"descriptor_dim {self.descriptor_dim}, a whitening layer,"
            )
            raise UltronError(
                "scale_gem needs pooling gem and no whitening layer, whose descriptors may be negative; found "
                f"{obstacle}; leave scale_gem out"
            )
        check_attention(self)


class GemModel(BackboneModel):
    """backbone -> pooling -> L2 -> (whitening layer) -> L2. Descriptors are as the pooling gives them, (B, C) of most,
    or (B, descriptor_dim) with whitening."""

    settings_type = GemSettings
    settings: GemSettings
    switches = ("scale_gem",)
    attention_poolings = ("simpool", "cls")

    def __init__(self, name: str, settings: GemSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        put_attention(backbone, settings)
        self.pooling = make_pooling(settings, backbone)
        if settings.pooling == "cls":
            # what the last block's attention gathers into the class token
            self.cam_layer = f"blocks.{max(0, len(self._blocks()) - 2)}"
        n_pooled = pooled_dim(self.pooling, backbone.n_channels)
        self.descriptor_dim = settings.descriptor_dim or n_pooled
        self.whitening = nn.Linear(n_pooled, settings.descriptor_dim) if settings.descriptor_dim else None

    def _blocks(self) -> nn.Sequential:
        """Those of a ViT."""
        return cast(nn.Sequential, self.backbone.network.blocks)

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
        exponent = cast(GeM, self.pooling).p  # scale_gem goes with pooling gem only
        return power_mean(descriptors, exponent, dims=(0,))

    @property
    def label(self) -> str:
        """gem-resnet50, or gem-resnet50-cbam with an attention; with the name of a user's pooling or attention."""
        pooling = self.settings.pooling if is_import_path(self.settings.pooling) else None
        parts = [text.rpartition(":")[2] for text in (pooling, self.settings.attention) if text]
        return "-".join((super().label, *parts))

    @torch.no_grad()
    def pooling_attention(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """As RetrievalModel has it. Of a class token: what it takes from each patch in the last block, the mean over
        heads (as DINO's maps, Caron et al., ICCV 2021); the rest of 1 goes to itself and to register tokens."""
        if self.settings.pooling != "cls":
            return super().pooling_attention(images)
        layer = cast(ViTAttention, self._blocks()[-1].get_submodule("attn"))
        if not hasattr(layer, "attn_drop") or not hasattr(layer, "fused_attn"):
            raise UltronError(
                f"the attention of {self.backbone.name} is not kept in a form that can be shown; take another `method`"
            )
        attentions: list[torch.Tensor] = []

        def record(_: nn.Module, __: object, output: torch.Tensor) -> None:
            attentions.append(output)

        handle = layer.attn_drop.register_forward_hook(record)
        was_fused = layer.fused_attn
        layer.fused_attn = False  # the fused operator never has the weights in memory
        try:
            descriptor = F.normalize(self.describe(images), dim=1)[0]
        finally:
            layer.fused_attn = was_fused
            handle.remove()
        weights = attentions[-1][0, :, 0, self.backbone.n_prefix_tokens :].mean(dim=0)
        height, width = images.shape[-2:]
        return weights.unflatten(0, self.backbone.grid((height, width), len(weights))), descriptor
