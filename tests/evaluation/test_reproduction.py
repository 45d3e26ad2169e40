"""Holding one result against another: each measure against a literal transcription, and the verdict in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation import literal_statistics
from tests.evaluation.test_systems import system
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.reproduction import (
    as_reproduction,
    kendall_tau,
    kendall_tau_union,
    rank_agreement,
    rank_biased_overlap,
    score_agreement,
)
from ultron_cli.evaluation.systems import System
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking

NAMES = [f"p{i}" for i in range(30)]


def test_rank_biased_overlap_is_equation_32() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        for _ in range(20):
            a, b = (rng.permutation(NAMES)[:n].tolist() for _ in range(2))
            assert rank_biased_overlap(a, b) == pytest.approx(literal_statistics.rbo_ext(a, b, 0.8), abs=1e-12)
    assert rank_biased_overlap(NAMES, NAMES) == pytest.approx(1.0)
    assert rank_biased_overlap(NAMES[:5], NAMES[5:10]) == 0.0
    assert rank_biased_overlap(list("bacdefg"), list("abcdefg"), 0.9) == pytest.approx(0.9)  # of the program rbo


def test_kendalls_tau_by_hand_and_over_all_pairs() -> None:
    assert kendall_tau(list("abc"), list("acb")) == pytest.approx(1 / 3)
    assert kendall_tau(list("abc"), list("cba")) == -1.0
    assert kendall_tau(["a"], ["a"]) == 1.0 and kendall_tau(["a"], ["b"]) == 0.0
    rng = np.random.default_rng(1)
    for n in (2, 9, 30):
        a, b = (rng.permutation(NAMES)[:n].tolist() for _ in range(2))
        shared = [(a.index(name), b.index(name)) for name in a if name in b]
        if len(shared) > 1:
            assert kendall_tau(a, b) == pytest.approx(literal_statistics.kendall_tau_a(shared))
        # No number repeats within a list, so that repro-eval's tau-b is tau-a of the pairs.
        union = literal_statistics.kendall_tau_a(literal_statistics.ktau_union_pairs(a, b))
        assert kendall_tau_union(a, b) == pytest.approx(union)


def test_rmse_and_the_first_query_that_differs_by_hand() -> None:
    part = score_agreement(["a", "b", "c"], np.array([0.5, 0.2, 0.9]), np.array([0.5, 0.5, 0.5]))
    assert part.rmse == pytest.approx(np.sqrt((0.09 + 0.16) / 3))
    assert (part.largest, part.n_different) == (pytest.approx(0.4), 2)
    assert part.first is not None and (part.first.query, part.first.ap) == ("b", (0.2, 0.5))


def ranking(rows: list[list[int]]) -> Ranking:
    queries = [f"q{i}" for i in range(len(rows))]
    return Ranking(query_names=queries, database_names=NAMES, rows=np.array(rows), scores=None, origin=Origin())


def test_the_first_ranking_and_rank_that_differ() -> None:
    part = rank_agreement(ranking([[0, 1, 2, 3], [4, 5, 6, 7]]), ranking([[0, 1, 2, 3], [4, 6, 5, -1]]))
    assert part is not None
    assert (part.first_query, part.first_rank) == ("q1", 2)
    overlap = literal_statistics.rbo_ext(["p4", "p5", "p6"], ["p4", "p6", "p5"], 0.8)
    assert part.rbo == pytest.approx((1 + overlap) / 2)
    assert part.kendall_tau == pytest.approx((1 + 1 / 3) / 2)
    assert rank_agreement(ranking([[0]]), replace(ranking([[0]]), query_names=["other"])) is None


def described(tmp_path: Path, system: System, turned: float) -> System:
    """The system with descriptor files, in which the third photo is turned by an angle."""
    folder = tmp_path / f"{system.letter}{turned}"
    folder.mkdir()
    angles = np.array([0.0, 0.5, 1.0 + turned])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for role in ("query", "database"):
        info = DescriptorInfo(model="m", weights_sha256="", dataset="toy", role=role, crop="none", scales=[1.0])  # type: ignore[arg-type]
        write_descriptors(folder / f"{role}.h5", ["a", "b", "c"], [rows], 2, info)
    files = (str(folder / "query.h5"), str(folder / "database.h5"))
    origin = replace(system.evaluation.origin, descriptors=files)
    return replace(system, evaluations=(replace(system.evaluation, origin=origin),))


def test_verdicts_say_whether_and_where(tmp_path: Path) -> None:
    a = described(tmp_path, system("A", [0.5, 0.25, 1.0]), 0.0)
    same = as_reproduction(a, a)
    assert same.verdict == "reproduced: every query has the same AP"
    assert same.descriptors["database"].lowest == pytest.approx(1.0)
    ranked = replace(a, rankings=(ranking([[0, 1], [2, 3]]),))
    assert as_reproduction(ranked, ranked).verdict.endswith("and every ranking has the same order")
    near = as_reproduction(a, system("B", [0.5, 0.252, 1.0]))
    assert near.verdict == "reproduced but for rounding: no AP differs by more than 0.20 points"
    other = system("B", [0.5, 0.75, 1.0])
    assert as_reproduction(a, other).verdict == (
        "not reproduced: mAP differs by up to 16.67 points, AP by up to 50.0 (hard), first for query q1"
    )
    turned = as_reproduction(a, described(tmp_path, other, 0.3))
    assert turned.descriptors["query"].lowest == pytest.approx(np.cos(0.3))
    assert turned.descriptors["query"].lowest_photo == "c"
    assert "The descriptors differ already (lowest cosine 0.9553, query photo c): look at how photos" in turned.verdict
    alike = as_reproduction(a, described(tmp_path, other, 0.001))
    assert "The descriptors are the same: look at whitening, search, re-ranking and ground truth" in alike.verdict
    gone = replace(a.evaluation.origin, descriptors=("gone.h5", "gone.h5"))
    assert as_reproduction(replace(a, evaluations=(replace(a.evaluation, origin=gone),)), a).descriptors == {}


def test_results_of_other_queries_are_refused() -> None:
    with pytest.raises(UltronError, match="must have AP for the same queries"):
        as_reproduction(system("A", [0.5, 0.25]), system("B", [0.5]))


def test_fishers_randomization_of_ranx_is_our_p_value() -> None:
    """With every permutation, whose share ranx's draws estimate."""
    from scipy.stats import permutation_test

    from ultron_cli.evaluation.significance import sign_flip_p_value

    rng = np.random.default_rng(2)
    for n in (3, 6, 10):
        a, b = rng.random(n), rng.random(n)
        expected = literal_statistics.fisher_randomization(a.tolist(), b.tolist())
        assert sign_flip_p_value(b - a, resamples=2**n, seed=0) == (pytest.approx(expected), True)
        of_scipy = permutation_test(
            (a, b),
            lambda x, y, axis: np.mean(y - x, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert of_scipy.pvalue == pytest.approx(expected)
