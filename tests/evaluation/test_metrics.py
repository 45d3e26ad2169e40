"""Metrics of the revisited protocols: answers worked by hand, then equality with the literal definition on many
rankings."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from literal_revisitop import literal_map

from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, QueryTruth, load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.metrics import (
    average_precision,
    map_from_scores,
    places_by_score,
    precision_at,
    rankings_with_repeats,
    revisited_map,
)

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "groundtruth"
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


def assert_literal(ranks: np.ndarray, truth: GroundTruth) -> None:
    for protocol in PROTOCOLS:
        result = revisited_map(ranks, truth, protocol)
        mean_ap, precisions, aps = literal_map(ranks, truth, protocol)
        np.testing.assert_allclose(result.ap, aps, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.mAP, mean_ap, rtol=0, atol=1e-9)
        np.testing.assert_allclose([result.mP[k] for k in (1, 5, 10)], precisions, rtol=0, atol=1e-9)
        assert result.queries_used == sum(not math.isnan(ap) for ap in aps)


def assert_same(a, b, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a.ap, b.ap, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.precision, b.precision, rtol=0, atol=tolerance)
    np.testing.assert_allclose([a.mAP, *a.mP.values()], [b.mAP, *b.mP.values()], rtol=0, atol=tolerance)
    assert a.queries_used == b.queries_used


# ---- worked by hand


@pytest.mark.parametrize(
    ("ranks", "n_positives", "expected"),
    [
        ([0], 1, 1.0),
        ([0, 1, 2], 3, 1.0),
        ([1], 1, (0 / 1 + 1 / 2) / 2),
        ([0, 2], 2, ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ([0], 4, 0.25),  # three positives are not in the ranking
        ([9], 1, 1 / 20),
        ([], 2, 0.0),
        ([0, 1, 2], 1, 3.0),  # one positive shown three times counts three times
    ],
)
def test_average_precision_by_hand(ranks, n_positives, expected):
    assert average_precision(np.array(ranks, np.int64), n_positives) == pytest.approx(expected, abs=1e-15)


def test_average_precision_needs_positives():
    with pytest.raises(ValueError, match="n_positives must be at least 1, found 0"):
        average_precision(np.empty(0, np.int64), 0)


def test_precision_is_cut_at_the_last_positive_found():
    assert precision_at(np.array([0, 2])).tolist() == [1, 2 / 3, 2 / 3]  # k = 5 and 10 become 3
    assert precision_at(np.array([3])).tolist() == [0, 1 / 4, 1 / 4]
    assert precision_at(np.array([0, 6, 20])).tolist() == [1, 1 / 5, 2 / 10]
    assert precision_at(np.empty(0, np.int64)).tolist() == [0, 0, 0]


def test_three_protocols_by_hand():
    truth = truth_of({"easy": [0], "hard": [1], "junk": [2]}, n_database=5)
    ranks = np.array([[2, 3, 0, 4, 1]])
    easy, medium, hard = (revisited_map(ranks, truth, protocol) for protocol in ("easy", "medium", "hard"))
    # Easy: junk 2 leaves; 3 0 4: the positive at 1. Hard: 2 and 0 leave; 3 4 1: the positive at 2.
    assert easy.mAP == pytest.approx((0 + 1 / 2) / 2)
    assert medium.mAP == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert hard.mAP == pytest.approx((0 + 1 / 3) / 2)
    assert easy.mP == {1: 0, 5: 1 / 2, 10: 1 / 2}
    assert medium.mP == {1: 0, 5: 2 / 4, 10: 2 / 4}
    assert hard.mP == pytest.approx({1: 0, 5: 1 / 3, 10: 1 / 3})


def test_junk_first_costs_nothing():
    truth = truth_of({"easy": [0, 1], "junk": [5, 6, 7]})
    assert revisited_map(np.array([[7, 5, 6, 1, 0, 2, 3, 4, 8, 9]]), truth, "medium").mAP == 1.0


def test_a_query_without_positives_is_left_out_of_the_mean():
    truth = truth_of({"easy": [0]}, {"hard": [1]})
    result = revisited_map(np.array([[0, 1], [0, 1]]), truth, "easy")
    assert result.mAP == 1.0
    assert result.queries_used == 1
    assert math.isnan(result.ap[1])
    assert result.ap.dtype == np.float64


def test_no_query_with_positives_has_no_map():
    result = revisited_map(np.array([[0, 1]]), truth_of({"junk": [1]}), "hard")
    assert math.isnan(result.mAP)
    assert all(math.isnan(value) for value in result.mP.values())
    assert result.queries_used == 0


def test_a_partial_ranking_without_any_positive_scores_zero():
    truth = truth_of({"easy": [0]}, {"easy": [1]})
    result = revisited_map(np.array([[3, 4], [1, 2]]), truth, "easy")
    assert result.ap.tolist() == [0, 1]
    assert result.mP == {1: 0.5, 5: 0.5, 10: 0.5}
    assert revisited_map(np.empty((2, 0), np.int64), truth, "easy").mAP == 0


def test_padding_and_distractors():
    truth = truth_of({"easy": [0, 1]}, n_database=4)
    assert revisited_map(np.array([[0, 1, -1, -1]]), truth, "easy").mAP == 1
    # Rows 4 and 1000 are distractors: negatives in front of the second positive.
    expected = (1 + (1 / 3 + 2 / 4) / 2) / 2
    assert revisited_map(np.array([[0, 4, 1000, 1]]), truth, "easy").mAP == pytest.approx(expected)


def test_repeats_count_unless_told_otherwise():
    truth = truth_of({"easy": [0], "junk": [9]})
    ranks = np.array([[0, 0, 3, 9, 9, 0, -1, -1]])
    assert revisited_map(ranks, truth, "easy").mAP > 1
    assert revisited_map(ranks, truth, "easy", duplicates="first").mAP == 1
    # 3 3 1 becomes 3 1.
    truth = truth_of({"easy": [1]})
    assert revisited_map(np.array([[3, 3, 1]]), truth, "easy", duplicates="first").mAP == pytest.approx(1 / 4)
    # No photo is not a repeat of no photo: it keeps its places.
    assert revisited_map(np.array([[-1, -1, 1, 1]]), truth, "easy", duplicates="first").mAP == pytest.approx(1 / 6)
    assert rankings_with_repeats(np.array([[0, 1, -1, -1], [2, 3, 2, -1]])).tolist() == [1]
    assert rankings_with_repeats(np.array([[0, 1]])).shape == (0,)


# ---- equality with the literal definition


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


# ---- from scores


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


# ---- errors


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        (
            np.zeros((3, 5), np.int64),
            r"ranks must have one row for each of the 2 queries; found shape \(3, 5\); use the queries of",
        ),
        (np.zeros((5, 2), np.int64), r"found shape \(5, 2\); it looks turned, pass its transpose"),
        (np.zeros(5, np.int64), r"found shape \(5,\)"),
        (
            np.zeros((2, 5)),
            "ranks must hold whole numbers, the rows of database photos; found float64; convert them first",
        ),
    ],
)
def test_unsound_ranks_are_named(ranks, text):
    with pytest.raises(UltronError, match=text):
        revisited_map(ranks, truth_of({"easy": [0]}, {"easy": [1]}), "easy")


def test_unknown_choices_are_named():
    truth, ranks = truth_of({"easy": [0]}), np.array([[0]])
    with pytest.raises(
        UltronError, match="a protocol must be one of easy, medium, hard; found 'hart'; did you mean hard"
    ):
        revisited_map(ranks, truth, "hart")
    with pytest.raises(UltronError, match="duplicates must be count or first; found 'last'"):
        revisited_map(ranks, truth, "easy", duplicates="last")


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
