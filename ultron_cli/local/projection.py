"""Fewer dimensions for local descriptors: a linear map that is learned once and stored beside what went through it."""

from dataclasses import dataclass, field

import numpy as np

LEAST_SHARE = 1e-6  # of the largest variance; directions of less are of rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """PCA from C to D dimensions."""

    mean: np.ndarray  # (C,) float32
    matrix: np.ndarray  # (D, C) float32

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """(n, C) float32 -> (n, D) float32 rows of unit norm; a vector at the mean stays zeros."""
        projected = (unit(vectors) - self.mean) @ self.matrix.T
        return unit(projected)

    def equals(self, other: "Projection | None") -> bool:
        """Whether descriptors that went through both can be compared."""
        return other is not None and all(
            np.array_equal(values, others) for values, others in ((self.mean, other.mean), (self.matrix, other.matrix))
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, C) float32 rows of unit norm; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


@dataclass
class ProjectionLearner:
    """Adds up what PCA needs of unit vectors, part by part."""

    n_channels: int
    n: int = 0
    total: np.ndarray = field(init=False)  # (C,) float64
    products: np.ndarray = field(init=False)  # (C, C) float64

    def __post_init__(self) -> None:
        self.total = np.zeros(self.n_channels)
        self.products = np.zeros((self.n_channels, self.n_channels))

    def add(self, vectors: np.ndarray) -> None:
        """(n, C) float32."""
        rows = unit(vectors).astype(np.float64)
        self.n += len(rows)
        self.total += rows.sum(axis=0)
        self.products += rows.T @ rows

    def learned(self, dim: int) -> Projection:
        """To `dim` dimensions, at most C, along the largest variances. Directions in which nothing varies are zeros, as
        where there are fewer vectors than dimensions."""
        mean = self.total / max(1, self.n)
        variances, directions = np.linalg.eigh(self.products / max(1, self.n) - np.outer(mean, mean))
        variances, directions = variances[::-1][:dim], directions.T[::-1][:dim]
        is_real = variances > LEAST_SHARE * max(variances[0], np.finfo(np.float64).tiny)
        # The sign of a direction is free: its largest number is above zero.
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
        matrix = np.where(is_real[:, None], directions * np.sign(largest), 0)
        return Projection(mean=mean.astype(np.float32), matrix=matrix.astype(np.float32))
