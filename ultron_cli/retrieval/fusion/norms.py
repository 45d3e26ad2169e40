"""Scores of one ranking made comparable with those of another: NORMS, as ranx computes them.

Each takes the (n,) float64 scores of one query, n at least 1, and gives as many.
"""

from collections.abc import Callable

import numpy as np

LEAST = 1e-9  # that is divided by, where all scores are equal


def _minmax(scores: np.ndarray) -> np.ndarray:
    lowest = scores.min()
    return (scores - lowest) / max(scores.max() - lowest, LEAST)


def _zscore(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / max(scores.std(), LEAST)


def _max(scores: np.ndarray) -> np.ndarray:
    return scores / max(scores.max(), LEAST)


def _sum(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.min()
    return shifted / max(shifted.sum(), LEAST)


def _rank(scores: np.ndarray) -> np.ndarray:
    """1 for the first photo, 1/n for the last, whatever their scores are."""
    return 1 - np.arange(len(scores)) / len(scores)


def _none(scores: np.ndarray) -> np.ndarray:
    return scores


NORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "minmax": _minmax,
    "zscore": _zscore,
    "max": _max,
    "sum": _sum,
    "rank": _rank,
    "none": _none,
}
