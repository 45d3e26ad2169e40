"""Exact search against a literal reference, whatever the blocks."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from tests.retrieval.rows_for_tests import INFO, assert_equal, unit_rows, with_ties
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.exact.candidates import block_sizes
from ultron_cli.retrieval.exact.scores import QueryBlock
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import RankedRows


def literal_search(queries: np.ndarray, database: np.ndarray, k: int) -> RankedRows:
    """Every score in float64, rounded to float32, every row sorted by (-score, row)."""
    terms = queries.astype(np.float64)[:, None] * database.astype(np.float64)[None]
    scores = terms.sum(axis=2).astype(np.float32)
    rows = np.stack([np.lexsort((np.arange(len(database)), -row))[:k] for row in scores])
    return RankedRows(rows, np.take_along_axis(scores, rows, axis=1))


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
    ranked = exact_search(queries, database, 5)
    assert ranked.rows.tolist() == [[0, 1, 3, 2, 4], [0, 4, 1, 3, 2]]  # 0 and -0 are one score
    np.testing.assert_allclose(ranked.scores, [[1, 0.6, 0.6, 0, -1], [0, 0, -0.8, -0.8, -1]], atol=1e-7)


def test_equal_rows_are_all_ordered_by_row():
    database = np.repeat(unit_rows(1, 1, 16), 5000, axis=0)
    ranked = exact_search(unit_rows(2, 3, 16), database, 40)
    assert (ranked.rows == np.arange(40)).all()
    assert (ranked.scores == ranked.scores[:, :1]).all()


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
    block = QueryBlock(queries, 4)
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
    machine = {"n_threads": 2, "dense": False, "in_place": False, "on_cpu": True}
    sizes = block_sizes(2000, 512, 100, max_memory_mib=16, **machine)
    assert 1 < sizes.queries < 2000
    used = sizes.queries * 512 * 20 + sizes.disk_rows * 512 * 4 + 3 * sizes.rows * (sizes.queries * 8 + 512 * 10)
    assert used < 16 * 2**20
    assert min(vars(block_sizes(2000, 512, 100, max_memory_mib=1e-4, **machine)).values()) == 1


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
    with DescriptorFile(write_file(database, storage)) as descriptors:
        assert_equal(exact_search(queries, descriptors, k), expected)
        assert_equal(exact_search(queries, descriptors, k, max_memory_mib=0.3), expected)


def test_a_float16_file_is_read_as_it_is(write_file, monkeypatch):
    database, queries = with_ties(30, 600, 32).astype(np.float16), unit_rows(31, 4, 32)
    expected = literal_search(queries, database.astype(np.float32), 5)
    monkeypatch.setattr(DescriptorFile, "read", None)  # which would convert them
    with DescriptorFile(write_file(database, "float16")) as descriptors:
        assert_equal(exact_search(queries, descriptors, 5, max_memory_mib=0.3), expected)


def test_refuses_what_does_not_fit(write_file):
    database, queries = unit_rows(21, 20, 8), unit_rows(22, 2, 8)
    for k in (0, 21):
        with pytest.raises(UltronError, match=f"k must be between 1 and the 20 rows of the database, found {k}"):
            exact_search(queries, database, k)
    with pytest.raises(UltronError, match=r"queries must be \(Q, 8\) like the database, found \(2, 7\)"):
        exact_search(queries[:, :7], database, 1)
    with DescriptorFile(write_file(database)) as descriptors, pytest.raises(UltronError, match="like the database"):
        exact_search(queries[:, :7], descriptors, 1)
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
    with DescriptorFile(path) as descriptors, pytest.raises(UltronError, match="row 321 has NaN"):
        exact_search(unit_rows(24, 2, 8), descriptors, 3, max_memory_mib=0.05)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [3, 700])
def test_products_of_torch_give_the_same(storage, k):
    database, queries = with_ties(27, 700, 24).astype(storage), unit_rows(28, 5, 24)
    # torch's name of the CPU as a device: what runs on a GPU, run here
    by_torch = exact_search(queries, database, k, device="cpu:0", max_memory_mib=1)
    assert_equal(by_torch, exact_search(queries, database, k))
    database[650, 0] = np.nan
    with pytest.raises(UltronError, match="row 650 has NaN"):
        exact_search(queries, database, k, device="cpu:0")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 50, 4000])
def test_cuda_equals_cpu(storage, k):
    database, queries = with_ties(25, 20_000, 96).astype(storage), unit_rows(26, 21, 96)
    expected = exact_search(queries, database, k)
    assert_equal(exact_search(queries, database, k, device="cuda"), expected)
    assert_equal(exact_search(queries, database, k, device="cuda", max_memory_mib=4), expected)
