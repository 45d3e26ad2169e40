"""The ULTRON network (Kweon & Park, ACCV 2024): convolutions first, local attention after, attention pooling last.

Stem to stride 4; stages 1 and 2 of MobileNet blocks with CDConv; stages 3 and 4 of SCALA blocks; strides 4, 8, 16, 32.
Legend: B batch, C channels, H W image size, h w map size, D descriptor dims.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.parts.attention_pooling import AttentionPooling, NormedGeM
from ultron_cli.models.parts.cdconv import CDConv, MobileBlock, PlainDepthwise
from ultron_cli.models.parts.layers import ConvNorm
from ultron_cli.models.parts.scala import ScalaAttention, ScalaBlock

# Stages 3 and 4 attend: they, their entries and all layers in them keep maps as (B, h, w, C).
_CHANNELS_LAST = ("stage3", "stage4", "entries.2", "entries.3", "stages.2", "stages.3")


@dataclass(frozen=True, kw_only=True)
class UltronSettings:
    """Every choice in the network. Defaults are size S; the other sizes stand in models/__init__.py.

    Sources: [P] ULTRON (Kweon & Park, ACCV 2024); [T] a third party's reading of it, unverified; [O] ours, where
    neither says.
    """

    depths: tuple[int, ...] = (3, 5, 9, 5)  # blocks of the four stages [T]
    widths: tuple[int, ...] = (64, 128, 320, 512)  # channels of the four stages [T]
    heads: tuple[int, ...] = (10, 16)  # of stages 3 and 4, 32 channels each [T]
    expansion: int = 6  # of the MobileNet blocks; 6 as in MobileNetV2 [O]
    mlp_ratio: float = 3.0  # of the SCALA blocks; 3 as in NAT-Tiny, the NA of Fig. 1 [O]
    depthwise: Literal["cdconv", "plain"] = "cdconv"  # [P, Algorithm 1], or an ordinary depthwise convolution
    thresholds: tuple[float, ...] = (0.75, 0.50)  # tau1 and tau2 of CDConv [T]
    # Whether the thresholds are values of the importance, as Algorithm 1 is written [P], or quantiles of it.
    threshold: Literal["value", "quantile"] = "value"
    deltas: tuple[int, ...] = (3, 6)  # delta1 and delta2 of CDConv [T]
    # "none" is Algorithm 1 to the letter [P]; "multiply" lets a gradient reach the importance. On rendered landmarks
    # they give the same within the spread of seeds (docs/models.md), so the paper's stands.
    gate: Literal["none", "multiply"] = "none"
    # "scala" [P, Algorithm 2], or "na" for plain neighbourhood attention, the baseline of Fig. 1 [P]; then mck_on has
    # no effect.
    attention: Literal["scala", "na"] = "scala"
    # What the multiscale context enhances: "key" by the paper's text, "query" by its pseudo-code [P], or "none".
    mck_on: Literal["key", "query", "none"] = "key"
    # Of MCK's convolutions; the paper's equation has it as a third party quotes it [T]. See MultiscaleContext.
    mck_bias: bool = False
    window: int = 7  # side of the neighbourhood, odd, 3 to 13; 7 as in NAT [O]
    # Both dropouts are in Algorithm 2 [P]; their values are not in our sources, so 0 [O].
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    drop_path: float = 0.2  # of the last block, rising from 0 at the first; 0.2 as in NAT-Tiny [O]
    pooling: Literal["attention", "gem"] = "attention"  # "attention" [T]
    # Exponent of GeM, for the pooling's query and for pooling="gem"; 3 (Radenovic et al.) and fixed [O]. A third party
    # reads 2, learnable, for the query [T].
    gem_p: float = 3.0
    gem_p_learnable: bool = False
    pooling_exponent: float = 2.0  # of attention pooling's power mean [T]
    # "undone" is the power mean's inverse to the letter [T], "left" SimPool's public code; see AttentionPooling.
    pooling_shift: Literal["undone", "left"] = "undone"
    pooling_beta: bool = (
        False  # a learnable number added to attention pooling's result, which SimPool's code offers [O]
    )
    descriptor_dim: int = 512  # D [T]
    # Stages 1 and 2 stay in float32 under autocast [O]. In bfloat16 up to 1.6 % of the channels change their dilation,
    # and descriptors of random weights differ by 1 - cosine up to 8e-3 instead of 1e-5 (ultron-t); switched off, these
    # stages need half the memory.
    exact_dilations: bool = True
    # Activations are computed anew in the backward pass of training, for memory; changes no number.
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, n_values in (("depths", 4), ("widths", 4), ("heads", 2), ("thresholds", 2), ("deltas", 2)):
            if len(getattr(self, name)) != n_values:
                raise UltronError(f"{name} takes {n_values} values; found {list(getattr(self, name))}")
        for name, low, high in (
            ("depths", 1, 200),
            ("widths", 8, 8192),
            ("heads", 1, 256),
            ("deltas", 1, 64),
            ("thresholds", 0.0, 1.0),
        ):
            for value in getattr(self, name):
                within(f"model.{name}", value, low, high)
        for name, low, high in (
            ("expansion", 1, 16),
            ("mlp_ratio", 0.25, 16.0),
            ("attention_dropout", 0.0, 0.95),
            ("projection_dropout", 0.0, 0.95),
            ("drop_path", 0.0, 0.95),
            ("gem_p", 0.1, 100.0),
            ("pooling_exponent", 0.1, 100.0),
            ("descriptor_dim", 1, 65536),
        ):
            within(f"model.{name}", getattr(self, name), low, high)
        if self.thresholds[0] <= self.thresholds[1]:
            raise UltronError(
                f"thresholds are tau1 and tau2 with tau1 above tau2 (0.75,0.5); found {list(self.thresholds)}"
            )
        if self.window % 2 == 0 or not 3 <= self.window <= 13:
            raise UltronError(f"window must be odd and between 3 and 13; found {self.window}")
        self._check_heads()

    def _check_heads(self) -> None:
        for stage, width, n_heads in zip((3, 4), self.widths[2:], self.heads, strict=True):
            if width % (8 * n_heads) or not 8 <= width // n_heads <= 128:
                raise UltronError(
                    f"stage {stage} has {width} channels (widths) for {n_heads} heads; channels per head must "
                    "be a multiple of 8, 8 to 128: "
                    f"try heads of 32 channels, {math.ceil(width / 32)}"
                )

    @property
    def context_on(self) -> Literal["key", "query", "none"]:
        """What MCK enhances; "none" under attention="na"."""
        return "none" if self.attention == "na" else self.mck_on

    def drop_paths(self) -> list[list[float]]:
        """Per stage and block: from 0 at the first block of the network to drop_path at the last."""
        n_blocks = sum(self.depths)
        rates = iter([self.drop_path * i / max(1, n_blocks - 1) for i in range(n_blocks)])
        return [[next(rates) for _ in range(depth)] for depth in self.depths]


class Stem(nn.Sequential):
    """Two 3x3 convolutions of stride 2 (as in NAT), BatchNorm after each, ReLU6 between. (B, 3, H, W) -> (B, C, H/4,
    W/4), rounded up."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(
            ConvNorm(3, n_channels // 2, 3, stride=2),
            nn.ReLU6(inplace=True),
            ConvNorm(n_channels // 2, n_channels, 3, stride=2),
        )


class Halving(nn.Module):
    """3x3 convolution of stride 2, then LayerNorm (as in NAT): entry of a stage of attention.

    (B, C_in, H, W) -> (B, H/2, W/2, C_out), rounded up.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(n_out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(features).permute(0, 2, 3, 1))


class UltronModel(RetrievalModel):
    """images (B, 3, H, W), sides from 32 px and of any ratio -> unit descriptors (B, D) float32."""

    settings_type = UltronSettings
    settings: UltronSettings
    attention_poolings = ("attention",)

    def __init__(self, name: str, settings: UltronSettings) -> None:
        super().__init__(name, settings)
        self.descriptor_dim = settings.descriptor_dim
        widths = settings.widths
        drop_paths = settings.drop_paths()
        self.entries = nn.ModuleList(
            [
                Stem(widths[0]),
                ConvNorm(widths[0], widths[1], 3, stride=2),
                Halving(widths[1], widths[2]),
                Halving(widths[2], widths[3]),
            ]
        )
        convolutional = [
            nn.ModuleList(_mobile_block(settings, width, p) for p in rates)
            for width, rates in zip(widths[:2], drop_paths[:2], strict=True)
        ]
        attentive = [
            nn.ModuleList(_scala_block(settings, width, n_heads, p) for p in rates)
            for width, n_heads, rates in zip(widths[2:], settings.heads, drop_paths[2:], strict=True)
        ]
        self.stages = nn.ModuleList([*convolutional, *attentive])
        if settings.pooling == "gem":
            self.pooling: nn.Module = NormedGeM(
                widths[3], gem_p=settings.gem_p, gem_p_learnable=settings.gem_p_learnable
            )
        else:
            self.pooling = AttentionPooling(
                widths[3],
                gem_p=settings.gem_p,
                gem_p_learnable=settings.gem_p_learnable,
                exponent=settings.pooling_exponent,
                shift=settings.pooling_shift,
                beta=settings.pooling_beta,
            )
        self.head = nn.Linear(widths[3], settings.descriptor_dim)
        self.apply(_initialise)

    def stage_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> the four stages' last maps (B, C_i, h_i, w_i), strides 4, 8, 16, 32, sides rounded up."""
        maps: list[torch.Tensor] = []
        features = images
        for i, (entry, blocks) in enumerate(zip(self.entries, self.stages, strict=True)):
            with self._precision(i, images.device.type):
                features = entry(features)
                if i < 2 and features.device.type == "cpu":
                    features = (
                        features.contiguous()
                    )  # the depthwise operator is 5 times faster so than in channels_last
                for block in cast(nn.ModuleList, blocks):
                    features = self._run(block, features)
            if i >= 2:
                features = features.permute(0, 3, 1, 2)
            maps.append(features)
        return maps

    def _precision(self, stage: int, device_type: str) -> contextlib.AbstractContextManager[object]:
        """Leaves autocast as it is, or switches it off where dilations are chosen."""
        exact = self.settings.exact_dilations and self.settings.depthwise == "cdconv" and stage < 2
        return torch.autocast(device_type, enabled=False) if exact else contextlib.nullcontext()

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.stage_maps(images)[-1]

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        pooled = self.pooling(feature_map)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled)

    def named_stages(self) -> dict[str, nn.Module]:
        """stage1 to stage4."""
        return {f"stage{i}": cast(nn.ModuleList, blocks)[-1] for i, blocks in enumerate(self.stages, start=1)}

    def stage_layers(self) -> dict[str, nn.Module]:
        return {f"stage{i}": layers for i, layers in enumerate(self.stages, start=1)}

    def is_channels_last(self, layer: str) -> bool:
        return layer.startswith(_CHANNELS_LAST)

    def _run(self, block: nn.Module, features: torch.Tensor) -> torch.Tensor:
        # Compiled, the compiler decides what to compute anew.
        if (
            not (self.settings.checkpointing and self.training and torch.is_grad_enabled())
            or torch.compiler.is_compiling()
        ):
            return block(features)
        return checkpoint(
            block, features, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(block))
        )


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """BatchNorms of the block leave their running statistics alone: they were updated in the first forward pass."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked for norm in norms]
    n_batches = [None if counter is None else counter.clone() for counter in counters]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for counter, n in zip(counters, n_batches, strict=True):
            if counter is not None and n is not None:
                counter.copy_(n)


def _mobile_block(settings: UltronSettings, width: int, drop_path: float) -> MobileBlock:
    n_wide = settings.expansion * width
    if settings.depthwise == "plain":
        depthwise: nn.Module = PlainDepthwise(n_wide)
    else:
        depthwise = CDConv(
            n_wide,
            thresholds=settings.thresholds,
            threshold_kind=settings.threshold,
            deltas=settings.deltas,
            gate=settings.gate,
        )
    return MobileBlock(width, settings.expansion, depthwise, drop_path)


def _scala_block(settings: UltronSettings, width: int, n_heads: int, drop_path: float) -> ScalaBlock:
    attention = ScalaAttention(
        width,
        n_heads,
        window=settings.window,
        mck_on=settings.context_on,
        mck_bias=settings.mck_bias,
        attention_dropout=settings.attention_dropout,
        projection_dropout=settings.projection_dropout,
    )
    return ScalaBlock(width, attention, settings.mlp_ratio, drop_path)


def _initialise(module: nn.Module) -> None:
    """Linear layers as in ViT, convolutions by their outputs (He et al., ICCV 2015); other modules set their own
    weights.

    MobileNet blocks begin as the identity (Goyal et al., 2017): ultron-t on the rendered landmarks, 14 % of the
    training photos right after 5 epochs instead of 8 %, whatever the depthwise convolution.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.out_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, MobileBlock):
        nn.init.zeros_(module.project.norm.weight)
