"""Where the cells of a network's map lie in its photo, told by the operators that a forward pass runs through.

Cell i of an axis lies at first + i * step pixels, the centre of the photo's first pixel at 0. Convolutions, poolings,
paddings and enlargements move it by what they are: a 3x3 convolution of stride 2 with one place of padding leaves the
first cell on the first pixel, one that pads the last side alone puts it on the second. What joins several (a block and
its shortcut) has their mean. What merges cells without an operator of places (Swin's 2x2 cells to one) is seen from the
number of cells, and lies in the middle of what it merges.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.layer_maps import run_through

TRIED_SIDE_PX = 512
MOST_CELL_PX = 16.0  # of the layer that is chosen where none is named: DELG's
LAST = "last"
GRIDS = "_ultron_grids"  # the attribute of a tensor under _Trace
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

    def places(self, n_cells: int) -> torch.Tensor:
        """(n_cells,) float64."""
        return self.first + self.step * torch.arange(n_cells, dtype=torch.float64)

    def covers(self, n_cells: int, side_px: int) -> bool:
        """Whether so many cells end as far from the last edge of a photo as they begin from the first, give or take
        the two that rounding may add or leave out."""
        last = self.first + (n_cells - 1) * self.step
        return abs(side_px - 1 - last - self.first) <= 2 * self.step


Grids = tuple[Grid, Grid]  # down, across
Arguments = tuple[Any, ...]  # of an operator of torch


@dataclass(frozen=True, eq=False)
class PlacedMap:
    """A map, and where its cells lie."""

    features: torch.Tensor  # (C, h, w) float32
    weights: torch.Tensor  # (h, w) float32, not below 0: how much each cell counts
    grids: Grids  # in pixels of the images that the network was shown


@dataclass(frozen=True)
class _Tried:
    """What a photo of TRIED_SIDE_PX shows of a map; the cells of small ones do not tell how many are merged."""

    n_channels: int
    merged: tuple[int, int]  # traced cells that are one in the map, down and across
    cell_px: float


def placed_maps(model: RetrievalModel, layer: str = "") -> "PlacedMaps":
    """The maps of a stage or layer by name; "last" is the last map before pooling. Empty is the last map whose cells
    are of at most MOST_CELL_PX, or where none is so fine the last of all. The model is in evaluation mode.

    Raises UltronError if the model has no map, or no such layer.
    """
    if layer:
        maps = PlacedMaps(model, None if layer == LAST else layer)
        maps.require()
        return maps
    last = PlacedMaps(model)
    if last.cell_px <= MOST_CELL_PX:
        return last
    for name in reversed(model.named_stages()):
        maps = PlacedMaps(model, name)
        with contextlib.suppress(UltronError):  # a stage that gives no map, or is not reached by it
            if maps.cell_px <= MOST_CELL_PX:
                return maps
    return last


class PlacedMaps:
    """The maps of a model, or of one of its layers, with the places of their cells."""

    def __init__(self, model: RetrievalModel, layer: str | None = None) -> None:
        """layer: a stage or layer by name; None: the last map before pooling."""
        self._model = model
        self._layer = layer

    @property
    def layer(self) -> str:
        """Its name, as placed_maps takes it."""
        return self._layer or LAST

    def require(self) -> None:
        """Raises UltronError if the model has no map, or no such layer."""
        _ = self._tried

    @property
    def n_channels(self) -> int:
        """C."""
        return self._tried.n_channels

    @property
    def cell_px(self) -> float:
        """The side of a cell, in pixels that the network is shown."""
        return self._tried.cell_px

    @cached_property
    def _tried(self) -> "_Tried":
        side_px = max(TRIED_SIDE_PX, self._model.min_side_px)
        weight = next(self._model.parameters(), torch.empty(0))
        features, grids = self._traced(torch.zeros(1, 3, side_px, side_px, device=weight.device))
        merged = [
            1 if grids is None else max(1, round(side_px / (features.shape[2 + axis] * grids[axis].step)))
            for axis in AXES
        ]
        steps = [
            side_px / features.shape[2 + axis] if grids is None else merged[axis] * grids[axis].step for axis in AXES
        ]
        return _Tried(features.shape[1], (merged[0], merged[1]), (steps[0] * steps[1]) ** 0.5)

    @torch.no_grad()
    def of(self, images: torch.Tensor) -> PlacedMap:
        """images: (1, 3, H, W), normalised."""
        features, grids = self._traced(images)
        if self._layer is None:
            weights = self._model.place_weights(features)
        else:
            weights = features.norm(dim=1)
        placed = []
        for axis in AXES:
            n_cells, side_px, merged = features.shape[2 + axis], images.shape[2 + axis], self._tried.merged[axis]
            grid = None if grids is None else grids[axis].windowed(merged, merged, 0)
            if grid is None or not grid.covers(n_cells, side_px):
                step = side_px / n_cells
                grid = Grid(step / 2 - 0.5, step)  # equal shares of the photo
            placed.append(grid)
        return PlacedMap(features[0].float(), weights[0].float(), (placed[0], placed[1]))

    @torch.no_grad()
    def _traced(self, images: torch.Tensor) -> tuple[torch.Tensor, Grids | None]:
        """(the map (1, C, h, w), the grids that its operators have, if they tell)."""
        maps: list[torch.Tensor] = []

        def record(features: torch.Tensor) -> torch.Tensor:
            maps.append(features)
            raise _Reached

        with _Trace(images), contextlib.suppress(_Reached):
            run_through(self._model, images, self._layer, record, to_the_end=False)
        return maps[-1], grids_of(maps[-1])


class _Reached(Exception):
    """The map is there."""


class _Trace(TorchDispatchMode):
    """Follows the grid of everything that is computed of the photo."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        _set_grids(images, (Grid(0.0, 1.0), Grid(0.0, 1.0)))

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Arguments = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        inputs = [grids for value in _tensors((args, kwargs)) if (grids := grids_of(value)) is not None]
        if inputs:
            grids = _joined(inputs)
            name = str(getattr(func, "overloadpacket", "")).rpartition(".")[2]
            if name in _MOVES:
                grids = _MOVES[name](grids, args, next(_tensors(output)))
            for value in _tensors(output):
                _set_grids(value, grids)
        return output


