"""Paired comparison of two evaluations: small cases by hand, and behaviour over many seeds."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from ultron_cli.errors import UltronError
from ultron_cli.evaluation.intervals import mean_interval
from ultron_cli.evaluation.result import Evaluation, ProtocolScores
from ultron_cli.evaluation.significance import (
    compare_evaluations,
    sign_flip_p_value,
    ways_of_testing,
)
from ultron_cli.retrieval.origin import Origin


def evaluation(ap: dict[str, float | None], *, dataset: str = "toy", n_database: int = 10) -> Evaluation:
    """An evaluation with one protocol, hard."""
    scores = ProtocolScores(mAP=None, mP={}, queries_used=sum(value is not None for value in ap.values()), ap=ap)
    return Evaluation(
        dataset=dataset, n_queries=len(ap), n_database=n_database, protocols={"hard": scores}, origin=Origin()
    )


def test_by_hand():
    a = evaluation({"q0": 0.5, "q1": 0.5, "q2": None, "q3": 0.2})
    b = evaluation({"q3": 0.2, "q2": None, "q1": 0.7, "q0": 0.6})  # another order: queries are paired by name
    result = compare_evaluations(a, b, "hard")
    assert (result.n_queries, result.n_better, result.n_worse) == (3, 2, 0)
    assert result.mAP_a == pytest.approx(0.4)
    assert result.mAP_b == pytest.approx(0.5)
    assert result.difference == pytest.approx(0.1)
    # Sums of +-0.1 +-0.2: 0.3, 0.1, -0.1, -0.3; two of four are as far from 0 as 0.3.
    assert (result.p_value, result.exact) == (0.5, True)
    assert 0 <= result.interval[0] <= 0.1 <= result.interval[1] <= 0.2


def test_exact_p_value_equals_every_pattern_tried():
    differences = np.random.default_rng(0).normal(0.03, 0.1, 9)
    observed = abs(differences.sum())
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
    expected = np.mean([total >= observed - 1e-12 for total in sums])
    assert sign_flip_p_value(differences, resamples=1000, seed=0) == (pytest.approx(expected), True)


def test_drawn_p_value_is_near_the_exact_one():
    differences = np.random.default_rng(1).normal(0.03, 0.1, 12)
    exact, _ = sign_flip_p_value(differences, resamples=2**12, seed=0)
    drawn, is_exact = sign_flip_p_value(differences, resamples=2**12 - 1, seed=0)
    assert not is_exact
    assert drawn == pytest.approx(exact, abs=0.03)  # 4 standard errors of 4,095 draws


def test_no_difference_and_a_plain_one():
    assert sign_flip_p_value(np.zeros(70), resamples=100, seed=0) == (1.0, True)
    p_value, exact = sign_flip_p_value(np.full(70, 0.1), resamples=999, seed=0)
    assert (p_value, exact) == (1 / 1000, False)  # never 0: the observed pattern is one of them
    assert mean_interval(np.full(70, 0.1), resamples=100, seed=0) == (pytest.approx(0.1), pytest.approx(0.1))


def test_swapping_mirrors_the_comparison():
    rng = np.random.default_rng(2)
    a, b = (evaluation({f"q{i}": float(ap) for i, ap in enumerate(rng.random(40))}) for _ in range(2))
    forth, back = compare_evaluations(a, b, "hard", resamples=2000), compare_evaluations(b, a, "hard", resamples=2000)
    assert forth.difference == -back.difference
    assert forth.p_value == back.p_value
    assert forth.interval == (pytest.approx(-back.interval[1]), pytest.approx(-back.interval[0]))


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    differences = np.random.default_rng(3).normal(0.02, 0.1, 70)

    def numbers(seed: int):
        return sign_flip_p_value(differences, resamples=500, seed=seed), mean_interval(
            differences, resamples=500, seed=seed
        )

    first = numbers(0)
    assert first == numbers(0) != numbers(1)
    monkeypatch.setattr("ultron_cli.evaluation.intervals.DRAWS_AT_ONCE", 1000)
    assert numbers(0) == (first[0], pytest.approx(first[1], abs=1e-15))


def test_without_a_difference_p_values_are_uniform_and_intervals_cover():
    rng = np.random.default_rng(4)
    p_values, covered = [], []
    for seed in range(200):
        differences = rng.normal(0, 0.1, 40)
        p_values.append(sign_flip_p_value(differences, resamples=199, seed=seed)[0])
        low, high = mean_interval(differences, resamples=400, seed=seed)
        covered.append(low <= 0 <= high)
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.045)
    assert kstest(p_values, "uniform").pvalue > 0.05
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(
    ("b", "text"),
    [
        (
            evaluation({"q0": 0.5}, dataset="other"),
            "must have the same dataset; found toy and other; evaluate both on the same dataset",
        ),
        (
            evaluation({"q0": 0.5}, n_database=99),
            "must have the same n_database; found 10 and 99; use the same distractors for both",
        ),
        (evaluation({"q1": 0.5}), "must have AP for the same queries; q0 has it in one alone; use one ground truth"),
        (evaluation({"q0": None}), "must have AP for the same queries; q0 has it in one alone"),
        (
            replace(evaluation({}), protocols={}),
            "the second evaluation must have protocol hard; it has none; run `ultron evaluate",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(b, text):
    with pytest.raises(UltronError, match=text):
        compare_evaluations(evaluation({"q0": 0.5}), b, "hard")


def test_nothing_to_compare_is_said():
    empty = evaluation({"q0": None})
    with pytest.raises(UltronError, match="must have a query with positives; found none under protocol hard"):
        compare_evaluations(empty, empty, "hard")
    with pytest.raises(UltronError, match="resamples must be at least 1; found 0"):
        compare_evaluations(evaluation({"q0": 0.5}), evaluation({"q0": 0.5}), "hard", resamples=0)


def test_verdicts_name_the_better_or_chance():
    names = [f"q{i}" for i in range(40)]
    a = evaluation({name: 0.5 for name in names})
    better = compare_evaluations(a, evaluation({name: 0.6 for name in names}), "hard")
    assert better.verdict == "B is better than A by 10.00 points of mAP; chance hardly explains it"
    assert better.p_text == "< 0.001" and better.p_value > 0
    assert better.test_text == "paired randomisation test over 40 queries, two-sided, 10,000 random exchanges, seed 0"
    worse = compare_evaluations(evaluation({name: 0.6 for name in names}), a, "hard")
    assert worse.verdict.startswith("A is better than B by 10.00 points")
    same = compare_evaluations(a, a, "hard")
    assert (same.verdict, same.p_text) == ("A and B are equal on every query", "1.000")
    assert same.test_text.endswith("every exchange tried")
    mixed = compare_evaluations(evaluation({"q0": 0.5, "q1": 0.5}), evaluation({"q0": 0.6, "q1": 0.45}), "hard")
    assert mixed.verdict.startswith("A and B differ by 2.50 points of mAP, which chance may explain")


def test_protocols_tested_alike_are_told_once() -> None:
    names = [f"q{i}" for i in range(40)]
    many = compare_evaluations(evaluation({n: 0.5 for n in names}), evaluation({n: 0.6 for n in names}), "hard")
    few = [
        compare_evaluations(evaluation({n: 0.5 for n in names[:k]}), evaluation({n: 0.6 for n in names[:k]}), "hard")
        for k in (13, 12, 13)
    ]
    assert ways_of_testing([*few, many]) == [
        "paired randomisation test over 13 and 12 queries, two-sided, every exchange tried",
        "paired randomisation test over 40 queries, two-sided, 10,000 random exchanges, seed 0",
    ]
