"""SuperGlobal's re-ranking (Shao et al., ICCV 2023) without forming the refined descriptors.

The authors' steps, per query: (1) each of the top-M descriptors becomes the weighted mean of itself (weight 1) and its
K nearest among the M (weight beta x similarity), not normalised again; (2) the M are ordered by query . refined; (3)
the expanded query is the element-wise maximum over the refined descriptors of the K+1 best, and the final score the
mean of both scores; the rest of the ranking stays behind the M as it was. (4) is ours: a product with a weighted mean
is the weighted mean of products with the M, which are known, so only the K+1 refined descriptors that form the expanded
query are ever made.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from ultron_cli.configs import within
from ultron_cli.retrieval.rerank.state import RerankState, Scored, nearest_positions, per_query, put_in_front


@dataclass(frozen=True, kw_only=True)
class SuperGlobalConfig:
    """Defaults: the authors' code (MDescAug, RerankwMDA) and section 4 of the paper."""

    m: int = 400  # photos of each ranking that are re-ranked
    k: int = 9  # neighbours that refine a descriptor, beside itself
    beta: float = 0.15  # weight of a neighbour, times its similarity

    def __post_init__(self) -> None:
        within("superglobal.m", self.m, 1, 10_000)
        within("superglobal.k", self.k, 0, 1000)
        within("superglobal.beta", self.beta, 0, 10)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.m


def superglobal(state: RerankState, config: SuperGlobalConfig) -> RerankState:
    """Re-ranks the first M of every query. Memory per core: (M, D) and (M, M) float32."""

    def rescore(query: int) -> Scored:
        rows = state.first_rows(query, config.m)
        return rows, superglobal_scores(state.queries[query], state.rows_of(rows), rows, config)

    return dataclasses.replace(
        state, ranking=put_in_front(state.ranking, per_query(len(state.queries), rescore), in_place=state.in_place)
    )


def superglobal_scores(query: np.ndarray, top: np.ndarray, rows: np.ndarray, config: SuperGlobalConfig) -> np.ndarray:
    """(M,) float32 final scores. query: (D,) float32. top: (M, D) float32, descriptors of `rows`, which order equal
    refined scores."""
    if not len(top):
        return np.empty(0, np.float32)
    similarities = top @ top.T  # NumPy sees the transpose and computes one half
    np.fill_diagonal(similarities, np.inf)  # itself comes first, even where a duplicate rounds higher
    neighbours = nearest_positions(similarities, min(config.k + 1, len(top)))
    np.fill_diagonal(similarities, 0)
    weights = np.take_along_axis(similarities, neighbours, axis=1) * np.float32(config.beta)
    weights[neighbours == np.arange(len(top))[:, None]] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    refined_scores = (weights * (top @ query)[neighbours]).sum(axis=1)
    best = np.lexsort((rows, -refined_scores))[: config.k + 1]
    refined_best = np.einsum("bk,bkd->bd", weights[best], top[neighbours[best]])
    expanded_query = refined_best.max(axis=0)
    expanded_scores = (weights * (top @ expanded_query)[neighbours]).sum(axis=1)
    return (refined_scores + expanded_scores) / 2
