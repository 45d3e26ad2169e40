"""The Evaluation and its JSON file."""

import json
import re

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import truth_of
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.metrics import revisited_map
from ultron_cli.evaluation.result import Evaluation, read_evaluation
from ultron_cli.retrieval.origin import Origin


def test_an_evaluation_as_json_and_back():
    truth = truth_of({"easy": [0], "hard": [1]}, {"hard": [2]}, n_database=5)
    ranks = np.array([[0, 1, 2], [1, 2, 0]])
    results = {protocol: revisited_map(ranks, truth, protocol) for protocol in ("easy", "hard")}
    evaluation = Evaluation.of(
        results,
        dataset="toy",
        query_names=truth.query_names,
        n_database=5,
        origin=Origin(model="gem", other={"ranks": "r.h5"}),
    )
    assert json.loads(json.dumps(evaluation.to_json(), allow_nan=False)) == {
        "dataset": "toy",
        "n_queries": 2,
        "n_database": 5,
        "protocols": {
            "easy": {
                "mAP": 1.0,
                "interval": None,  # one query
                "mP": {"1": 1.0, "5": 1.0, "10": 1.0},
                "queries_used": 1,
                "ap": {"query0": 1.0, "query1": None},
            },
            "hard": {
                "mAP": 0.625,
                "interval": [0.25, 1.0],
                "mP": {"1": 0.5, "5": 0.75, "10": 0.75},
                "queries_used": 2,
                "ap": {"query0": 1.0, "query1": 0.25},
            },
        },
        "provenance": {"ranks": "r.h5", "model": "gem", "skipped": []},
    }
    content = evaluation.to_json()
    assert list(content) == ["dataset", "n_queries", "n_database", "protocols", "provenance"]
    assert list(content["protocols"]["easy"]) == ["mAP", "interval", "mP", "queries_used", "ap"]
    assert Evaluation.from_json(json.loads(json.dumps(content))) == evaluation


def test_an_evaluation_of_nothing_has_nulls():
    truth = truth_of({"junk": [0]})
    results = {"hard": revisited_map(np.array([[0]]), truth, "hard")}
    evaluation = Evaluation.of(results, dataset="toy", query_names=truth.query_names, n_database=10, origin=Origin())
    assert evaluation.protocols["hard"].to_json() == {
        "mAP": None,
        "interval": None,
        "mP": {"1": None, "5": None, "10": None},
        "queries_used": 0,
        "ap": {"query0": None},
    }


def test_reading_an_evaluation(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"dataset": "toy", "n_database": 10, "protocols": {"hard": {"ap": {"q0": 0.5, "q1": None}}}})
    )
    evaluation = read_evaluation(path)
    assert (evaluation.protocols["hard"].interval, evaluation.warnings) == (None, ())
    assert (evaluation.dataset, evaluation.n_queries, evaluation.n_database) == ("toy", 2, 10)
    assert evaluation.protocols["hard"].ap == {"q0": 0.5, "q1": None}
    assert (evaluation.protocols["hard"].mAP, evaluation.protocols["hard"].queries_used) == (None, 1)
    for content, fault in (
        ("[1, 2]", "the whole must be an object, found a list"),
        ('{"protocols": {"hard": {"mAP": 0.5}}}', "protocols.hard lacks ap"),
        ('{"protocols": [0.5]}', "protocols must be an object, found a list"),
        ('{"dataset": "toy"}', "the whole lacks protocols"),
        (
            '{"protocols": {"hard": {"ap": {"a": 0.5, "b": 1.5}}}}',
            "protocols.hard.ap.b must be a number <= 1.0",
        ),
        ('{"protocols": {}, "provenance": []}', "provenance must be an object or nothing, found a list"),
        ('{"protocols": {}, "provenance": {"config": true}}', "provenance.config must be an object or nothing"),
        ('{"protocols": {}, "n_database": "x"}', "n_database must be a whole number or nothing, found text"),
    ):
        path.write_text(content)
        with pytest.raises(UltronError, match=f"evaluation .*: {re.escape(fault)}.*; name an evaluation that"):
            read_evaluation(path)
    with pytest.raises(UltronError, match=r"evaluation .*none.json does not exist"):
        read_evaluation(tmp_path / "none.json")


def test_scores_above_one_are_read_where_repeats_count(tmp_path):
    truth = truth_of({"easy": [0]}, n_database=2)
    ranks = np.array([[0, 0, 1]])
    for duplicates, score in (("count", 2.0), ("first", 1.0)):
        path = tmp_path / f"{duplicates}.json"
        results = {"easy": revisited_map(ranks, truth, "easy", duplicates=duplicates)}
        evaluation = Evaluation.of(
            results, dataset="toy", query_names=truth.query_names, n_database=2, origin=Origin(duplicates=duplicates)
        )
        path.write_text(json.dumps(evaluation.to_json()))
        assert read_evaluation(path) == evaluation
        assert (evaluation.protocols["easy"].mAP, evaluation.protocols["easy"].ap) == (score, {"query0": score})
    content = json.loads(path.read_text())
    content["protocols"]["easy"]["mAP"] = 1.5
    path.write_text(json.dumps(content))
    with pytest.raises(UltronError, match=r"protocols.easy.mAP must be a number( or nothing)? <= 1\.0"):
        read_evaluation(path)
