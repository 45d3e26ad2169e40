"""Fewer dimensions for local descriptors: a linear map that is learned once and stored beside what went through it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """PCA-whitening from C to D dimensions."""

    mean: np.ndarray  # (C,) float32
    matrix: np.ndarray  # (D, C) float32
