"""Photos of every kind become upright 8-bit RGB; sizes, boxes and batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultron_cli.datasets.photo_files import decode_photo, photo_size
from ultron_cli.datasets.photos import (
    LoadedPhoto,
    PhotoReader,
    PhotoShape,
    batches_by_shape,
    clip_box,
    load_photo,
    read_photos,
)
from ultron_cli.errors import UltronError

RED, WHITE = (200, 30, 40), (255, 255, 255)


def two_halves(width: int = 8, height: int = 6) -> Image.Image:
    """Left half red, right half white."""
    pixels = np.full((height, width, 3), WHITE, np.uint8)
    pixels[:, : width // 2] = RED
    return Image.fromarray(pixels)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = two_halves()
    for orientation, transposed in (
        (3, Image.ROTATE_180),
        (6, Image.ROTATE_90),
        (8, Image.ROTATE_270),
        (2, Image.FLIP_LEFT_RIGHT),
    ):
        stored = upright.transpose(transposed)
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        stored.save(path, exif=exif)
        np.testing.assert_array_equal(np.array(decode_photo(path)), np.array(upright))
        assert photo_size(path) == upright.size


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA", "YCbCr"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / {"CMYK": "photo.tif", "YCbCr": "photo.jpg"}.get(mode, "photo.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    decoded = decode_photo(path)
    assert (decoded.mode, decoded.size) == ("RGB", (5, 4))
    assert np.array(decoded).min() >= 250


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.array(decode_photo(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_places_become_white(tmp_path: Path) -> None:
    layered = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    layered.putpixel((1, 0), (0, 0, 0, 0))
    layered.save(tmp_path / "t.png")
    assert np.array(decode_photo(tmp_path / "t.png"))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("content", [b"", b"not a photo", b"\xff\xd8\xff\xe0 cut"])
def test_damaged_photos_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UltronError, match=r"broken\.jpg: cannot be decoded"):
        decode_photo(path)


def test_truncated_jpeg_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UltronError, match=r"cut\.jpg: cannot be decoded"):
        decode_photo(path)
    with pytest.raises(UltronError, match="no such photo"):
        decode_photo(tmp_path / "absent.jpg")


def test_draft_decoding_is_smaller_but_large_enough(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    two_halves(800, 600).save(path, quality=95)
    whole, draft = decode_photo(path), decode_photo(path, 150)
    assert whole.size == (800, 600)
    assert draft.size == (200, 150)
    np.testing.assert_allclose(np.array(draft)[75, [20, 180]], np.array(whole)[300, [80, 720]], atol=3)
    assert decode_photo(path, 500).size == (800, 600)


@pytest.mark.parametrize(
    ("shape", "size", "target"),
    [
        (PhotoShape(max_side_px=100), (400, 200), (100, 50)),
        (PhotoShape(max_side_px=100), (80, 60), (80, 60)),
        (PhotoShape(max_side_px=100, resize="always"), (80, 40), (100, 50)),
        (PhotoShape(max_side_px=None), (4000, 3000), (4000, 3000)),
        (PhotoShape(max_side_px=100), (1000, 10), (100, 32)),  # no side below the network's minimum
        (PhotoShape(max_side_px=100, min_side_px=75), (3, 3), (75, 75)),
    ],
)
def test_target_sizes(shape: PhotoShape, size: tuple[int, int], target: tuple[int, int]) -> None:
    assert shape.target(*size) == target


def test_crop_takes_the_box(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    two_halves(80, 60).save(path)
    left = load_photo(path, (0, 0, 40, 60), PhotoShape())
    assert left.shape == (60, 40, 3)
    assert (left == RED).all()


def test_boxes_are_clipped_by_two_pixels_and_no_more() -> None:
    assert clip_box((-1.4, 0.4, 101.5, 50.2), 100, 50, "q") == (0, 0, 100, 50)
    assert clip_box((99.9, 10, 100.4, 20), 100, 50, "q") == (99, 10, 100, 20)
    for box in ((0, 0, 103, 50), (-3, 0, 50, 50), (0, 0, 50, 60)):
        with pytest.raises(UltronError, match="reaches outside the photo of 100 x 50 px"):
            clip_box(box, 100, 50, "q")


def loaded(row: int, side: int) -> LoadedPhoto:
    return LoadedPhoto(row, torch.zeros((side, side, 3), dtype=torch.uint8))


def test_batches_hold_one_shape_and_every_photo_once() -> None:
    photos = [loaded(row, 8 + row % 3) for row in range(20)] + [LoadedPhoto(20, None, "bad")]
    batches = list(batches_by_shape(iter(photos), batch_size=4, max_waiting=6))
    assert sorted(photo.row for batch in batches for photo in batch) == list(range(21))
    for batch in batches:
        assert len(batch) <= 4
        assert len({None if photo.pixels is None else photo.pixels.shape for photo in batch}) == 1


def test_photos_of_many_shapes_do_not_pile_up() -> None:
    taken = []

    def source() -> object:
        for row in range(50):
            taken.append(row)
            yield loaded(row, 8 + row)

    n_given = 0
    for batch in batches_by_shape(source(), batch_size=4, max_waiting=5):  # type: ignore[arg-type]
        n_given += len(batch)
        assert len(taken) - n_given <= 6
    assert n_given == 50


def test_workers_give_the_same_photos_in_order(tmp_path: Path) -> None:
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (40, 40), (i, 0, 0)).save(paths[-1])
    paths[3].write_bytes(b"broken")
    reader = PhotoReader(list(range(6)), paths, [None] * 6, PhotoShape())
    in_process, in_worker = list(read_photos(reader, 0)), list(read_photos(reader, 1))
    assert [photo.row for photo in in_worker] == list(range(6))
    assert [photo.problem == "" for photo in in_worker] == [i != 3 for i in range(6)]
    for a, b in zip(in_process, in_worker, strict=True):
        assert (a.pixels is None and b.pixels is None) or torch.equal(a.pixels, b.pixels)
