"""From which number of inliers on: against the true shares of drawn scores, for samples of every size."""

import json
from itertools import pairwise

import numpy as np
import pytest

from ultron_cli.local.calibration import calibrate, chance_share

SHARE = 0.001


def drawn_scores(n: int, seed: int) -> np.ndarray:
    """A fifth of pairs have inliers, from 4 on; 0.3 of those that have some have one more."""
    draws = np.random.default_rng(seed)
    return np.where(draws.random(n) < 0.2, 3 + draws.geometric(0.7, n), 0)


def true_share(threshold: int) -> float:
    return 0.2 * 0.3 ** (threshold - 4)


@pytest.mark.parametrize("n", [30, 100, 1000, 5000])
def test_the_share_is_held_by_samples_of_any_size(n: int) -> None:
    """Of 100 samples a tenth at most go over twice the share, and none of large ones ask for much more than needed."""
    thresholds = [calibrate(drawn_scores(n, seed), share=SHARE, first=4, least=4).threshold for seed in range(100)]
    assert np.mean([true_share(threshold) > 2 * SHARE for threshold in thresholds]) <= (0.25 if n < 100 else 0.1)
    assert max(thresholds) <= (12 if n >= 1000 else 30), thresholds


def test_few_pairs_ask_for_more() -> None:
    nothing = np.zeros(0, np.int64)
    thresholds = [
        calibrate(scores, share=SHARE, first=4, least=4).threshold
        for scores in (nothing, np.zeros(10, np.int64), np.zeros(100, np.int64), np.zeros(1000, np.int64))
    ]
    assert thresholds == [14, 11, 8, 4]  # a half for each inlier, from one pair in n + 1 on


def test_what_ten_pairs_reach_is_counted() -> None:
    scores = np.array([0] * 980 + [4] * 10 + [5] * 10)
    calibration = calibrate(scores, share=0.0111, first=4, least=2)
    assert (calibration.threshold, calibration.is_extrapolated) == (5, False)
    assert calibration.expected_share == pytest.approx(11 / 1001)
    assert calibration.quantiles == {"0.5": 0, "0.9": 0, "0.99": 5, "0.999": 5}
    # Beyond, by a tenth and a little each: none of ten went on.
    calibration = calibrate(scores, share=0.001, first=4, least=2)
    assert (calibration.threshold, calibration.is_extrapolated) == (6, True)
    assert calibration.expected_share == pytest.approx(11 / 1001 / 12)
    assert "6 inliers promote: of 1,000 pairs of other photos the most have 5" in calibration.text()
    assert json.loads(json.dumps(calibration.to_json()))["threshold"] == 6


def test_the_threshold_is_not_below_the_least() -> None:
    assert calibrate(np.zeros(5000, np.int64), share=0.01, first=4, least=9).threshold == 9


def test_shares_fall_with_the_threshold() -> None:
    for seed in range(20):
        scores = np.sort(drawn_scores(200, seed))
        shares = [chance_share(scores, threshold, 4) for threshold in range(30)]
        assert all(a >= b for a, b in pairwise(shares))
        assert 0 < shares[-1] <= shares[0] <= 1
