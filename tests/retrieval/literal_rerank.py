"""Re-ranking as its papers and authors' code compute it, in loops, for comparison.

Each function takes (D,) or (Q, D) queries and an (N, D) database and follows the published order of computation; equal
values are taken in the order of the ranking (or by row, in the final order), where the authors' sorts leave them in any
order.
"""

import numpy as np


def superglobal(query: np.ndarray, top: np.ndarray, k: int, beta: float, rows: np.ndarray) -> np.ndarray:
    """(M,) final scores: MDescAug, then RerankwMDA, every refined descriptor formed."""
    m = len(top)
    refined = []
    for i in range(m):
        similarities = [float(top[i] @ top[j]) for j in range(m)]
        similarities[i] = np.inf  # itself first
        order = sorted(range(m), key=lambda j: (-similarities[j], j))[: k + 1]
        weights = [1.0] + [beta * similarities[j] for j in order[1:]]
        refined.append(sum(w * top[j] for w, j in zip(weights, order, strict=True)) / sum(weights))
    refined_scores = [float(query @ row) for row in refined]
    order = sorted(range(m), key=lambda i: (-refined_scores[i], rows[i]))
    expanded = np.max([refined[i] for i in order[: k + 1]], axis=0)
    return np.array([(refined_scores[i] + float(expanded @ refined[i])) / 2 for i in range(m)])


def alpha_qe(query: np.ndarray, database: np.ndarray, ranked: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """(D,) the expanded query."""
    total = query.copy()
    for row in ranked[:n]:
        similarity = float(query @ database[row])
        if similarity > 0:
            total = total + similarity**alpha * database[row]
    return total / np.sqrt((total**2).sum())


def augmented(database: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """(N, D) every row averaged with its n nearest others."""
    result = []
    for i in range(len(database)):
        similarities = [float(database[i] @ database[j]) for j in range(len(database))]
        others = sorted((j for j in range(len(database)) if j != i), key=lambda j: (-similarities[j], j))[:n]
        total = database[i].copy()
        for j in others:
            if similarities[j] > 0:
                total = total + similarities[j] ** alpha * database[j]
        result.append(total / np.sqrt((total**2).sum()))
    return np.array(result)


def diffusion(queries: np.ndarray, nodes: np.ndarray, k: int, kq: int, alpha: float, gamma: float) -> np.ndarray:
    """(Q, n) f = (1 - alpha) (I - alpha S)^-1 y by a direct solver."""
    n = len(nodes)
    similarities = nodes @ nodes.T
    near = np.zeros((n, n), bool)
    for i in range(n):
        near[i, sorted((j for j in range(n) if j != i), key=lambda j: (-similarities[i, j], j))[:k]] = True
    weights = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if near[i, j] and near[j, i] and similarities[i, j] > 0:
                weights[i, j] = similarities[i, j] ** gamma
    degrees = weights.sum(axis=1)
    smoothed = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if weights[i, j]:
                smoothed[i, j] = weights[i, j] / np.sqrt(degrees[i] * degrees[j])
    found = []
    for query in queries:
        start = np.zeros(n)
        affinities = nodes @ query
        for j in sorted(range(n), key=lambda j: (-affinities[j], j))[:kq]:
            start[j] = max(affinities[j], 0) ** gamma
        found.append((1 - alpha) * np.linalg.solve(np.eye(n) - alpha * smoothed, start))
    return np.array(found)


def kreciprocal(query: np.ndarray, top: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """(M,) final distances to one query, in the order and with the arrays of the authors' re_ranking()."""
    every = np.concatenate([query[None], top])
    gram = (every.astype(np.float64) @ every.astype(np.float64).T).astype(np.float32)
    original = np.maximum(2 - 2 * gram, 0)  # their squared distances of unit rows
    original = np.transpose(original / np.max(original, axis=0))
    sets = np.zeros_like(original, dtype=np.float64)
    ranks = np.argsort(original, axis=1, kind="stable")
    n = len(every)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = ranks[i, : k + 1]
        return forward[np.where(ranks[forward, : k + 1] == i)[0]]

    for i in range(n):
        own = reciprocal(i, k1)
        expansion = own
        for candidate in own:
            theirs = reciprocal(candidate, int(np.around(k1 / 2.0)))
            if len(np.intersect1d(theirs, own)) > 2.0 / 3 * len(theirs):
                expansion = np.append(expansion, theirs)
        expansion = np.unique(expansion)
        values = np.exp(-original[i, expansion].astype(np.float64))
        sets[i, expansion] = values / values.sum()
    if k2 != 1:
        sets = np.array([sets[ranks[i, :k2]].mean(axis=0) for i in range(n)])
    jaccard = np.zeros(n)
    for i in range(n):
        shared = 0.0
        for j in np.where(sets[0] != 0)[0]:
            shared += min(sets[0, j], sets[i, j])
        jaccard[i] = 1 - shared / (2.0 - shared)
    return (jaccard * (1 - weight) + original[0] * weight)[1:]
