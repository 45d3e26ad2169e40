"""Photos at several scales, resampled as the published code of each method does it.

At scales beside 1 the way of resampling changes descriptors more than most settings: on random networks cosines of 0.95
were seen between two ways. So a network's preprocessing names its own:

- bilinear: sides rounded down, linear between the nearest places (cirtorch).
- bilinear-rounded: the same with sides rounded to the nearest (DOLG, CFCD: OpenCV's linear filter on float photos).
- antialias: sides rounded down, a linear filter as wide as the step where photos shrink (SuperGlobal: torchvision's).
- area: of 8-bit photos, results rounded to 8 bits; sides rounded to the nearest; where photos shrink, each place is the
  mean of the area that it covers, and where they grow it is linear (SENet: OpenCV's INTER_AREA and INTER_LINEAR with
  factors instead of sizes).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from ultron_kernels import scaling

from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import normalise_images

WORTH_BUILDING = 300  # photos at several scales: scaling so many saves as long as compiling takes
Taps = list[tuple[torch.Tensor, torch.Tensor]]  # per neighbour: its place (n,) in the input and its weight (n,)


@dataclass(frozen=True, kw_only=True)
class ScaledShape:
    """What photos are brought to."""

    scale: float
    sides: list[int]  # in pixels; none below what the network takes
    is_exact: bool  # they are the scaled sides, none of which was too short
    is_planar: bool = False  # whether it may lie in memory colour after colour


def at_scale(
    pixels: torch.Tensor, scale: float, preprocessing: Preprocessing, min_side_px: int, *, is_planar: bool = False
) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, scale H, scale W) float32, normalised; no side below min_side_px.

    is_planar: whether it may lie in memory as it is written here, which is made faster; else channels last.
    """
    if scale == 1.0:
        as_it_is = ScaledShape(scale=scale, sides=[*pixels.shape[1:3]], is_exact=True, is_planar=is_planar)
        return _linear(pixels, as_it_is, None, preprocessing)
    rule = SCALINGS[preprocessing.scaling]
    scaled_sides = [rule.rounded(side * scale) for side in pixels.shape[1:3]]
    sides = [max(min_side_px, side) for side in scaled_sides]
    shape = ScaledShape(scale=scale, sides=sides, is_exact=sides == scaled_sides, is_planar=is_planar)
    return rule.resampled(pixels, shape, preprocessing)


def build_for(n_photos: int, scales: Sequence[float], preprocessing: Preprocessing) -> None:
    """Compiles what scales planar photos, if that is worth it for so many of them."""
    is_linear = SCALINGS[preprocessing.scaling].resampled in (_bilinear, _to_sides)
    if is_linear and n_photos >= WORTH_BUILDING and any(scale != 1.0 for scale in scales):
        scaling.is_ready(worth_building=True)


def pixel_steps(
    sides: tuple[int, int], scale: float, scaled_sides: tuple[int, int], scaling: str
) -> tuple[float, float]:
    """Pixels of a photo, down and across, between two of what at_scale made of it.

    sides: (H, W) of the photo; scaled_sides: of what was made; scaling: a key of SCALINGS.
    """
    rule = SCALINGS[scaling]
    are_scaled = all(scaled == rule.rounded(side * scale) for side, scaled in zip(sides, scaled_sides, strict=True))
    if rule.keeps_step and are_scaled:
        return 1 / scale, 1 / scale
    return sides[0] / scaled_sides[0], sides[1] / scaled_sides[1]


def _bilinear(pixels: torch.Tensor, shape: ScaledShape, preprocessing: Preprocessing) -> torch.Tensor:
    # Steps of exactly 1 / scale, whatever was rounded away.
    return _linear(pixels, shape, shape.scale if shape.is_exact else None, preprocessing)


def _to_sides(pixels: torch.Tensor, shape: ScaledShape, preprocessing: Preprocessing) -> torch.Tensor:
    return _linear(pixels, shape, None, preprocessing)


