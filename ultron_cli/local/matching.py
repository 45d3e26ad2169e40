"""Tentative matches of two photos: features that are each other's nearest, and nearer than the next nearest.

Squared distances are formed as |a|^2 - 2 (a.b - |b|^2 / 2) with one matrix product per pair of photos, whose last
column is -|b|^2 / 2. Of uint8 descriptors of at most 128 values all of its sums are halves of whole numbers below 2^23,
which float32 holds exactly: whatever order a library adds them in, the matches are those of whole numbers. Binary
descriptors are spread to zeros and ones, whose squared distance is Hamming's.
"""

from dataclasses import dataclass

import numpy as np

from ultron_cli.errors import UltronError


@dataclass(frozen=True, eq=False)
class Comparable:
    """The descriptors of a photo, ready to be compared with those of another."""

    extended: np.ndarray  # (n, D + 1) float32: the descriptors, and half of their squared norms
    is_binary: bool

    @classmethod
    def of(cls, descriptors: np.ndarray, *, is_binary: bool = False) -> "Comparable":
        """descriptors: (n, D) uint8, float16 or float32; is_binary: (n, D) uint8, eight bits to a byte."""
        if is_binary:
            descriptors = np.unpackbits(descriptors, axis=1)
        n, dim = descriptors.shape
        extended = np.empty((n, dim + 1), np.float32)
        extended[:, :dim] = descriptors
        rows = extended[:, :dim]
        extended[:, dim] = np.einsum("nd,nd->n", rows, rows) / 2
        return cls(extended, is_binary)

    def __len__(self) -> int:
        return len(self.extended)


def mutual_matches(query: Comparable, photo: Comparable, ratio: float) -> np.ndarray:
    """(m, 2) int64 pairs of a query's feature and a photo's, by the query's feature.

    Both are each other's nearest, of equally near ones the first, and the distance to the photo's next nearest times
    `ratio` is more than theirs: Euclidean distances, of binary descriptors Hamming's. Raises UltronError if their
    descriptors are of different kinds.
    """
    if query.extended.shape[1] != photo.extended.shape[1] or query.is_binary != photo.is_binary:
        raise UltronError(
            f"local features of a query and a photo must be of one kind; found {_kind(query)} and {_kind(photo)}; "
            "extract both alike"
        )
    if len(query) == 0 or len(photo) < 2:
        return np.empty((0, 2), np.int64)
    sided = query.extended.copy()
    sided[:, -1] = -1
    nearness = sided @ photo.extended.T  # a.b - |b|^2 / 2: the larger, the nearer b is to a
    rows = np.arange(len(query))
    nearest = nearness.argmax(axis=1)
    most = nearness[rows, nearest]
    nearness[rows, nearest] = -np.inf
    next_most = nearness.max(axis=1)
    nearness[rows, nearest] = most
    half_norms = query.extended[:, -1]
    squares = np.maximum(half_norms - most, 0)  # halves of squared distances
    next_squares = np.maximum(half_norms - next_most, 0)
    share = np.float32(ratio if query.is_binary else ratio * ratio)
    clear = np.flatnonzero(squares < share * next_squares)
    back = (nearness.take(nearest[clear], axis=1) - half_norms[:, None]).argmax(axis=0)
    mutual = clear[back == clear]
    return np.stack([mutual, nearest[mutual]], axis=1)


def _kind(features: Comparable) -> str:
    dim = features.extended.shape[1] - 1
    return f"{dim} bits" if features.is_binary else f"{dim} values"
