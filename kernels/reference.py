"""The two operators in plain PyTorch.

They are the truth that the compiled ones are tested against, and they run where none can be built.

Legend: B batch, C channels, H W map size, h heads, d head dim, k window side.
"""

import math

import torch
from torch import Tensor

PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
LOW_32 = 0xFFFFFFFF


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and the softmax are computed in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def window_keys(length: int, kernel_size: int, device: torch.device) -> Tensor:
    """(length, min(k, length)) int64: which positions each position of one axis attends to.

    The window is centred where it fits and moved inward at the borders (Hassani et al., CVPR 2023).
    """
    window = min(kernel_size, length)
    position = torch.arange(length, device=device)
    start = (position - kernel_size // 2).clamp(0, length - window)
    return start[:, None] + torch.arange(window, device=device)


def scala_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    scale: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Neighbourhood attention with relative position bias and attention dropout (ULTRON, Algorithm 2).

    It gathers the keys and values of every window, and PyTorch itself differentiates it.

    query, key, value: (B, H, W, h, d). bias: (h, 2k-1, 2k-1), indexed by key position minus query position plus k-1, or
    None. seed: (1,) int64, needed with dropout. Returns (B, H, W, h, d) of the query's dtype. Raises ValueError for
    dropout without a seed.
    """
    batch, height, width, heads, _ = query.shape
    dtype = accumulation_dtype(query.dtype)
    rows, columns = (window_keys(length, kernel_size, query.device) for length in (height, width))
    windows = (
        slice(None),
        rows[:, None, :, None],
        columns[None, :, None, :],
    )  # an index that gives (B, H, W, wh, ww, h, d)
    scores = torch.einsum("byxhd,byxijhd->byxhij", query.to(dtype) * scale, key.to(dtype)[windows])
    if bias is not None:
        offset_y = rows - torch.arange(height, device=query.device)[:, None] + kernel_size - 1
        offset_x = columns - torch.arange(width, device=query.device)[:, None] + kernel_size - 1
        window_bias = bias.to(dtype)[:, offset_y[:, None, :, None], offset_x[None, :, None, :]]  # (h, H, W, wh, ww)
        scores = scores + window_bias.permute(1, 2, 0, 3, 4)
    weights = scores.flatten(-2).softmax(-1).view(scores.shape)
    if dropout_p > 0:
        if seed is None:
            raise ValueError(f"dropout_p {dropout_p} needs a seed, a tensor of one int64")
        keep_mask = dropout_mask(seed, (batch, height, width, heads), rows.shape[1] * columns.shape[1], dropout_p)
        weights = weights * keep_mask.view(scores.shape) / (1 - dropout_p)
    return torch.einsum("byxhij,byxijhd->byxhd", weights, value.to(dtype)[windows]).to(query.dtype)


def dropout_mask(seed: Tensor, queries: tuple[int, ...], n_keys: int, dropout_p: float) -> Tensor:
    """(*queries, n_keys) bool: True where dropout keeps a key. csrc/common/scala_attention.h defines which it keeps.

    seed: (1,) int64. queries: the sizes (B, H, W, h).
    """
    query = torch.arange(math.prod(queries), device=seed.device)[:, None]
    block = torch.arange(-(-n_keys // 4), device=seed.device)[None]
    counter = (block, query & LOW_32, query >> 32, torch.zeros_like(block))
    random_words = philox(counter, (seed & LOW_32, (seed >> 32) & LOW_32))  # four numbers for four keys
    words = torch.stack(torch.broadcast_tensors(*random_words), -1)
    return (words.flatten(1)[:, :n_keys] >= int(dropout_p * 2**32)).view(*queries, n_keys)


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox 4x32-10: makes four random words of four counter words and two key words, each 0..2^32-1 in int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words can wrap to a negative int64, but its 64 bits are the right ones.
        product_0, product_1 = c0 * PHILOX_MULTIPLIERS[0], c2 * PHILOX_MULTIPLIERS[1]
        high_0, high_1 = (product_0 >> 32) & LOW_32, (product_1 >> 32) & LOW_32
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, product_1 & LOW_32, high_0 ^ c3 ^ k1, product_0 & LOW_32
        k0, k1 = (k0 + PHILOX_KEY_STEPS[0]) & LOW_32, (k1 + PHILOX_KEY_STEPS[1]) & LOW_32
    return c0, c1, c2, c3


def cdconv_reference(input: Tensor, weight: Tensor, dilation: Tensor) -> Tensor:
    """Depthwise 3x3 convolution with a dilation per sample and channel (ULTRON, Algorithm 1), tap by tap.

    input: (B, C, H, W). weight: (C, 1, 3, 3). dilation: (B, C) integer, at least 1; padding = dilation.
    Returns (B, C, H, W).
    """
    batch, channels, height, width = input.shape
    dtype = accumulation_dtype(input.dtype)
    sample = torch.arange(batch, device=input.device)[:, None, None, None]
    channel = torch.arange(channels, device=input.device)[None, :, None, None]
    row, column = torch.arange(height, device=input.device)[:, None], torch.arange(width, device=input.device)
    step = dilation.to(torch.int64)[:, :, None, None]
    taps, source = weight.to(dtype), input.to(dtype)
    output = torch.zeros_like(input, dtype=dtype)
    for i in range(3):
        for j in range(3):
            y, x = row + (i - 1) * step, column + (j - 1) * step  # (B, C, H, 1) and (B, C, 1, W)
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            values = source[sample, channel, y.clamp(0, height - 1), x.clamp(0, width - 1)]
            output = output + taps[:, 0, i, j][None, :, None, None] * torch.where(inside, values, 0.0)
    return output.to(input.dtype)
