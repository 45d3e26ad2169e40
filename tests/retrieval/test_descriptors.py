"""Descriptor files: what is written is read, and anything less than a whole, sound file is refused."""

import os

import h5py
import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import (
    DescriptorFile,
    DescriptorInfo,
    MemoryDescriptors,
    check_unit_rows,
    new_descriptors,
    require_same_dim,
    write_descriptors,
)
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto
from ultron_cli.retrieval.whitening import WhitenedFile, Whitening


def info(storage: str = "float32") -> DescriptorInfo:
    return DescriptorInfo(
        model="ultron-s",
        weights_sha256="ab" * 32,
        extraction=ExtractionRecord(stored={"storage": storage, "max_side_px": 1024}),
        dataset="toy",
        role="database",
        crop="none",
        scales=[0.7071, 1.0],
        skipped=(SkippedPhoto(name="broken.jpg", reason="truncated"),),
    )


def unit_rows(n: int, dim: int = 8) -> np.ndarray:
    rows = np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def names(n: int) -> list[str]:
    return [f"Kölner Dom {i}.jpg" for i in range(n)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "database.h5"
    write_descriptors(path, names(10), [unit_rows(10)], 8, info())
    return path


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_round_trip(tmp_path, storage):
    rows = unit_rows(11).astype(storage)
    write_descriptors(tmp_path / "d.h5", names(11), [rows[:4], rows[4:5], rows[5:]], 8, info(storage))
    with DescriptorFile(tmp_path / "d.h5") as file:
        assert (file.n, file.dim, file.names) == (11, 8, names(11))
        assert file.read().dtype == np.float32
        np.testing.assert_array_equal(file.read(), rows.astype(np.float32))
        np.testing.assert_array_equal(file.read(3, 6), rows[3:6].astype(np.float32))
        blocks = list(file.blocks(4))
        assert [start for start, _ in blocks] == [0, 4, 8]
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), rows.astype(np.float32))
        written = info(storage)
        for key in ("model", "weights_sha256", "extraction", "dataset", "role", "crop", "scales", "skipped"):
            assert getattr(file.info, key) == getattr(written, key)
        assert file.info.created.endswith("+00:00")
    with h5py.File(tmp_path / "d.h5") as handle:
        assert handle["descriptors"].dtype == storage
        assert (handle.attrs["format"], handle.attrs["version"], bool(handle.attrs["complete"])) == (
            "ultron-descriptors",
            1,
            True,
        )


def test_an_empty_file_is_a_file(tmp_path):
    write_descriptors(tmp_path / "d.h5", [], [], 8, info())
    with DescriptorFile(tmp_path / "d.h5") as file:
        assert (file.n, file.dim, file.names, file.read().shape) == (0, 8, [], (0, 8))


def test_a_writer_that_fails_midway_changes_nothing(path, tmp_path):
    before = path.read_bytes()

    def blocks():
        yield unit_rows(5)
        raise RuntimeError("the model failed")

    for out in (path, tmp_path / "new.h5"):
        with pytest.raises(RuntimeError, match="the model failed"):
            write_descriptors(out, names(10), blocks(), 8, info())
    with pytest.raises(ValueError, match="5 descriptor rows for 10 names"):
        write_descriptors(path, names(10), [unit_rows(5)], 8, info())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad, problem", [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (3.0, r"norm 3\.")])
def test_rows_that_are_not_finite_unit_vectors_are_neither_written_nor_read(path, tmp_path, bad, problem):
    rows = unit_rows(10)
    rows[7, 0] = bad
    message = f"must be finite and of unit L2 norm, row 7 has {problem}"
    with pytest.raises(UltronError, match=message):
        write_descriptors(tmp_path / "new.h5", names(10), [rows[:3], rows[3:]], 8, info())
    assert not (tmp_path / "new.h5").exists()
    with h5py.File(path, "r+") as handle:
        handle["descriptors"][7] = rows[7]
    with DescriptorFile(path) as file:
        assert len(file.read(0, 7)) == 7
        with pytest.raises(UltronError, match=message):
            file.read(5, 9)


def test_float16_rounding_is_within_the_tolerance_of_float16_files_only(tmp_path):
    rows = (unit_rows(6) * np.float32(1.003)).astype(np.float32)
    write_descriptors(tmp_path / "half.h5", names(6), [rows.astype(np.float16)], 8, info("float16"))
    with pytest.raises(UltronError, match=r"row 0 has norm 1\.003"):
        check_unit_rows(rows, "rows")


