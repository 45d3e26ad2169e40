"""SCALA, spatial context-aware local attention (ULTRON, Kweon & Park, ACCV 2024, Algorithm 2), and the block around it.

Maps are (B, H, W, C) here, as the linear layers and the operator take them. Legend: B batch, C channels, H W map size,
h heads, d channels per head, k window.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn
from ultron_kernels import scala_attention

from ultron_cli.models.parts.depthwise import depthwise
from ultron_cli.models.parts.layers import DropPath, mlp

REGIONS = (1, 2, 3)  # dilations of the context kernel: regions of 3x3, 5x5 and 7x7 (Algorithm 2)


class MultiscaleContext(nn.Module):
    """MCK, multiscale context kernel: Proj1x1(concat(X, DC(X, 1), DC(X, 2), DC(X, 3))), DC(., d) a depthwise 3x3
    convolution of dilation d.

    (B, H, W, C) -> the same shape. bias: of the convolutions, as a third party quotes the paper's equation; the
    projection's own bias can take its place, so that it changes what is learnt how soon, not what can be.
    """

    def __init__(self, n_channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_channels, n_channels, 3, padding=d, dilation=d, groups=n_channels, bias=bias) for d in REGIONS
        )
        self.projection = nn.Linear((1 + len(REGIONS)) * n_channels, n_channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        channels_second = features.contiguous().permute(0, 3, 1, 2)  # channels_last in memory: no copy
        regions = []
        for d, module in zip(REGIONS, self.convolutions, strict=True):
            convolution = cast(nn.Conv2d, module)
            region = depthwise(channels_second, convolution.weight, d).permute(0, 2, 3, 1)
            regions.append(region if convolution.bias is None else region + convolution.bias.to(region.dtype))
        return self.projection(torch.cat([features, *regions], dim=-1))


class ScalaAttention(nn.Module):
    """Neighbourhood attention with relative position bias whose key or query carries multiscale context.

    (B, H, W, C) -> the same shape. mck_on: what MCK enhances after its linear projection: "key" as the paper's text
    says, "query" as its pseudo-code has it, "none" for plain neighbourhood attention (Hassani et al., CVPR 2023; the NA
    of Fig. 1). mck_bias: of MCK's convolutions. window: k, odd, 3..13. attention_dropout, projection_dropout: 0 <= p <
    1, of attention weights and of the output, in training.
    """

    def __init__(
        self,
        n_channels: int,
        n_heads: int,
        *,
        window: int = 7,
        mck_on: Literal["key", "query", "none"] = "key",
        mck_bias: bool = False,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.window = window
        self.mck_on = mck_on
        self.attention_dropout = attention_dropout
        self.projection_dropout = projection_dropout
        self.query_key_value = nn.Linear(n_channels, 3 * n_channels)
        self.context = MultiscaleContext(n_channels, bias=mck_bias) if mck_on != "none" else None
        self.position_bias = nn.Parameter(torch.empty(n_heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.projection = nn.Linear(n_channels, n_channels)

    def heads(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value (B, H, W, h, d), context added, as the operator takes them."""
        # One product for all three; the operator reads strided maps.
        query, key, value = self.query_key_value(features).chunk(3, dim=-1)
        if self.context is not None and self.mck_on == "query":
            query = self.context(query)
        elif self.context is not None:
            key = self.context(key)
        per_head = (self.n_heads, features.shape[-1] // self.n_heads)
        return query.unflatten(-1, per_head), key.unflatten(-1, per_head), value.unflatten(-1, per_head)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = features.shape
        query, key, value = self.heads(features)
        dropout_p = self.attention_dropout if self.training else 0.0
        attended = scala_attention(query, key, value, self.position_bias, kernel_size=self.window, dropout_p=dropout_p)
        return F.dropout(
            self.projection(attended.reshape(batch, height, width, channels)), self.projection_dropout, self.training
        )


class ScalaBlock(nn.Module):
    """Pre-norm block (Algorithm 2): x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)). (B, H, W, C) -> the same
    shape.

    mlp_ratio: hidden channels of the MLP per channel. drop_path: share of photos that skip each branch in training.
    """

    def __init__(
        self, n_channels: int, attention: ScalaAttention, mlp_ratio: float = 3.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(n_channels), nn.LayerNorm(n_channels)
        self.attention = attention
        self.mlp = mlp(n_channels, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = features + self.drop_path(self.attention(self.attention_norm(features)))
        return features + self.drop_path(self.mlp(self.mlp_norm(features)))
