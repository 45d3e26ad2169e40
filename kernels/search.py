"""The first pass of exact search, compiled: which products of database rows with queries reach their query's hurdle.

The products are float32, their sums in any order. Most pairs are ruled out before by whole numbers of 16 bits, whose
error has a bound (csrc/search/scan.h). Needs no PyTorch, and a processor with AVX2.
"""

import ctypes
import math

import numpy as np
from ultron_kernels import build

MOST_DIMS = 65536


class Scan(ctypes.Structure):
    """`Scan` of csrc/search/scan.h."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("row_bytes", ctypes.c_int64),
        ("is_half", ctypes.c_bool),
        ("queries", ctypes.c_void_p),
        ("hurdles", ctypes.c_void_p),
        ("n_queries", ctypes.c_int64),
        ("positions", ctypes.c_void_p),
        ("products", ctypes.c_void_p),
        ("most", ctypes.c_int64),
        ("largest_square", ctypes.c_void_p),
    )


def is_ready(*, worth_building: bool) -> bool:
    """Whether `scan` and nearest.find_nearest can be called; loads the library, and builds it first where that is worth
    its seconds."""
    library = build.ready_library("search", worth_building=worth_building)
    return library is not None and runs_here(library)


def runs_here(library: ctypes.CDLL) -> bool:
    """Whether the processor has what the scan needs; sets the types of its function."""
    library.ultron_scan.restype = ctypes.c_int64
    nothing = Scan(dim=1, largest_square=ctypes.addressof(ctypes.c_float()))
    return library.ultron_scan(ctypes.byref(nothing)) == 0


def can_scan(rows: np.ndarray) -> bool:
    """Whether `scan` reads these rows as they lie in memory."""
    return (
        0 < rows.shape[1] <= MOST_DIMS
        and rows.dtype in (np.float32, np.float16)
        and rows.strides[1] == rows.itemsize
        and rows.strides[0] >= 0
    )


def scan(
    rows: np.ndarray, queries: np.ndarray, hurdles: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """The products that are not below their query's hurdle, and a number that no norm of a row exceeds.

    rows: (n, D) that `can_scan`. queries: (Q, D) float32 and hurdles: (Q,) float32, both contiguous.
    most: products there may be.

    Returns (m,) int64 positions row * Q + query in no particular order, (m,) float32 products, and the bound of the
    norms. Returns None where there are more products, and where the squared norm of a row or query is no finite float32
    of 1e-30 or more and its values are not all 0.
    """
    library = build.LOADED["search"]
    assert library is not None, "is_ready comes first"
    (n, dim), n_queries = rows.shape, len(queries)
    positions, products = np.empty(most, np.int64), np.empty(most, np.float32)
    largest_square = ctypes.c_float()
    work = Scan(
        *(rows.ctypes.data, n, dim, rows.strides[0], rows.dtype == np.float16),
        *(queries.ctypes.data, hurdles.ctypes.data, n_queries),
        *(positions.ctypes.data, products.ctypes.data, most),
        ctypes.addressof(largest_square),
    )
    count = library.ultron_scan(ctypes.byref(work))
    if count > most or not math.isfinite(largest_square.value):
        return None
    rounding = 1 + dim * 2.0**-23  # of a sum of squares
    return positions[:count].copy(), products[:count].copy(), math.sqrt(largest_square.value) * rounding
