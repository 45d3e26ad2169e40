"""Convolutions with TensorFlow's padding (EfficientNets of Google) as the one operator that ONNX has for them.

timm computes their padding from the size of the map, by divisions of numbers that stand for any size: tracing these
through a network takes minutes.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from onnxscript import opset18
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn


@torch.library.custom_op("ultron_export::same_conv2d", mutates_args=())
def same_conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> torch.Tensor:
    """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride)): a convolution padded at the end, where it must be."""
    return F.conv2d(
        pad_same(input, list(weight.shape[-2:]), stride, dilation), weight, bias, stride, 0, dilation, groups
    )


@same_conv2d.register_fake
def _(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    dilation: list[int],
    groups: int,
) -> torch.Tensor:
    height, width = ((side + step - 1) // step for side, step in zip(input.shape[-2:], stride, strict=True))
    return input.new_empty(input.shape[0], weight.shape[0], height, width)


# The exporter takes what has no annotation as a tensor of the graph, and what has one as an attribute.
def _onnx_same_conv2d(input, weight, bias, stride: Sequence[int], dilation: Sequence[int], groups: int):
    inputs = (input, weight) if bias is None else (input, weight, bias)
    return opset18.Conv(*inputs, auto_pad="SAME_UPPER", strides=stride, dilations=dilation, group=groups)


TRANSLATIONS: dict[Callable[..., object], Callable[..., object]] = {
    torch.ops.ultron_export.same_conv2d.default: _onnx_same_conv2d
}


def _forward(module: nn.Conv2d, input: torch.Tensor) -> torch.Tensor:
    return same_conv2d(input, module.weight, module.bias, list(module.stride), list(module.dilation), module.groups)


@contextlib.contextmanager
def same_convolutions(model: nn.Module) -> Iterator[None]:
    """Inside, the model's convolutions with this padding are that operator."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    modules = [module for module in convolutions if issubclass(type(module), Conv2dSame)]
    try:
        for module in modules:
            module.forward = partial(_forward, module)
        yield
    finally:
        for module in modules:
            vars(module).pop("forward", None)
