"""Arrays that NumPy stored, read from wherever they come: no more memory than their file is long, no pickles."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.schema.regular import MOST_LIST_BYTES, open_regular


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
