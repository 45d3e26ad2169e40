"""Metrics of the revisited protocols: answers worked by hand, and what is refused."""

import math

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import truth_of
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.metrics import average_precision, precision_at, rankings_with_repeats, revisited_map


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
