"""Descriptors that tests of retrieval search in, what their files say of them, and equality of what a search finds."""

import numpy as np

from ultron_cli.retrieval.descriptors import DescriptorInfo
from ultron_cli.retrieval.rankings import RankedRows, Ranking

INFO = DescriptorInfo(model="m", weights_sha256="", dataset="toy", role="database", crop="none", scales=[1.0])


def unit_rows(seed: int, n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_ties(seed: int, n: int, dim: int) -> np.ndarray:
    """Unit rows of which half occur several times, at scattered places."""
    rows = unit_rows(seed, n, dim)
    rng = np.random.default_rng(seed + 1000)
    rows[rng.choice(n, n // 2, replace=False)] = rows[rng.integers(0, max(1, n // 20), n // 2)]
    return rows


def assert_equal(ranked: RankedRows | Ranking, expected: RankedRows | Ranking) -> None:
    assert (ranked.rows.dtype, ranked.scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(ranked.rows, expected.rows)
    np.testing.assert_array_equal(ranked.scores, expected.scores)
