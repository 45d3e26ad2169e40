"""Arrays that NumPy stored, read from wherever they come: no more memory than their file is long, no pickles."""

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import MOST_LIST_BYTES, open_regular

MOST_HEADER_BYTES = 10_000  # NumPy's own limit


def read_npy(path: Path, what: str, dtype: str, *, advice: str) -> np.ndarray:
    """The array of a .npy file. Raises UltronError if it is absent, damaged, of another type, or declares more than the
    file holds."""
    os.close(open_regular(path, what, if_absent=advice, most_bytes=MOST_LIST_BYTES))
    try:
        # Mapped: what a header declares is held against the file's length before memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        values = np.array(array) if isinstance(array, np.ndarray) and array.dtype == dtype else None
    except Exception as error:  # NumPy raises many types for a damaged file
        raise UltronError(f"{what} {path} is damaged ({type(error).__name__}); {advice}") from error
    if values is None:
        raise UltronError(f"{what} {path} must be an array of {dtype}; {advice}")
    return values


def read_npz(path: Path, types: Mapping[str, str]) -> dict[str, np.ndarray] | None:
    """The arrays of a cache that np.savez wrote; None if it is absent or damaged, or they have other types.

    types: name -> dtype, for example int64.
    """
    try:
        with open(open_regular(path, "cache", if_absent="", most_bytes=MOST_LIST_BYTES), "rb") as handle:
            n_bytes = os.fstat(handle.fileno()).st_size
            with zipfile.ZipFile(handle) as archive:
                if any(max(entry.file_size, entry.compress_size) > n_bytes for entry in archive.infolist()):
                    return None
            handle.seek(0)
            with np.load(handle, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in types}
    except Exception:  # NumPy and zipfile raise many types for a damaged file, and a cache is made again
        return None
    is_right = all(
        isinstance(arrays[name], np.ndarray) and arrays[name].dtype == dtype for name, dtype in types.items()
    )
    return arrays if is_right else None


@dataclass(frozen=True, kw_only=True)
class NpyHeader:
    """What the head of a .npy file says of the array behind it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool  # whether the first axis varies fastest
    offset: int  # bytes in front of the array


def read_npy_header(handle: IO[bytes], label: str, n_bytes: int, *, advice: str) -> NpyHeader:
    """The header of a .npy file or member of an archive of n_bytes, whose array is then read on from there. Raises
    UltronError if it is damaged, has types that are no plain numbers or texts, or declares more than there is."""
    try:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(handle, max_header_size=MOST_HEADER_BYTES)
    except Exception as error:  # NumPy raises many types for a damaged file
        raise UltronError(f"{label} is damaged or no array of NumPy ({type(error).__name__}); {advice}") from None
    offset = handle.tell()
    declared_bytes = math.prod(shape) * dtype.itemsize
    is_odd = dtype.kind not in "biufU" or not dtype.itemsize or not all(side >= 0 for side in shape)
    if is_odd or offset + declared_bytes > n_bytes:
        raise UltronError(
            f"{label} declares {shape} {dtype}, {declared_bytes:,} bytes, and holds {n_bytes - offset:,}; {advice}"
        )
    return NpyHeader(shape=shape, dtype=dtype, is_fortran=is_fortran, offset=offset)


def npy_blocks(handle: IO[bytes], header: NpyHeader, n_rows: int, label: str, *, advice: str) -> Iterator[np.ndarray]:
    """Consecutive blocks of at most so many rows of the array behind a header, read from the file: what is mapped
    would count as memory. Texts that are none, as those of the array in a damaged file, raise UltronError."""
    n, row_shape = header.shape[0], header.shape[1:]
    if header.is_fortran and len(header.shape) > 1:
        # Rows lie scattered; each column is read where it is.
        yield from _fortran_blocks(handle, header, n_rows, label, advice=advice)
        return
    handle.seek(header.offset)
    row_bytes = math.prod(row_shape) * header.dtype.itemsize
    for start in range(0, n, n_rows):
        n_block = min(n_rows, n - start)
        data = handle.read(n_block * row_bytes)
        if len(data) < n_block * row_bytes:
            raise UltronError(f"{label} is truncated; {advice}")
        block = np.frombuffer(data, header.dtype).reshape(n_block, *row_shape)
        if header.dtype.kind == "U":
            codes = np.frombuffer(data, f"{header.dtype.byteorder}u4")
            if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
                raise UltronError(f"{label} holds texts that are none; {advice}")
        yield block if header.dtype.isnative else block.astype(header.dtype.newbyteorder("="))


def _fortran_blocks(
    handle: IO[bytes], header: NpyHeader, n_rows: int, label: str, *, advice: str
) -> Iterator[np.ndarray]:
    n, dim = header.shape
    item_bytes = header.dtype.itemsize
    for start in range(0, n, n_rows):
        n_block = min(n_rows, n - start)
        block = np.empty((n_block, dim), header.dtype.newbyteorder("="))
        for column in range(dim):
            handle.seek(header.offset + (column * n + start) * item_bytes)
            data = handle.read(n_block * item_bytes)
            if len(data) < n_block * item_bytes:
                raise UltronError(f"{label} is truncated; {advice}")
            block[:, column] = np.frombuffer(data, header.dtype)
        yield block
