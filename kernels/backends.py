"""Neighbourhood attention of other libraries behind the signature of scala_attention_reference, to compare with.

The libraries are NATTEN and PyTorch's FlexAttention. Legend: B batch, H W map size, h heads, d head dim, k window side.
query, key, value: (B, H, W, h, d). bias: (h, 2k-1, 2k-1) or None. Each function returns (B, H, W, h, d).
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from ultron_kernels.reference import window_keys

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # score, sample, head, query, key -> score


def natten_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, scale: float, dropout_p: float
) -> Tensor:
    """NATTEN's na2d, which has neither bias nor dropout and needs maps of at least k x k.

    Raises RuntimeError for anything else, and where NATTEN is not installed.
    """
    if bias is not None or dropout_p > 0:
        raise RuntimeError(
            "backend 'natten' has neither relative position bias nor attention dropout; leave them out or use 'auto'"
        )
    if min(query.shape[1:3]) < kernel_size:
        raise RuntimeError(
            f"backend 'natten' needs maps of at least {kernel_size} x {kernel_size}, got {tuple(query.shape[1:3])}"
        )
    try:
        import natten  # pyright: ignore[reportMissingImports]  # an extra, seldom installed
    except ImportError as error:
        raise RuntimeError(
            f"backend 'natten' was asked for and is not there: {error}; pip install --no-build-isolation natten"
        ) from error
    return natten.na2d(query, key, value, kernel_size=kernel_size, scale=scale)


def window_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Tensor:
    """(H W, H W) bool: which positions (columns) each position (row) attends to."""
    axis_masks = []
    for length in (height, width):
        mask = torch.zeros(length, length, dtype=torch.bool, device=device)
        axis_masks.append(mask.scatter_(1, window_keys(length, kernel_size, device), True))
    by_row, by_column = axis_masks
    return (by_row[:, None, :, None] & by_column[None, :, None, :]).reshape(height * width, height * width)


@functools.cache
def compiled_flex_attention() -> Callable[..., Tensor]:
    """FlexAttention, which is fast only when compiled. A process compiles it once."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@functools.lru_cache(maxsize=16)
def block_mask(height: int, width: int, kernel_size: int, device: torch.device) -> "BlockMask":
    """The window in FlexAttention's form, over positions numbered row by row. Masks of 16 map sizes are remembered."""
    from torch.nn.attention.flex_attention import create_block_mask

    start_y, start_x = (window_keys(length, kernel_size, device)[:, 0] for length in (height, width))
    window_y, window_x = min(kernel_size, height), min(kernel_size, width)

    def is_inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        dy, dx = key // width - start_y[query // width], key % width - start_x[query % width]
        return (dy >= 0) & (dy < window_y) & (dx >= 0) & (dx < window_x)

    return create_block_mask(is_inside, None, None, height * width, height * width, device=device)


def bias_adder(bias: Tensor, kernel_size: int, width: int) -> ScoreFunction:
    """FlexAttention's score function that adds the bias of a key's offset from the query. width: W."""

    def add_bias(score: Tensor, sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        limit = 2 * kernel_size - 2  # keys outside the window are masked, but their index must not leave the table
        dy = (key // width - query // width + kernel_size - 1).clamp(0, limit)
        dx = (key % width - query % width + kernel_size - 1).clamp(0, limit)
        return score + bias[head, dy, dx]

    return add_bias


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, scale: float, dropout_p: float
) -> Tensor:
    """FlexAttention with the window as its block mask and the bias as its score function.

    Raises RuntimeError for dropout.
    """
    if dropout_p > 0:
        raise RuntimeError("backend 'flex' has no attention dropout; leave it out or use 'auto'")
    batch, height, width, heads, dim = query.shape
    sequences = [tensor.reshape(batch, height * width, heads, dim).transpose(1, 2) for tensor in (query, key, value)]
    add_bias = None if bias is None else bias_adder(bias, kernel_size, width)
    mask = block_mask(height, width, kernel_size, query.device)
    out = compiled_flex_attention()(*sequences, score_mod=add_bias, block_mask=mask, scale=scale)
    return out.transpose(1, 2).reshape(batch, height, width, heads, dim)


BACKENDS = {"natten": natten_attention, "flex": flex_attention}
