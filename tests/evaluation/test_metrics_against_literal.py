"""Metrics of the revisited protocols equal the literal definition on many rankings."""

import math

import numpy as np
import pytest

from tests.evaluation.literal_revisitop import literal_map
from tests.evaluation.truths_for_tests import (
    DATASETS,
    assert_same,
    noisy_perfect_scores,
    published_truth,
    random_truth,
    stable_ranks,
    truth_of,
)
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth
from ultron_cli.evaluation.metrics import map_from_scores, revisited_map


def assert_literal(ranks: np.ndarray, truth: GroundTruth) -> None:
    for protocol in PROTOCOLS:
        result = revisited_map(ranks, truth, protocol)
        mean_ap, precisions, aps = literal_map(ranks, truth, protocol)
        np.testing.assert_allclose(result.ap, aps, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.mAP, mean_ap, rtol=0, atol=1e-9)
        np.testing.assert_allclose([result.mP[k] for k in (1, 5, 10)], precisions, rtol=0, atol=1e-9)
        assert result.queries_used == sum(not math.isnan(ap) for ap in aps)


@pytest.mark.parametrize("seed", range(25))
def test_random_rankings_equal_the_literal(seed):
    rng = np.random.default_rng(seed)
    n_database = int(rng.integers(1, 40))
    n_queries = int(rng.integers(1, 7))
    truth = random_truth(rng, n_queries, n_database, n_labelled=n_database)
    n_photos = n_database + int(rng.integers(0, 10))
    full = np.stack([rng.permutation(n_photos) for _ in range(n_queries)])
    partial = full[:, : rng.integers(0, n_photos + 1)]
    padded = np.where(np.arange(n_photos) < rng.integers(0, n_photos + 1, (n_queries, 1)), full, -1)
    repeated = rng.integers(-1, n_photos, (n_queries, int(rng.integers(1, 60))))
    for ranks in (full, partial, padded, repeated):
        assert_literal(ranks, truth)


@pytest.mark.parametrize("seed", range(10))
def test_labels_that_overlap_or_repeat_equal_the_literal(seed):
    rng = np.random.default_rng(seed)
    truth = truth_of(
        *(
            {label: rng.integers(0, 10, rng.integers(0, 6)).tolist() for label in ("easy", "hard", "junk")}
            for _ in range(4)
        )
    )
    ranks = np.stack([rng.permutation(10) for _ in range(4)])
    assert_literal(ranks, truth)
    scores = -np.argsort(ranks, axis=1).astype(np.float32)
    for protocol, result in map_from_scores(scores, truth).items():
        assert_same(result, revisited_map(ranks, truth, protocol))


@pytest.mark.parametrize("seed", range(10))
def test_first_of_repeats_equals_the_literal_of_the_ranking_without_them(seed):
    rng = np.random.default_rng(seed)
    truth = random_truth(rng, 4, 20, n_labelled=15)
    ranks = rng.integers(-1, 25, (4, 50))
    alone = np.full((4, 50), -1)
    for row, ranking in zip(alone, ranks, strict=True):
        photos = list(dict.fromkeys(ranking[ranking >= 0].tolist()))
        row[: len(photos)] = photos
    # -1 inside a row keeps its place, so the comparison is on rows that have it only at the end.
    packed = np.stack([np.concatenate([ranking[ranking >= 0], ranking[ranking < 0]]) for ranking in ranks])
    for protocol in PROTOCOLS:
        aps = literal_map(alone, truth, protocol)[2]
        np.testing.assert_allclose(
            revisited_map(packed, truth, protocol, duplicates="first").ap, aps, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("dataset", DATASETS)
def test_published_ground_truth_equals_the_literal(dataset):
    truth = published_truth(dataset)
    rng = np.random.default_rng(7)
    n_database = len(truth.database_names)
    random = np.stack([rng.permutation(n_database + 500) for _ in truth.queries])
    noisy = stable_ranks(noisy_perfect_scores(rng, truth, n_database))
    assert_literal(random, truth)
    assert_literal(noisy, truth)
    assert_literal(noisy[:, :100], truth)
    assert 0.3 < revisited_map(noisy, truth, "medium").mAP < 1
