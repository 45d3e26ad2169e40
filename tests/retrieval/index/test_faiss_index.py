"""Faiss indexes: results as exact search gives them, folders that are whole, and stale ones refused."""

import json
import os
import shutil
import sys

import h5py
import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO, unit_rows, with_ties
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index import base as index_module
from ultron_cli.retrieval.index import building
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.index.opening import open_index

pytest.importorskip("faiss")


def write(path, rows: np.ndarray) -> None:
    write_descriptors(
        path, [f"photo{i}.jpg" for i in range(len(rows))], [rows] if len(rows) else [], rows.shape[1], INFO
    )


@pytest.fixture
def database():
    return with_ties(1, 600, 16)


@pytest.fixture
def descriptors(tmp_path, database):
    path = tmp_path / "database.h5"
    write(path, database)
    return path


@pytest.fixture
def built(descriptors, tmp_path):
    build_index(descriptors, tmp_path / "flat.index")
    return tmp_path / "flat.index"


@pytest.mark.parametrize("k", [1, 10, 599, 600])
def test_flat_finds_what_exact_search_finds(built, database, k):
    queries = unit_rows(2, 5, 16)
    ranking, expected = open_index(built).search(queries, k), exact_search(queries, database, k)
    assert (ranking.rows.dtype, ranking.scores.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(ranking.scores, expected.scores, atol=1e-6)  # Faiss sums in float32
    order = np.lexsort((ranking.rows, -ranking.scores), axis=1)
    assert (order == np.arange(k)).all()
    exact_scores = np.take_along_axis(queries @ database.T, ranking.rows, axis=1)
    np.testing.assert_allclose(exact_scores, expected.scores, atol=1e-6)


def test_flat_orders_a_large_group_of_equal_scores_by_row(tmp_path):
    rows = np.zeros((500, 4), np.float32)
    rows[:, 0], rows[::2, 0], rows[::2, 1] = 1, 0, 1  # scores 1, 0, 1, 0 ... are exact in float32
    write(tmp_path / "d.h5", rows)
    ranking = build_index(tmp_path / "d.h5", tmp_path / "d.index").search(np.eye(4, dtype=np.float32)[:2], 255)
    odd, even = list(range(1, 500, 2)), list(range(0, 500, 2))
    assert ranking.rows.tolist() == [odd + even[:5], even + odd[:5]]


def test_opened_index_describes_itself(built, descriptors):
    index = open_index(built)
    assert (index.n, index.dim, index.kind, index.factory, index.names[:2]) == (
        600,
        16,
        "flat",
        "Flat",
        ["photo0.jpg", "photo1.jpg"],
    )
    description = json.loads((built / "index.json").read_text())
    assert (description["format"], description["version"], description["metric"]) == (
        "ultron-index",
        1,
        "inner_product",
    )
    assert description["descriptors"]["path"] == str(descriptors)
    assert sorted(path.name for path in built.iterdir()) == ["index.faiss", "index.json", "names.json"]
    assert sorted(path.name for path in built.parent.iterdir()) == ["database.h5", "flat.index"]  # nothing temporary


def test_filled_in_blocks(descriptors, tmp_path, monkeypatch):
    queries = unit_rows(3, 4, 16)
    expected = build_index(descriptors, tmp_path / "one.index").search(queries, 30)
    monkeypatch.setattr(building, "BLOCK_BYTES", 7 * 16 * 4)
    ranking = build_index(descriptors, tmp_path / "many.index").search(queries, 30)
    np.testing.assert_array_equal(ranking.rows, expected.rows)


def test_factory_strings_train_and_pad(descriptors, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "TRAINING_ROWS", 100)
    monkeypatch.setattr(building, "BLOCK_BYTES", 50 * 16 * 4)
    index = build_index(descriptors, tmp_path / "ivf.index", kind="IVF2,Flat")
    assert not index.is_exact
    ranking = index.search(unit_rows(4, 3, 16), 600)  # one of two cells is looked into
    assert (ranking.rows == -1).any()
    assert (ranking.scores[ranking.rows == -1] == -np.inf).all()
    assert np.isfinite(ranking.scores[ranking.rows >= 0]).all()
    for row in ranking.rows:
        n = int((row >= 0).sum())
        assert (row[n:] == -1).all() and len(set(row[:n].tolist())) == n


def test_an_existing_index_is_replaced_only_when_asked(built, descriptors, tmp_path):
    before = (built / "index.json").stat().st_mtime_ns
    with pytest.raises(UltronError, match="exists already; replace it with `overwrite`"):
        build_index(descriptors, built)
    assert (built / "index.json").stat().st_mtime_ns == before
    write(descriptors, unit_rows(5, 40, 8))
    build_index(descriptors, built, overwrite=True)
    assert open_index(built).n == 40
    (tmp_path / "photos").mkdir()
    with pytest.raises(UltronError, match="replaces only an index"):
        build_index(descriptors, tmp_path / "photos", overwrite=True)


def test_failure_leaves_the_old_index_and_nothing_else(built, descriptors, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "dump_json", fail)
    for out in (built, tmp_path / "new.index"):
        with pytest.raises(KeyboardInterrupt):
            build_index(descriptors, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.h5", "flat.index"]
    assert open_index(built).n == 600


def test_a_stale_index_is_refused_with_the_way_to_rebuild_it(built, descriptors, tmp_path):
    write(descriptors, unit_rows(6, 600, 16))
    with pytest.raises(UltronError, match="is stale") as caught:
        open_index(built)
    assert f"ultron index {descriptors} --type flat --out {built} --overwrite" in str(caught.value)


def test_a_touched_or_absent_descriptor_file_is_no_reason_to_refuse(built, descriptors, monkeypatch):
    os.utime(descriptors, ns=(1, 1))
    assert open_index(built).n == 600  # hashed, found the same
    os.utime(descriptors, ns=(json.loads((built / "index.json").read_text())["descriptors"]["mtime_ns"],) * 2)
    monkeypatch.setattr(
        index_module, "sha256_of_file", lambda path: pytest.fail("hashed although nothing tells of a change")
    )
    assert open_index(built).n == 600
    descriptors.unlink()
    assert open_index(built).n == 600


def test_damaged_folders_are_refused(built, tmp_path):
    def spoiled(name: str):
        path = tmp_path / name
        shutil.copytree(built, path)
        return path

    with pytest.raises(UltronError, match="must be a folder that `ultron index` made, found nothing"):
        open_index(tmp_path / "absent.index")
    with pytest.raises(UltronError, match="found a file"):
        open_index(built / "index.faiss")
    folder = spoiled("cut")
    (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:-50])
    with pytest.raises(UltronError, match=r"index\.faiss cannot be read .*run `ultron index --overwrite` again"):
        open_index(folder)
    folder = spoiled("future")
    description = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(description | {"version": 2}))
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1; install a newer ultron"):
        open_index(folder)
    (folder / "index.json").write_text(json.dumps(description | {"format": "other"}))
    with pytest.raises(UltronError, match="must be 'ultron-index', found 'other'"):
        open_index(folder)
    (folder / "index.json").write_text(json.dumps({"format": "ultron-index", "version": 1}))
    with pytest.raises(UltronError, match="the whole lacks kind; run `ultron index --overwrite` again"):
        open_index(folder)
    folder = spoiled("names")
    (folder / "names.json").write_text('["one"]')
    with pytest.raises(UltronError, match="must hold 600 rows of 16 dimensions, found 600 of 16 and 1 names"):
        open_index(folder)