def _linear(
    pixels: torch.Tensor, shape: ScaledShape, scale: float | None, preprocessing: Preprocessing
) -> torch.Tensor:
    """scale: whose reciprocal is the step; None takes the steps from the sides."""
    # torch rounds otherwise on several threads.
    may_compile = shape.is_planar and pixels.device.type == "cpu" and torch.get_num_threads() == 1
    if may_compile and scaling.is_ready(worth_building=False):
        return _linear_compiled(pixels, shape.sides, scale, preprocessing)
    images = normalise_images(pixels, preprocessing)
    if shape.scale == 1.0:
        return images
    if scale is None:
        return F.interpolate(images, size=shape.sides, mode="bilinear", align_corners=False)
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def _linear_compiled(
    pixels: torch.Tensor, sides: list[int], scale: float | None, preprocessing: Preprocessing
) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, *sides) float32, contiguous, with the numbers of _linear by torch on one thread."""
    mean, sd = (np.float32(255) * np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.sd))
    photos = pixels.contiguous().numpy()
    (height, width), (scaled_height, scaled_width) = photos.shape[1:3], sides
    steps = (height / scaled_height, width / scaled_width) if scale is None else (1 / scale, 1 / scale)
    images = torch.empty(len(photos), 3, scaled_height, scaled_width, dtype=torch.float32, device="cpu")
    for photo, image in zip(photos, images.numpy(), strict=True):
        scaling.scale_photo(photo, mean, sd, (scaled_height, scaled_width), steps, image)
    return images


def _antialiased(pixels: torch.Tensor, shape: ScaledShape, preprocessing: Preprocessing) -> torch.Tensor:
    images = normalise_images(pixels, preprocessing)
    return F.interpolate(images, size=shape.sides, mode="bilinear", align_corners=False, antialias=True)


def _of_8_bits(pixels: torch.Tensor, shape: ScaledShape, preprocessing: Preprocessing) -> torch.Tensor:
    steps = [
        1 / shape.scale if side == round(n * shape.scale) else n / side
        for n, side in zip(pixels.shape[1:3], shape.sides, strict=True)
    ]
    resample = _area if max(steps) > 1 else _linear_8bit
    return normalise_images(resample(pixels, shape.sides, steps), preprocessing)


def _area(pixels: torch.Tensor, sides: list[int], steps: list[float]) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, *sides, 3) uint8: means of the areas that the places cover."""
    values = pixels.float()
    for axis in (1, 2):
        values = _weighted_sum(values, axis, _area_taps(values.shape[axis], sides[axis - 1], steps[axis - 1]))
    return values.add_(0.5).floor_().to(torch.uint8)


def _linear_8bit(pixels: torch.Tensor, sides: list[int], steps: list[float]) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, *sides, 3) uint8: linear in whole numbers, weights of 11 bits, as OpenCV computes
    it."""
    down, across = (_linear_taps(pixels.shape[axis], sides[axis - 1], steps[axis - 1]) for axis in (1, 2))
    rows = _weighted_sum(pixels.int(), 2, across) >> 4  # 15 bits
    upper, lower = ((_taken(rows, 1, places) * _along(weights, 1, rows)) >> 16 for places, weights in down)
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _weighted_sum(values: torch.Tensor, axis: int, taps: Taps) -> torch.Tensor:
    """The neighbours along an axis times their weights, added up in their order."""
    terms = [_taken(values, axis, places) * _along(weights, axis, values) for places, weights in taps]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _taken(values: torch.Tensor, axis: int, places: torch.Tensor) -> torch.Tensor:
    return values.index_select(axis, places.to(values.device))


def _along(weights: torch.Tensor, axis: int, like: torch.Tensor) -> torch.Tensor:
    """(n,) -> shaped to multiply values (B, H, W, 3) along `axis`."""
    return weights.to(like).view([-1 if dim == axis else 1 for dim in range(like.ndim)])


def _area_taps(n_in: int, n_out: int, step: float) -> Taps:
    """The places that an area covers, and the share of it, float64, that each has. step: places of the input between
    two of the output."""
    start = torch.arange(n_out, dtype=torch.float64) * step
    end = (start + step).clamp(max=n_in)
    taps = [start.floor() + t for t in range(math.ceil(step) + 1)]
    shares = [(torch.minimum(end, tap + 1) - torch.maximum(start, tap)).clamp(min=0) / (end - start) for tap in taps]
    return [(tap.clamp(max=n_in - 1).long(), share) for tap, share in zip(taps, shares, strict=True)]


def _linear_taps(n_in: int, n_out: int, step: float) -> Taps:
    """The two neighbours, with weights in parts of 2048."""
    # OpenCV has the centre in float32 too, which shows in the weights.
    centre = ((torch.arange(n_out, dtype=torch.float64) + 0.5) * step - 0.5).float()
    first = centre.floor()
    second = ((centre - first) * 2048).round()
    return [((first + t).clamp(0, n_in - 1).long(), second if t else 2048 - second) for t in (0, 1)]


@dataclass(frozen=True)
class Scaling:
    """A way to bring photos to further scales, as `Preprocessing.scaling` names it."""

    rounded: Callable[[float], int]  # of a side in pixels
    # (B, H, W, 3) uint8 -> (B, 3, *sides) float32, normalised
    resampled: Callable[[torch.Tensor, ScaledShape, Preprocessing], torch.Tensor]
    keeps_step: bool = False  # of exactly 1 / scale pixels, whatever is rounded away at the last edge


SCALINGS = {
    "bilinear": Scaling(math.trunc, _bilinear, keeps_step=True),
    "bilinear-rounded": Scaling(round, _to_sides),
    "antialias": Scaling(math.trunc, _antialiased),
    "area": Scaling(round, _of_8_bits, keeps_step=True),
}
