"""Diffusion on a sparse graph of the database (Iscen et al., Efficient Diffusion on Region Manifolds, CVPR 2017).

Photos are joined where each is among the k nearest of the other. Similarity put in at a query's nearest photos then
spreads along the graph: f = (1 - alpha) (I - alpha S)^-1 y, S the degree-normalised graph, solved by conjugate
gradients for all queries at once.
"""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ultron_cli.blocks import chunks
from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.rankings import RankedRows
from ultron_cli.retrieval.rerank.expansion import similarity_weights
from ultron_cli.retrieval.rerank.state import RerankState, Scored, put_in_front

BLOCK_BYTES = 1 << 27  # of descriptors whose neighbours are searched together


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Defaults: section 5.1 of the paper; nodes is ours."""

    nodes: int = 20_000  # at most so many photos in the graph: those that rank best over all queries
    k: int = 50  # neighbours of a photo; only mutual ones are joined
    kq: int = 10  # photos where a query enters the graph
    alpha: float = 0.99  # how far similarity spreads
    gamma: float = 3.0  # edge weight: similarity to this power
    iterations: int = 20  # of conjugate gradients, at most
    tolerance: float = 1e-6  # of the residual's norm, against that of y

    def __post_init__(self) -> None:
        within("diffusion.nodes", self.nodes, 1, 10_000_000)
        within("diffusion.k", self.k, 1, 10_000)
        within("diffusion.kq", self.kq, 1, 10_000)
        within("diffusion.alpha", self.alpha, 0, 0.9999)
        within("diffusion.gamma", self.gamma, 0, 100)
        within("diffusion.iterations", self.iterations, 1, 10_000)
        within("diffusion.tolerance", self.tolerance, 0, 1)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.nodes


def diffusion(state: RerankState, config: DiffusionConfig) -> RerankState:
    """Orders by diffused similarity the photos that a query reaches, even those new to its ranking; the rest stays
    behind them.

    Memory: nodes x k numbers for the graph, nodes x queries for the solution, and without an index the nodes'
    descriptors unless the graph holds the whole database.
    """
    nodes = graph_nodes(state.ranking.rows, config.nodes)
    started_s = time.perf_counter()
    graph = normalised_graph(neighbour_graph(state, nodes, config))
    log.info(
        "diffusion graph: %s, %s, in %.1f s",
        counted(len(nodes), "photo"),
        counted(graph.nnz // 2, "edge"),
        time.perf_counter() - started_s,
    )
    return spread_over(state, nodes, graph, config)


def spread_over(state: RerankState, nodes: np.ndarray, graph: sparse.csr_array, config: DiffusionConfig) -> RerankState:
    """The queries' part of diffusion(). nodes: (n,) database rows, ascending. graph: S of them, (n, n)."""
    start = np.zeros((len(nodes), len(state.queries)))
    for query, query_descriptor in enumerate(state.queries):
        rows = state.first_rows(query, config.kq)
        places = np.searchsorted(nodes, rows).clip(max=max(0, len(nodes) - 1))
        is_node = nodes[places] == rows if len(nodes) else np.zeros(len(rows), bool)
        similarities = state.rows_of(rows[is_node]).astype(np.float64) @ query_descriptor
        start[places[is_node], query] = similarity_weights(similarities, config.gamma)
    spread = (1 - config.alpha) * conjugate_gradients(graph, start, config)

    def reached(query: int) -> Scored:
        positive = np.flatnonzero(spread[:, query] > 0)
        return nodes[positive], spread[positive, query]

    return dataclasses.replace(
        state, ranking=put_in_front(state.ranking, map(reached, range(len(state.queries))), in_place=state.in_place)
    )


