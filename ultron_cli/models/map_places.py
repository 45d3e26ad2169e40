"""Where the cells of a network's map lie in its photo, told by the operators that a forward pass runs through.

Cell i of an axis lies at first + i * step pixels, the centre of the photo's first pixel at 0. Convolutions, poolings,
paddings and enlargements move it by what they are: a 3x3 convolution of stride 2 with one place of padding leaves the
first cell on the first pixel, one that pads the last side alone puts it on the second. What joins several (a block and
its shortcut) has their mean. What merges cells without an operator of places (Swin's 2x2 cells to one) is seen from the
number of cells, and lies in the middle of what it merges.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ultron_cli.errors import UltronError

TRIED_SIDE_PX = 512
AXES = (0, 1)  # down, across


@dataclass(frozen=True)
class Grid:
    """Cells along one axis of a photo, in its pixels."""

    first: float  # centre of the first cell
    step: float  # between two cells

    def windowed(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Grid":
        """Of a convolution or pooling."""
        reach = dilation * (kernel - 1) / 2
        return Grid(self.first + (reach - padding) * self.step, stride * self.step)

    def enlarged(self, factor: float) -> "Grid":
        """Of an enlargement; a factor below 1 shrinks."""
        return Grid(self.first + (1 / factor - 1) / 2 * self.step, self.step / factor)


Grids = tuple[Grid, Grid]  # down, across


class _Trace(TorchDispatchMode):
    """Follows the grid of everything that is computed of the photo."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        images._ultron_grids = (Grid(0.0, 1.0), Grid(0.0, 1.0))  # pyright: ignore[reportAttributeAccessIssue]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [grids for value in _tensors((args, kwargs)) if (grids := grids_of(value)) is not None]
        if inputs:
            grids = _joined(inputs)
            name = func.overloadpacket.__name__
            if name in _MOVES:
                grids = _MOVES[name](grids, args, output)
            for value in _tensors(output):
                value._ultron_grids = grids
        return output


def grids_of(value: torch.Tensor) -> Grids | None:
    return getattr(value, "_ultron_grids", None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _joined(inputs: Iterable[Grids]) -> Grids:
    """The coarsest, where several are equally coarse their mean."""
    joined = []
    for of_axis in zip(*inputs, strict=True):
        step = max(grid.step for grid in of_axis)
        firsts = {grid.first for grid in of_axis if grid.step == step}
        joined.append(Grid(sum(firsts) / len(firsts), step))
    return joined[0], joined[1]


def _pair(values: Any, default: int = 0) -> tuple[int, int]:
    values = [values] if isinstance(values, int) else list(values)
    return (default, default) if not values else (values[0], values[-1])


def _convolved(grids: Grids, args: tuple[Any, ...], _: object) -> Grids:
    image, weight, _, stride, padding, dilation, is_transposed = args[:7]
    if image.ndim != 4 or is_transposed:
        return grids
    options = zip(weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), strict=True)
    down, across = (grid.windowed(*values) for grid, values in zip(grids, options, strict=True))
    return down, across


def _pooled(grids: Grids, args: tuple[Any, ...], _: object) -> Grids:
    kernel = _pair(args[1])
    stride = _pair(args[2] if len(args) > 2 and args[2] else kernel)
    padding = _pair(args[3] if len(args) > 3 else 0)
    down, across = (
        grid.windowed(*values) for grid, values in zip(grids, zip(kernel, stride, padding, strict=True), strict=True)
    )
    return down, across


def _padded(grids: Grids, args: tuple[Any, ...], _: object) -> Grids:
    image, pad = args[:2]
    if image.ndim != 4:
        return grids
    sides = list(pad) + [0] * (8 - len(pad))
    is_of_channels = any(sides[4:8])
    # (B, C, h, w) is padded at its last axes; (B, h, w, C) at those before the last.
    left, top = (sides[2], sides[4]) if is_of_channels or not any(sides[:2]) and any(sides[4:]) else (sides[0], sides[2])
    down, across = grids
    return Grid(down.first - top * down.step, down.step), Grid(across.first - left * across.step, across.step)


def _resized(grids: Grids, args: tuple[Any, ...], output: torch.Tensor) -> Grids:
    image = args[0]
    if image.ndim != 4:
        return grids
    down, across = (grid.enlarged(output.shape[2 + a] / image.shape[2 + a]) for a, grid in zip(AXES, grids, strict=True))
    return down, across


_MOVES: dict[str, Callable[[Grids, tuple[Any, ...], Any], Grids]] = {
    "convolution": _convolved,
    "max_pool2d_with_indices": _pooled,
    "avg_pool2d": _pooled,
    "constant_pad_nd": _padded,
    "reflection_pad2d": _padded,
    "replication_pad2d": _padded,
    "upsample_bilinear2d": _resized,
    "upsample_nearest2d": _resized,
    "upsample_bicubic2d": _resized,
    "_adaptive_avg_pool2d": _resized,
}
