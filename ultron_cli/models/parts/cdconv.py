"""CDConv, channel-wise dilated convolution, and the MobileNet block around it (ULTRON, Kweon & Park, ACCV 2024,
Algorithm 1).

Legend: B batch, C channels, H W map size, a (B, C) importance of each channel of each photo, from 0 to 1.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from ultron_kernels import cdconv

from ultron_cli.models.parts.layers import ConvNorm, DropPath, eca_kernel_size, norm_as_scale_and_shift

ThresholdKind = Literal["value", "quantile"]
# Where the importance starts: between the usual thresholds' logits, 0 and 1.1, for a map whose mean is
# MEAN_AFTER_RELU6.
FIRST_LOGIT = 0.55
MEAN_AFTER_RELU6 = 0.4
FIRST_CONTRAST = 10.0  # norm of the contrasts between neighbouring channels


class ChannelImportance(nn.Module):
    """a = sigmoid(ECA(global average)): one 1-D convolution across channels. (B, C, H, W) -> (B, C) float32 (float64
    stays)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, eca_kernel_size(n_channels)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random contrasts between neighbouring channels around the middle dilation, so that all three branches are in
        use at first.

        With ECA-Net's own initial values no channel takes dilation 1 and 96 % of a layer's (median of 200 draws, 384
        channels whose means are 0.4 with a spread of 0.17) take the same one; with gate="none" the weights stay as they
        begin.
        """
        nn.init.normal_(self.weight)
        with torch.no_grad():
            if self.weight.numel() > 1:
                self.weight -= self.weight.mean()
                self.weight *= FIRST_CONTRAST / self.weight.norm()
            else:
                self.weight.zero_()
            self.weight += FIRST_LOGIT / MEAN_AFTER_RELU6 / self.weight.numel()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # A threshold follows: rounding to bfloat16 would change dilations.
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
            pooled = features.mean(dim=(2, 3), dtype=dtype)
            weight = self.weight.to(pooled.dtype)
            return torch.sigmoid(F.conv1d(pooled[:, None], weight, padding=weight.shape[-1] // 2)[:, 0])


def choose_dilation(
    importance: torch.Tensor, thresholds: tuple[float, ...], threshold_kind: ThresholdKind, deltas: tuple[int, ...]
) -> torch.Tensor:
    """Step 2 of Algorithm 1: (B, C) importance -> (B, C) int64 dilation: 1 if a > tau1, else delta1 if a > tau2, else
    delta2.

    thresholds: tau1 > tau2. threshold_kind: whether they are values of a, or its quantiles over the channels of each
    photo (0.75: the 0.75 quantile).
    """
    if threshold_kind == "quantile":
        ascending = importance.sort(dim=1).values
        above_tau1, above_tau2 = (importance > quantile_of_sorted(ascending, level) for level in thresholds)
    else:
        above_tau1, above_tau2 = (importance > value for value in thresholds)
    return torch.where(above_tau1, 1, torch.where(above_tau2, deltas[0], deltas[1]))


def quantile_of_sorted(ascending: torch.Tensor, level: float) -> torch.Tensor:
    """(B, C) in ascending order -> (B, 1): the quantile, linear between neighbours. torch.quantile does not trace with
    PyTorch 2.11."""
    place = level * (ascending.shape[1] - 1)
    below = int(place)
    return torch.lerp(ascending[:, below], ascending[:, min(below + 1, ascending.shape[1] - 1)], place - below)[:, None]


def _scaled(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """(C, 1, 3, 3) weights, times scale (C,) if given."""
    return weight.contiguous() if scale is None else weight.contiguous() * scale[:, None, None, None]


class CDConv(nn.Module):
    """Depthwise 3x3 convolution whose dilation each channel of each photo chooses by its importance (Algorithm 1).

    (B, C, H, W) -> the same shape. A channel has one weight whatever its dilation. gate: "none" is Algorithm 1, where
    importance only picks a branch and the ECA weights get no gradient (they stay as initialised); "multiply" multiplies
    the output by a. thresholds, threshold_kind, deltas: as in choose_dilation.
    """

    def __init__(
        self,
        n_channels: int,
        *,
        thresholds: tuple[float, ...] = (0.75, 0.50),
        threshold_kind: ThresholdKind = "value",
        deltas: tuple[int, ...] = (3, 6),
        gate: Literal["none", "multiply"] = "none",
    ) -> None:
        super().__init__()
        self.thresholds = tuple(thresholds)
        self.threshold_kind: ThresholdKind = threshold_kind
        self.deltas = tuple(deltas)
        self.gate = gate
        self.importance = ChannelImportance(n_channels)
        self.importance.weight.requires_grad_(gate == "multiply")
        self.weight = nn.Parameter(torch.empty(n_channels, 1, 3, 3))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / 9.0))

    def forward(self, features: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """scale: (C,) by which the output is multiplied, that of a norm that follows; it goes into the weights at no
        cost."""
        importance = self.importance(features)
        dilation = choose_dilation(importance.detach(), self.thresholds, self.threshold_kind, self.deltas)
        weight, choices = _scaled(self.weight, scale), (1, *self.deltas)
        output = cdconv(features, weight, dilation, checked=True, choices=choices)
        return output if self.gate == "none" else output * importance[:, :, None, None].to(output.dtype)


class PlainDepthwise(nn.Module):
    """Depthwise 3x3 convolution, dilation 1 everywhere: what CDConv replaces. (B, C, H, W) -> the same shape.

    It uses CDConv's operator, which is 16 times faster on a CPU in (B, C, H, W) order than PyTorch's own convolution.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_channels, 1, 3, 3))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / 9.0))

    def forward(self, features: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """scale: as in CDConv."""
        ones = torch.ones(features.shape[:2], dtype=torch.int64, device=features.device)
        return cdconv(features, _scaled(self.weight, scale), ones, checked=True, choices=(1,))


class MobileBlock(nn.Module):
    """Inverted residual (MobileNetV2, Sandler et al., CVPR 2018): x + project(depthwise(expand(x))), BatchNorm after
    each, ReLU6 after two.

    (B, C, H, W) -> the same shape. depthwise: CDConv or PlainDepthwise of expansion * C channels. drop_path: share of
    photos skipped.
    """

    def __init__(self, n_channels: int, expansion: int, depthwise: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.expand = ConvNorm(n_channels, expansion * n_channels, 1)
        self.depthwise = depthwise
        self.norm = nn.BatchNorm2d(expansion * n_channels)
        self.project = ConvNorm(expansion * n_channels, n_channels, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        wide = F.relu6(self.expand(features), inplace=True)
        if self.training:
            wide = self.norm(self.depthwise(wide))
        else:  # the norm's statistics are fixed: its factor goes into the weights, its shift is added in place
            scale, shift = norm_as_scale_and_shift(self.norm)
            wide = self.depthwise(wide, scale)
            wide += shift[:, None, None].to(wide.dtype)
        return features + self.drop_path(self.project(F.relu6(wide, inplace=True)))
