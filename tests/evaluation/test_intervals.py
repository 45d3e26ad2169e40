"""The interval of a mean: equal to scipy's and to the book's formulas, and right in 95 of 100 samples."""

import numpy as np
import pytest

from tests.evaluation import literal_statistics
from ultron_cli.evaluation import intervals
from ultron_cli.evaluation.intervals import mean_interval, smallest_difference
from ultron_cli.evaluation.significance import sign_flip_p_value

SHAPES = {  # AP as it is: many at 1, many at 0, and some between
    "easy": lambda rng, n: rng.beta(2.0, 0.4, n),
    "hard": lambda rng, n: rng.beta(0.6, 0.8, n),
    "with many perfect": lambda rng, n: np.where(rng.random(n) < 0.3, 1.0, rng.beta(1.0, 1.0, n)),
}
TRUE_MEANS = {"easy": 2.0 / 2.4, "hard": 0.6 / 1.4, "with many perfect": 0.65}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_is_scipys_and_the_books(shape: str) -> None:
    from scipy.stats import bootstrap

    values = SHAPES[shape](np.random.default_rng(1), 70)
    interval = mean_interval(values, resamples=2000, seed=3)
    rng = np.random.default_rng(3)
    expected = bootstrap((values,), np.mean, method="BCa", n_resamples=2000, rng=rng).confidence_interval
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    rows = np.random.default_rng(3).integers(0, 70, (2000, 70))
    means = [sum(values[i] for i in row) / 70 for row in rows.tolist()]
    assert interval == pytest.approx(literal_statistics.bca_interval(values.tolist(), means), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_hold_the_true_mean_in_92_to_98_of_100_samples(shape: str) -> None:
    rng = np.random.default_rng(7)
    covered = []
    for seed in range(600):
        low, high = mean_interval(SHAPES[shape](rng, 70), resamples=600, seed=seed)
        covered.append(low <= TRUE_MEANS[shape] <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_seed_decides_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(71)
    first = mean_interval(values, resamples=501)
    assert first == mean_interval(values, resamples=501) != mean_interval(values, resamples=501, seed=1)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 1000)
    assert mean_interval(values, resamples=501) == first


def test_values_that_are_equal_or_few() -> None:
    assert mean_interval(np.full(70, 0.1)) == (pytest.approx(0.1), pytest.approx(0.1))
    assert mean_interval(np.array([0.5])) == (0.5, 0.5)
    low, high = mean_interval(np.array([0.0, 1.0]))
    assert low == 0.0 and high == 1.0
    low, high = mean_interval(np.array([0.0, 0.0, 1.0]), resamples=2)
    assert 0 <= low <= high <= 1


def test_the_smallest_difference_is_found_in_four_of_five_cases() -> None:
    """The sign-flip test rejects 80 % of the samples whose true difference is the smallest one."""
    rng = np.random.default_rng(5)
    sd, n = 0.12, 70
    smallest = (1.959964 + 0.841621) * sd / np.sqrt(n)
    sample = rng.normal(0, 1, n)
    sample = (sample - sample.mean()) / sample.std(ddof=1) * sd + 0.3
    assert smallest_difference(sample) == pytest.approx(smallest, rel=1e-6)
    p_values = [sign_flip_p_value(rng.normal(smallest, sd, n), resamples=399, seed=seed)[0] for seed in range(300)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.8, abs=0.07)  # 3 standard errors


def test_there_is_no_smallest_difference_without_spread() -> None:
    assert smallest_difference(np.zeros(5)) is None
    assert smallest_difference(np.full(70, 0.1)) is None
    assert smallest_difference(np.array([0.2])) is None
