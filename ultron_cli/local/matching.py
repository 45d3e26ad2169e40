"""Tentative matches of two photos: features that are each other's nearest, and nearer than the next nearest.

Descriptors in bytes are compared as whole numbers, by the library of the compiled search where it is there. Without it,
and for other numbers, squared distances are formed as |a|^2 - 2 (a.b - |b|^2 / 2) with one matrix product per pair of
photos, whose last column is -|b|^2 / 2. Of bytes all of its sums are halves of whole numbers, which float32 holds
exactly below 2^23, and float64 beyond: whatever order a library adds them in, the matches are those of whole numbers.
Binary descriptors are spread to zeros and ones, whose squared distance is Hamming's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from ultron_kernels import nearest, search

from ultron_cli.errors import UltronError

WORTH_BUILDING = 2000  # pairs of photos: the compiled library takes a millisecond of each, and seconds to compile
EXACT_IN_FLOAT32 = 128  # values of a descriptor in bytes: 128 * 255^2 is below 2^23


@dataclass(frozen=True, eq=False)
class Comparable:
    """The descriptors of a photo, ready to be compared with those of another."""

    rows: np.ndarray  # (n, D) uint8, float16 or float32
    is_binary: bool  # of zeros and ones

    @classmethod
    def of(cls, descriptors: np.ndarray, *, is_binary: bool = False) -> "Comparable":
        """descriptors: (n, D) uint8, float16 or float32; is_binary: (n, D) uint8, eight bits to a byte."""
        return cls(np.unpackbits(descriptors, axis=1) if is_binary else descriptors, is_binary)

    @cached_property
    def extended(self) -> np.ndarray:
        """(n, D + 1) float32 or float64: the descriptors, and half of their squared norms."""
        n, dim = self.rows.shape
        is_wide = self.rows.dtype == np.uint8 and not self.is_binary and dim > EXACT_IN_FLOAT32
        extended = np.empty((n, dim + 1), np.float64 if is_wide else np.float32)
        extended[:, :dim] = self.rows
        rows = extended[:, :dim]
        extended[:, dim] = np.einsum("nd,nd->n", rows, rows) / 2
        return extended

    def __len__(self) -> int:
        return len(self.rows)


class Neighbours(NamedTuple):
    """Of the features of a query; of equally near ones the first. Squared distances are in one unit, whichever."""

    nearest: np.ndarray  # (n,) features of the photo
    squares: np.ndarray  # (n,) squared distances to them
    next_squares: np.ndarray  # (n,) squared distances to the next nearest
    back: Callable[[np.ndarray], np.ndarray]  # features of the photo -> of the query, nearest to them


def prepare(n_pairs: int) -> None:
    """Compiles what makes matching so many pairs of photos faster, where that is worth its seconds."""
    search.is_ready(worth_building=n_pairs >= WORTH_BUILDING)


def mutual_matches(query: Comparable, photo: Comparable, ratio: float) -> np.ndarray:
    """(m, 2) int64 pairs of a query's feature and a photo's, by the query's feature.

    Both are each other's nearest, of equally near ones the first, and the distance to the photo's next nearest times
    `ratio` is more than theirs: Euclidean distances, of binary descriptors Hamming's. Raises UltronError if their
    descriptors are of different kinds.
    """
    if _kind(query) != _kind(photo):
        raise UltronError(
            f"local features of a query and a photo must be of one kind; found {_kind(query)} and {_kind(photo)}; "
            "extract both alike"
        )
    if len(query) == 0 or len(photo) < 2:
        return np.empty((0, 2), np.int64)
    neighbours = _compiled(query.rows, photo.rows) or _by_product(query.extended, photo.extended)
    share = np.float32(ratio if query.is_binary else ratio * ratio)
    squares, next_squares = (numbers.astype(np.float32) for numbers in (neighbours.squares, neighbours.next_squares))
    clear = np.flatnonzero(squares < share * next_squares)
    matches = np.empty((len(clear), 2), np.int64)
    matches[:, 0], matches[:, 1] = clear, neighbours.nearest[clear]
    return matches[neighbours.back(matches[:, 1]) == clear]


def _compiled(query: np.ndarray, photo: np.ndarray) -> Neighbours | None:
    """Of (n, D) and (m, D) descriptors; None where they are not in bytes, or the library is not there."""
    in_bytes = query.dtype == photo.dtype == np.uint8 and query.shape[1] <= nearest.MOST_BYTES
    if not (in_bytes and search.is_ready(worth_building=False)):
        return None
    features, squares, next_squares, back = nearest.find_nearest(query, photo)
    return Neighbours(features, squares, next_squares, back.take)


def _by_product(query: np.ndarray, photo: np.ndarray) -> Neighbours:
    """Of (n, D + 1) and (m, D + 1) extended descriptors."""
    sided = query.copy()
    sided[:, -1] = -1
    nearness = sided @ photo.T  # a.b - |b|^2 / 2: the larger, the nearer b is to a
    rows = np.arange(len(query))
    features = nearness.argmax(axis=1)
    most = nearness[rows, features]
    nearness[rows, features] = -np.inf
    next_most = nearness.max(axis=1)
    nearness[rows, features] = most
    half_norms = query[:, -1]

    def back(of_photo: np.ndarray) -> np.ndarray:
        return (nearness.take(of_photo, axis=1) - half_norms[:, None]).argmax(axis=0)

    # Halves of squared distances, which rounding may leave below 0.
    squares, next_squares = (np.maximum(half_norms - numbers, 0) for numbers in (most, next_most))
    return Neighbours(features, squares, next_squares, back)


def _kind(features: Comparable) -> str:
    dim = features.rows.shape[1]
    return f"{dim} bits" if features.is_binary else f"{dim} values"
