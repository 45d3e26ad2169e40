"""Layers that several networks share. Legend: B batch, C channels, H W map size."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def norm_as_scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """BatchNorm with fixed statistics as x * scale + shift: both (C,)."""
    if norm.running_var is None or norm.running_mean is None:
        raise ValueError("a norm without running statistics has no fixed scale and shift")
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


class ConvNorm(nn.Module):
    """Convolution without bias, then BatchNorm. (B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride)).

    In evaluation the norm is folded into the weights at each call: they are small, and one pass over the map is saved.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel_size // 2
        self.weight = nn.Parameter(torch.empty(n_out, n_in, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.norm(self._convolve(features, self.weight, None))
        scale, shift = norm_as_scale_and_shift(self.norm)
        return self._convolve(features, self.weight * scale[:, None, None, None], shift)

    def _convolve(self, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if weight.shape[-1] > 1:
            return F.conv2d(features, weight, bias, self.stride, self.padding)
        # After model.to(memory_format=channels_last) a 1x1 weight would force that order on the output, which is to
        # have the input's.
        matrix = weight.flatten(1)
        if features.device.type != "cpu" or self.stride > 1 or not features.is_contiguous():
            return F.conv2d(features, matrix[:, :, None, None], bias, self.stride)
        # A matrix product: on one thread PyTorch's convolution of a single photo takes an unvectorised path.
        matrices = matrix.expand(features.shape[0], -1, -1)
        output = torch.bmm(matrices, features.flatten(2)).unflatten(2, features.shape[2:])
        return output if bias is None else output.add_(bias[:, None, None].to(output.dtype))


def mlp(n_channels: int, ratio: float) -> nn.Sequential:
    """Linear, GELU, linear. ratio: hidden channels per channel."""
    n_hidden = round(ratio * n_channels)
    return nn.Sequential(nn.Linear(n_channels, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_channels))


def eca_kernel_size(n_channels: int) -> int:
    """The odd number nearest to (log2 C + 1) / 2, at least 1: 5 for 256 and 512 channels (ECA-Net, Wang et al., CVPR
    2020, eq. 12 with gamma 2 and b 1)."""
    whole = int((math.log2(n_channels) + 1) / 2)
    return whole if whole % 2 else whole + 1


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training a photo's branch is 0 with probability p, else divided by
    1 - p.

    (B, ...) -> the same shape.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return branch
        survives = torch.rand(branch.shape[0], *(1,) * (branch.ndim - 1), device=branch.device) >= self.p
        return branch * (survives / (1.0 - self.p)).to(branch.dtype)
