"""A guard against a fault of oneDNN: see StridedPointwise."""

import torch
import torch.nn.functional as F
from torch import nn

FEWEST_CHANNELS = 8  # from which on oneDNN's gradient is sound


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride as one without, of the places that the stride leaves. (B, C, H, W) ->
    (B, D, h, w).

    On CPUs oneDNN writes outside its memory for the weight's gradient of a strided 1x1 convolution of fewer than 8
    channels in channels_last order, and the process dies (PyTorch 2.15, oneDNN 3.13.3, AVX2; seen with 2 to 6
    channels, not with 8 or 16, not in contiguous order and not for the input's gradient).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        down, right = self.stride
        return F.conv2d(input[:, :, ::down, ::right], self.weight, self.bias)


def guard_narrow_convolutions(network: nn.Module) -> None:
    """Makes every strided 1x1 convolution of few channels a StridedPointwise; weights and their names stay."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding == (0, 0)
            and module.groups == 1
            and module.in_channels < FEWEST_CHANNELS
        ):
            module.__class__ = StridedPointwise