def test_rows_as_they_are_stored(tmp_path):
    halves, wide = unit_rows(700, 64).astype(np.float16), unit_rows(5, 64)
    for name, rows in (("float16", halves), ("float32", wide)):
        write_descriptors(tmp_path / f"{name}.h5", names(len(rows)), [rows], 64, info(name))
        with DescriptorFile(tmp_path / f"{name}.h5") as file:
            assert file.read_stored().dtype == name and file.read().dtype == np.float32
            np.testing.assert_array_equal(file.read_stored(3), rows[3:])
            np.testing.assert_array_equal(file.read(3), rows[3:].astype(np.float32))
        memory = MemoryDescriptors(rows, names(len(rows)), info(name))
        assert memory.read_stored().dtype == name
        np.testing.assert_array_equal(memory.take(np.array([4, 0])), rows[[4, 0]].astype(np.float32))
    with JoinedFiles(tmp_path / "float16.h5", [tmp_path / "float32.h5"]) as joined:
        assert [joined.read_stored(*part).dtype for part in ((0, 9), (699, 702))] == [np.float16, np.float32]
        np.testing.assert_array_equal(joined.read(), np.concatenate([halves.astype(np.float32), wide]))
    whitening = Whitening(method="x", mean=np.zeros(64), projection=np.eye(64)[:9], eigenvalues=np.ones(9))
    with WhitenedFile(tmp_path / "float16.h5", whitening) as file:
        np.testing.assert_array_equal(file.read_stored(5, 99), whitening.apply(halves[5:99].astype(np.float32)))
    halves[650, 7] = np.nan
    with pytest.raises(UltronError, match="row 650 has NaN"):
        MemoryDescriptors(halves, names(700), info("float16"))


