"""Exact search against a literal reference, whatever the blocks, and rank files."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.retrieval import exact
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.origin import ExtractionRecord, Origin
from ultron_cli.retrieval.rankings import (
    EMPTY,
    RankedRows,
    Ranking,
    key_scores,
    packed,
    read_ranks,
    unpacked,
    write_ranks,
)

INFO = DescriptorInfo(model="m", weights_sha256="", dataset="toy", role="database", crop="none", scales=[1.0])


def unit_rows(seed: int, n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_ties(seed: int, n: int, dim: int) -> np.ndarray:
    """Unit rows of which half occur several times, at scattered places."""
    rows = unit_rows(seed, n, dim)
    rng = np.random.default_rng(seed + 1000)
    rows[rng.choice(n, n // 2, replace=False)] = rows[rng.integers(0, max(1, n // 20), n // 2)]
    return rows


def literal_search(queries: np.ndarray, database: np.ndarray, k: int) -> RankedRows:
    """Every score in float64, rounded to float32, every row sorted by (-score, row)."""
    terms = queries.astype(np.float64)[:, None] * database.astype(np.float64)[None]
    scores = terms.sum(axis=2).astype(np.float32)
    rows = np.stack([np.lexsort((np.arange(len(database)), -row))[:k] for row in scores])
    return RankedRows(rows, np.take_along_axis(scores, rows, axis=1))


def assert_equal(found: RankedRows, expected: RankedRows) -> None:
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.fixture
def write_file(tmp_path):
    def write(rows: np.ndarray, storage: str = "float32"):
        path = tmp_path / f"{storage}.h5"
        info = dataclasses.replace(INFO, extraction=ExtractionRecord(stored={"storage": storage}))
        write_descriptors(path, [f"photo{i}" for i in range(len(rows))], [rows.astype(storage)], rows.shape[1], info)
        return path

    return write


@pytest.mark.parametrize("n, dim, n_queries", [(1, 1, 1), (2, 7, 3), (50, 3, 4), (700, 33, 9), (3000, 64, 8)])
def test_equals_the_literal_search(n, dim, n_queries):
    database, queries = with_ties(n, n, dim), unit_rows(n + 1, n_queries, dim)
    queries[0] = database[-1]
    everything = literal_search(queries, database, n)
    for k in sorted({1, min(n, 2), min(n, 10), min(n, 100), max(1, n // 20), max(1, n // 2), n}):
        expected = RankedRows(everything.rows[:, :k], everything.scores[:, :k])
        assert_equal(exact_search(queries, database, k), expected)


def test_worked_by_hand():
    database = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    queries = np.array([[1, 0], [0, -1]], np.float32)
    found = exact_search(queries, database, 5)
    assert found.rows.tolist() == [[0, 1, 3, 2, 4], [0, 4, 1, 3, 2]]  # 0 and -0 are one score
    np.testing.assert_allclose(found.scores, [[1, 0.6, 0.6, 0, -1], [0, 0, -0.8, -0.8, -1]], atol=1e-7)


def test_equal_rows_are_all_ordered_by_row():
    database = np.repeat(unit_rows(1, 1, 16), 5000, axis=0)
    found = exact_search(unit_rows(2, 3, 16), database, 40)
    assert (found.rows == np.arange(40)).all()
    assert (found.scores == found.scores[:, :1]).all()


@pytest.mark.parametrize("n_near", [100, 4000])
def test_near_ties_within_float32_rounding_of_the_product(n_near):
    rng = np.random.default_rng(5)
    database, queries = unit_rows(5, 4000, 256), unit_rows(6, 5, 256)
    near = np.repeat(queries[:1] + database[:1], n_near, axis=0)
    near += rng.integers(-1, 2, near.shape).astype(np.float32) * np.float32(2**-22)  # scores a few roundings apart
    database[rng.choice(4000, n_near, replace=False)] = near
    assert_equal(exact_search(queries, database, 30), literal_search(queries, database, 30))


def test_final_scores_do_not_depend_on_the_order_of_a_sum():
    # 1 + 2^-24 lies halfway between two float32 numbers: there the last bit of a float64 sum decides.
    queries, rows = np.array([[1, 1], [0.6, 0.8]], np.float32), np.array([[1, 2**-24], [0.8, 0.6], [0, 0]], np.float32)
    block = exact.QueryBlock(queries, torch.device("cpu"), 4)
    products = queries.astype(np.float64) @ rows.astype(np.float64).T
    expected = block.final_scores(products, slice(None), rows, 2.0)
    assert expected[0].tolist() == [1, np.float32(0.8) + np.float32(0.6), 0]
    for error in (3e-16, -3e-16):
        np.testing.assert_array_equal(block.final_scores(products + error, slice(None), rows, 2.0), expected)


@pytest.mark.parametrize("k", [1, 7, 60, 600, 2000])
@pytest.mark.parametrize("max_memory_mib", [0.05, 0.3, 5])
def test_block_size_changes_nothing(k, max_memory_mib):
    database, queries = with_ties(7, 2000, 48), unit_rows(8, 5, 48)
    assert_equal(exact_search(queries, database, k, max_memory_mib=max_memory_mib), exact_search(queries, database, k))


def test_small_memory_gives_many_blocks():
    wanted = {"n_threads": 2, "dense": False, "in_place": False, "on_cpu": True}
    sizes = exact.block_sizes(2000, 512, 100, max_memory_mib=16, **wanted)
    assert 1 < sizes.queries < 2000
    used = sizes.queries * 512 * 20 + 3 * sizes.disk_rows * 512 * 6 + 3 * sizes.rows * (sizes.queries * 8 + 512 * 10)
    assert used < 16 * 2**20
    assert min(vars(exact.block_sizes(2000, 512, 100, max_memory_mib=1e-4, **wanted)).values()) == 1


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_order_of_the_database_changes_nothing(order):
    database, queries = unit_rows(9, 3000, 32), unit_rows(10, 1, 32)
    database = np.ascontiguousarray(database[np.argsort(database @ queries[0])][:: 1 if order == "ascending" else -1])
    assert_equal(exact_search(queries, database, 20, max_memory_mib=0.3), literal_search(queries, database, 20))


def test_threads_and_precision_switches_change_nothing_and_are_restored():
    database, queries = with_ties(11, 4000, 40), unit_rows(12, 6, 40)
    expected, n_threads = exact_search(queries, database, 50), torch.get_num_threads()
    matmul, mkldnn = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = matmul.fp32_precision, mkldnn.fp32_precision
    try:
        matmul.fp32_precision, mkldnn.fp32_precision = "tf32", "bf16"
        for n in (1, 3):
            torch.set_num_threads(n)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert_equal(exact_search(queries, database, 50), expected)
            assert torch.get_num_threads() == n
        assert (matmul.fp32_precision, mkldnn.fp32_precision) == ("tf32", "bf16")
    finally:
        matmul.fp32_precision, mkldnn.fp32_precision = before
        torch.set_num_threads(n_threads)


def test_more_queries_than_searched_together():
    database, queries = unit_rows(13, 300, 8), unit_rows(14, 1500, 8)
    assert_equal(exact_search(queries, database, 3), literal_search(queries, database, 3))
    assert exact_search(queries[:0], database, 3).rows.shape == (0, 3)


def test_rows_longer_than_unit_are_searched_exactly_too():
    database = with_ties(15, 2000, 24) * np.random.default_rng(15).uniform(0.1, 50, (2000, 1)).astype(np.float32)
    queries = unit_rows(16, 4, 24)
    assert_equal(exact_search(queries, database, 25, max_memory_mib=0.3), literal_search(queries, database, 25))


def test_any_memory_layout():
    database, queries = unit_rows(17, 400, 12), unit_rows(18, 3, 12)
    expected = literal_search(queries, database, 9)
    frozen = database.copy()
    frozen.flags.writeable = False
    for layout in (
        np.asfortranarray(database),
        np.repeat(database, 2, axis=0)[::2],
        database[::-1].copy()[::-1],
        frozen,
    ):
        assert_equal(exact_search(np.asfortranarray(queries), layout, 9), expected)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [5, 900])
def test_file_equals_array(write_file, storage, k):
    database, queries = with_ties(19, 900, 32).astype(storage), unit_rows(20, 4, 32)
    expected = literal_search(queries, database.astype(np.float32), k)
    assert_equal(exact_search(queries, database, k), expected)
    with DescriptorFile(write_file(database, storage)) as opened:
        assert_equal(exact_search(queries, opened, k), expected)
        assert_equal(exact_search(queries, opened, k, max_memory_mib=0.3), expected)


def test_refuses_what_does_not_fit(write_file):
    database, queries = unit_rows(21, 20, 8), unit_rows(22, 2, 8)
    for k in (0, 21):
        with pytest.raises(UltronError, match=f"k must be between 1 and the 20 rows of the database, found {k}"):
            exact_search(queries, database, k)
    with pytest.raises(UltronError, match=r"queries must be \(Q, 8\) like the database, found \(2, 7\)"):
        exact_search(queries[:, :7], database, 1)
    with DescriptorFile(write_file(database)) as opened, pytest.raises(UltronError, match="like the database"):
        exact_search(queries[:, :7], opened, 1)
    for bad in (np.nan, np.inf):
        spoiled = queries.copy()
        spoiled[1, 3] = bad
        with pytest.raises(UltronError, match="query descriptors must be finite, row 1 has NaN or infinity"):
            exact_search(spoiled, database, 1)
    for bad, k in ((np.nan, 1), (np.inf, 1), (-np.inf, 20)):
        spoiled = database.copy()
        spoiled[17, 0] = bad
        with pytest.raises(UltronError, match="database descriptors must be finite, row 17 has NaN or infinity"):
            exact_search(queries, spoiled, k, max_memory_mib=0.01)
    with pytest.raises(ValueError, match="float64"):
        exact_search(queries, database.astype(np.float64), 1)


def test_a_damaged_row_in_a_file_stops_the_search(write_file):
    path = write_file(unit_rows(23, 500, 8))
    with h5py.File(path, "r+") as handle:
        handle["descriptors"][321, 2] = np.nan
    with DescriptorFile(path) as opened, pytest.raises(UltronError, match="row 321 has NaN"):
        exact_search(unit_rows(24, 2, 8), opened, 3, max_memory_mib=0.05)


def test_keys_sort_as_descending_score_then_row():
    scores = np.array([1.5, -2, 0, -0.0, 1.5, 3e-42, -3e-42, 0.25], np.float32)
    rows = np.array([9, 3, 8, 1, 2, 4, 5, 2**32 - 1])
    keys = np.sort(packed(scores, rows))
    assert (keys < EMPTY).all()
    ordered = np.lexsort((rows, -scores))
    ranking = unpacked(keys[None].copy())
    assert ranking.rows[0].tolist() == rows[ordered].tolist()
    assert ranking.scores[0].tolist() == (scores[ordered] + 0).tolist() == key_scores(keys).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 50, 4000])
def test_cuda_equals_cpu(storage, k):
    database, queries = with_ties(25, 20_000, 96).astype(storage), unit_rows(26, 21, 96)
    expected = exact_search(queries, database, k)
    assert_equal(exact_search(queries, database, k, device="cuda"), expected)
    assert_equal(exact_search(queries, database, k, device="cuda", max_memory_mib=4), expected)


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
        ("ranks", np.array([[2, 0], [1, 0]], np.int32), r"ranks \(2, 2\) int32"),
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
    with pytest.raises(UltronError, match="lacks a readable part of a rank file"):
        read_ranks(rank_file)
    with h5py.File(rank_file, "r+") as handle:
        handle.attrs["version"] = 2
    with pytest.raises(UltronError, match="format version 2, this ultron reads up to 1; install a newer ultron"):
        read_ranks(rank_file)
    with h5py.File(rank_file, "r+") as handle:
        handle.attrs["format"] = "ultron-descriptors"
    with pytest.raises(UltronError, match=r"not a rank file.*found 'ultron-descriptors'"):
        read_ranks(rank_file)
