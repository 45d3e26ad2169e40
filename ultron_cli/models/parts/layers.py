"""Layers that several modules of the network share. Legend: B batch, C channels, H W map size."""

import torch
import torch.nn.functional as F
from torch import nn


def norm_as_scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """BatchNorm with fixed statistics as x * scale + shift: both (C,)."""
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
        # After model.to(memory_format=channels_last) a 1x1 weight would force that order on the output; the input's is
        # wanted.
        matrix = weight.flatten(1)
        if features.device.type != "cpu" or self.stride > 1 or not features.is_contiguous():
            return F.conv2d(features, matrix[:, :, None, None], bias, self.stride)
        # A matrix product: on one thread PyTorch's convolution of a single photo takes an unvectorised path.
        output = torch.bmm(matrix.expand(len(features), -1, -1), features.flatten(2)).unflatten(2, features.shape[2:])
        return output if bias is None else output.add_(bias[:, None, None].to(output.dtype))


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
        kept = torch.rand(branch.shape[0], *(1,) * (branch.ndim - 1), device=branch.device) >= self.p
        return branch * (kept / (1.0 - self.p)).to(branch.dtype)