def test_what_is_not_a_descriptor_file_is_refused(path, tmp_path):
    with pytest.raises(UltronError, match="does not exist; check the path"):
        DescriptorFile(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(UltronError, match="truncated or not an HDF5 file"):
        DescriptorFile(tmp_path / "text.h5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-64])
    with pytest.raises(UltronError, match="truncated or not an HDF5 file"):
        DescriptorFile(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["descriptors"] = unit_rows(3)
    with pytest.raises(
        UltronError, match="not a descriptor file: its format attribute must be 'ultron-descriptors', found None"
    ):
        DescriptorFile(tmp_path / "other.h5")


def test_future_and_unfinished_files_are_refused(path):
    with h5py.File(path, "r+") as handle:
        handle.attrs["version"] = 2
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1; install a newer ultron"):
        DescriptorFile(path)
    with h5py.File(path, "r+") as handle:
        handle.attrs["version"], handle.attrs["complete"] = 1, False
    with pytest.raises(UltronError, match="was never finished; run the same `ultron extract` again"):
        DescriptorFile(path)


@pytest.mark.parametrize(
    "values", [unit_rows(9), np.ones(10, np.float32), unit_rows(10).astype(np.float64), np.ones((10, 8), np.int32)]
)
def test_wrong_shapes_and_types_are_refused(path, values):
    with h5py.File(path, "r+") as handle:
        del handle["descriptors"]
        handle["descriptors"] = values
    with pytest.raises(UltronError, match=r"/descriptors must be \(N, D\) float32 or float16"):
        DescriptorFile(path)


@pytest.mark.parametrize("part", ["names", "descriptors", "config", "complete", "model"])
def test_missing_parts_are_refused(path, part):
    with h5py.File(path, "r+") as handle:
        holder = handle if part in handle else handle.attrs
        del holder[part]
    with pytest.raises(UltronError, match="lacks a part of a descriptor file"):
        DescriptorFile(path)


def test_different_dimensions_are_refused(path, tmp_path):
    require_same_dim(path, 8, tmp_path, 8)
    with pytest.raises(UltronError, match=r"holds 8-d descriptors, .* has 16-d; extract both with one model"):
        require_same_dim(path, 8, tmp_path, 16)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize(
    "layout",
    [
        "chunked",
        "contiguous",
        "compressed",
        "one row a chunk",
        "other byte order",
        "chunks from last to first",
        "user block",
    ],
)
def test_rows_are_taken_in_any_order(tmp_path, storage, layout):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((700, 24)).astype(np.float32)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(storage)
    path = tmp_path / "d.h5"
    write_descriptors(path, [str(i) for i in range(700)], [rows], 24, info(storage))
    if layout == "user block":
        plain = path.rename(tmp_path / "plain.h5")
        with h5py.File(plain) as old, h5py.File(path, "w", userblock_size=512) as handle:
            for name in old:
                old.copy(name, handle)
            handle.attrs.update(old.attrs)
    elif layout != "chunked":
        with h5py.File(path, "r+") as handle:
            del handle["descriptors"]
            how = {
                "contiguous": {},
                "compressed": {"chunks": (64, 24), "compression": "gzip"},
                "one row a chunk": {"chunks": (1, 24)},
                "other byte order": {"dtype": rows.dtype.newbyteorder()},
                "chunks from last to first": {"chunks": (64, 24)},
            }[layout]
            if layout == "chunks from last to first":
                stored = handle.create_dataset("descriptors", rows.shape, storage, **how)
                for start in range(640, -1, -64):
                    stored[start : start + 64] = rows[start : start + 64]
            else:
                handle.create_dataset("descriptors", data=rows, **how)
    places = np.array([699, 0, 5, 5, 64, 63, 128])
    with DescriptorFile(path) as file:
        np.testing.assert_array_equal(file.take(places), rows[places].astype(np.float32))
        assert file.take(np.empty(0, np.int64)).shape == (0, 24)
        np.testing.assert_array_equal(file.take(places[::-1]), rows[places[::-1]].astype(np.float32))
        np.testing.assert_array_equal(file.read(60, 133), rows[60:133].astype(np.float32))
        assert file.read(5, 5).shape == (0, 24) and file.read(690, 999).shape == (10, 24)
        for max_memory_mib in (0.3, 768):  # some parts, and one
            ranked = exact_search(file.read(0, 9), file, 5, max_memory_mib=max_memory_mib)
            np.testing.assert_array_equal(ranked.rows[:, 0], np.arange(9))


def test_a_file_that_is_cut_while_it_is_open_is_refused(path):
    with DescriptorFile(path) as file:
        file.read(0, 1)
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(UltronError, match="it ends within its rows"):
            file.read()


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_rows_are_written_in_any_order(tmp_path, storage):
    """Past HDF5 and through it: the same file but for the time in it."""
    rows = unit_rows(3000, 64).astype(storage)
    order = np.random.default_rng(0).permutation(len(rows))
    for name in ("scattered", "one by one"):
        with new_descriptors(tmp_path / name, names(len(rows)), 64, info(storage), in_any_order=True) as output:
            for places in np.array_split(order, 7):
                if name == "scattered":
                    output.scatter(places, rows[places])
                else:
                    for place in places.tolist():
                        output.put(place, rows[place : place + 1])
    with DescriptorFile(tmp_path / "scattered") as scattered, DescriptorFile(tmp_path / "one by one") as slow:
        assert np.array_equal(scattered.read(), rows.astype(np.float32))
        assert np.array_equal(scattered.read(), slow.read()) and scattered.names == slow.names
    assert (tmp_path / "scattered").stat().st_size == (tmp_path / "one by one").stat().st_size
    with (
        pytest.raises(UltronError, match="unit L2 norm"),
        new_descriptors(tmp_path / "x", names(2), 64, info(storage), in_any_order=True) as output,
    ):
        output.scatter(np.array([1, 0]), 2 * rows[:2])
    assert not (tmp_path / "x").exists()


def test_taking_a_damaged_row_is_refused(tmp_path):
    path = tmp_path / "d.h5"
    write_descriptors(path, ["a", "b"], [np.eye(2, 4, dtype=np.float32)], 4, info())
    with h5py.File(path, "r+") as handle:
        handle["descriptors"][1, 0] = np.nan
    with DescriptorFile(path) as file:
        file.take(np.array([0]))
        with pytest.raises(UltronError, match="rows taken: descriptors must be finite"):
            file.take(np.array([0, 1]))


@pytest.mark.parametrize("offset", [1 << 40, (1 << 63) - 1, (1 << 63) + 8, (1 << 64) - 2])
@pytest.mark.parametrize("layout", ["chunked", "contiguous"])
def test_rows_that_lie_outside_the_file_are_refused(tmp_path, layout, offset):
    path = tmp_path / "d.h5"
    write_descriptors(path, ["a", "b"], [np.eye(2, 4, dtype=np.float32)], 4, info())
    with h5py.File(path, "r+") as handle:
        if layout == "contiguous":
            del handle["descriptors"]
            handle["descriptors"] = np.eye(2, 4, dtype=np.float32)
        stored = handle["descriptors"].id
        place = stored.get_chunk_info(0).byte_offset if layout == "chunked" else stored.get_offset()
    content = path.read_bytes()
    stored_place = place.to_bytes(8, "little")
    assert stored_place in content
    path.write_bytes(content.replace(stored_place, offset.to_bytes(8, "little")))
    with pytest.raises(UltronError, match=r"d\.h5"), DescriptorFile(path) as file:
        file.take(np.array([0]))
