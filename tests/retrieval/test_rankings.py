"""The order of rankings, and rank files."""

import dataclasses

import h5py
import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import (
    EMPTY,
    Ranking,
    key_scores,
    packed,
    read_ranks,
    unpacked,
    write_ranks,
)


def test_keys_sort_as_descending_score_then_row():
    scores = np.array([1.5, -2, 0, -0.0, 1.5, 3e-42, -3e-42, 0.25], np.float32)
    rows = np.array([9, 3, 8, 1, 2, 4, 5, 2**32 - 1])
    keys = np.sort(packed(scores, rows))
    assert (keys < EMPTY).all()
    ordered = np.lexsort((rows, -scores))
    ranking = unpacked(keys[None].copy())
    assert ranking.rows[0].tolist() == rows[ordered].tolist()
    assert ranking.scores[0].tolist() == (scores[ordered] + 0).tolist() == key_scores(keys).tolist()


@pytest.fixture
def rank_file(tmp_path):
    path = tmp_path / "ranks.h5"
    ranking = Ranking(
        query_names=["q0", "Cathédrale 教堂"],
        database_names=["a", "b", "c"],
        rows=np.array([[2, 0], [1, -1]]),
        scores=np.array([[0.5, 0.25], [0.75, -np.inf]], np.float32),
        origin=Origin(k=2, other={"whose": "another program's"}),
    )
    write_ranks(path, ranking)
    return path


def test_rank_file_round_trip(rank_file):
    stored = read_ranks(rank_file)
    assert stored.rows.tolist() == [[2, 0], [1, -1]]
    assert stored.with_scores().tolist() == [[0.5, 0.25], [0.75, -np.inf]]
    assert (stored.rows.dtype, stored.with_scores().dtype) == (np.int64, np.float32)
    assert (stored.query_names, stored.database_names) == (["q0", "Cathédrale 教堂"], ["a", "b", "c"])
    assert stored.origin == Origin(k=2, other={"whose": "another program's"})
    assert stored.ranked_photos(1) == [{"rank": 1, "name": "b", "score": 0.75}]
    with h5py.File(rank_file) as handle:
        assert (handle.attrs["format"], handle.attrs["version"]) == ("ultron-ranks", 1)
        assert handle.attrs["created"].endswith("+00:00")
        assert set(handle) == {"ranks", "scores", "query_names", "database_names"}


def test_rank_file_is_whole_or_absent(rank_file, tmp_path, monkeypatch):
    before = rank_file.read_bytes()
    ranking = read_ranks(rank_file)
    with pytest.raises(ValueError, match="rows of the 2 database names"):
        write_ranks(rank_file, dataclasses.replace(ranking, database_names=["a", "b"]))
    with pytest.raises(ValueError, match="searched without scores"):
        write_ranks(rank_file, dataclasses.replace(ranking, scores=None))
    with pytest.raises(TypeError):  # the writer fails midway
        write_ranks(rank_file, dataclasses.replace(ranking, origin=Origin(other={"not": object()})))
    assert rank_file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [rank_file]


@pytest.mark.parametrize(
    "dataset, values, message",
    [
        ("ranks", np.array([[2, 3], [1, -1]]), "must be rows of the 3 database names or -1, found 3 for query 0"),
        ("ranks", np.array([[2, 0], [1, -2]]), "found -2 for query 1"),
        ("ranks", np.array([[-1, 0], [1, 0]]), "-1 must fill only the end of a row of ranks, query 0"),
        ("ranks", np.array([[2, 0]]), r"one name per query, found ranks \(1, 2\) int64"),
        ("ranks", np.array([[2, 0], [1, 0]], np.int32), r"ranks must be \(Q, K\) int64, found \(2, 2\) int32"),
        ("scores", np.array([[0.5, np.nan], [1, 1]], np.float32), "scores must not be NaN, found one for query 0"),
        ("scores", np.array([[0.5], [1]], np.float32), r"scores \(2, 1\) float32"),
        ("query_names", np.array(["q0"], dtype=h5py.string_dtype()), "1 query names"),
    ],
)
def test_contradictions_are_refused(rank_file, dataset, values, message):
    with h5py.File(rank_file, "r+") as handle:
        del handle[dataset]
        handle[dataset] = values
    with pytest.raises(UltronError, match=message) as caught:
        read_ranks(rank_file)
    assert str(rank_file) in str(caught.value)
    assert "run `ultron search" in str(caught.value)


def test_what_is_not_a_rank_file_is_refused(rank_file, tmp_path):
    with pytest.raises(UltronError, match="does not exist"):
        read_ranks(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("ranks")
    with pytest.raises(UltronError, match="truncated or not an HDF5 file"):
        read_ranks(tmp_path / "text.h5")
    (tmp_path / "cut.h5").write_bytes(rank_file.read_bytes()[:-100])
    with pytest.raises(UltronError, match="truncated or not an HDF5 file"):
        read_ranks(tmp_path / "cut.h5")
    with h5py.File(rank_file, "r+") as handle:
        del handle["scores"]
    with pytest.raises(UltronError, match="lacks a part of a rank file"):
        read_ranks(rank_file)
    with h5py.File(rank_file, "r+") as handle:
        handle.attrs["version"] = 2
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1; install a newer ultron"):
        read_ranks(rank_file)
    with h5py.File(rank_file, "r+") as handle:
        handle.attrs["format"] = "ultron-descriptors"
    with pytest.raises(UltronError, match=r"not a rank file.*found 'ultron-descriptors'"):
        read_ranks(rank_file)
