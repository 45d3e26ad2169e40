"""Ground truths, scores and comparisons for the tests of the metrics."""

import numpy as np
import pytest

from tests.conftest import SHARED
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth, load_ground_truth
from ultron_cli.evaluation.metrics import RevisitedResult

PUBLISHED = SHARED / "groundtruth"
DATASETS = ("roxford5k", "rparis6k")


def truth_of(*queries: dict[str, list[int]], n_database: int = 10) -> GroundTruth:
    """A ground truth from lists of rows per label."""
    rows = [
        {label: np.array(query.get(label, []), np.int64) for label in ("easy", "hard", "junk")} for query in queries
    ]
    return GroundTruth(
        database_names=[f"photo{i}" for i in range(n_database)],
        query_names=[f"query{i}" for i in range(len(queries))],
        queries=[QueryTruth(bbx=None, **labels) for labels in rows],
    )


def random_truth(rng: np.random.Generator, n_queries: int, n_database: int, n_labelled: int) -> GroundTruth:
    """Random disjoint labels; a good part of the queries have no easy or no hard photos, a few no labels at all."""
    mixes = (["easy", "hard", "junk"], ["hard", "junk"], ["easy", "junk"])
    queries = []
    for _ in range(n_queries):
        rows = rng.permutation(n_database)[: rng.integers(0, n_labelled + 1)]
        kinds = rng.choice(mixes[rng.integers(0, 3)], len(rows))
        queries.append({label: rows[kinds == label].tolist() for label in ("easy", "hard", "junk")})
    return truth_of(*queries, n_database=n_database)


def published_truth(dataset: str) -> GroundTruth:
    path = PUBLISHED / f"gnd_{dataset}.pkl"
    if not path.is_file():
        pytest.skip(f"the published ground truth is not here: {path}")
    return load_ground_truth(path)


def stable_ranks(scores: np.ndarray) -> np.ndarray:
    """(Q, N) the full ranking: higher scores first, equal scores by row."""
    rows = np.arange(scores.shape[1])
    return np.stack([np.lexsort((rows, -row.astype(np.float64))) for row in scores])


def noisy_perfect_scores(
    rng: np.random.Generator, truth: GroundTruth, n_photos: int, decimals: int | None = None
) -> np.ndarray:
    """(Q, n_photos) float32: noise, with positives and junk lifted so that most, not all, come first; rounding makes
    ties."""
    scores = rng.normal(0, 0.1, (len(truth.queries), n_photos))
    for row, query in zip(scores, truth.queries, strict=True):
        row[query.easy] += 0.3
        row[query.hard] += 0.15
        row[query.junk] += 0.25
    return (scores if decimals is None else scores.round(decimals)).astype(np.float32)


def assert_same(a: RevisitedResult, b: RevisitedResult, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a.ap, b.ap, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.precision, b.precision, rtol=0, atol=tolerance)
    np.testing.assert_allclose([a.mAP, *a.mP.values()], [b.mAP, *b.mP.values()], rtol=0, atol=tolerance)
    assert a.queries_used == b.queries_used
