"""Slices of queries and photos: their scores, what they are held against, and that chance is not taken for a fault."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ultron_cli.evaluation.metrics import average_precision
from ultron_cli.evaluation.slices import (
    NOT_RANKED,
    Positives,
    Sliced,
    average_precisions,
    corrected,
    photo_slices,
    positives_of,
    query_slices,
)


def ranked(*n_above: float) -> Positives:
    return Positives(photos=np.arange(len(n_above)), n_above=np.array(n_above, np.float64))


def by_value(slices: list[Sliced]) -> dict[str, Sliced]:
    return {part.value: part for part in slices}


def test_the_positives_of_a_query_with_what_stands_above_them() -> None:
    ranking = np.array([9, 3, 8, 3, 5, 7, 1, -1])  # 8 is ignored; 3 is repeated, which counts once and holds its place
    positives = positives_of(ranking, np.array([1, 2, 3, 5]), np.array([8]))
    assert positives.photos.tolist() == [3, 5, 1, 2]
    assert positives.n_above.tolist() == [1, 2, 3, NOT_RANKED]


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_some_positives_is_that_of_the_ranking_without_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranking, positives = rng.permutation(30)[:25], rng.permutation(30)[:9]
    every = positives_of(ranking, positives, np.array([], np.int64))
    for size in (1, 4, 9):
        chosen_photos = rng.choice(every.photos, size, replace=False)
        others = np.setdiff1d(positives, chosen_photos)
        rest = ranking[~np.isin(ranking, others)]
        expected = average_precision(np.flatnonzero(np.isin(rest, chosen_photos)), size)
        is_chosen = np.isin(every.photos, chosen_photos)
        assert average_precisions(every.n_above[is_chosen]) == pytest.approx(expected, abs=1e-12)
    assert average_precisions(np.array([[0.0, 0.0], [1.0, np.inf]])).tolist() == [1.0, 0.125]


def test_queries_are_held_against_the_other_queries() -> None:
    ap = np.array([0.1, 0.3, 0.5, 0.9, 0.7, np.nan, 0.2])
    values = ["small", "small", "large", "large", "large", "small", None]  # one has no score, one no value
    small = by_value(query_slices("box", values, ap))["small"]
    assert (small.scores.tolist(), small.rest) == ([0.1, 0.3], pytest.approx(0.7))
    assert small.observed == pytest.approx(-0.5)
    assert query_slices("box", ["small", "large", "large", "large", None, None, None], ap) == []  # a single query


def test_p_of_queries_is_that_of_scipy() -> None:
    ap = np.random.default_rng(0).random(12)
    values = ["a"] * 5 + ["b"] * 7
    part = by_value(query_slices("box", values, ap))["a"]
    exact = stats.permutation_test(
        (ap[:5], ap[5:]), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True, n_resamples=np.inf
    )
    assert part.p_value == pytest.approx(exact.pvalue, abs=0.02)  # 792 divisions, 10,000 draws


def test_photos_are_held_against_as_many_of_the_same_queries() -> None:
    """Every way to deal two nights among four positives, of which the last two are at night."""
    n_above = np.array([0.0, 0.0, 3.0, 9.0])
    values = {0: ["day", "day", "night", "night"], 1: ["day", "day", "night", "night"]}
    positives = {query: ranked(*n_above) for query in (0, 1)}
    night = by_value(photo_slices("light", values, positives))["night"]
    ways = [float(average_precisions(n_above[list(rows)])) for rows in itertools.combinations(range(4), 2)]
    assert night.scores.tolist() == [average_precisions(n_above[2:])] * 2
    assert night.rest == pytest.approx(np.mean(ways), abs=0.01)
    lead = [1, 1, -0.5, -1.5]  # mid-ranks 0.5, 0.5, 2 and 3 from their mean; over P + 1
    sums = [sum(lead[row] for row in rows) / 5 for rows in itertools.combinations(range(4), 2)]
    reached = np.abs(np.add.outer(sums, sums)) >= 2 * 2 / 5 - 1e-12
    assert night.observed == pytest.approx(2 * -2 / 5)
    assert night.p_value == pytest.approx(reached.mean(), abs=0.01)
    assert night.n_photos == 4


def test_photos_of_one_query_are_tested_as_by_mann_and_whitney() -> None:
    n_above = np.sort(np.random.default_rng(0).permutation(100)[:11]).astype(np.float64)
    labels = np.array(["day", "night"])[[0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1]]
    positives = {query: ranked(*values) for query, values in ((0, n_above), (1, [3.0]))}
    night = by_value(photo_slices("light", {0: labels.tolist(), 1: ["night"]}, positives))["night"]
    exact = stats.mannwhitneyu(n_above[labels == "night"], n_above[labels == "day"], method="exact")
    assert night.p_value == pytest.approx(exact.pvalue, abs=0.02)


def test_a_photo_without_a_value_is_left_out() -> None:
    values = {0: ["day", None, "night"], 1: ["day", "night", None]}
    with_unknown = photo_slices("light", values, {0: ranked(0, 5, 9), 1: ranked(0, 9, 5)})
    known = {0: ["day", "night"], 1: ["day", "night"]}
    without = photo_slices("light", known, {0: ranked(0, 9), 1: ranked(0, 9)})
    for a, b in zip(with_unknown, without, strict=True):
        assert (a.scores.tolist(), a.rest, a.n_photos) == (b.scores.tolist(), b.rest, b.n_photos)
    assert (
        photo_slices("light", {0: ["day"], 1: ["day"]}, {0: ranked(0), 1: ranked(3)}) == []
    )  # nothing to hold against


def test_p_values_are_uniform_where_slices_make_no_difference() -> None:
    """Of photos that differ much in rank but not by their value, and of queries likewise."""
    rng = np.random.default_rng(1)
    p_of_photos, p_of_queries = [], []
    for trial in range(200):
        positives = {query: ranked(*np.sort(rng.integers(0, 40, 6))) for query in range(8)}
        values = {query: rng.permutation(["day"] * 4 + ["night"] * 2).tolist() for query in range(8)}
        slices = by_value(photo_slices("light", values, positives, resamples=199, seed=trial))
        p_of_photos.append(slices["night"].p_value)
        labels = rng.permutation(["small"] * 6 + ["large"] * 14).tolist()
        sliced = by_value(query_slices("box", labels, rng.random(20), resamples=199, seed=trial))
        p_of_queries.append(sliced["small"].p_value)
    for p_values in (p_of_photos, p_of_queries):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
        assert 0.015 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_the_same_seed_gives_the_same_slices() -> None:
    values = {query: ["day", "night", "night"] for query in range(3)}
    positives = {query: ranked(0, 2, 7 + query) for query in range(3)}
    first, second = (corrected(photo_slices("light", values, positives)) for _ in range(2))
    assert first == second


def test_worst_slices_come_first_and_are_corrected_for_their_number() -> None:
    rng = np.random.default_rng(0)
    ap = np.concatenate([0.1 + 0.05 * rng.random(10), 0.8 + 0.2 * rng.random(20)])
    labels = ["bad"] * 10 + ["x"] * 10 + ["y"] * 10
    noise = rng.permutation(["p"] * 15 + ["q"] * 15).tolist()
    slices = corrected(query_slices("planted", labels, ap) + query_slices("noise", noise, ap))
    assert (slices[0].name, slices[0].is_worse) == ("planted bad", True)
    assert all(part.p_holm >= part.p_value for part in slices)
    assert slices[0].p_holm == pytest.approx(5 * slices[0].p_value)
    others = slices[1:]
    assert not any(part.is_worse for part in others)
    assert [part.strength for part in others] == sorted(part.strength for part in others)
    assert not any(part.p_holm < 0.05 for part in slices if part.attribute == "noise")
    assert slices[0].interval[0] <= slices[0].mAP <= slices[0].interval[1]


def test_among_what_is_worse_beyond_chance_the_smallest_share_comes_first() -> None:
    """A large slice that is a little worse is surer than a small one that is far worse."""
    rng = np.random.default_rng(0)
    ap = np.concatenate([rng.normal(0.9, 0.01, 40), rng.normal(0.8, 0.01, 40), rng.normal(0.1, 0.01, 8)])
    season = ["summer"] * 40 + ["winter"] * 48
    light = ["day"] * 80 + ["night"] * 8
    slices = corrected(query_slices("season", season, ap) + query_slices("light", light, ap))
    assert [part.name for part in slices if part.is_worse] == ["light night", "season winter"]


def test_equal_scores_are_no_difference() -> None:
    (a, b) = corrected(query_slices("box", ["a"] * 3 + ["b"] * 3, np.ones(6)))
    assert (a.difference, a.p_holm, a.strength, a.is_worse) == (0, 1, 0, False)
    assert b.mAP == 1
