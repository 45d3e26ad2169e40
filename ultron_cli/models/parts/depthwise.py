"""Depthwise 3x3 convolution of one dilation, with a gradient for the CPU, where PyTorch's own takes three to five times
as long.

Legend: B batch, C channels, H W map size.
"""

from itertools import product

import torch
import torch.nn.functional as F
from ultron_kernels import ops


def depthwise(features: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    """(B, C, H, W), (C, 1, 3, 3) -> (B, C, H, W), zeros around the map. Fastest in channels_last."""
    # Every tap but the middle one falls outside. A graph for other libraries takes no branch by size.
    if not ops.takes_standard and dilation >= max(features.shape[2:]):
        return features * weight[:, 0, 1, 1, None, None]
    pytorch_is_fast = features.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled()
    return _convolve(features, weight, dilation) if pytorch_is_fast else _Depthwise.apply(features, weight, dilation)


def _convolve(features: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    return F.conv2d(features, weight, padding=dilation, dilation=dilation, groups=features.shape[1])


class _Context(torch.autograd.function.FunctionCtx):
    """What forward leaves for backward."""

    dilation: int
    saved_tensors: tuple[torch.Tensor, torch.Tensor]
    needs_input_grad: tuple[bool, ...]


class _Depthwise(torch.autograd.Function):
    """Backward pass: the input's gradient is the same convolution with the weight turned round, and the weight's
    gradient the sum of a product of two maps."""

    @staticmethod
    def forward(ctx: _Context, features: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
        ctx.save_for_backward(features, weight)
        ctx.dilation = dilation
        return _convolve(features, weight, dilation)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch passes one gradient per output, here one
        ctx: _Context, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        features, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_features = _convolve(gradient, weight.flip(2, 3), ctx.dilation) if ctx.needs_input_grad[0] else None
        of_weight = _weight_gradient(features, gradient, ctx.dilation) if ctx.needs_input_grad[1] else None
        return of_features, of_weight, None


def _weight_gradient(features: torch.Tensor, gradient: torch.Tensor, dilation: int) -> torch.Tensor:
    """Both (B, C, H, W) -> (C, 1, 3, 3): per tap the sum over photos and places of the gradient times what the tap
    saw."""
    inputs = features.permute(0, 2, 3, 1)
    gradients = gradient.permute(0, 2, 3, 1)
    height, width = inputs.shape[1:3]
    sums = []
    for down, right in product((-dilation, 0, dilation), repeat=2):
        if abs(down) >= height or abs(right) >= width:
            sums.append(gradient.new_zeros(gradient.shape[1]))
            continue
        input_rows, input_columns = _shifted(height, down), _shifted(width, right)
        rows, columns = _shifted(height, -down), _shifted(width, -right)
        sums.append((inputs[:, input_rows, input_columns] * gradients[:, rows, columns]).sum((0, 1, 2)))
    return torch.stack(sums, 1).unflatten(1, (3, 3))[:, None]


def _shifted(length: int, shift: int) -> slice:
    """The places from 0 to length - 1 that a shift by so many lands on."""
    return slice(max(0, shift), length + min(0, shift))
