"""The compiled nearest features against distances in int64."""

import numpy as np
import pytest
from ultron_kernels import nearest, search

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def built() -> None:
    if not search.is_ready(worth_building=True):
        pytest.skip("the compiled search cannot be had on this machine")


def literal_nearest(left: np.ndarray, right: np.ndarray) -> nearest.Nearest:
    """Every distance, in whole numbers."""
    a, b = left.astype(np.int64), right.astype(np.int64)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    rows, features = np.arange(len(a)), squares.argmin(axis=1)
    others = squares.copy()
    others[rows, features] = np.iinfo(np.int64).max
    return nearest.Nearest(features, squares[rows, features], others.min(axis=1), squares.argmin(axis=0))


@pytest.mark.parametrize(
    ("n", "m", "dim"),
    [(1, 2, 1), (2, 3, 5), (7, 25, 33), (3, 24, 64), (50, 801, 127), (800, 800, 128), (100, 97, 256), (5, 49, 8192)],
)
@pytest.mark.parametrize("values", ["bits", "bytes", "largest"])
def test_they_are_those_of_all_distances(n: int, m: int, dim: int, values: str) -> None:
    """Of bits many distances are equal; the largest bytes make the largest sums."""
    draws = np.random.default_rng(n + m)
    left, right = (draws.integers(0, 2 if values != "bytes" else 256, (k, dim), np.uint8) for k in (n, m))
    if values == "largest":
        left, right = 255 - left, right * draws.integers(0, 2, (m, 1), np.uint8) * 255
    for result, expected in zip(nearest.find_nearest(left, right), literal_nearest(left, right), strict=True):
        assert result.dtype == np.int32 and (result == expected).all()


def test_rows_need_not_lie_one_after_the_other() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (90, 40), np.uint8)
    left, right = rows[::3, 3:35], rows[1::2, :32]
    for result, expected in zip(nearest.find_nearest(left, right), literal_nearest(left, right), strict=True):
        assert (result == expected).all()
