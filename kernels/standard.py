"""The two operators in operators that every other library has, for graphs that leave PyTorch.

No size decides which operators are used, so that one graph serves maps of any size.

Legend: B batch, C channels, H W map size, h heads, d head dim, k window side.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def scala_attention_standard(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """As reference.scala_attention_reference gives it, without dropout. On an axis that is shorter than the window the
    positions beyond its end are masked."""
    height, width = query.shape[1:3]
    rows, row_is_there = _window_keys(height, kernel_size, query.device)
    columns, column_is_there = _window_keys(width, kernel_size, query.device)
    keys, values = (_windows(part, 1, rows, columns) for part in (key, value))  # (B, H, k, W, k, h, d)
    scores = ((query * scale)[:, :, None, :, None] * keys).sum(-1)  # (B, H, k, W, k, h)
    if bias is not None:
        offsets = [
            (positions - torch.arange(length, device=query.device)[:, None] + kernel_size - 1).clamp(
                0, 2 * kernel_size - 2
            )
            for positions, length in ((rows, height), (columns, width))
        ]
        scores = scores + _windows(bias.to(query.dtype), 1, *offsets).permute(1, 2, 3, 4, 0)
    is_there = (row_is_there[:, :, None, None] & column_is_there)[..., None]  # (H, k, W, k, 1)
    scores = scores.masked_fill(~is_there, float("-inf"))
    weights = scores.permute(0, 1, 3, 5, 2, 4).flatten(-2).softmax(-1)  # (B, H, W, h, k * k)
    weights = weights.unflatten(-1, (kernel_size, kernel_size)).permute(0, 1, 4, 2, 5, 3)
    return (weights[..., None] * values).sum((2, 4))


def _window_keys(length: int, kernel_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which positions each position of one axis attends to, (length, k) int64, and which of them are on the axis,
    (length, k) bool; the others stand for the last position."""
    position = torch.arange(length, device=device)
    last_start = (torch.full_like(position, length) - kernel_size).clamp(min=0)
    start = torch.minimum((position - kernel_size // 2).clamp(min=0), last_start)
    keys = start[:, None] + torch.arange(kernel_size, device=device)
    return torch.minimum(keys, torch.full_like(keys, length - 1)), keys < length


def _windows(values: Tensor, axis: int, rows: Tensor, columns: Tensor) -> Tensor:
    """(..., H, W, ...) -> (..., n, k, m, k, ...): the entries at rows (n, k) of `axis` and columns (m, k) of the
    next."""
    of_rows = values.index_select(axis, rows.flatten()).unflatten(axis, rows.shape)
    return of_rows.index_select(axis + 2, columns.flatten()).unflatten(axis + 2, columns.shape)


def cdconv_standard(input: Tensor, weight: Tensor, dilation: Tensor, choices: Sequence[int]) -> Tensor:
    """As reference.cdconv_reference gives it, where the caller knows which dilations occur: one convolution for each
    of them, of which every channel takes its own."""
    output = None
    for choice in dict.fromkeys(choices):
        branch = F.conv2d(input, weight, padding=choice, dilation=choice, groups=input.shape[1])
        output = branch if output is None else torch.where(dilation[:, :, None, None] == choice, branch, output)
    if output is None:
        raise ValueError("choices must name at least one dilation")
    return output
