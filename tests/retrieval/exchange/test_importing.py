"""Rankings of other tools: names, orders, what is missing and surplus, and what is refused."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.exchange.rankings_for_tests import ranking_of, write_truth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.exchange.importing import ImportRequest, import_ranking
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks

PHOTOS, QUERIES = ["a", "b", "c", "d"], ["p", "q"]


@pytest.fixture
def gnd(tmp_path: Path) -> Path:
    labels = {"easy": [0], "hard": [1], "junk": [2]}
    return write_truth(tmp_path / "gnd_set.json", PHOTOS, QUERIES, labels, {"easy": [3]})


def imported(folder: Path, text: str, name: str = "run.trec", **settings: object) -> Ranking:
    (folder / name).write_text(text)
    return import_ranking(ImportRequest(path=folder / name, **settings))  # type: ignore[arg-type]


def test_scores_order_and_equal_ones_stay_in_the_order_of_the_file(tmp_path: Path, gnd: Path) -> None:
    run = "q Q0 d 1 0.5 x\np Q0 c 7 0.25 x\np Q0 b 1 0.25 x\n\np Q0 a 2 1e0 x\n"
    ranking = imported(tmp_path, run, gnd=gnd)
    assert ranking.query_names == QUERIES and ranking.database_names == PHOTOS
    assert ranking.rows.tolist() == [[0, 2, 1], [3, -1, -1]]
    assert ranking.with_scores().tolist() == [[1, 0.25, 0.25], [0.5, -np.inf, -np.inf]]
    assert imported(tmp_path, run, gnd=gnd, order="file").rows.tolist() == [[2, 1, 0], [3, -1, -1]]


def test_the_origin_tells_the_file(tmp_path: Path, gnd: Path) -> None:
    text = "p Q0 a 1 1 x\nq Q0 d 1 1 x\n"
    ranking = imported(tmp_path, text, gnd=gnd)
    (record,) = ranking.origin.imported
    assert record.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (record.path, record.format, record.n_first) == (str(tmp_path / "run.trec"), "trec", None)
    assert (ranking.origin.dataset, ranking.origin.ground_truth) == ("set", str(gnd))
    facts = ranking.origin.facts()
    assert facts["search"] == "that of another tool" and facts["imported"].endswith("run.trec (trec)")
    assert Origin.from_json(json.loads(json.dumps(ranking.origin.to_json()))) == ranking.origin
    evaluation = evaluate_ranking(ranking, gnd)
    assert evaluation.protocols["medium"].ap == {"p": 0.5, "q": 1.0}
    assert f"; imported from {tmp_path / 'run.trec'}" in evaluation.how_text()
    assert "imported" not in Origin(dataset="set").facts()


def test_missing_and_surplus_names_are_told(tmp_path: Path, gnd: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ultron")
    ranking = imported(tmp_path, "P.png Q0 jpg/A.jpg 1 1 x\nP.png Q0 far/z 2 0.5 x\nr Q0 far/z 1 1 x\n", gnd=gnd)
    assert ranking.rows.tolist() == [[0, 4], [-1, -1]]
    assert ranking.database_names == [*PHOTOS, "far/z"]
    log_text = caplog.text
    assert "photos of " in log_text and ": 1 in other case" in log_text
    assert "3 photos not in " in log_text and ": b, c, d" in log_text
    assert "1 query not in " in log_text and "q; the ranking of each is empty, and its AP 0" in log_text
    assert "1 query of " in log_text and "left out, as no query of that name is known: r" in log_text
    assert "1 photo is in " in log_text and " alone (far/z): ranked as photos that answer no query" in log_text
    assert evaluate_ranking(ranking, gnd).protocols["easy"].ap == {"p": 1.0, "q": 0.0}


def test_names_by_descriptors_and_by_ranks(tmp_path: Path, gnd: Path) -> None:
    info = DescriptorInfo(model="m", weights_sha256="", dataset="other", role="database", crop="none", scales=[1.0])
    write_descriptors(tmp_path / "d.h5", ["b", "a", "z"], [np.eye(3, dtype=np.float32)], 3, info)
    text = "query,photo,score\nq,z,1\nq,a,0.5\n"
    ranking = imported(tmp_path, text, "run.csv", database=tmp_path / "d.h5")
    assert (ranking.query_names, ranking.database_names) == (["q"], ["b", "a", "z"])
    assert ranking.rows.tolist() == [[2, 1]]
    assert (ranking.origin.dataset, ranking.origin.model) == ("other", None)  # that model made nothing of it
    ranking = imported(tmp_path, text, "run.csv", database=tmp_path / "d.h5", gnd=gnd)
    assert (ranking.query_names, ranking.rows.tolist()) == (QUERIES, [[-1, -1], [2, 1]])
    base = ranking_of([[0]], [[1]], queries=["q"], photos=["z", "a"], origin=Origin(dataset="third", model="m"))
    write_ranks(tmp_path / "r.h5", base)
    ranking = imported(tmp_path, text, "run.csv", database=tmp_path / "r.h5")
    assert (ranking.rows.tolist(), ranking.origin.dataset, ranking.origin.model) == ([[0, 1]], "third", None)
    ranking = imported(tmp_path, text, "run.csv", database=tmp_path / "d.h5", queries=tmp_path / "r.h5")
    assert ranking.query_names == ["q"]


def test_a_reranker_orders_the_first_photos_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    origin = Origin(dataset="set", model="gem")
    base = ranking_of([[0, 1, 2, 3], [3, 2, 1, 0]], [[4, 3, 2, 1]] * 2, queries=QUERIES, photos=PHOTOS, origin=origin)
    write_ranks(tmp_path / "r.h5", base)
    scores = {"p.jpg": {"c": 0.125, "a": 0.125, "b": 9, "unknown": 10}}
    ranking = imported(tmp_path, json.dumps(scores), "x.json", onto=tmp_path / "r.h5")
    assert ranking.rows.tolist() == [[1, 2, 0, 3], [3, 2, 1, 0]]
    assert ranking.with_scores().tolist() == [[9, 0.125, 0.125, 1], [4, 3, 2, 1]]
    (record,) = ranking.origin.imported
    assert (record.n_first, ranking.origin.model, ranking.origin.is_search) == (3, "gem", True)
    assert "; ordered anew by " in ranking.origin.search_text()
    assert "1 photo of " in caplog.text and "no photo of that name is known: unknown" in caplog.text
    write_ranks(tmp_path / "s.h5", ranking)
    again = imported(tmp_path, '{"q": {"a": 1}}', "y.json", onto=tmp_path / "s.h5")
    assert [record.n_first for record in again.origin.imported] == [3, 1]
    assert again.rows.tolist() == [[1, 2, 0, 3], [0, 3, 2, 1]]
    short = ranking_of([[0, 1]], [[2, 1]], queries=["p"], photos=PHOTOS)
    write_ranks(tmp_path / "t.h5", short)
    ranking = imported(tmp_path, '{"p": {"d": 2, "c": 1, "b": 0}}', "z.json", onto=tmp_path / "t.h5")
    assert ranking.rows.tolist() == [[3, 2]]  # as long as before
    assert "2 lines of " in caplog.text and "not in the ranking that it orders anew" in caplog.text


def test_scores_that_float32_cannot_tell_apart_keep_their_order(tmp_path: Path, gnd: Path) -> None:
    ranking = imported(tmp_path, json.dumps({"p": {"a": 0.1, "b": 0.1 + 1e-12, "c": 1e-60}}), "x.json", gnd=gnd)
    assert ranking.rows[0].tolist() == [1, 0, 2]
    assert ranking.with_scores()[0].tolist() == [np.float32(0.1), np.float32(0.1), 0]


def test_ilias_as_its_own_program_writes_it(tmp_path: Path, gnd: Path) -> None:
    """knn_search/src/utils.py: names by h5py (objects), rows of the photos that were ranked; evaluation/ says
    `similarities`."""
    ids = np.array([b"q", b"p"], dtype=object).astype("U").astype(object)
    content = {
        "query_ids": ids,
        "db_ids": np.array(["c", "a", "d"]),
        "sims": np.array([[0.5, 0.25], [0.75, 0.5]], np.float32),
        "ranks": np.array([[2, 0], [1, 2]]),
    }
    for protocol in (2, 4, 5):
        for key in ("sims", "similarities"):
            named = {key if name == "sims" else name: value for name, value in content.items()}
            (tmp_path / "x.pkl").write_bytes(pickle.dumps(named, protocol))
            ranking = import_ranking(ImportRequest(path=tmp_path / "x.pkl", gnd=gnd))
            assert ranking.rows.tolist() == [[0, 3], [3, 2]]
            assert ranking.with_scores().tolist() == [[0.75, 0.5], [0.5, 0.25]]
    for broken in (
        {"ranks": content["ranks"] + 1},
        {"ranks": content["ranks"][:1]},
        {"sims": content["sims"].tolist()},
        {"db_ids": ["a", "a", "d"]},
        {"query_ids": [1, 2]},
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content | broken))
        with pytest.raises(UltronError, match="must hold query_ids"):
            import_ranking(ImportRequest(path=tmp_path / "x.pkl", gnd=gnd))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.trec", "p Q0 a 1 1\n", ", line 1 must have the six fields of a TREC run"),
        ("r.trec", "p Q0 a 1 one x\n", ", line 1: a score must be a number, found 'one'"),
        ("r.trec", "p Q0 a 1 1_0 x\n", "a score must be a number"),
        ("r.trec", "p Q0 a 1 nan x\n", "a score must be a finite number of float32, found nan"),
        ("r.trec", "p Q0 a 1 1e39 x\n", "found 1e\\+39"),
        ("r.trec", "p Q0 a 1 1 x\np Q0 a 2 0 x\n", "'a' stands twice in the ranking of 'p'; leave one"),
        ("r.trec", "", "holds no ranking"),
        ("r.trec", "p Q0 z 1 1 x\n", "not one of 1 photo in .* is known, for example 'z'; a known one is 'a'"),
        ("r.trec", "z Q0 a 1 1 x\n", "not one of 1 query in "),
        ("r.trec", "p Q0 a\0 1 1 x\n", "line 1: a NUL character"),
        ("r.trec", "x" * (1 << 20) + " ", "line 1: it has over 1,048,576 bytes"),
        ("r.csv", "query,photo\np,a\n", "score is missing"),
        ("r.csv", "query,photo,score\np,,1\n", ", line 2: a photo without a name"),
        ("r.csv", "query;photo;score\np;a;x\n", ", line 2: a score must be a number"),
        ("r.json", '{"p": {"a": "1"}}', "p.a must be a number, found text"),
        ("r.json", '{"p": []}', "p must be an object, found a list"),
        ("r.json", '{"p": {}}', "holds no ranking"),
        ("r.json", '{"": {"a": 1}}', "a query without a name"),
        ("r.bin", "", "does not tell its format by its suffix; name its `format`, one of trec, csv, "),
    ],
)
def test_what_is_refused(tmp_path: Path, gnd: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        imported(tmp_path, text, name, gnd=gnd)


def test_photos_must_be_told_of(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match=r"names photos as it likes; tell which there are: name their `gnd`"):
        imported(tmp_path, "p Q0 a 1 1 x\n")
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(UltronError, match="does not begin as one"):
        imported(tmp_path, "p Q0 a 1 1 x\n", database=tmp_path / "x.h5")


def test_what_was_stored_is_read_again(tmp_path: Path, gnd: Path) -> None:
    ranking = imported(tmp_path, "p Q0 c 1 1 x\np Q0 a 1 1 x\n", gnd=gnd)
    write_ranks(tmp_path / "i.h5", ranking)
    again = read_ranks(tmp_path / "i.h5")
    assert again.rows.tolist() == ranking.rows.tolist() and again.origin == ranking.origin
    assert replace(again, query_marks=None).query_names == QUERIES
