"""The nearest features of two photos, compiled: squared distances of descriptors in bytes, none of which is stored.

Whole numbers, so that any processor gives the same. Needs what the search needs (search.is_ready).
"""

import ctypes
from typing import NamedTuple

import numpy as np
from ultron_kernels import build

MOST_BYTES = 8192  # of a descriptor


class Work(ctypes.Structure):
    """`Nearest` of csrc/search/nearest.h."""

    _fields_ = (
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("n_left", ctypes.c_int64),
        ("n_right", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("nearest", ctypes.c_void_p),
        ("squares", ctypes.c_void_p),
        ("next_squares", ctypes.c_void_p),
        ("back", ctypes.c_void_p),
    )


class Nearest(NamedTuple):
    """Of n features on the left and m on the right; of equally near ones the first."""

    nearest: np.ndarray  # (n,) int32 rows on the right
    squares: np.ndarray  # (n,) int32 squared distances to them
    next_squares: np.ndarray  # (n,) int32, to the nearest of the others on the right
    back: np.ndarray  # (m,) int32 rows on the left, nearest to each on the right


def find_nearest(left: np.ndarray, right: np.ndarray) -> Nearest:
    """left: (n, D) uint8 with n at least 1; right: (m, D) uint8 with m at least 2; D at most MOST_BYTES.

    search.is_ready comes first.
    """
    library = build.LOADED["search"]
    assert library is not None, "is_ready comes first"
    (n, dim), m = left.shape, len(right)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    features, squares, next_squares = np.empty((3, n), np.int32)
    back = np.empty(m, np.int32)
    result = Nearest(features, squares, next_squares, back)
    addresses = (array.ctypes.data for array in result)
    library.ultron_find_nearest(ctypes.byref(Work(left.ctypes.data, right.ctypes.data, n, m, dim, *addresses)))
    return result
