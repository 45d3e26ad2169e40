"""Padding to whole patches and windows, computed in a way that a tracer can follow.

timm pads a map of H places to windows of k by `(k - H % k) % k`, which of numbers that stand for any size grows with
every layer: tracing a Swin then takes hours. Here the windows are counted, n = (H + k - 1) // k, and the map is padded
to n k places: the same numbers up to the rounding of sums in another order.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models import swin_transformer, swin_transformer_v2
from torch import nn

BLOCKS = (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)
MERGINGS = (swin_transformer.PatchMerging, swin_transformer_v2.PatchMerging)


def padded_to(maps: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(B, H, W, C) -> (B, n rows, m columns, C), zeros below and to the right."""
    height, width = maps.shape[1:3]
    n, m = (height + rows - 1) // rows, (width + columns - 1) // columns
    return F.pad(maps, (0, 0, 0, m * columns - width, 0, n * rows - height))


def _merged(original: Callable[[torch.Tensor], torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
    return original(padded_to(maps, 2, 2))


def _embedded(
    module: PatchEmbed, original: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    (height, width), (rows, columns) = images.shape[2:], _patch(module)
    n, m = _grid(module, (height, width))
    return original(F.pad(images, (0, m * columns - width, 0, n * rows - height)))


def _grid(module: PatchEmbed, sides_px: tuple[int, int]) -> tuple[int, int]:
    """In whole numbers, where timm rounds up a fraction, which torch cannot store in a file."""
    (height, width), (rows, columns) = sides_px, _patch(module)
    return (height + rows - 1) // rows, (width + columns - 1) // columns


def _patch(module: PatchEmbed) -> tuple[int, int]:
    rows, columns = cast("tuple[int, int]", module.patch_size)
    return rows, columns


def _attended(block: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """What `_attn` of a Swin's block gives: attention in windows that are shifted cyclically, over the map padded to
    whole windows."""
    height, width, channels = maps.shape[1:]
    (rows, columns), (down, right) = cast("list[tuple[int, int]]", [block.window_size, block.shift_size])
    shifted = torch.roll(maps, (-down, -right), (1, 2)) if down or right else maps
    padded = padded_to(shifted, rows, columns)
    batch, n, m = padded.shape[0], padded.shape[1] // rows, padded.shape[2] // columns
    windows = padded.view(batch, n, rows, m, columns, channels).transpose(2, 3).reshape(-1, rows * columns, channels)
    mask = None
    if down or right:
        regions = _regions(n, rows, down, maps)[:, :, None, None] * 3 + _regions(m, columns, right, maps)
        of_windows = regions.transpose(1, 2).reshape(n * m, rows * columns)
        mask = (of_windows[:, None] != of_windows[:, :, None]).to(maps.dtype) * -100.0
        mask = mask.expand(batch, -1, -1, -1).reshape(batch * n * m, rows * columns, rows * columns)
    attend = cast(Callable[..., torch.Tensor], block.attn)
    attended = attend(windows, mask=mask).view(batch, n, m, rows, columns, channels)
    joined = attended.transpose(2, 3).reshape(batch, n * rows, m * columns, channels)[:, :height, :width]
    return torch.roll(joined, (down, right), (1, 2)) if down or right else joined


def _regions(n_windows: int, window: int, shift: int, like: torch.Tensor) -> torch.Tensor:
    """(n, k) int64: which places of one axis, after the shift, were neighbours before."""
    places = torch.arange(n_windows * window, device=like.device)
    last, wrapped = (n_windows - 1) * window, n_windows * window - shift
    return ((places >= last).long() + (places >= wrapped).long()).view(n_windows, window)


@contextlib.contextmanager
def counted_windows(model: nn.Module) -> Iterator[None]:
    """Inside, the model's layers of timm pad so."""
    patched: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            if isinstance(module, BLOCKS) and module.dynamic_mask:
                patched.append((module, "_attn"))
                vars(module)["_attn"] = partial(_attended, module)
            elif isinstance(module, MERGINGS):
                patched.append((module, "forward"))
                vars(module)["forward"] = partial(_merged, module.forward)
            elif isinstance(module, PatchEmbed) and module.dynamic_img_pad:
                patched += [(module, "forward"), (module, "dynamic_feat_size")]
                vars(module)["forward"] = partial(_embedded, module, module.forward)
                vars(module)["dynamic_feat_size"] = partial(_grid, module)
        yield
    finally:
        for module, name in patched:
            vars(module).pop(name, None)
