"""Arrays of NumPy from outside: right ones are read, all others are refused, or count as absent."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.schema.arrays import read_npy, read_npz


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    for values in (np.array([3, -1, 2]), np.empty(0, np.int64), np.arange(6).reshape(2, 3)):
        np.save(tmp_path / "a.npy", values)
        assert np.array_equal(read_npy(tmp_path / "a.npy", "rows", "int64", advice="x"), values)
    np.savez(tmp_path / "a.npz", a=np.arange(3), b=np.float32([1, 2]))
    arrays = read_npz(tmp_path / "a.npz", {"a": "int64", "b": "float32"})
    assert arrays is not None and arrays["a"].tolist() == [0, 1, 2] and arrays["b"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }", r"damaged \(ValueError\)"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", "damaged"),
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (3,", "damaged"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", "must be an array of int64"),
    ],
)
def test_what_is_no_array_of_the_type_is_said(header: str, words: str, tmp_path: Path) -> None:
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(24))
    with pytest.raises(UltronError, match=rf"^rows .*a\.npy .*{words}.*; start a new run$"):
        read_npy(tmp_path / "a.npy", "rows", "int64", advice="start a new run")


def test_a_cache_of_anything_else_counts_as_absent(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    assert read_npz(file, {"a": "int64"}) is None
    np.savez(file, a=np.arange(3))
    assert read_npz(file, {"a": "int32"}) is None and read_npz(file, {"b": "int64"}) is None
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"no array")  # of which NumPy gives the bytes
    assert read_npz(file, {"a": "int64"}) is None
    file.write_bytes(b"no zip")
    assert read_npz(file, {"a": "int64"}) is None
