"""Other libraries' neighbourhood attention behind the same signature, to compare with: NATTEN and PyTorch's FlexAttention."""

import functools

import torch
from torch import Tensor
from ultron_kernels.reference import window_keys


def natten_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, scale: float, dropout_p: float
) -> Tensor:
    """NATTEN's na2d: without bias and dropout, and only for maps of at least k in both directions. Raises RuntimeError otherwise."""
    if bias is not None or dropout_p > 0:
        raise RuntimeError("backend 'natten' has neither relative position bias nor attention dropout; leave them out or use 'auto'")
    if min(query.shape[1:3]) < kernel_size:
        raise RuntimeError(f"backend 'natten' needs maps of at least {kernel_size} x {kernel_size}, got {tuple(query.shape[1:3])}")
    try:
        import natten
    except ImportError as error:
        raise RuntimeError(f"backend 'natten' was asked for and is not there: {error}; pip install --no-build-isolation natten") from error
    return natten.na2d(query, key, value, kernel_size=kernel_size, scale=scale)


def window_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Tensor:
    """(H W, H W) bool: which positions (columns) each position (row) attends to."""
    near = []
    for length in (height, width):
        mask = torch.zeros(length, length, dtype=torch.bool, device=device)
        near.append(mask.scatter_(1, window_keys(length, kernel_size, device), True))
    return (near[0][:, None, :, None] & near[1][None, :, None, :]).reshape(height * width, height * width)


@functools.cache
def compiled_flex_attention():
    """FlexAttention is fast only when compiled; compiled once."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@functools.lru_cache(maxsize=16)
def block_mask(height: int, width: int, kernel_size: int, device: torch.device):
    """FlexAttention's form of the window."""
    from torch.nn.attention.flex_attention import create_block_mask

    start_y, start_x = (window_keys(length, kernel_size, device)[:, 0] for length in (height, width))
    window_y, window_x = min(kernel_size, height), min(kernel_size, width)

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        dy, dx = key // width - start_y[query // width], key % width - start_x[query % width]
        return (dy >= 0) & (dy < window_y) & (dx >= 0) & (dx < window_x)

    return create_block_mask(inside, None, None, height * width, height * width, device=device)


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel_size: int, scale: float, dropout_p: float
) -> Tensor:
    """FlexAttention with the window as its block mask and the bias as its score function. Raises RuntimeError for dropout."""
    if dropout_p > 0:
        raise RuntimeError("backend 'flex' has no attention dropout; leave it out or use 'auto'")
    batch, height, width, heads, dim = query.shape

    def add_bias(score: Tensor, _: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        limit = 2 * kernel_size - 2  # keys outside the window are masked, but their index must not leave the table
        dy = (k // width - q // width + kernel_size - 1).clamp(0, limit)
        dx = (k % width - q % width + kernel_size - 1).clamp(0, limit)
        return score + bias[head, dy, dx]

    flat = [tensor.reshape(batch, height * width, heads, dim).transpose(1, 2) for tensor in (query, key, value)]
    mask = block_mask(height, width, kernel_size, query.device)
    out = compiled_flex_attention()(*flat, score_mod=None if bias is None else add_bias, block_mask=mask, scale=scale)
    return out.transpose(1, 2).reshape(batch, height, width, heads, dim)


BACKENDS = {"natten": natten_attention, "flex": flex_attention}
