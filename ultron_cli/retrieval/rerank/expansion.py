"""Query expansion and database-side augmentation: descriptors replaced by weighted means of their neighbours."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.configs import within
from ultron_cli.retrieval.rankings import PADDING
from ultron_cli.retrieval.rerank.state import RerankState, put_in_front

BLOCK_BYTES = 1 << 26  # of gathered neighbours at once


@dataclass(frozen=True, kw_only=True)
class AlphaQEConfig:
    """Defaults: Radenovic et al., Fine-tuning CNN image retrieval with no human annotation, TPAMI 2018, section 5.4."""

    n: int = 50  # photos averaged with the query
    # Weight of a photo: its similarity to this power; 0 is the plain average (AQE, Chum et al. 2007).
    alpha: float = 3.0

    def __post_init__(self) -> None:
        within("aqe.n", self.n, 1, 10_000)
        within("aqe.alpha", self.alpha, 0, 100)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.n


@dataclass(frozen=True, kw_only=True)
class DBAConfig:
    """Neighbours and weights as of alpha-QE, for the database (Turcot and Lowe 2009; weights as Gordo et al., IJCV
    2017, use them)."""

    m: int = 1000  # photos of each ranking that are re-scored
    n: int = 10  # neighbours, in the whole database, that each is averaged with
    alpha: float = 3.0

    def __post_init__(self) -> None:
        within("dba.m", self.m, 1, 10_000_000)
        within("dba.n", self.n, 1, 10_000)
        within("dba.alpha", self.alpha, 0, 100)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.m


def similarity_weights(similarities: np.ndarray, alpha: float) -> np.ndarray:
    """max(similarity, 0) ** alpha, 0 for what is not similar at all (alpha 0: 1 for the others), in float64."""
    similar = similarities > 0
    return np.where(similar, np.where(similar, similarities, 1).astype(np.float64) ** alpha, 0)


def expanded(rows: np.ndarray, neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, D) float32 unit rows: each row + the sum of its weighted neighbours.

    rows: (n, D). neighbours: (n, k, D). weights: (n, k).
    """
    total = rows + np.einsum("nk,nkd->nd", weights, neighbours)
    return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)


def alpha_qe(state: RerankState, config: AlphaQEConfig) -> RerankState:
    """Adds to each query its n best, weighted by similarity ** alpha, and searches again with the unit sum. Later steps
    get the new query.

    Similarities are taken anew, as scores of an earlier step may be of another kind.
    """
    queries = np.empty_like(state.queries)
    for query, query_descriptor in enumerate(state.queries):
        top = state.rows_of(state.first_rows(query, config.n))
        weights = similarity_weights(top.astype(np.float64) @ query_descriptor, config.alpha)
        queries[query] = expanded(query_descriptor[None], top[None], weights[None])[0]
    ranking = state.search(queries, state.ranking.rows.shape[1])
    return dataclasses.replace(state, ranking=ranking, queries=queries)


def dba(state: RerankState, config: DBAConfig) -> RerankState:
    """Re-scores the first M of every query with their descriptors averaged with their n nearest in the database.

    Averaged descriptors are made in blocks and dropped: later steps see the database as it is. The rest of the ranking
    stays behind.
    """
    fronts = [state.first_rows(query, config.m) for query in range(len(state.queries))]
    front_rows = np.unique(np.concatenate([*fronts, np.empty(0, np.int64)]))
    n_neighbours = min(config.n + 1, state.n_database)  # one of them is the photo itself
    scores = [np.empty(len(rows), np.float32) for rows in fronts]
    dim = state.queries.shape[1]
    for start, stop in chunks(len(front_rows), max(1, BLOCK_BYTES // (8 * dim * n_neighbours))):
        block = front_rows[start:stop]
        averaged = augmented(state, block, n_neighbours, config.alpha)
        products = state.queries.astype(np.float64) @ averaged.astype(np.float64).T
        for query, rows in enumerate(fronts):
            places = np.searchsorted(block, rows).clip(max=len(block) - 1)
            is_in_block = block[places] == rows
            scores[query][is_in_block] = products[query, places[is_in_block]]
    return dataclasses.replace(
        state, ranking=put_in_front(state.ranking, zip(fronts, scores, strict=True), in_place=state.in_place)
    )


def augmented(state: RerankState, rows: np.ndarray, n_nearest: int, alpha: float) -> np.ndarray:
    """(n, D) float32 unit descriptors of (n,) database rows, averaged with their nearest.

    n_nearest: how many are searched; the photo itself is among them and does not count twice.
    """
    descriptors = state.rows_of(rows)
    nearest = state.search(descriptors, n_nearest)
    weights = similarity_weights(nearest.scores, alpha)
    is_itself = nearest.rows == rows[:, None]
    # With more duplicates than neighbours a photo may not be among its nearest; the last then leaves, so that all have
    # as many.
    is_itself[~is_itself.any(axis=1), -1] = True
    weights[is_itself | (nearest.rows == PADDING)] = 0
    neighbours = state.rows_of(np.maximum(nearest.rows, 0).ravel()).reshape(*nearest.rows.shape, -1)
    return expanded(descriptors, neighbours, weights)
