"""The metrics of METRICS: worked examples of their authors, other programs, and what becomes of them in files."""

import json
import math
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given as with_values
from hypothesis import settings
from hypothesis import strategies as st
from ir_measures import P, R, Success, nDCG
from sklearn.metrics import average_precision_score

from tests.conftest import Run
from tests.evaluation.truths_for_tests import truth_of
from ultron_cli.datasets.protocols import GroundTruth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.metrics import METRICS, metrics_of
from ultron_cli.evaluation.metrics.ranked import RankedQuery, ranked_queries, score_of
from ultron_cli.evaluation.result import read_evaluation
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, write_ranks

OWN = """
from ultron_cli.evaluation.metrics.ranked import QueryMetric


class Reciprocal(QueryMetric):
    name = "MRR"

    def of_query(self, query):
        return 1 / (1 + query.ranks[0]) if len(query.ranks) else 0.0


class Nothing:
    pass
"""


def value(name: str, ranks: np.ndarray, truth: GroundTruth, protocol: str = "medium", **more: object) -> float:
    (metric,) = metrics_of([name])
    return score_of(metric, ranked_queries(ranks, truth, protocol, **more)).score


def test_gldv2_takes_positives_behind_the_first_hundred_as_not_found() -> None:
    truth = truth_of({"easy": [4, 150]}, n_database=200)
    assert value("mAP@100", np.arange(200)[None], truth) == pytest.approx(0.5 * 1 / 5)
    many = truth_of({"easy": list(range(300))}, n_database=300)
    assert value("mAP@100", np.arange(300)[None], many) == 1  # over 100, not 300


def test_the_worked_example_of_gldv2s_retrieval() -> None:
    """metrics_test.py of the authors: the first of four queries has no prediction."""
    truth = truth_of({"easy": [1, 2]}, {"easy": [1]}, {"easy": [3, 4, 5]}, {"easy": [3]}, n_database=6)
    ranks = np.array([[-1, -1], [0, 1], [4, -1], [3, 4]])
    assert value("mAP@100", ranks, truth) == pytest.approx(0.458333, abs=1e-6)
    assert value("mAP@1", ranks, truth) == pytest.approx(0.5)
    assert value("P@1", ranks, truth) == pytest.approx(0.5)
    assert value("P@2", ranks, truth) == pytest.approx(0.375)


def test_a_repeat_holds_its_place_and_counts_once_as_in_gldv2() -> None:
    truth = truth_of({"easy": [1, 2], "junk": [5]}, n_database=6)
    ranks = np.array([[5, 1, 1, 2, 5]])
    assert value("mAP@100", ranks, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert value("mAP@100", ranks, truth, drop_repeats=True) == 1


def test_the_worked_example_of_gldv2s_recognition() -> None:
    """metrics_test.py of the authors: five photos of which three have landmarks; two predictions of three are wrong."""
    truth = truth_of({"easy": [0, 1]}, {"easy": [2, 3, 4]}, {"easy": [5]}, {}, {}, n_database=7)
    ranks = np.array([[-1], [0], [5], [6], [-1]])
    scores = np.array([[-np.inf], [0.01], [10.0], [15.0], [-np.inf]])
    assert value("GAP", ranks, truth, scores=scores) == pytest.approx(0.166667, abs=1e-6)
    queries = ranked_queries(ranks, truth, "medium", scores)
    (gap,) = metrics_of(["GAP"])
    with_landmark = {query.name for query in queries if query.n_positives}
    assert score_of(gap, queries, with_landmark).score == pytest.approx(0.333333, abs=1e-6)
    assert value("recall@1", ranks, truth) == pytest.approx(0.333333, abs=1e-6)  # their top-1 accuracy
    assert math.isnan(value("GAP", ranks, truth_of({}, {}, {}, {}, {}), scores=scores))


def test_equal_scores_of_gap_are_ordered_by_name() -> None:
    def answer(name: str, rank: int) -> RankedQuery:
        return RankedQuery(name=name, ranks=np.array([rank]), n_positives=1, best_score=0.5)

    (gap,) = metrics_of(["GAP"])
    assert score_of(gap, [answer("b", 0), answer("a", 3)]).score == pytest.approx(1 / 2 / 2)
    assert score_of(gap, [answer("a", 0), answer("b", 3)]).score == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(8))
