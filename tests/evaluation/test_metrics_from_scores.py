"""Metrics from scores equal those of the full stable ranking, for any type and layout; unsound scores are named."""

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import (
    DATASETS,
    assert_same,
    noisy_perfect_scores,
    published_truth,
    random_truth,
    stable_ranks,
    truth_of,
)
from ultron_cli.datasets.protocols import PROTOCOLS
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.metrics import map_from_scores, places_by_score, revisited_map


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_perfect_ranking_of_the_published_ground_truth_is_perfect(dataset):
    truth = published_truth(dataset)
    scores = np.zeros((len(truth.queries), len(truth.database_names)), np.float32)
    for row, query in zip(scores, truth.queries, strict=True):
        row[query.rows(("easy", "hard"))] = 1
        row[query.junk] = 2
    results = map_from_scores(scores, truth)
    assert {protocol: result.mAP for protocol, result in results.items()} == {"easy": 1, "medium": 1, "hard": 1}
    assert results["easy"].queries_used == (68 if dataset == "roxford5k" else 70)


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_the_full_stable_ranking(seed):
    rng = np.random.default_rng(seed)
    n_database = int(rng.integers(1, 60))
    n_queries = int(rng.integers(1, 7))
    truth = random_truth(rng, n_queries, n_database, n_labelled=n_database)
    n_photos = n_database + int(rng.integers(0, 40))
    for decimals in (None, 1, 0):  # none, many, nearly only equal scores
        scores = noisy_perfect_scores(rng, truth, n_photos, decimals)
        scores[rng.random(scores.shape) < 0.1] = rng.choice([np.inf, -np.inf, 0.0, -0.0])
        ranks = stable_ranks(scores)
        for protocol, result in map_from_scores(scores, truth).items():
            assert_same(result, revisited_map(ranks, truth, protocol))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("decimals", [None, 2])
def test_scores_of_the_published_ground_truth(dataset, decimals):
    truth = published_truth(dataset)
    scores = noisy_perfect_scores(np.random.default_rng(1), truth, len(truth.database_names) + 2000, decimals)
    ranks = stable_ranks(scores)
    for protocol, result in map_from_scores(scores, truth).items():
        assert_same(result, revisited_map(ranks, truth, protocol))


def test_equal_scores_stand_by_row():
    scores = np.array([0.5, 0.7, 0.5, 0.5, 0.7, 0.1, 0.5], np.float32)
    assert places_by_score(scores, np.array([0, 2, 3, 4, 6])).tolist() == [2, 3, 4, 1, 5]
    assert places_by_score(np.array([0.0, -0.0, 0.0], np.float32), np.arange(3)).tolist() == [0, 1, 2]
    assert places_by_score(np.full(5, -np.inf, np.float32), np.array([4, 1])).tolist() == [4, 1]
    assert places_by_score(scores, np.empty(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_any_float_type_and_layout(dtype, tmp_path):
    rng = np.random.default_rng(3)
    truth = random_truth(rng, 5, 200, n_labelled=60)
    scores = noisy_perfect_scores(rng, truth, 230).astype(dtype)
    expected = {protocol: revisited_map(stable_ranks(scores), truth, protocol) for protocol in PROTOCOLS}
    np.save(tmp_path / "scores.npy", scores)
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    for table in (scores, np.asfortranarray(scores), mapped, scores.tolist() if dtype is np.float64 else scores):
        for protocol, result in map_from_scores(table, truth).items():
            assert_same(result, expected[protocol])
    assert (scores == mapped).all()  # scoring leaves the scores as they were


def test_only_the_protocols_asked_for():
    truth = truth_of({"easy": [0]})
    assert list(map_from_scores(np.zeros((1, 10), np.float32), truth, ["hard"])) == ["hard"]


def test_unsound_scores_are_named():
    truth = truth_of({"easy": [0]}, {"junk": [1]}, n_database=4)
    scores = np.zeros((2, 6), np.float32)
    with pytest.raises(
        UltronError, match="scores must cover the database of 4 photos, distractors after it; found 3; score all of it"
    ):
        map_from_scores(scores[:, :3], truth)
    with pytest.raises(UltronError, match="scores must hold floating-point numbers, one per photo; found int64"):
        map_from_scores(scores.astype(np.int64), truth)
    scores[1, 5] = np.nan  # in a distractor, of a query that has no positives
    with pytest.raises(
        UltronError, match="scores must be numbers; found NaN for query query1 at row 5; make its descriptors again"
    ):
        map_from_scores(scores, truth)