def graph_nodes(rows: np.ndarray, most: int) -> np.ndarray:
    """(n,) int64, ascending: at most that many database rows, those that stand first in any ranking. rows: (Q, K), -1
    pads."""
    nodes = np.empty(0, np.int64)
    width = max(1, most // max(1, len(rows)))
    for start, stop in chunks(rows.shape[1], width):
        best_first = rows[:, start:stop].T.ravel()
        _, first_places = np.unique(best_first, return_index=True)
        fresh = best_first[np.sort(first_places)]
        fresh = fresh[(fresh >= 0) & ~np.isin(fresh, nodes)]
        nodes = np.union1d(nodes, fresh[: most - len(nodes)])
        if len(nodes) == most:
            break
    return nodes


def neighbour_graph(state: RerankState, nodes: np.ndarray, config: DiffusionConfig) -> sparse.csr_array:
    """(n, n) weights max(similarity, 0) ** gamma between photos of `nodes` that are among the k nearest of each
    other."""
    n = len(nodes)
    is_whole = n == state.n_database
    searches_whole = is_whole or state.index is not None
    node_descriptors = np.empty((0, 0), np.float32) if searches_whole else state.rows_of(nodes)
    parts = []
    for start, stop in chunks(n, max(1, BLOCK_BYTES // (4 * state.queries.shape[1]))):
        if searches_whole:
            nearest_rows = state.search(state.rows_of(nodes[start:stop]), min(config.k + 1, state.n_database))
            places = np.searchsorted(nodes, nearest_rows.rows).clip(max=n - 1)
            is_node = nodes[places] == nearest_rows.rows
        else:
            nearest_rows = exact_search(
                node_descriptors[start:stop], node_descriptors, min(config.k + 1, n), device=state.device
            )
            places = nearest_rows.rows
            is_node = np.ones(places.shape, bool)
        parts.append(_edges(nearest_rows, places, is_node, start, n, config.gamma))
    nearest = sparse.vstack(parts, format="csr") if parts else sparse.csr_array((0, 0))
    mutual = sparse.csr_array(nearest.minimum(nearest.T))
    mutual.eliminate_zeros()
    return mutual


def _edges(
    nearest: RankedRows, places: np.ndarray, is_node: np.ndarray, first: int, n: int, gamma: float
) -> sparse.csr_array:
    """(b, n) weights of the neighbours of nodes first..first+b, themselves left out.

    places: (b, k) where each neighbour stands among the nodes. is_node: (b, k) whether it is one of them.
    """
    weights = similarity_weights(nearest.scores, gamma)
    is_itself = is_node & (places == first + np.arange(len(places))[:, None])
    is_itself[~is_itself.any(axis=1), -1] = True  # more duplicates than neighbours: the last leaves, so that all have k
    weights[is_itself | ~is_node] = 0
    limits = np.arange(len(places) + 1) * places.shape[1]
    edges = sparse.csr_array((weights.ravel(), places.ravel(), limits), shape=(len(places), n))
    edges.eliminate_zeros()
    edges.sort_indices()
    return edges


def normalised_graph(graph: sparse.csr_array) -> sparse.csr_array:
    """D^-1/2 W D^-1/2; a photo without edges keeps none."""
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    inverse = np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    scale = sparse.diags_array(inverse)
    return sparse.csr_array(scale @ graph @ scale)


def conjugate_gradients(graph: sparse.csr_array, start: np.ndarray, config: DiffusionConfig) -> np.ndarray:
    """(n, Q) float64 solutions f of (I - alpha S) f = y, with a step length for each query.

    graph: S, (n, n). start: y, (n, Q).
    """
    solution = np.zeros_like(start)
    residual = start.copy()
    direction = residual.copy()
    squared_norm = (residual**2).sum(axis=0)
    target = config.tolerance**2 * squared_norm
    for _ in range(config.iterations):
        is_unsolved = squared_norm > target
        if not is_unsolved.any():
            break
        image = direction - config.alpha * (graph @ direction)
        curvature = (direction * image).sum(axis=0)
        step = np.divide(squared_norm, curvature, out=np.zeros_like(squared_norm), where=is_unsolved & (curvature > 0))
        solution += step * direction
        residual -= step * image
        previous_norm = squared_norm
        squared_norm = np.where(is_unsolved, (residual**2).sum(axis=0), squared_norm)
        growth = np.divide(squared_norm, previous_norm, out=np.zeros_like(squared_norm), where=is_unsolved)
        direction = residual + growth * direction
    return solution
