"""float16 rows as float32, compiled: NumPy converts one value at a time."""

import ctypes

import numpy as np
from ultron_kernels import build, search


def widened(rows: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
    """(n, D) float32 of rows of any type, as NumPy converts them; itself where it is float32.

    float16 takes the compiled way where the search's library has been built (search.is_ready).
    room: (m, D) contiguous float32 of at least n rows, which may be used for the result.
    """
    lie_in_rows = rows.ndim == 2 and rows.strides[1] == rows.itemsize and rows.strides[0] >= 0
    if rows.dtype != np.float16 or not lie_in_rows or not search.is_ready(worth_building=False):
        return rows.astype(np.float32, copy=False)
    library = build.LOADED["search"]
    assert library is not None, "is_ready says so"
    n, dim = rows.shape
    values = np.empty((n, dim), np.float32) if room is None else room[:n]
    sizes = (ctypes.c_int64(size) for size in (n, dim, rows.strides[0]))
    library.ultron_widen(ctypes.c_void_p(rows.ctypes.data), *sizes, ctypes.c_void_p(values.ctypes.data))
    return values
