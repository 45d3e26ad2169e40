"""Every kind of index: recall after re-scoring, memory stated, settings kept, whitening carried along, and the
report."""

import json

import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.memory import available_bytes
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index import building
from ultron_cli.retrieval.index.building import build_index, bytes_per_photo, say_memory
from ultron_cli.retrieval.index.kinds import INDEX_KINDS, SearchSettings, n_cells, n_code_bytes, plan
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.index.report import index_report, recall_at, report_text, swept_settings
from ultron_cli.retrieval.whitening import read_whitening, write_whitening
from ultron_cli.retrieval.whitening_learning import learn_whitening

pytestmark = pytest.mark.slow

faiss = pytest.importorskip("faiss")
N, DIM = 1500, 32


@pytest.fixture(scope="module")
def rows():
    rng, centres = np.random.default_rng(1), unit_rows(1, 40, DIM)
    rows = centres[rng.integers(0, 40, N)] + 0.15 * rng.standard_normal((N, DIM)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def descriptors(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "database.h5"
    write_descriptors(path, [f"photo{i}.jpg" for i in range(N)], [rows], DIM, INFO)
    return path


@pytest.mark.parametrize(
    ("kind", "at_least"), [("fp16", 1), ("sq8", 1), ("ivf", 0.9), ("ivfpq", 0.9), ("opq-ivfpq", 0.85), ("hnsw", 0.95)]
)
def test_every_kind_finds_what_exact_search_finds(descriptors, rows, tmp_path, kind, at_least):
    build_index(descriptors, tmp_path / "a.index", kind=kind)
    index, queries = open_index(tmp_path / "a.index"), rows[:20]
    ranking, expected = index.search(queries, 10), exact_search(queries, rows, 10)
    assert recall_at(ranking.rows, expected.rows, 10) >= at_least
    same = ranking.rows == expected.rows
    np.testing.assert_array_equal(ranking.scores[same], expected.scores[same])  # re-scored: the scores of exact search
    assert (np.lexsort((ranking.rows, -ranking.scores), axis=1) == np.arange(10)).all()
    as_scored = index.search(
        queries, 10, SearchSettings(nprobe=index.settings.nprobe, ef_search=index.settings.ef_search)
    )
    assert recall_at(as_scored.rows, expected.rows, 10) > 0.3


def test_a_wider_search_finds_more(descriptors, rows, tmp_path):
    index = build_index(descriptors, tmp_path / "a.index", kind="ivf")
    expected = exact_search(rows[:50], rows, 10)
    narrow, wide = (
        recall_at(index.search(rows[:50], 10, SearchSettings(nprobe=n)).rows, expected.rows, 10) for n in (1, 38)
    )
    assert narrow < wide
    assert wide > 0.99


def test_settings_and_factory_follow_the_size(monkeypatch):
    assert n_cells(1_000_000, 512) == 3205 and n_cells(100, 512) == 2 and n_cells(1, 4) == 1
    assert (n_code_bytes(512), n_code_bytes(2048), n_code_bytes(100), n_code_bytes(7), n_code_bytes(3)) == (
        64,
        256,
        10,
        1,
        1,
    )
    assert plan("ivfpq", 1_000_000, 512) == ("IVF3205,PQ64x8np", SearchSettings(nprobe=100, rescore=10))
    assert [plan("ivf", n, 512)[1].nprobe for n in (100, 4993, 20_000, 50_000, 200_000)] == [
        2,
        128,
        512,
        358,
        179,
    ]  # 20,000 photos' cells
    assert plan("ivfpq", 100, 512)[0] == "IVF2,PQ64x6np"
    assert plan("IVF16,PQ8", 1000, 64) == ("IVF16,PQ8", SearchSettings(rescore=10))
    assert plan("flat", 10, 8) == ("Flat", SearchSettings())
    for kind in INDEX_KINDS:
        faiss.index_factory(96, plan(kind, 5000, 96)[0], faiss.METRIC_INNER_PRODUCT)


@pytest.mark.parametrize(
    ("kind", "n", "n_centroids"),
    [("opq-ivfpq", 300, 256), ("ivfpq", 100, 64), ("opq-ivfpq", 100, 64), ("IVF60,SQ8", 200, 60)],
)
def test_few_photos_for_a_codebook_are_said_once(rows, tmp_path, monkeypatch, capfd, kind, n, n_centroids):
    messages = []
    monkeypatch.setattr(log, "warning", lambda text, *values: messages.append(text % values))
    write_descriptors(tmp_path / "few.h5", [f"{i}.jpg" for i in range(n)], [rows[:n]], DIM, INFO)
    build_index(tmp_path / "few.h5", tmp_path / "a.index", kind=kind)
    assert len(messages) == 1 and messages[0].startswith(
        f"{n} descriptors are few to learn {n_centroids} centroids from, Faiss advises {39 * n_centroids} "
    )
    assert "clustering" not in capfd.readouterr().err
    ranking = open_index(tmp_path / "a.index").search(rows[:20], 1, SearchSettings(nprobe=60, rescore=10))
    np.testing.assert_array_equal(ranking.rows[:, 0], np.arange(20))


@pytest.mark.parametrize(
    ("factory", "n_bytes"),
    [
        ("Flat", 128),
        ("SQfp16", 64),
        ("SQ8", 32),
        ("IVF4,SQfp16", 72),
        ("IVF4,PQ4x8", 12),
        ("OPQ4,IVF4,PQ4x8", 12),
        ("PQ4x8", 4),
    ],
)
def test_bytes_per_photo(factory, n_bytes):
    assert bytes_per_photo(faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT), 32) == n_bytes


def test_memory_is_stated_before_it_is_needed(monkeypatch):
    index = faiss.index_factory(512, "IVF3360,PQ64x8", faiss.METRIC_INNER_PRODUCT)
    assert say_memory(index, 1_000_000, 512) < 1 << 30
    messages = []
    monkeypatch.setattr(log, "info", lambda text, *values: messages.append(text % values))
    monkeypatch.setattr(log, "warning", lambda text, *values: messages.append(text % values))
    monkeypatch.setattr(building, "available_bytes", lambda: 1 << 20)
    say_memory(index, 1_000_000, 512)
    assert "72 bytes per photo" in messages[0]
    assert "more than the 1 MiB now free" in messages[1]
    assert available_bytes() is None or available_bytes() > 0


def test_whitening_goes_into_the_index_folder(descriptors, rows, tmp_path):
    write_whitening(tmp_path / "w.h5", learn_whitening(descriptors, "pca-whitening"))
    whitening = read_whitening(tmp_path / "w.h5", 8)
    build_index(descriptors, tmp_path / "w.index", kind="sq8", whitening=whitening)
    (tmp_path / "w.h5").unlink()  # the index has its own
    index = open_index(tmp_path / "w.index")
    assert (index.dim, index.whitening.dim) == (8, 8)
    assert index.agreed_whitening(None).record() == index.agreed_whitening(whitening).record() == whitening.record()
    white = whitening.apply(rows)
    np.testing.assert_array_equal(index.search(white[:5], 3).rows, exact_search(white[:5], white, 3).rows)
    with pytest.raises(UltronError, match=r"made with another whitening \(pca-whitening to 8-d\); leave out `whiten`"):
        index.agreed_whitening(whitening.reduced(4))
    plain = build_index(descriptors, tmp_path / "plain.index", kind="sq8")
    with pytest.raises(UltronError, match=r"another whitening \(none\)"):
        plain.agreed_whitening(whitening)


def test_without_its_descriptors_an_index_answers_by_its_own_scores(descriptors, rows, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(descriptors.read_bytes())
    build_index(copy, tmp_path / "a.index", kind="sq8")
    copy.unlink()
    ranking = open_index(tmp_path / "a.index").search(rows[:5], 3)
    np.testing.assert_array_equal(ranking.rows[:, 0], np.arange(5))


def test_report_measures_against_exact_search(descriptors, tmp_path):
    built = build_index(descriptors, tmp_path / "ivfpq.index", kind="IVF8,PQ4x4np")
    assert [(row.nprobe, row.rescore) for row in swept_settings(built)] == [
        (1, 0),
        (4, 0),
        (8, 0),
        (1, 10),
        (4, 10),
        (8, 10),
    ]
    report = index_report(built, descriptors, None)
    assert json.loads((tmp_path / "ivfpq.report.json").read_text())["n_queries"] == 100
    assert report["figure"] == str(tmp_path / "ivfpq.report.png")  # the command draws it
    recalls = [row["recall"]["100"] for row in report["rows"]]
    assert recalls[2] <= recalls[5] and recalls[3] <= recalls[5] and recalls[5] > 0.9
    text = report_text(report)
    for word in ("nprobe", "10 x k", "recall@100", "10 bytes per photo", "each finding itself"):
        assert word in text
    flat = build_index(descriptors, tmp_path / "flat.index")
    flat_report = index_report(flat, descriptors, descriptors)
    assert [row["recall"]["100"] for row in flat_report["rows"]] == [1.0]
    assert "nprobe" not in report_text(flat_report)


def test_recall_counts_rows_in_any_order():
    assert recall_at(np.array([[3, 1, 9], [4, 5, 6]]), np.array([[1, 3, 2], [4, 6, 5]]), 3) == pytest.approx(
        (2 / 3 + 1) / 2
    )
