"""Final scores of exact search, and the best of them so far.

A final score depends on the two rows alone, not on the order in which a library sums a product. See `search.py` for the
whole.
"""

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.retrieval.rankings import key_scores


class QueryBlock:
    """Queries that are searched together, and how far rounding can move their products with rows."""

    def __init__(self, descriptors: np.ndarray, rows_at_once: int) -> None:
        """descriptors: (Q, D). rows_at_once: rows whose scores are summed again together."""
        self.n, self.dim = descriptors.shape
        self.rows_at_once = rows_at_once
        self.rows64 = np.asarray(descriptors, np.float32).astype(np.float64)
        self.norms = np.sqrt(np.einsum("ij,ij->i", self.rows64, self.rows64))
        # Matrix libraries are up to a fifth slower on odd widths, so that the queries are padded to a multiple of 8.
        self.padded_n = -(-self.n // 8) * 8
        self.padded32 = np.zeros((self.padded_n, self.dim), np.float32)  # (padded Q, D)
        self.padded32[: self.n] = descriptors

    def margin(self, largest_norm: float) -> np.ndarray:
        """(Q,) how far a float32 product with a row of at most that norm can lie from the final score.

        A sum of D products in any order, with or without fused operations, errs by at most D u / (1 - D u) * |x| |y|, u
        = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1, with Cauchy-Schwarz).
        Eight more u cover the rounding of the final score to float32; the constant covers underflow.
        """
        dim_roundoff = (self.dim + 8) * 2.0**-24
        return dim_roundoff / max(1 - dim_roundoff, 1e-9) * self.norms * largest_norm + 1e-30

    def final_scores(self, products: np.ndarray, queries: slice, rows: np.ndarray, largest_norm: float) -> np.ndarray:
        """(q, n) float32 scores of these queries and (n, D) rows from float64 products summed in whatever order a
        library chose.

        Two orders differ by at most twice D v / (1 - D v) * |x| |y|, v = 2^-53. Where that could change the rounding to
        float32 (about one score in 100,000), the sum is taken again in one fixed order.
        """
        bound = (2.02 * (rows.shape[1] + 4) * 2.0**-53 * largest_norm) * self.norms[queries, None] + 1e-300
        scores = (products - bound).astype(np.float32)
        ambiguous_queries, ambiguous_rows = np.nonzero(scores != (products + bound).astype(np.float32))
        for start, stop in chunks(len(ambiguous_queries), self.rows_at_once):
            query = ambiguous_queries[start:stop]
            row = ambiguous_rows[start:stop]
            scores[query, row] = dot_in_fixed_order(self.rows64[queries][query], rows[row])
        return scores


def dot_in_fixed_order(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) float64 inner products of rows. left, right: (n, D) holding float32 values, whose products float64 holds
    exactly."""
    terms = left.astype(np.float64) * right.astype(np.float64)
    width = terms.shape[1]
    while width > 1:  # halves are added to each other: the order depends on D alone
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


class BestKeys:
    """The best keys so far (`rankings.packed`) of some queries, and a lower bound of each one's k-th best score.

    The arrays are parts of those of the whole search, which are filled in place.
    """

    def __init__(self, keys: np.ndarray, n_filled: np.ndarray) -> None:
        """keys: (Q, k) uint64; a row is sorted once it is full. n_filled: (Q,) int64 keys in each row."""
        self.keys = keys
        self.n_filled = n_filled
        self.k = keys.shape[1]
        is_full = n_filled == self.k
        self.floor = np.where(is_full, key_scores(keys[:, -1]), -np.inf).astype(np.float64)  # no k-th score is below

    def raise_floor(self, floor: np.ndarray) -> None:
        """Takes (Q,) other lower bounds of the k-th best scores."""
        self.floor = np.maximum(self.floor, floor)

    def merge(self, query: int, keys: np.ndarray) -> None:
        """Takes new keys of one query into its best. As k is at most N, every row gets full in the end."""
        best = self.keys[query]
        n_filled = int(self.n_filled[query])
        n_taken = min(self.k - n_filled, keys.size)
        if n_taken:
            best[n_filled : n_filled + n_taken] = keys[:n_taken]
            self.n_filled[query] += n_taken
            if self.n_filled[query] < self.k:
                return
            best.sort()
            keys = keys[n_taken:]
        keys = np.sort(keys[keys < best[-1]])[: self.k]
        if keys.size:
            # The k smallest of two ascending lists: pair the first's tail, from its end, with the second's head and
            # keep each pair's smaller (the first stage of a bitonic merge). In place, however large k is.
            tail = best[self.k - keys.size :]
            np.minimum(tail, keys[::-1], out=tail)
            best.sort()
        self.floor[query] = max(self.floor[query], float(key_scores(best[-1:])[0]))
