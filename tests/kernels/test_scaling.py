"""Photos scaled by the compiled library: to the bit what torch makes of them on one thread."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from ultron_kernels import scaling

from ultron_cli.machine import limited_threads
from ultron_cli.models.backbones.preprocessing import IMAGENET, Preprocessing
from ultron_cli.retrieval.extraction import scales
from ultron_cli.retrieval.extraction.scales import at_scale

pytestmark = pytest.mark.slow

SIDES_PX = [(1, 1), (1, 40), (5, 3), (33, 47), (64, 16), (97, 231), (480, 640)]
SCALES = [0.1, 0.25, 0.35355, 0.5, 0.70711, 1.0, 1.0001, 1.41421, 1.7, 2.0, 3.1]


@pytest.fixture(params=["avx2", "avx512"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """On a processor without AVX-512 both are AVX2."""
    monkeypatch.setenv("ULTRON_CPU_ISA", request.param)
    if not scaling.is_ready(worth_building=True):
        pytest.skip("compiled scaling cannot be had on this machine")
    with limited_threads(1):
        yield request.param


def by_torch(
    pixels: torch.Tensor, scale: float, preprocessing: Preprocessing, min_side_px: int, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(scaling, "is_ready", lambda worth_building: False)
        return at_scale(pixels, scale, preprocessing, min_side_px, is_planar=True)


@pytest.mark.parametrize("rule", ["bilinear", "bilinear-rounded"])
@pytest.mark.parametrize("sides_px", SIDES_PX)
def test_every_number_is_that_of_torch(
    isa: str, rule: Literal["bilinear", "bilinear-rounded"], sides_px: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(sum(sides_px))
    pixels = torch.from_numpy(draws.integers(0, 256, (2, *sides_px, 3), np.uint8))
    preprocessing = Preprocessing(mean=IMAGENET.mean, sd=IMAGENET.sd, scaling=rule)
    for scale in SCALES:
        for min_side_px in (1, 32):
            scaled = at_scale(pixels, scale, preprocessing, min_side_px, is_planar=True)
            assert scaled.is_contiguous()
            assert torch.equal(scaled, by_torch(pixels, scale, preprocessing, min_side_px, monkeypatch)), scale


def test_photos_that_lie_otherwise_in_memory(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(
        at_scale(pixels, 0.7, IMAGENET, 1, is_planar=True), by_torch(pixels, 0.7, IMAGENET, 1, monkeypatch)
    )


def test_several_threads_of_torch_have_their_own_numbers(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which stay: torch is the runtime that gives what released versions gave."""
    pixels = torch.randint(0, 256, (1, 480, 640, 3), dtype=torch.uint8)
    with limited_threads(2):
        scaled = at_scale(pixels, 0.7, IMAGENET, 1, is_planar=True)
        assert torch.equal(scaled, by_torch(pixels, 0.7, IMAGENET, 1, monkeypatch))
    assert scaled.is_contiguous(memory_format=torch.channels_last)


def test_only_who_takes_planar_photos_gets_them(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "scale_photo", None)
    for scale in (0.7, 1.0):
        scaled = at_scale(torch.zeros(1, 40, 50, 3, dtype=torch.uint8), scale, IMAGENET, 1)
        assert scaled.is_contiguous(memory_format=torch.channels_last)


def test_it_is_compiled_for_many_photos_at_several_linear_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    worth = []
    monkeypatch.setattr(scaling, "is_ready", lambda worth_building: worth.append(worth_building))
    antialiased = Preprocessing(mean=IMAGENET.mean, sd=IMAGENET.sd, scaling="antialias")
    scales.build_for(scales.WORTH_BUILDING - 1, (0.7, 1.0), IMAGENET)
    scales.build_for(scales.WORTH_BUILDING, (1.0,), IMAGENET)
    scales.build_for(scales.WORTH_BUILDING, (0.7, 1.0), antialiased)
    assert worth == []
    scales.build_for(scales.WORTH_BUILDING, (0.7, 1.0), IMAGENET)
    assert worth == [True]