def _set_grids(value: torch.Tensor, grids: Grids) -> None:
    setattr(value, GRIDS, grids)


def grids_of(value: torch.Tensor) -> Grids | None:
    """Those of something that was computed of a photo under _Trace."""
    return getattr(value, GRIDS, None)


def _tensors(value: object) -> Iterator[torch.Tensor]:
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


def _pair(values: int | Sequence[int]) -> tuple[int, int]:
    return (values, values) if isinstance(values, int) else (values[0], values[-1])


def _convolved(grids: Grids, args: Arguments, _: object) -> Grids:
    image, weight, _, stride, padding, dilation, is_transposed = args[:7]
    if image.ndim != 4 or is_transposed:
        return grids
    options = zip(weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), strict=True)
    down, across = (grid.windowed(*values) for grid, values in zip(grids, options, strict=True))
    return down, across


def _pooled(grids: Grids, args: Arguments, _: object) -> Grids:
    kernel = _pair(args[1])
    stride = _pair(args[2] if len(args) > 2 and args[2] else kernel)
    padding = _pair(args[3] if len(args) > 3 else 0)
    down, across = (
        grid.windowed(*values) for grid, values in zip(grids, zip(kernel, stride, padding, strict=True), strict=True)
    )
    return down, across


def _padded(grids: Grids, args: Arguments, _: object) -> Grids:
    image, pad = args[:2]
    if image.ndim != 4:
        return grids
    sides = [*pad, *([0] * (6 - len(pad)))]
    # (B, C, h, w) is padded at its last axes; (B, h, w, C) at those before its channels.
    left, top = (sides[2], sides[4]) if any(sides[4:6]) else (sides[0], sides[2])
    down, across = grids
    return Grid(down.first - top * down.step, down.step), Grid(across.first - left * across.step, across.step)


def _resized(grids: Grids, args: Arguments, output: torch.Tensor) -> Grids:
    image = args[0]
    if image.ndim != 4:
        return grids
    factors = (output.shape[2 + axis] / image.shape[2 + axis] for axis in AXES)
    down, across = (grid.enlarged(factor) for grid, factor in zip(grids, factors, strict=True))
    return down, across


_MOVES: dict[str, Callable[[Grids, Arguments, torch.Tensor], Grids]] = {
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
