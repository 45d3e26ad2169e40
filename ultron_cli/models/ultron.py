"""The ULTRON network (Kweon & Park, ACCV 2024): convolutions first, local attention after, attention pooling last.

Stem to stride 4; stages 1 and 2 of MobileNet blocks with CDConv; stages 3 and 4 of SCALA blocks; strides 4, 8, 16, 32.
Legend: B batch, C channels, H W image size, h w map size, D descriptor dims.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ultron_cli.models.backbones import Preprocessing
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.parts.attention_pooling import AttentionPooling, NormedGeM
from ultron_cli.models.parts.cdconv import CDConv, MobileBlock, PlainDepthwise
from ultron_cli.models.parts.layers import ConvNorm
from ultron_cli.models.parts.scala import ScalaAttention, ScalaBlock
from ultron_cli.models.ultron_settings import UltronSettings

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225))


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

    min_side_px = 32

    def __init__(self, name: str, settings: UltronSettings) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.preprocessing, self.descriptor_dim = IMAGENET, settings.descriptor_dim
        widths, drop_paths = settings.widths, settings.drop_paths()
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
            self.pooling: nn.Module = NormedGeM(widths[3], gem_p=settings.gem_p)
        else:
            self.pooling = AttentionPooling(
                widths[3], gem_p=settings.gem_p, exponent=settings.pooling_exponent, shift=settings.pooling_shift
            )
        self.head = nn.Linear(widths[3], settings.descriptor_dim)
        self.apply(_initialise)

    def stage_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> the four stages' last maps (B, C_i, h_i, w_i), strides 4, 8, 16, 32, sides rounded up."""
        maps, features = [], images
        for i, (entry, blocks) in enumerate(zip(self.entries, self.stages, strict=True)):
            with self._precision(i, images.device.type):
                features = entry(features)
                if i < 2 and features.device.type == "cpu":
                    features = (
                        features.contiguous()
                    )  # the depthwise operator is 5 times faster so on a CPU than in channels_last
                for block in blocks:
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
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, n_batches in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(n_batches)


def _mobile_block(settings: UltronSettings, width: int, drop_path: float) -> MobileBlock:
    n_wide = settings.expansion * width
    if settings.depthwise == "plain":
        depthwise: nn.Module = PlainDepthwise(n_wide)
    else:
        depthwise = CDConv(
            n_wide, thresholds=settings.thresholds, kind=settings.threshold, deltas=settings.deltas, gate=settings.gate
        )
    return MobileBlock(width, settings.expansion, depthwise, drop_path)


def _scala_block(settings: UltronSettings, width: int, n_heads: int, drop_path: float) -> ScalaBlock:
    attention = ScalaAttention(
        width,
        n_heads,
        window=settings.window,
        mck_on=settings.context_on,
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
    elif isinstance(module, MobileBlock):
        nn.init.zeros_(module.project.norm.weight)
