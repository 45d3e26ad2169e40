"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of each query's best photos.

Distances are squared Euclidean, divided by the largest of their row. A photo's set holds the photos that are among its
nearest and have it among theirs, each with a weight. The final distance of two photos mixes how little their sets
overlap (Jaccard distance of soft sets) with the distance itself.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ultron_cli.configs import within
from ultron_cli.retrieval.rerank.state import (
    RerankState,
    Scored,
    exact_gram,
    nearest_positions,
    per_query,
    put_in_front,
)


@dataclass(frozen=True, kw_only=True)
class KReciprocalConfig:
    """Defaults: section 4.2 of the paper (k1, k2, weight) and the authors' code; m is ours, they took every photo and
    all queries."""

    m: int = 400  # photos of each ranking that are re-ranked, by themselves and the query
    k1: int = 20  # nearest that make a photo's set; its members bring half as many
    k2: int = 6  # nearest, itself among them, whose sets are averaged
    weight: float = 0.3  # of the distance, beside 1 - weight of the sets

    def __post_init__(self) -> None:
        within("kreciprocal.m", self.m, 1, 10_000)
        within("kreciprocal.k1", self.k1, 1, 1000)
        within("kreciprocal.k2", self.k2, 1, 1000)
        within("kreciprocal.weight", self.weight, 0, 1)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.m


def kreciprocal(state: RerankState, config: KReciprocalConfig) -> RerankState:
    """Re-ranks the first M of every query; a score is 1 - final distance. Memory per core: (M, M) a few times."""

    def rescore(query: int) -> Scored:
        rows = state.first_rows(query, config.m)
        return rows, kreciprocal_scores(state.queries[query], state.rows_of(rows), config)

    return dataclasses.replace(
        state, ranking=put_in_front(state.ranking, per_query(len(state.queries), rescore), in_place=state.in_place)
    )


def kreciprocal_scores(query: np.ndarray, top: np.ndarray, config: KReciprocalConfig) -> np.ndarray:
    """(M,) float64, from 0 to 1: 1 - final distance to the query. query: (D,) float32. top: (M, D) float32, unit
    rows."""
    if not len(top):
        return np.empty(0)
    distances = np.maximum(2 - 2 * exact_gram(np.concatenate([query[None], top])), 0)
    largest = distances.max(axis=1, keepdims=True)
    distances = np.divide(distances, largest, out=np.zeros_like(distances), where=largest > 0)
    members = reciprocal_sets(distances, config.k1)
    soft = members.multiply(np.exp(-distances.astype(np.float64))).tocsr()
    totals = np.asarray(soft.sum(axis=1)).ravel()
    soft = sparse.diags_array(1 / np.where(totals > 0, totals, 1)) @ soft  # amid many duplicates a set can be empty
    if config.k2 > 1:
        soft = nearest_sets(distances, config.k2) @ soft / min(config.k2, len(distances))
    soft = soft.toarray()
    shared = np.minimum(soft, soft[0]).sum(axis=1)
    jaccard = 1 - shared / (2 - shared)
    return 1 - (jaccard * (1 - config.weight) + distances[0] * config.weight)[1:]


def nearest_sets(distances: np.ndarray, n: int) -> sparse.csr_array:
    """(m, m) ones where column j is among the n nearest of row i, itself among them, equal distances by position."""
    n = min(n, len(distances))
    columns = nearest_positions(-distances, n)
    return sparse.csr_array(
        (np.ones(columns.size), columns.ravel(), np.arange(len(distances) + 1) * n), shape=distances.shape
    )


def reciprocal_sets(distances: np.ndarray, k1: int) -> sparse.csr_array:
    """(m, m) ones where j belongs to the expanded k-reciprocal set of i (equations 3 and 5 of the paper)."""
    nearest = nearest_sets(distances, k1 + 1)
    nearest_half = nearest_sets(distances, int(np.around(k1 / 2.0)) + 1)
    sets = nearest.multiply(nearest.T).tocsr()
    smaller_sets = nearest_half.multiply(nearest_half.T).tocsr()
    # A member brings its smaller set where more than two thirds of that are members already.
    two_thirds = 2.0 / 3 * np.asarray(smaller_sets.sum(axis=1)).ravel()
    joins = sets.multiply((sets @ smaller_sets.T).toarray() > two_thirds).tocsr()
    expanded_sets = sets + joins @ smaller_sets
    expanded_sets.eliminate_zeros()
    expanded_sets.data[:] = 1
    return expanded_sets.tocsr()
