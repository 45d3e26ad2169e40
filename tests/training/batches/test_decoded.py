"""Decoded photos that are kept: the same pixels as decoded anew, and no more of them than fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photo_files import draft_divisor, open_photo
from ultron_cli.training.batches import decoded
from ultron_cli.training.batches.decoded import DecodedPhotos, cut
from ultron_cli.training.batches.draws import PhotoDraw
from ultron_cli.training.batches.photos import Augmentation, TrainingPhotos
from ultron_cli.training.config import AugmentConfig

SIZES = ((97, 131), (258, 190), (333, 250), (64, 48))


@pytest.fixture
def photos(tmp_path: Path) -> LandmarkPhotos:
    draws = np.random.default_rng(0)
    paths = []
    for i, (width, height) in enumerate(SIZES):
        pixels = draws.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        for name in (f"{i}.jpg", f"{i}.png", f"{i}-turned.jpg"):
            image = Image.fromarray(pixels[:height, :width])
            exif = image.getexif()
            if "turned" in name:
                exif[0x112] = 6
            image.save(tmp_path / name, exif=exif)
            paths.append(tmp_path / name)
    return LandmarkPhotos(
        folder=tmp_path, paths=paths, labels=np.arange(len(paths)), landmark_names=list("abcdefghijkl")
    )


@pytest.mark.parametrize("pad_px", [0, 3])
def test_pixels_are_those_of_photos_decoded_anew(
    photos: LandmarkPhotos, pad_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, shapes = AugmentConfig(crop_area=(0.2, 1.0), pad_px=pad_px), [(40, 40)]
    store = DecodedPhotos(len(photos.paths))
    anew, again = (TrainingPhotos(photos, Augmentation(config, shapes, memory)) for memory in (None, store))
    n_opened = 0

    def counted(path: Path) -> object:
        nonlocal n_opened
        n_opened += 1
        return open_photo(path)

    for seed in range(20):
        for row in range(len(photos.paths)):
            draw = PhotoDraw(row, seed, 0)
            expected = anew[draw]
            with monkeypatch.context() as patch:
                patch.setattr(decoded, "open_photo", counted)
                result = again[draw]
            assert torch.equal(result.pixels, expected.pixels) and not result.problems
            assert result.pixels.stride() == expected.pixels.stride()
    divisors = {divisor for _, divisor in store.pixels}
    assert n_opened == len(store.pixels) and (len(divisors) > 1 or pad_px)
    assert all(divisor == 1 for path, divisor in store.pixels if path.suffix == ".png")


def test_a_set_that_does_not_fit_is_not_kept(photos: LandmarkPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = 64 * 48 * 3
    monkeypatch.setattr(decoded, "KEPT_BYTES", len(photos.paths) * smallest)
    store = DecodedPhotos(len(photos.paths))
    augment = Augmentation(AugmentConfig(crop_area=(1.0, 1.0)), [(200, 200)], store)
    for path in photos.paths:
        augment(path, 0)
    assert {path.stem[0] for path in store.headers} == {path.stem[0] for path, _ in store.pixels} == {"3"}
    assert all(pixels.nbytes == smallest for pixels in store.pixels.values())


@pytest.mark.parametrize("size", [(256, 192), (255, 193), (17, 900), (8, 8), (1, 3)])
def test_the_divisor_is_pillows(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "a.jpg")
    for scale in (0.01, 0.124, 0.125, 0.2, 0.25, 0.26, 0.4, 0.5, 0.501, 0.75, 0.999, 1.0, 2.0):
        with open_photo(tmp_path / "a.jpg") as photo:
            photo.draft(scale)
            divisor = draft_divisor(size, scale)
            assert photo.image.size == tuple(-(-side // divisor) for side in size)


def test_a_part_beyond_the_edge_is_black_as_pillow_crops() -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (9, 7, 3), np.uint8)
    for top, left, height, width in ((0, 0, 9, 7), (2, 3, 4, 4), (5, 1, 5, 6), (1, 4, 8, 4), (8, 6, 2, 2)):
        expected = np.array(Image.fromarray(pixels).crop((left, top, left + width, top + height)))
        part = cut(pixels, top, left, height, width)
        assert np.array_equal(part, expected) and part.flags.c_contiguous
