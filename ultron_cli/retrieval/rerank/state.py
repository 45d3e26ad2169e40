"""What a re-ranking step takes and gives, and what steps share: re-scored photos are put in front of a ranking."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ultron_cli.retrieval.descriptors import Descriptors, take_rows
from ultron_cli.retrieval.exact.search import exact_search, worker_threads
from ultron_cli.retrieval.index.base import Index
from ultron_cli.retrieval.local_features.source import LocalSource
from ultron_cli.retrieval.origin import Json
from ultron_cli.retrieval.rankings import PADDING, RankedRows

Scored = tuple[np.ndarray, np.ndarray]  # (m,) int64 database rows, each once, and (m,) scores


@dataclass(frozen=True, kw_only=True)
class RerankState:
    """A search as one re-ranking step hands it to the next."""

    ranking: RankedRows
    queries: np.ndarray  # (Q, D) float32 unit rows, those that made the ranking
    database: np.ndarray | Descriptors  # (N, D); the same for all steps
    index: Index | None = None  # over the same rows, for further searches; None searches exactly
    device: str = "cpu"
    local: LocalSource | None = None  # of the queries and the database; None where nobody knows of any
    measured: Json = field(default_factory=dict)  # what the last step says of its work, beside its time
    # By query, of the photos that a step verified: database row -> inliers that count. None where none did.
    inliers_of: Sequence[Mapping[int, int]] | None = None
    # Whether steps may overwrite the ranking's arrays: for a million distractors that costs less than copying them.
    in_place: bool = False

    @property
    def n_database(self) -> int:
        """Rows of the database."""
        return len(self.database) if isinstance(self.database, np.ndarray) else self.database.n

    def search(self, queries: np.ndarray, k: int) -> RankedRows:
        """The k best database rows of other queries, (q, D) float32, by the same kind of search."""
        if self.index is not None:
            return self.index.search(queries, k)
        return exact_search(queries, self.database, k, device=self.device)

    def first_rows(self, query: int, m: int) -> np.ndarray:
        """(at most m,) the best rows of one query, without the padding of approximate searches."""
        rows = self.ranking.rows[query, :m]
        return rows[rows != PADDING]

    def rows_of(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 descriptors of database rows, in the order of `rows`."""
        return take_rows(self.database, rows)


def per_query(n_queries: int, rescore: Callable[[int], Scored]) -> list[Scored]:
    """`rescore` of every query, on all cores; each call's matrix products take one thread."""
    with worker_threads() as (_, workers):
        return list(workers.map(rescore, range(n_queries)))


def put_in_front(ranking: RankedRows, fronts: Iterable[Scored], *, in_place: bool = False) -> RankedRows:
    """Each query's re-scored rows, best first and equal scores by row, then the rest of its ranking as it was, cut to
    K.

    Scores of the rest stay those of the step before, so that they may be higher than those in front. in_place: in the
    same arrays.
    """
    rows = ranking.rows if in_place else ranking.rows.copy()
    scores = ranking.scores if in_place else ranking.scores.copy()
    n_ranked = ranking.rows.shape[1]
    for query, (front_rows, front_scores) in enumerate(fronts):
        rounded = np.asarray(front_scores, np.float32)
        order = np.lexsort((front_rows, -rounded))[:n_ranked]
        n_front = len(front_rows)
        head = ranking.rows[query, :n_front]
        # Where the front holds the same rows as before, the rest stays where it is.
        if n_front > n_ranked or not np.array_equal(np.sort(head), np.sort(front_rows)):
            rest = np.flatnonzero(~np.isin(ranking.rows[query], front_rows))[: n_ranked - len(order)]
            rest_rows = ranking.rows[query, rest]
            rest_scores = ranking.scores[query, rest]
            rows[query, len(order) :] = PADDING
            scores[query, len(order) :] = -np.inf
            rows[query, len(order) : len(order) + len(rest)] = rest_rows
            scores[query, len(order) : len(order) + len(rest)] = rest_scores
        rows[query, : len(order)] = front_rows[order]
        scores[query, : len(order)] = rounded[order]
    return RankedRows(rows, scores)


def nearest_positions(similarities: np.ndarray, n: int) -> np.ndarray:
    """(m, n) int64: where the n largest values of each row stand, of equal ones the leftmost; ascending, not by value.

    similarities: (m, M) floats without NaN, n from 1 to M.
    """
    n_columns = similarities.shape[1]
    threshold = np.partition(similarities, n_columns - n, axis=1)[:, n_columns - n, None]
    is_nearest = similarities >= threshold
    crowded_rows = np.flatnonzero(np.count_nonzero(is_nearest, axis=1) > n)  # several values equal the n-th
    for row in crowded_rows:
        above = similarities[row] > threshold[row]
        equal = np.flatnonzero(similarities[row] == threshold[row])
        above[equal[: n - np.count_nonzero(above)]] = True
        is_nearest[row] = above
    return np.nonzero(is_nearest)[1].reshape(-1, n)


def exact_gram(rows: np.ndarray) -> np.ndarray:
    """(n, n) float32 inner products of (n, D) float32 rows, summed in float64: rows that are equal have equal
    products."""
    wide = rows.astype(np.float64)
    return (wide @ wide.T).astype(np.float32)