def test_bad_input_is_refused(built, descriptors, tmp_path):
    index = open_index(built)
    with pytest.raises(UltronError, match="k must be between 1 and the 600 rows"):
        index.search(unit_rows(7, 1, 16), 601)
    with pytest.raises(UltronError, match=r"queries must be \(Q, 16\)"):
        index.search(unit_rows(7, 1, 15), 1)
    with pytest.raises(UltronError, match="must be finite, row 0"):
        index.search(np.full((1, 16), np.nan, np.float32), 1)
    with pytest.raises(UltronError, match=r"found 'flt' \(could not parse index string flt\); did you mean flat\?"):
        build_index(descriptors, tmp_path / "x.index", kind="flt")
    with pytest.raises(
        UltronError, match="'IVF5000,Flat' cannot learn from 600 descriptors"
    ):  # more cells than descriptors
        build_index(descriptors, tmp_path / "x.index", kind="IVF5000,Flat")
    write(tmp_path / "empty.h5", np.zeros((0, 16), np.float32))
    with pytest.raises(UltronError, match="at least one descriptor"):
        build_index(tmp_path / "empty.h5", tmp_path / "x.index")
    with h5py.File(descriptors, "r+") as handle:
        handle["descriptors"][3, 0] = np.nan
    with pytest.raises(UltronError, match="row 3 has NaN"):
        build_index(descriptors, tmp_path / "x.index")
    assert not (tmp_path / "x.index").exists()


def test_without_faiss_the_error_says_how_to_install_it(built, descriptors, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for action in (lambda: open_index(built), lambda: build_index(descriptors, tmp_path / "x.index")):
        with pytest.raises(UltronError, match="pip install faiss-cpu"):
            action()