def test_ilias_by_its_definition(seed: int) -> None:
    """Its program: scikit-learn's AP of the first k, times the positives there over min(k, all); oracle: those over
    all."""
    rng = np.random.default_rng(seed)
    n, k = 60, 20
    positives = rng.permutation(n)[: rng.integers(1, 30)]
    ranking = rng.permutation(n)
    truth = truth_of({"easy": positives.tolist()}, n_database=n)
    is_right = np.isin(ranking[:k], positives)
    expected = 0.0
    if is_right.any():
        expected = average_precision_score(is_right, -np.arange(k)) * is_right.sum() / min(k, len(positives))
    assert value(f"mAP@{k}", ranking[None], truth) == pytest.approx(expected, abs=1e-12)
    assert value(f"oracle@{k}", ranking[None], truth) == pytest.approx(is_right.sum() / len(positives), abs=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@with_values(st.data())
def test_others_equal_ir_measures(data: st.DataObject) -> None:
    n = 25
    labels = data.draw(st.lists(st.sampled_from(["easy", "hard", ""]), min_size=n, max_size=n))
    ranking = np.array(data.draw(st.permutations(range(n))))[: data.draw(st.integers(1, n))]
    positives = [row for row in range(n) if labels[row]]
    if not positives:
        return
    truth = truth_of(
        {label: [row for row in positives if labels[row] == label] for label in ("easy", "hard")}, n_database=n
    )
    run = [ir_measures.ScoredDoc("q", str(photo), float(-place)) for place, photo in enumerate(ranking.tolist())]
    qrels = [ir_measures.Qrel("q", str(row), 1) for row in positives]
    k = data.draw(st.sampled_from([1, 5, 10, 20]))
    theirs = ir_measures.calc_aggregate([P @ k, nDCG @ k, R @ k, Success @ k], qrels, run)
    for name, measure in (
        (f"P@{k}", P @ k),
        (f"nDCG@{k}", nDCG @ k),
        (f"oracle@{k}", R @ k),
        (f"recall@{k}", Success @ k),
    ):
        assert value(name, ranking[None], truth) == pytest.approx(theirs[measure], abs=1e-9), name


def test_map_at_r_and_recall_equal_metric_learning() -> None:
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    import torch

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 40)
    descriptors = rng.normal(0, 1, (40, 6)) + np.eye(6)[labels] * 1.5
    distances = ((descriptors[:, None] - descriptors[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    ranks = np.argsort(distances, axis=1)[:, :-1]
    positives = [
        [row for row in np.flatnonzero(labels == labels[query]).tolist() if row != query] for query in range(40)
    ]
    truth = truth_of(*({"easy": rows} for rows in positives), n_database=40)
    theirs = calculator.AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1"), k="max_bin_count", device=torch.device("cpu")
    ).get_accuracy(torch.tensor(descriptors), torch.tensor(labels))
    assert value("mAP@R", ranks, truth) == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert value("recall@1", ranks, truth) == pytest.approx(theirs["precision_at_1"], abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_1_for_a_perfect_ranking_and_0_for_none(name: str) -> None:
    text = name.replace("@k", "@3")
    truth = truth_of({"easy": [0, 1], "hard": [2], "junk": [3]}, {"junk": [1]}, n_database=9)
    perfect, none = np.array([[3, 0, 1, 2, 4], [4, 5, 6, 7, 8]]), np.array([[3, 4, 5, 6, 7]] * 2)
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1] * 5])
    assert value(text, perfect, truth, scores=scores) == pytest.approx(1)
    assert value(text, none, truth, scores=scores) == 0
    assert value(text, perfect[:, :0], truth, scores=scores[:, :0]) == 0
    assert math.isnan(value(text, perfect, truth_of({}, {}), scores=scores))
    (metric,) = metrics_of([text])
    assert metric.name == text


@pytest.mark.parametrize(
    "name", ["", "mAP", "mAP@", "mAP@0", "mAP@k", "mAP@-1", "mAP@1.5", "P@99999999999", "recal@1", "GAP@5"]
)
def test_names_of_no_metric(name: str) -> None:
    with pytest.raises(UltronError, match=r"a metric must be one of mAP@k, mAP@R, .* with a number for k \(mAP@100\)"):
        metrics_of([name])


