"""Photos of a batch: the same pixels whatever the number of workers, colours, crops, unreadable photos."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.training.batches.draws import EpochBatches, PhotoDraw, training_shapes
from ultron_cli.training.batches.photos import (
    Augmentation,
    TrainingPhotos,
    change_colours,
    make_loader,
    seeded_randomness,
)
from ultron_cli.training.config import AugmentConfig


def test_pixels_depend_on_the_draw_alone(toy: Path) -> None:
    dataset = TrainingPhotos(open_landmark_photos(toy), Augmentation(AugmentConfig(), training_shapes(48, True)))
    state = torch.get_rng_state()
    a, b, c = dataset[PhotoDraw(3, 11, 3)], dataset[PhotoDraw(3, 11, 3)], dataset[PhotoDraw(3, 12, 3)]
    assert torch.equal(a.pixels, b.pixels)
    assert not torch.equal(a.pixels, c.pixels)
    assert torch.equal(torch.get_rng_state(), state)
    assert dataset[PhotoDraw(3, 11, 6)].pixels.shape == (1, 3, 32, 64)


COLOUR_CHANGES = [
    ((1, 1, 1), 0.02),
    ((1, 1, 1), -0.4),
    ((1.1, 1, 1), 0),
    ((1, 0.8, 1), 0),
    ((1, 1, 1.3), 0),
    ((0.8, 1.2, 0.7), 0.1),
]


@pytest.mark.parametrize(("factors", "turns"), COLOUR_CHANGES)
def test_colours_change_as_torchvision_does(factors: tuple[float, ...], turns: float) -> None:
    from torchvision.transforms.v2 import functional

    torch.manual_seed(0)
    pixels = torch.randint(60, 190, (3, 150, 70), dtype=torch.uint8)  # nothing is clipped
    pixels[:, :8] = torch.randint(60, 190, (1,)).to(torch.uint8)  # grey
    pixels[0, 8:16] = pixels[1, 8:16]
    expected = functional.adjust_brightness(pixels, factors[0])
    expected = functional.adjust_hue(
        functional.adjust_saturation(functional.adjust_contrast(expected, factors[1]), factors[2]), turns
    )
    difference = (change_colours(pixels, *factors, turns).int() - expected.int()).abs()
    n_changes = sum(factor != 1 for factor in factors) + bool(turns)
    assert difference.max() <= (
        1 if n_changes == 1 else 5
    )  # torchvision cuts to whole numbers after each step, this rounds once
    assert difference.float().mean() < n_changes
    assert torch.equal(change_colours(pixels, 1.0, 1.0, 1.0, 0.0), pixels)


def test_colours_are_clipped_and_extreme_hues_stay() -> None:
    pixels = torch.tensor([[[0, 255, 255, 0]], [[0, 255, 0, 1]], [[0, 255, 0, 0]]], dtype=torch.uint8)
    assert change_colours(pixels, 2.0, 1.0, 1.0, 0.0).flatten().tolist() == [0, 255, 255, 0, 0, 255, 0, 2, 0, 255, 0, 0]
    assert change_colours(pixels, 1.0, 1.0, 1.0, 1 / 3)[:, 0, 2].tolist() == [0, 255, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_same_batches_with_any_number_of_workers(toy: Path, workers: int) -> None:
    dataset = TrainingPhotos(open_landmark_photos(toy), Augmentation(AugmentConfig(), [(40, 40)]))
    loader = make_loader(dataset, EpochBatches(36, 12, seed=5), workers, pin=False)
    state = torch.get_rng_state()
    batches = list(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(batch.pixels.shape) for batch in batches] == [(12, 3, 40, 40)] * 3
    assert batches[0].pixels.is_contiguous(memory_format=torch.channels_last)
    expected = [dataset[draw] for draw in next(iter(EpochBatches(36, 12, seed=5)))]
    assert torch.equal(batches[0].pixels, torch.cat([item.pixels for item in expected]))
    assert batches[0].labels.tolist() == [dataset.photos.labels[row] for row in batches[0].rows]


def test_the_crop_keeps_its_place_in_a_scaled_decoding(tmp_path: Path) -> None:
    """A photo of smooth ramps: decoded at 1/4, each crop must show the same range of them as decoded whole."""
    x, y = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 480))
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    augment = Augmentation(AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, flip=False), [(64, 64)])
    dataset = TrainingPhotos(_photos(tmp_path), augment)
    for seed in range(5):
        small, whole = dataset[PhotoDraw(0, seed, 0)].pixels.float(), dataset[PhotoDraw(1, seed, 0)].pixels.float()
        assert (small - whole)[:, :2].abs().max() < 6
    assert whole[0, 0, :, -1].mean() - whole[0, 0, :, 0].mean() > 60


def _photos(folder: Path) -> LandmarkPhotos:
    return LandmarkPhotos(
        folder=folder, paths=[folder / "a.jpg", folder / "a.png"], labels=np.array([0, 1]), landmark_names=["a", "b"]
    )


def test_unreadable_photos_are_replaced_by_their_landmark_and_named(toy: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(toy)
    paths = list(photos.paths)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    paths[7], paths[8] = tmp_path / "broken.jpg", tmp_path / "gone.jpg"
    dataset = TrainingPhotos(dataclasses.replace(photos, paths=paths), Augmentation(AugmentConfig(), [(40, 40)]))
    item = dataset[PhotoDraw(7, 1, 0)]
    assert (item.rows.tolist(), item.labels.tolist()) == ([9], [1])
    assert [row for row, _ in item.problems] == [7, 8]
    assert "broken.jpg: cannot be decoded (not a photo that Pillow can read)" in item.problems[0][1]
    hopeless = dataclasses.replace(photos, paths=[tmp_path / "broken.jpg"] * len(paths))
    item = TrainingPhotos(hopeless, Augmentation(AugmentConfig(), [(40, 40)]))[PhotoDraw(7, 1, 0)]
    assert len(item.pixels) == 0
    assert len(item.problems) >= 5


def test_padded_crops_move_the_photo_over_black(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    plain = AugmentConfig(pad_px=4, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, flip=False)
    augment = Augmentation(plain, [(32, 32)])
    places_of_crops = set()
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0))).transpose(2, 0, 1)
    for seed in range(12):
        with seeded_randomness(seed):
            crop = augment(tmp_path / "x.png", 0).numpy()
        places = [(y, x) for y in range(9) for x in range(9) if np.array_equal(padded[:, y : y + 32, x : x + 32], crop)]
        assert len(places) == 1
        places_of_crops.add(places[0])
    assert len(places_of_crops) > 6
