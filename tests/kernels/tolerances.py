"""How far two implementations of an operator may differ, relative to the largest value of the right one, by dtype.

float64 and float32: sums of up to 169 products in another order. float16, bfloat16: inputs are equal, sums are
float32 in both, so the difference is the rounding of the result: half a unit in the last place, at 11 and 8 bits,
with room for a sum that falls on the other side.
"""

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_close(output: Tensor, right: Tensor, factor: float = 1.0) -> None:
    """Raises AssertionError unless shape and dtype are equal and no value is further off than the dtype's tolerance
    times factor."""
    assert output.shape == right.shape and output.dtype == right.dtype
    if right.numel() == 0:
        return
    output, right = output.detach(), right.detach()
    limit = factor * TOLERANCE[right.dtype] * max(1.0, float(right.abs().max()))
    worst = float((output.double() - right.double()).abs().max())
    assert worst <= limit, f"{worst:.3g} apart, {limit:.3g} allowed"
