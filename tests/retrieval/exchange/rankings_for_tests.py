"""Rankings for the tests of what goes out and comes in."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

NONE = -1


def ranking_of(
    rows: Sequence[Sequence[int]],
    scores: Sequence[Sequence[float]],
    *,
    queries: Sequence[str] | None = None,
    photos: Sequence[str] | None = None,
    origin: Origin | None = None,
) -> Ranking:
    """A ranking of rows and scores per query, padded to one length."""
    k = max(map(len, rows))
    n_photos = max((row for ranked in rows for row in ranked), default=0) + 1
    table = np.full((len(rows), k), NONE, np.int64)
    values = np.full((len(rows), k), -np.inf, np.float32)
    for query, (ranked, of_query) in enumerate(zip(rows, scores, strict=True)):
        table[query, : len(ranked)], values[query, : len(ranked)] = ranked, of_query
    return Ranking(
        query_names=list(queries or [f"query{i}" for i in range(len(rows))]),
        database_names=list(photos or [f"photo{i}" for i in range(n_photos)]),
        rows=table,
        scores=values,
        origin=origin or Origin(dataset="set"),
    )


def write_truth(path: Path, photos: Sequence[str], queries: Sequence[str], *labels: dict[str, list[int]]) -> Path:
    """A ground truth; labels: of each query, rows by label."""
    entries = [{"bbx": None, "easy": [], "hard": [], "junk": [], **label} for label in labels]
    entries += [{"bbx": None, "easy": [], "hard": [], "junk": []}] * (len(queries) - len(entries))
    path.write_text(json.dumps({"imlist": list(photos), "qimlist": list(queries), "gnd": entries}))
    return path


def random_ranking(seed: int, n_queries: int = 20, n_photos: int = 50, k: int = 40) -> Ranking:
    """Rankings with ties, negative, tiny and huge scores, of several lengths; one is empty."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for query in range(n_queries):
        n = 0 if query == 3 else int(rng.integers(1, k + 1))
        bits = rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
        values = np.where(np.isfinite(bits), bits, np.float32(0.1))
        values[: n // 2] = rng.normal(size=n // 2).round(1)
        rows.append(rng.permutation(n_photos)[:n].tolist())
        scores.append(np.sort(values)[::-1].tolist())
    return ranking_of(rows, scores, photos=[f"photo{i}" for i in range(n_photos)])