def ranking_of(tmp_path: Path, rows: np.ndarray, name: str) -> Path:
    gnd = tmp_path / "gnd_set.json"
    entries = [
        {"bbx": None, "easy": [0, 1], "hard": [2], "junk": [3]},
        {"bbx": None, "easy": [], "hard": [4], "junk": []},
    ]
    gnd.write_text(json.dumps({"imlist": list("abcdef"), "qimlist": ["p", "q"], "gnd": entries}))
    path = tmp_path / f"{name}.h5"
    scores = -np.arange(rows.size, dtype=np.float32).reshape(rows.shape)
    origin = Origin(dataset="set", ground_truth=str(gnd))
    write_ranks(
        path, Ranking(query_names=["p", "q"], database_names=list("abcdef"), rows=rows, scores=scores, origin=origin)
    )
    return path


def test_metrics_in_files_and_comparisons(ultron: Run, tmp_path: Path) -> None:
    a = ranking_of(tmp_path, np.array([[3, 0, 5, 1, 2, 4], [0, 1, 2, 4, 5, 3]]), "a")
    b = ranking_of(tmp_path, np.array([[0, 1, 2, 3, 5, 4], [4, 1, 2, 0, 5, 3]]), "b")
    (tmp_path / "mine.py").write_text(OWN)
    mine = f"{tmp_path / 'mine.py'}:Reciprocal"
    flags = ("--metric", "mAP@2", "--metric", "GAP", "--metric", mine)
    for path in (a, b):
        code, out, err = ultron("evaluate", "--ranks", path, *flags, "--out", path.with_suffix(".json"))
        assert code == 0, err
        assert "mAP@2" in out and "MRR" in out
    evaluation = read_evaluation(a.with_suffix(".json"))
    medium = evaluation.protocols["medium"]
    assert medium.metrics["mAP@2"].values == {"p": 0.5, "q": 0}
    assert (medium.metrics["mAP@2"].score, medium.metrics["mAP@2"].interval) == (0.25, (0, 0.5))
    assert medium.metrics["MRR"].values == {"p": 1, "q": 0.25}
    assert (medium.metrics["GAP"].score, medium.metrics["GAP"].values) == (0.5, None)
    assert evaluation.protocols["easy"].metrics["mAP@2"].values == {"p": 0.5, "q": None}
    stored = json.loads(a.with_suffix(".json").read_text())["protocols"]["medium"]
    assert stored["metrics"]["GAP"] == {"score": 0.5}
    assert stored["metrics"]["mAP@2"] == {"score": 0.25, "interval": [0, 0.5], "values": {"p": 0.5, "q": 0}}
    for first, second in ((a.with_suffix(".json"), b.with_suffix(".json")), (a, b)):
        code, out, err = ultron("compare", first, second, "--metric", "mAP@2")
        assert code == 0, err
        assert "+75.00" in out
        assert "points of mAP@2" in out
    code, out, _ = ultron("compare", a.with_suffix(".json"), "--metric", "mAP@2", "--format", "markdown")
    assert "mAP@2 in %, with its 95 % interval" in out
    for metric, fault in (("GAP", "GAP is not a mean over queries"), ("P@1", "has mAP@2, GAP, MRR; evaluate again")):
        code, _, err = ultron("compare", a.with_suffix(".json"), b.with_suffix(".json"), "--metric", metric)
        assert code == 2 and fault in err
    code, _, err = ultron("evaluate", "--ranks", a, "--metric", f"{tmp_path / 'mine.py'}:Nothing")
    assert code == 2 and "Nothing must be a QueryMetric or an OverallMetric" in err


def test_a_dataset_has_the_metrics_of_its_authors(tmp_path: Path) -> None:
    gnd = tmp_path / "gnd_ilias.json"
    entry = {"bbx": None, "easy": [0], "hard": [], "junk": []}
    gnd.write_text(json.dumps({"imlist": ["a", "b"], "qimlist": ["p"], "gnd": [entry]}))
    ranking = Ranking(
        query_names=["p"],
        database_names=["a", "b"],
        rows=np.array([[1, 0]]),
        scores=None,
        origin=Origin(dataset="ilias"),
    )
    scores = evaluate_ranking(ranking, gnd).protocols["medium"].metrics
    assert {name: part.score for name, part in scores.items()} == {"mAP@1000": 0.5, "oracle@1000": 1}
    with pytest.raises(UltronError, match="GAP looks at similarity scores, which this ranking lacks"):
        evaluate_ranking(ranking, gnd, metrics=["GAP"])
