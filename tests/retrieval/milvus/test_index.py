"""Indexes in Milvus, against milvus-lite itself: the ranks of exact search and of Faiss, and indexes that are stale."""

import json
import shutil

import numpy as np
import pytest

from tests.retrieval.milvus.builds_for_tests import DIM, N, build, write
from tests.retrieval.rows_for_tests import assert_equal, unit_rows, with_ties
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.index.report import recall_at
from ultron_cli.retrieval.milvus import index

pytestmark = pytest.mark.slow

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_flat_ranks_as_exact_search_and_faiss_flat_do(descriptors, rows, tmp_path):
    built = build(descriptors, tmp_path / "m.index")
    assert (built.n, built.dim, built.n_written, built.index_type) == (N, DIM, N, "FLAT")
    milvus_index, queries = open_index(tmp_path / "m.index"), unit_rows(2, 5, DIM)
    faiss = build_index(descriptors, tmp_path / "f.index")
    for k in (1, 10, 300):
        ranking = milvus_index.search(queries, k)
        assert_equal(ranking, exact_search(queries, rows, k))
        np.testing.assert_array_equal(ranking.rows, faiss.search(queries, k).rows)
    assert_equal(milvus_index.search(queries[:2], N), exact_search(queries[:2], rows, N))


def test_equal_photos_are_ordered_by_row(tmp_path):
    rows, queries = with_ties(3, 600, 16), unit_rows(4, 6, 16)
    queries[0] = rows[7]
    build(write(tmp_path / "d.h5", rows), tmp_path / "d.index")
    milvus_index = open_index(tmp_path / "d.index")
    for k in (1, 5, 40):
        assert_equal(milvus_index.search(queries, k), exact_search(queries, rows, k))
    same = np.zeros((300, 4), np.float32)  # a group of equal scores larger than what is fetched at first
    same[:, 0], same[::2, 0], same[::2, 1] = 1, 0, 1
    build(write(tmp_path / "same.h5", same), tmp_path / "same.index")
    ranking = open_index(tmp_path / "same.index").search(np.eye(4, dtype=np.float32)[:1], 20)
    assert ranking.rows[0].tolist() == list(range(1, 40, 2))


@pytest.mark.parametrize("kind", ["ivf", "ivf-sq8", "hnsw"])
def test_approximate_kinds(descriptors, rows, tmp_path, kind):
    build(descriptors, tmp_path / "a.index", kind)
    milvus_index, expected = open_index(tmp_path / "a.index"), exact_search(rows[:20], rows, 10)
    ranking = milvus_index.search(rows[:20], 10)
    assert (ranking.rows[:, 0] == np.arange(20)).all()
    same = ranking.rows == expected.rows
    np.testing.assert_array_equal(ranking.scores[same], expected.scores[same])  # re-scored
    settings = milvus_index.settings
    few, many = (type(settings)(nprobe=nprobe, ef_search=512, rescore=10) for nprobe in (1, 64))
    wide = recall_at(milvus_index.search(rows[:20], 10, many).rows, expected.rows, 10)
    assert wide > 0.98
    if kind == "ivf":
        narrow = milvus_index.search(rows[:20], 60, few)  # random rows: a cell of 51 has fewer than 60
        assert recall_at(narrow.rows, expected.rows, 10) < wide
        assert (narrow.rows == -1).any() and (narrow.scores[narrow.rows == -1] == -np.inf).all()


def test_stale_moved_and_damaged_indexes(descriptors, rows, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    build(descriptors, folder / "m.index")
    shutil.move(folder, tmp_path / "b")  # index and database together
    index = tmp_path / "b" / "m.index"
    milvus_index = open_index(index)
    assert (milvus_index.n, milvus_index.dim, milvus_index.names[:2]) == (N, DIM, ["photo0.jpg", "photo1.jpg"])
    milvus_index.milvus.close()
    description = json.loads((index / "index.json").read_text())
    assert (description["uri"], description["consistency"], description["engine"]) == ("milvus.db", "Strong", "milvus")
    (index / "index.json").write_text(json.dumps(description | {"version": 2}))
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1"):
        open_index(index)
    (index / "index.json").write_text(json.dumps({key: value for key, value in description.items() if key != "record"}))
    with pytest.raises(
        UltronError, match="the whole lacks record; run `ultron index --engine milvus --overwrite` again"
    ):
        open_index(index)
    (index / "index.json").write_text(json.dumps(description))
    shutil.move(tmp_path / "b" / "milvus.db", tmp_path / "gone.db")
    with pytest.raises(UltronError, match=r"the Milvus database .*milvus\.db of index .* is gone; run"):
        open_index(index)
    assert not (tmp_path / "b" / "milvus.db").exists()
    write(descriptors, unit_rows(8, N, DIM))
    with pytest.raises(
        UltronError,
        match=r"is stale: .* has changed since it was built; rebuild it: `ultron index .* --engine milvus --uri",
    ):
        open_index(index)


def test_more_photos_than_milvus_ranks(descriptors, rows, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(index, "MOST_RANKED", 100)
    monkeypatch.setattr(index.log, "warning", lambda text, *values: warnings.append(text % values))
    build(descriptors, tmp_path / "m.index")
    milvus_index, queries = open_index(tmp_path / "m.index"), unit_rows(10, 3, DIM)
    assert_equal(milvus_index.search(queries, 95), exact_search(queries, rows, 95))
    assert not warnings
    assert_equal(milvus_index.search(queries, 101), exact_search(queries, rows, 101))
    assert "ranks at most 100 photos per query, 101 are asked for: searching exactly" in warnings[0]
    descriptors.unlink()
    alone = open_index(tmp_path / "m.index")
    with pytest.raises(
        UltronError, match=r"Milvus ranks at most 100 photos per query, found 101, and .* is gone; choose a smaller `k`"
    ):
        alone.search(queries, 101)
    ranking = alone.search(queries, 10)  # Milvus's own scores
    np.testing.assert_array_equal(ranking.rows, exact_search(queries, rows, 10).rows)
