"""Files that somebody made to hurt: one line, nothing run, no memory beyond what a file holds."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.descriptors.importing import format_of, read_parts
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows


class Runs:
    """A pickle of it would run a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/ultron-was-here",)


def npy_head(shape: tuple[int, ...], dtype: str = "<f4", fortran: bool = False) -> bytes:
    output = io.BytesIO()
    np.lib.format.write_array_header_1_0(output, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return output.getvalue()


def objects() -> bytes:
    output = io.BytesIO()
    np.save(output, np.array([Runs()], object), allow_pickle=True)
    return output.getvalue()


def zipped(**members: bytes) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return output.getvalue()


ROWS = npy_head((2, 3)) + bytes(24)
FAISS = struct.Struct("<4siqqq?iQ")
HOSTILE = {
    "runs.pickle": (pickle.dumps({"a": Runs()}), "was refused, and nothing in it was run"),
    "lists.pickle": (pickle.dumps({"a": [1.0, 2.0]}), "must hold descriptors as {photo: vector}"),
    "lengths.pickle": (pickle.dumps({"a": np.ones(3), "b": np.ones(4)}), "must hold vectors of one length and type"),
    "types.pickle": (pickle.dumps({"a": np.ones(3, np.int8)}), "must hold descriptors as {photo: vector}"),
    "empty.pickle": (pickle.dumps({}), "found a dictionary of nothing"),
    "huge.npy": (npy_head((10**12, 512)) + bytes(64), "declares (1000000000000, 512) float32"),
    "none.npy": (npy_head((10**12, 0)), "must be descriptors, (N, D) of float16, float32, float64"),
    "vector.npy": (npy_head((6,)) + bytes(24), "found (6,) float32"),
    "integers.npy": (npy_head((2, 3), "<i4") + bytes(24), "found (2, 3) int32"),
    "objects.npy": (objects(), "declares (1,) object"),
    "cut.npy": (ROWS[:40], "is damaged or no array of NumPy"),
    "unclear.npz": (zipped(a=ROWS, b=ROWS), "holds several matrices (a, b), and which are queries and database"),
    "texts.npz": (zipped(names=npy_head((1,), "<U1") + b"a\0\0\0"), "holds no matrix (N, D)"),
    "bomb.npz": (
        zipped(descriptors=ROWS, names=npy_head((1 << 26,), "<U1") + bytes(1 << 28)),
        "names, more than the file is made for",
    ),
    "columns.npz": (zipped(a=npy_head((2, 3), fortran=True) + bytes(24)), "is stored by columns"),
    "cut.npz": (zipped(a=ROWS)[:60], "is damaged or no archive of numpy.savez"),
    "kind.faiss": (b"IxPQ" + bytes(60), "is of no format that is known by its content"),
    "huge.faiss": (
        FAISS.pack(b"IxFI", 512, 1 << 40, 0, 0, True, 0, 512 << 40) + bytes(8),
        "declares 1,099,511,627,776 rows of 512",
    ),
    "differs.faiss": (FAISS.pack(b"IxFI", 4, 2, 0, 0, True, 0, 7) + bytes(28), "declares 2 rows of 4 and 7 numbers"),
    "cut.faiss": (b"IxFI\4\0", "is truncated"),
    "uneven.csv": (b"a,1,2\nb,1\n", "line 2 must have a name and 2 numbers, found 2 fields"),
    "words.csv": (b"a,1,2\nb,1,x\n", "line 2 must hold numbers behind the name"),
    "empty.csv": (b"name,d0\n", "holds no descriptors"),
    "text.pt": (b"hello\n" * 9, "is a text file and not"),
    "runs.pt": (pickle.dumps(Runs(), protocol=2), ""),
    "cut.mat": (b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\0\1IM" + b"\x0e\0\0\0\xff\xff\xff\x7f", ""),
    "cut.parquet": (b"PAR1" + bytes(30), "is no Parquet file that pyarrow can read"),
    "unknown.bin": (b"\0" * 40, "is of no format that is known by its content; name its `format`"),
}


def rows_of(part: NamedRows) -> int:
    return sum(len(block) for block in part.blocks(part.rows_per_block()))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(name: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    content, words = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UltronError) as raised:
        [rows_of(part) for part in read_parts(path, format_of(path))]
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("/tmp/ultron-was-here").exists()


def refusal(path: Path) -> str:
    with pytest.raises(UltronError) as raised:
        [rows_of(part) for part in read_parts(path, format_of(path))]
    return str(raised.value)


def test_hostile_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as handle:
        handle["a"] = 1
    assert "has no global_descriptor in a group named by its photo" in refusal(path)
    with h5py.File(path, "w") as handle:
        handle["a/global_descriptor"], handle["b/global_descriptor"] = np.ones(3), np.ones(4)
    assert "must hold descriptors of one length and type, found 3 float64 of a, 4 float64 of b" in refusal(path)
    with h5py.File(path, "w") as handle:
        handle.create_dataset("a/global_descriptor", data=np.ones(99), compression="gzip")
    assert "must be stored in one piece" in refusal(path)
    with h5py.File(path, "w") as handle:
        handle.create_dataset("a/global_descriptor", (1 << 40,), "f4")
    assert "declares (1099511627776,) float32" in refusal(path)
    with h5py.File(path, "w") as handle:
        handle["a"] = h5py.ExternalLink("/etc/passwd", "/x")
        handle.create_dataset("b/global_descriptor", (4,), "f4", external=[("/etc/passwd", 0, 16)])
    assert "found a reference to another file" in refusal(path)
    with h5py.File(path, "w") as handle:
        handle["index"], handle["features"] = ["a", "b"], np.ones((3, 4), np.float32)
    assert "must have a name in index for each row of features; found 2 for 3" in refusal(path)


def test_a_rank_file_is_no_file_of_descriptors(tmp_path: Path) -> None:
    from tests.retrieval.exchange.rankings_for_tests import ranking_of
    from ultron_cli.retrieval.rankings import write_ranks

    write_ranks(tmp_path / "r.h5", ranking_of([[0]], [[1]]))
    assert "has no global_descriptor" in refusal(tmp_path / "r.h5")
