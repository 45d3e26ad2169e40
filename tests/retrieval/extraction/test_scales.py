"""Every way of bringing photos to a scale, against one written place by place."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ultron_cli.models import create_model
from ultron_cli.models.backbones import Preprocessing
from ultron_cli.models.core import normalise_images
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.retrieval.extraction.scales import at_scale

pytestmark = pytest.mark.slow

SCALES = [0.3535, 0.5, 0.7071, 0.9, 1.4142, 2.0]
Axis = Callable[[int, int, float, int], list[tuple[int, float]]]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(2, 45, 67, 3) uint8: edges, a gradient, noise."""
    photos = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, 45, 67, 3))
    photos[0, :, 20:40] = 255
    photos[1, 10:30] = np.linspace(0, 255, 67)[:, None].astype(int)
    return torch.from_numpy(photos.astype(np.uint8))


def settings(scaling: str) -> Preprocessing:
    return Preprocessing(mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0), scaling=scaling)


def linear(place: int, n_in: int, step: float, n_out: int) -> list[tuple[int, float]]:
    """Neighbours of one output place and their weights, half-pixel centres."""
    centre = min(max((place + 0.5) * step - 0.5, 0.0), n_in - 1.0)
    left = min(int(centre), n_in - 1)
    return [(left, 1 - (centre - left)), (min(left + 1, n_in - 1), centre - left)]


def triangle(place: int, n_in: int, step: float, n_out: int) -> list[tuple[int, float]]:
    """The linear filter stretched to the step where photos shrink."""
    width, centre = max(step, 1.0), (place + 0.5) * step
    weights = {source: max(0.0, 1 - abs(source + 0.5 - centre) / width) for source in range(n_in)}
    return [(source, weight / sum(weights.values())) for source, weight in weights.items() if weight]


def area(place: int, n_in: int, step: float, n_out: int) -> list[tuple[int, float]]:
    start, end = place * step, min((place + 1) * step, n_in)
    return [
        (source, max(0.0, min(end, source + 1) - max(start, source)) / (end - start))
        for source in range(int(start), min(n_in, math.ceil(end)))
    ]


def literal(photo: np.ndarray, sides: tuple[int, int], steps: tuple[float, float], axis: Axis) -> np.ndarray:
    """(H, W, 3) -> (*sides, 3) float64."""
    result = np.zeros((*sides, 3))
    for y in range(sides[0]):
        for x in range(sides[1]):
            for row, down in axis(y, photo.shape[0], steps[0], sides[0]):
                for column, across in axis(x, photo.shape[1], steps[1], sides[1]):
                    result[y, x] += down * across * photo[row, column]
    return result


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("way", "axis"), [("bilinear", linear), ("bilinear-rounded", linear), ("antialias", triangle)])
def test_float_ways_equal_their_literal_form(way: str, axis: Axis, scale: float, pixels: torch.Tensor) -> None:
    sides = tuple(round(side * scale) if way == "bilinear-rounded" else int(side * scale) for side in (45, 67))
    steps = (1 / scale, 1 / scale) if way == "bilinear" else (45 / sides[0], 67 / sides[1])
    scaled_pixels = at_scale(pixels, scale, settings(way), 8)
    right = np.stack([literal(photo, sides, steps, axis) for photo in pixels.numpy()]).transpose(0, 3, 1, 2) / 255
    assert scaled_pixels.shape == right.shape
    np.testing.assert_allclose(scaled_pixels, right, atol=2e-5)


@pytest.mark.parametrize("scale", [0.3535, 0.5, 0.7071, 0.9])
def test_area_equals_its_literal_form(scale: float, pixels: torch.Tensor) -> None:
    sides = (round(45 * scale), round(67 * scale))
    scaled_pixels = at_scale(pixels, scale, settings("area"), 8)
    right = np.stack([literal(photo, sides, (1 / scale, 1 / scale), area) for photo in pixels.numpy()]).transpose(
        0, 3, 1, 2
    )
    levels = (scaled_pixels * 255).numpy()
    assert levels.shape == right.shape and np.abs(levels - levels.round()).max() < 1e-3
    assert np.abs(levels - right).max() < 0.501  # rounded to whole levels


@pytest.mark.parametrize("scale", [1.4142, 2.0])
def test_linear_of_8_bits_equals_whole_number_arithmetic(scale: float, pixels: torch.Tensor) -> None:
    sides = (round(45 * scale), round(67 * scale))

    def neighbours(place: int, n_in: int) -> list[tuple[int, int]]:
        centre = np.float32((place + 0.5) / scale - 0.5)
        first, weight = math.floor(centre), round(float(centre - np.floor(centre)) * 2048)
        return [(min(max(first, 0), n_in - 1), 2048 - weight), (min(first + 1, n_in - 1), weight)]

    photo, right = pixels[1].numpy().astype(int), np.zeros((*sides, 3), int)
    for y in range(sides[0]):
        for x in range(sides[1]):
            for channel in range(3):
                parts = []
                for row, down in neighbours(y, 45):
                    across = sum(weight * photo[row, column, channel] for column, weight in neighbours(x, 67))
                    parts.append((down * (across >> 4)) >> 16)
                right[y, x, channel] = (sum(parts) + 2) >> 2
    scaled_pixels = at_scale(pixels, scale, settings("area"), 8)[1].permute(1, 2, 0) * 255
    assert np.array_equal(scaled_pixels.round().int().numpy(), right)


@pytest.mark.parametrize("way", ["bilinear", "bilinear-rounded", "antialias", "area"])
def test_no_side_below_the_minimum_and_scale_1_untouched(way: str, pixels: torch.Tensor) -> None:
    assert at_scale(pixels, 0.5, settings(way), 32).shape == (
        2,
        3,
        32,
        34 if way in ("bilinear-rounded", "area") else 33,
    )
    assert torch.equal(at_scale(pixels, 1.0, settings(way), 32), normalise_images(pixels, settings(way)))
    flat = at_scale(torch.full((1, 40, 50, 3), 200, dtype=torch.uint8), 0.6, settings(way), 32)
    torch.testing.assert_close(flat, torch.full_like(flat, 200 / 255))


def test_each_method_has_the_way_of_its_published_code() -> None:
    ways = {
        name: create_model(name, backbone="test_resnet", **extra).preprocessing.scaling
        for name, extra in (
            ("gem", {}),
            ("superglobal", {}),
            ("cfcd-r50", {}),
            ("dolg-r50", {"dilations": [1, 2, 3]}),
            ("senet-r50", {}),
        )
    }
    assert ways == {
        "gem": "bilinear",
        "superglobal": "antialias",
        "cfcd-r50": "bilinear-rounded",
        "dolg-r50": "bilinear-rounded",
        "senet-r50": "area",
    }


@torch.no_grad()
def test_several_scales_by_the_power_mean_of_gem(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = create_model("gem", backbone="test_resnet", p=2.5, scale_gem=True).eval()
    scales = (0.7071, 1.0, 1.4142)
    each = torch.stack([model(at_scale(pixels, scale, model.preprocessing, model.min_side_px)) for scale in scales])
    right = each.double().pow(2.5).sum(0).div(3).pow(1 / 2.5)
    torch.testing.assert_close(
        describe(model, pixels, scales), torch.nn.functional.normalize(right, dim=1).float(), atol=1e-6, rtol=0
    )
    mean = create_model("gem", backbone="test_resnet", p=2.5).eval()
    mean.load_state_dict(model.state_dict())
    assert not torch.allclose(describe(mean, pixels, scales), describe(model, pixels, scales), atol=1e-5)
