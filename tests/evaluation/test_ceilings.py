"""What stands between a score and a perfect one: against every order that a re-ranking may give, and by hand."""

import itertools

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import published_truth, random_truth, stable_ranks, truth_of
from ultron_cli.datasets.protocols import PROTOCOLS
from ultron_cli.evaluation.ceilings import NO_LANDMARK, Confusion, ceilings, confusions, hubness
from ultron_cli.evaluation.metrics import revisited_map


@pytest.mark.parametrize("seed", range(12))
def test_the_oracle_equals_the_best_of_every_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng, 2, 10, n_labelled=10)
    width = int(rng.integers(6, 13))
    ranks = np.stack([rng.permutation(13)[:width] for _ in truth.queries])
    for protocol in PROTOCOLS:
        if not revisited_map(ranks, truth, protocol).queries_used:
            continue
        scores = ceilings(ranks, truth, protocol, depths=(1, 3, 5))
        assert list(scores) == [1, 3, 5, width]
        for depth in (1, 3, 5):
            best = np.full(len(truth.queries), np.nan)
            for order in itertools.permutations(range(depth)):
                changed = np.concatenate([ranks[:, list(order)], ranks[:, depth:]], axis=1)
                best = np.fmax(best, revisited_map(changed, truth, protocol).ap)
            assert scores[depth] == pytest.approx(np.nanmean(best), abs=1e-12)


def test_ceilings_rise_to_what_is_in_the_ranking() -> None:
    truth = published_truth("roxford5k")
    rng = np.random.default_rng(0)
    ranks = stable_ranks(rng.random((70, 4993)))
    scores = ceilings(ranks, truth, "medium")
    assert list(scores) == [10, 50, 100, 400, 1000, 4993]
    values = list(scores.values())
    assert values == sorted(values) and values[-1] == pytest.approx(1, abs=1e-12)
    assert values[0] >= revisited_map(ranks, truth, "medium").mAP
    assert list(ceilings(ranks[:, :100], truth, "medium")) == [10, 50, 100]
    assert ceilings(ranks[:, :0], truth, "medium") == {}


def test_a_repeated_positive_counts_as_often_as_it_is_ranked() -> None:
    truth = truth_of({"easy": [0, 1]})
    ranks = np.array([[5, 0, 0, 1]])
    assert ceilings(ranks, truth, "easy", depths=(4,))[4] == 1.5  # as revisitop scores 0, 0, 1, 5


def test_landmarks_that_are_taken_for_others() -> None:
    truth = truth_of(
        {"easy": [0, 1], "hard": [2], "junk": [3]}, {"easy": [0, 1, 2]}, {"easy": [4, 5]}, {"junk": [6]}, n_database=9
    )
    ranks = np.array(
        [
            [3, 4, 0, 8, 1, 2],  # 3 is ignored; 4 is the other landmark's and 8 of none, both before the third place
            [0, 4, 5, 1, 2, 8],
            [3, 4, 1, 5, 0, 2],  # 3 is junk of the first
            [4, 5, 0, 1, 2, 8],
        ]
    )
    assert confusions(ranks, truth, "medium") == [
        Confusion(landmark="query0", taken_for="query2", n_photos=3, n_queries=2),
        Confusion(landmark="query0", taken_for=NO_LANDMARK, n_photos=1, n_queries=1),
        Confusion(landmark="query2", taken_for="query0", n_photos=1, n_queries=1),
    ]


def test_hubs_are_photos_of_many_rankings() -> None:
    truth = truth_of({"easy": [0]}, {"easy": [1]}, {"easy": [2], "junk": [9]}, n_database=10)
    ranks = np.array([[9, 0, 3], [9, 1, -1], [9, 2, 11]])
    result = hubness(ranks, truth, "medium", lambda row: f"p{row}", 12, places=2)
    (hub,) = result.hubs
    assert (hub.photo, hub.n_rankings, hub.n_wrong) == ("p9", 3, 2)  # the third ignores it
    assert result.mean == pytest.approx(3 * 2 / 12)
    counts = np.array([3, 1, 1, 1] + [0] * 8)
    assert result.skewness == pytest.approx(((counts - 0.5) ** 3).mean() / counts.std() ** 3)
    assert hubness(ranks[:, :0], truth, "medium", str, 12).skewness is None
