"""The compiled scan of exact search against products in float64."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ultron_kernels import build, search
from ultron_kernels.halves import widened

from tests.kernels.compiled import CSRC, EMULATOR, compiled
from tests.retrieval.rows_for_tests import assert_equal, unit_rows, with_ties
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.exact.compiled import CompiledScanner

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def built() -> None:
    if not search.is_ready(worth_building=True):
        pytest.skip("the compiled search cannot be had on this machine")


def check(rows: np.ndarray, queries: np.ndarray, hurdles: np.ndarray) -> None:
    """The scan must find every product that is surely not below its hurdle, and none that surely is."""
    positions, products, longest = search.scan(rows, queries, hurdles, rows.shape[0] * len(queries)) or pytest.fail()
    exact = rows.astype(np.float64) @ queries.astype(np.float64).T
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    limit = (rows.shape[1] + 8) * 2.0**-24 * norms[:, None] * np.linalg.norm(queries.astype(np.float64), axis=1)
    was_reached = np.zeros(exact.size, bool)
    was_reached[positions] = True
    assert was_reached.sum() == len(positions)
    assert was_reached[(exact - limit >= hurdles).reshape(-1)].all()
    assert not was_reached[(exact + limit < hurdles).reshape(-1)].any()
    assert (np.abs(products - exact.reshape(-1)[positions]) <= limit.reshape(-1)[positions]).all()
    assert norms.max() <= longest <= norms.max() * 1.02 + 1e-30


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize(
    "n, dim, n_queries",
    [(1, 1, 1), (2, 7, 3), (63, 16, 24), (64, 17, 25), (700, 33, 70), (130, 512, 9), (40, 3001, 73)],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_what_reaches_its_hurdle_is_found(n: int, dim: int, n_queries: int, share: float, storage: str) -> None:
    rows, queries = unit_rows(1, n, dim).astype(storage), unit_rows(2, n_queries, dim)
    hurdles = np.quantile(rows.astype(np.float32) @ queries.T, share, axis=0).astype(np.float32)
    check(rows, queries, hurdles)


def test_rows_and_queries_of_any_length() -> None:
    rng = np.random.default_rng(3)
    rows = unit_rows(4, 300, 48) * 10 ** rng.uniform(-12, 12, (300, 1)).astype(np.float32)
    queries = unit_rows(5, 20, 48) * 10 ** rng.uniform(-4, 4, (20, 1)).astype(np.float32)
    rows[7] = 0
    queries[3] = 0
    for hurdle in (-1e3, -1e-12, 0.0, 1e-12, 1.0, 1e6):
        check(rows, queries, np.full(20, hurdle, np.float32))


def test_values_that_nearly_meet_their_hurdle() -> None:
    """Rows that differ from each other by less than whole numbers can tell: the float32 product decides."""
    rows = np.repeat(unit_rows(6, 1, 512), 4000, axis=0)
    rows += np.random.default_rng(7).normal(0, 1e-6, rows.shape).astype(np.float32)
    queries = unit_rows(6, 1, 512)
    hurdles = np.median(rows @ queries.T, axis=0).astype(np.float32)
    check(rows, queries, hurdles)
    positions, _, _ = search.scan(rows, queries, hurdles, 4000) or pytest.fail()
    assert 1500 < len(positions) < 2500


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e-25])
def test_what_float32_cannot_measure_is_left_to_the_caller(value: float) -> None:
    rows, queries, hurdles = unit_rows(8, 50, 16), unit_rows(9, 4, 16), np.zeros(4, np.float32)
    rows[20] = 0
    rows[20, 3] = value
    assert search.scan(rows, queries, hurdles, 200) is None
    assert search.scan(unit_rows(8, 50, 16), rows[18:22].copy(), hurdles, 200) is None


def test_more_than_was_asked_for_is_nothing() -> None:
    rows, queries = unit_rows(10, 500, 8), unit_rows(11, 5, 8)
    hurdles = np.full(5, -2, np.float32)
    assert search.scan(rows, queries, hurdles, 2499) is None
    positions, _, _ = search.scan(rows, queries, hurdles, 2500) or pytest.fail()
    assert sorted(positions) == list(range(2500))


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 40])
def test_a_search_is_the_same_with_and_without_it(storage: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    database, queries = with_ties(12, 30_000, 96).astype(storage), unit_rows(13, 21, 96)
    n_scans = 0
    scan = CompiledScanner.scan

    def counted(*arguments: object) -> object:
        nonlocal n_scans
        n_scans += 1
        return scan(*arguments)

    monkeypatch.setattr(CompiledScanner, "scan", counted)
    compiled = exact_search(queries, database, k, max_memory_mib=8)
    assert n_scans > 3
    monkeypatch.setenv("ULTRON_KERNELS", "off")
    n_scans = 0
    assert_equal(compiled, exact_search(queries, database, k, max_memory_mib=8))
    assert n_scans == 0


@pytest.mark.parametrize("dim", [7, 64])
def test_every_float16_is_the_same_as_float32(dim: int) -> None:
    halves = np.resize(np.arange(2**16, dtype=np.uint16).view(np.float16), (1025 * 64 // dim, dim))
    sound = np.isfinite(halves)
    for rows in (halves, halves[::3], halves[:, 1:]):
        wide, expected = widened(rows), rows.astype(np.float32)
        is_sound = np.isfinite(rows)
        assert np.array_equal(wide.view(np.uint32)[is_sound], expected.view(np.uint32)[is_sound])
        assert np.array_equal(wide, expected, equal_nan=True)
    room = np.empty(halves.shape, np.float32)
    assert np.shares_memory(widened(halves, room), room) and np.array_equal(room[sound], halves[sound])
    assert np.array_equal(widened(halves[:, ::-1]), halves[:, ::-1].astype(np.float32), equal_nan=True)


def test_it_is_built_where_that_is_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ULTRON_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "LOADED", {})
    build.library_path.cache_clear()
    try:
        assert not search.is_ready(worth_building=False)
        assert not list(tmp_path.iterdir())
        assert search.is_ready(worth_building=True)
        assert len(list(tmp_path.rglob("ultron_search.so"))) == 1
    finally:
        build.library_path.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs AVX2")
def test_vectors_of_64_bytes_give_what_vectors_of_32_give() -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    sources = [CSRC / "search" / "avx2.cpp", CSRC / "search" / "avx512.cpp", EMULATOR / "compare_scans.cpp"]
    command = [compiler, "-O1", "-std=c++20", "-fno-math-errno", "-DULTRON_WITHOUT_AVX512", f"-I{CSRC}"]
    program, _ = compiled("compare", [*command, *sources])
    process = subprocess.run([program], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "16 cases equal\n")
