from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.retrieval.local_features.rows_for_tests import COUNTS, NAMES, drawn_photos, write_drawn
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import Projection
from ultron_cli.retrieval.local_features.files import local_path, open_local_features

FIELDS = ("positions", "scales", "angles", "strengths", "descriptors")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "database.local.h5"
    write_drawn(path)
    return path


def assert_same(a: LocalFeatures, b: LocalFeatures) -> None:
    """Bit for bit, types included."""
    assert a.size == b.size
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name


def test_its_place_is_beside_the_descriptors() -> None:
    assert local_path(Path("runs/a.b/queries.h5")) == Path("runs/a.b/queries.local.h5")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_features_are_read_as_they_were_written(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.local.h5"
    write_drawn(path, 5, dtype)
    photos = drawn_photos(5, dtype)
    with open_local_features(path) as file:
        assert (file.n, file.n_features, file.dim, file.dtype, file.names) == (4, 9, 5, np.dtype(dtype), list(NAMES))
        assert file.counts.tolist() == list(COUNTS) and file.rows["c"] == 2
        assert file.bytes_per_photo == path.stat().st_size / 4
        for row, photo in enumerate(photos):
            assert_same(file.read(row), photo)
        for row, features in zip([2, 0, 2, 1], file.take(np.array([2, 0, 2, 1])), strict=True):
            assert_same(features, photos[row])
        in_blocks = [(first, features) for first, block in file.blocks(3) for features in block]
        assert [first for first, _ in in_blocks] == [0, 0, 0, 3]
        for (_, features), photo in zip(in_blocks, photos, strict=True):
            assert_same(features, photo)
        with pytest.raises(IndexError):
            file.read(4)
        with pytest.raises(IndexError):
            file.read(-1)


def test_it_says_what_made_it(path: Path) -> None:
    with open_local_features(path) as file:
        info = file.info
        assert (info.detector, info.settings, info.comparison) == ("rootsift", {"contrast": 0.04}, "l2")
        assert (info.max_keypoints, info.max_side_px, info.dataset, info.role) == (800, 640, "toy", "database")
        assert [photo.name for photo in info.skipped] == ["bad"]
        marks = file.marks
        assert marks is not None and marks.states.tolist()[1] == [3, 4, 5]
        assert file.projection is None


def test_a_projection_lies_with_what_it_made(tmp_path: Path) -> None:
    path = tmp_path / "x.local.h5"
    projection = Projection(mean=np.arange(3, dtype=np.float32), matrix=np.ones((8, 3), np.float32))
    write_drawn(path, projection=projection)
    with open_local_features(path) as file:
        stored = file.projection
        assert stored is not None and stored.mean.tolist() == [0, 1, 2] and stored.matrix.shape == (8, 3)


def test_another_program_may_have_chunked_and_packed_it(path: Path) -> None:
    with h5py.File(path, "r+") as handle:
        for name in ("keypoints", "descriptors"):
            values = handle[name][:]
            del handle[name]
            handle.create_dataset(name, data=values, chunks=(4, values.shape[1]), compression="gzip")
    with open_local_features(path) as file:
        for row, photo in enumerate(drawn_photos()):
            assert_same(file.read(row), photo)


def test_photos_without_features_are_photos(path: Path) -> None:
    with h5py.File(path, "r+") as handle:
        for name in ("keypoints", "descriptors"):
            width, dtype = handle[name].shape[1], handle[name].dtype
            del handle[name]
            handle.create_dataset(name, (0, width), dtype)
        handle["offsets"][:] = 0
    with open_local_features(path) as file:
        assert [len(features) for _, block in file.blocks(8) for features in block] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "place", "value", "text"),
    [
        ("offsets", 1, 7, "must be of the same photos"),
        ("offsets", 4, 8, "must be of the same photos"),
        ("offsets", 0, -1, "must be of the same photos"),
        ("sizes", (1, 0), 0, "must be of the same photos"),
        ("keypoints", (0, 0), np.nan, "features of a must be finite"),
        ("keypoints", (0, 1), 47.6, "features of a must be finite"),
        ("keypoints", (0, 0), -0.6, "features of a must be finite"),
        ("keypoints", (1, 2), 0, "features of a must be finite"),
        ("keypoints", (1, 3), 360, "features of a must be finite"),
        ("keypoints", (2, 4), 9, "features of a must be finite"),
    ],
)
def test_what_contradicts_itself_is_one_line(path: Path, name: str, place: object, value: float, text: str) -> None:
    with h5py.File(path, "r+") as handle:
        handle[name][place] = value
    with pytest.raises(UltronError, match=text) as error, open_local_features(path) as file:
        file.read(0)
    assert str(path) in error.value.message and "\n" not in error.value.message


def test_damage_is_one_line(path: Path) -> None:
    content = path.read_bytes()
    for n_bytes in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(UltronError, match=r"truncated or not an HDF5 file|declares|lacks"):
            open_local_features(path)
    with pytest.raises(UltronError):
        open_local_features(path.with_name("absent.local.h5"))


def test_what_is_not_finished_is_not_read(path: Path) -> None:
    with h5py.File(path, "r+") as handle:
        handle.attrs["complete"] = False
    with pytest.raises(UltronError, match="never finished"):
        open_local_features(path)


def test_a_config_of_another_shape_is_named(path: Path) -> None:
    with h5py.File(path, "r+") as handle:
        handle.attrs["config"] = '{"settings": {}, "comparison": "cosine", "max_keypoints": 1, "max_side_px": null}'
    with pytest.raises(UltronError, match="comparison"):
        open_local_features(path)
