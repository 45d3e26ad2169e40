"""DALG: a Swin with a local branch of window and spatial attention, fused with the global vector by cross-attention
(Song et al., 2022).

The paper's text fixes the parts and their order. It leaves open their widths, the heads and what the queries are; this
is our choice: stage 3 (stride 16) feeds the local branch and stage 4 (stride 32) the global vector, which is the query;
the places of both maps are the keys and values.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import one_of, within
from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import SwinNetwork, n_channels_of_stages, require_swin
from ultron_cli.models.core import BackboneModel
from ultron_cli.models.parts.layers import mlp
from ultron_cli.models.parts.pooling import GeM


@dataclass(frozen=True, kw_only=True)
class DalgSettings:
    """Settings of `dalg`."""

    backbone: str = "swin_small_patch4_window7_224"
    descriptor_dim: int = 512
    dim: int = 512  # channels of the local branch, the fusion and the global vector
    n_heads: int = 8  # divides dim
    window: int = 7  # k, places along a side of a window
    local_blocks: int = 2  # window attention blocks, of which every second has its windows shifted by half of one
    fusion_blocks: int = 1  # cross-attentions, one after the other
    mlp_ratio: float = 4.0
    p: float = 3.0  # exponent of the global branch's GeM at first; learnable
    global_pooling: Literal["gem", "avg"] = "gem"
    spatial_attention: bool = True  # False for ablation
    fusion: Literal["cross", "concat"] = "cross"  # "concat", for ablation, puts the local map's mean beside the vector

    def __post_init__(self) -> None:
        one_of("model.global_pooling", self.global_pooling, ["gem", "avg"])
        one_of("model.fusion", self.fusion, ["cross", "concat"])
        within("model.p", self.p, 0.1, 100.0)
        within("model.mlp_ratio", self.mlp_ratio, 0.25, 16.0)
        for name, low, high in (
            ("descriptor_dim", 1, 65536),
            ("dim", 1, 65536),
            ("n_heads", 1, 256),
            ("window", 1, 32),
            ("fusion_blocks", 1, 16),
        ):
            within(f"model.{name}", getattr(self, name), low, high)
        within("model.local_blocks", self.local_blocks, 0, 16)
        if self.dim % self.n_heads:
            raise UltronError(f"dim must be a multiple of n_heads; found {self.dim} and {self.n_heads}")


def windows_of(maps: torch.Tensor, window: int) -> torch.Tensor:
    """(B, H, W, ...), H and W multiples of k -> (B * windows, k * k, ...), windows row by row."""
    batch, height, width, *rest = maps.shape
    cut = maps.view(batch, height // window, window, width // window, window, *rest)
    return cut.transpose(2, 3).reshape(-1, window * window, *rest)


def from_windows(cut: torch.Tensor, window: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """The inverse of windows_of. shape: (B, H, W)."""
    batch, height, width = shape
    return (
        cut.view(batch, height // window, width // window, window, window, -1)
        .transpose(2, 3)
        .reshape(batch, height, width, -1)
    )


class WindowAttention(nn.Module):
    """Multi-head attention inside k x k windows with relative position bias, as in Swin (Liu et al., ICCV 2021). (B, H,
    W, C) -> the same shape.

    shift: places by which the windows are moved up and left. Windows that reach over the map's edge attend to the
    places on it alone, so any size passes; instead of Swin's cyclic shift the map is padded, which needs no special
    case for regions that wrap.
    """

    def __init__(self, n_channels: int, n_heads: int, window: int, shift: int = 0) -> None:
        super().__init__()
        self.n_heads, self.window, self.shift = n_heads, window, shift
        self.query_key_value = nn.Linear(n_channels, 3 * n_channels)
        self.position_bias = nn.Parameter(torch.empty(n_heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.projection = nn.Linear(n_channels, n_channels)
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
        self.offsets: torch.Tensor  # (k*k, k*k, 2), from 0 to 2k - 2
        self.register_buffer("offsets", places[:, None] - places[None] + window - 1, persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = features.shape
        window, shift = self.window, self.shift
        # Counted windows instead of remainders, of which a tracer would make one expression per layer.
        n_down, n_right = ((side + shift + window - 1) // window for side in (height, width))
        below, right = n_down * window - shift - height, n_right * window - shift - width
        margins = (shift, right, shift, below)
        padded = F.pad(features, (0, 0, *margins))
        shape = (batch, padded.shape[1], padded.shape[2])
        cut = windows_of(self.query_key_value(padded), window).unflatten(
            -1, (3, self.n_heads, channels // self.n_heads)
        )
        query, key, value = cut.permute(2, 0, 3, 1, 4)  # each (B * windows, h, k*k, d)
        bias = self.position_bias[:, self.offsets[..., 0], self.offsets[..., 1]].to(query.dtype)
        if any(margins):
            on_map = F.pad(features.new_ones(1, height, width), margins)
            # (windows, k*k); no window lies outside as a whole, as each margin is below k.
            outside = windows_of(on_map, window) == 0
            bias = bias.masked_fill(outside[:, None, None], float("-inf")).repeat(batch, 1, 1, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined = from_windows(attended.transpose(1, 2).flatten(2), window, shape)
        return self.projection(joined[:, shift : shift + height, shift : shift + width])


class WindowBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)). (B, H, W, C) -> the same shape."""

    def __init__(self, attention: WindowAttention, n_channels: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(n_channels), nn.LayerNorm(n_channels)
        self.attention = attention
        self.mlp = mlp(n_channels, mlp_ratio)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = features + self.attention(self.attention_norm(features))
        return features + self.mlp(self.mlp_norm(features))


class WindowBranch(nn.Module):
    """Window attention on the places of stage 3, then normalised vectors times a score per place.

    (B, H, W, C3) -> (B, H, W, dim). The spatial attention is DOLG's, softplus of a linear score of ReLU(x), on
    layer-normed instead of unit vectors: in the fusion they stand beside the layer-normed places of stage 4.
    """

    def __init__(self, n_channels: int, settings: DalgSettings) -> None:
        super().__init__()
        self.reduce = nn.Linear(n_channels, settings.dim)
        shifts = [settings.window // 2 if i % 2 else 0 for i in range(settings.local_blocks)]
        self.blocks = nn.Sequential(
            *(
                WindowBlock(
                    WindowAttention(settings.dim, settings.n_heads, settings.window, shift),
                    settings.dim,
                    settings.mlp_ratio,
                )
                for shift in shifts
            )
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.score = nn.Linear(settings.dim, 1) if settings.spatial_attention else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self._attended(features)
        return features if self.score is None else F.softplus(self.score(F.relu(features))) * features

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) -> (B, h, w) scores, or the norm of local vectors where there are none."""
        features = self._attended(features)
        return features.norm(dim=-1) if self.score is None else F.softplus(self.score(F.relu(features)))[..., 0]

    def _attended(self, features: torch.Tensor) -> torch.Tensor:
        return self.norm(self.blocks(self.reduce(features)))


class CrossAttention(nn.Module):
    """The global vector attends to the places: g + attention(LayerNorm(g), places), then g + MLP(LayerNorm(g)).

    g: (B, C), places: (B, P, C) -> (B, C). The places come normalised; another norm here would undo the scores of the
    spatial attention.
    """

    def __init__(self, settings: DalgSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.n_heads = settings.n_heads
        self.query_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.projection = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = mlp(dim, settings.mlp_ratio)

    def forward(self, whole: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        query = self.query(self.query_norm(whole)).unflatten(1, (self.n_heads, 1, -1))
        key, value = self.key_value(places).unflatten(2, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).flatten(1)
        whole = whole + self.projection(attended)
        return whole + self.mlp(self.mlp_norm(whole))


class DalgModel(BackboneModel):
    """Swin -> local branch on stage 3, GeM and a layer on stage 4 -> cross-attention -> (B, descriptor_dim)."""

    settings_type = DalgSettings
    settings: DalgSettings
    recommended_scales: tuple[float, ...] = (1.0,)  # that one scale is enough is the paper's point

    def __init__(self, name: str, settings: DalgSettings, backbone: Backbone) -> None:
        super().__init__(name, settings, backbone)
        network = require_swin(backbone.network, backbone.name, name)
        self.descriptor_dim = settings.descriptor_dim
        n_stage_3, n_stage_4 = n_channels_of_stages(network)
        self.local_branch = WindowBranch(n_stage_3, settings)
        self.global_pooling = GeM(settings.p, learnable=True) if settings.global_pooling == "gem" else None
        self.global_layer = nn.Linear(n_stage_4, settings.dim)
        crossing = settings.fusion == "cross"
        self.deep_layer = (
            nn.Sequential(nn.Linear(n_stage_4, settings.dim), nn.LayerNorm(settings.dim)) if crossing else None
        )
        self.fusion = nn.ModuleList(CrossAttention(settings) for _ in range(settings.fusion_blocks if crossing else 0))
        self.head = nn.Linear(settings.dim if crossing else 2 * settings.dim, settings.descriptor_dim)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the map of stage 3 (B, C3, H/16, W/16), from which `pool` makes all the rest."""
        network = self._swin()
        return network.layers[:3](network.patch_embed(images)).permute(0, 3, 1, 2)

    def place_weights(self, feature_map: torch.Tensor) -> torch.Tensor:
        """The scores of the local branch."""
        return self.local_branch.weights(feature_map.permute(0, 2, 3, 1))

    def _swin(self) -> SwinNetwork:
        return cast(SwinNetwork, self.backbone.network)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        stage_3 = feature_map.permute(0, 2, 3, 1)
        network = self._swin()
        stage_4 = network.norm(network.layers[3](stage_3))
        deep = stage_4.permute(0, 3, 1, 2)
        pooled = deep.mean(dim=(-2, -1)) if self.global_pooling is None else self.global_pooling(deep)
        whole = self.global_layer(pooled)
        local = self.local_branch(stage_3)
        if self.deep_layer is None:
            return self.head(torch.cat([whole, local.mean(dim=(1, 2))], dim=1))
        places = torch.cat([local.flatten(1, 2), self.deep_layer(stage_4).flatten(1, 2)], dim=1)
        for block in self.fusion:
            whole = block(whole, places)
        return self.head(whole)
