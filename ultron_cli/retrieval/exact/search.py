"""Exact search by inner product, in blocks of bounded memory, on the CPU or a CUDA device.

A score is the float64 inner product of the float32 rows, rounded to float32. Equal scores are ordered by row. The
result depends neither on block sizes nor on threads nor on the device. How it stays fast:
  1. float32 matrix products find candidates: rows that the rounding error could still put among the k best
     (`QueryBlock.margin`, `Scanner.scan`), by a compiled scan (compiled.py) or NumPy on the CPU and by torch on a CUDA
     device (device.py);
  2. only candidates get their final score (`QueryBlock.final_scores`); where they are many, float64 matrix products
     give every score;
  3. score and row are packed into one integer whose order is the order of the ranking, so merging and ties are integer
     sorts;
  4. threads take a block each, with one-threaded libraries: they never wait for each other inside a product, which on a
     machine with other work costs more than the product.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits
from ultron_kernels import search

from ultron_cli.blocks import chunks
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_threads
from ultron_cli.retrieval.descriptors import Descriptors, MemoryDescriptors
from ultron_cli.retrieval.exact.candidates import (
    DENSE,
    UNIT_ROW_NORM,
    DatabasePart,
    NumpyScanner,
    PartSearch,
    Scanner,
    block_sizes,
)
from ultron_cli.retrieval.exact.compiled import WORTH_BUILDING, CompiledScanner
from ultron_cli.retrieval.exact.scores import BestKeys, QueryBlock
from ultron_cli.retrieval.rankings import EMPTY, RankedRows, check_search, unpacked

MOST_THREADS = 32  # more would wait for Python and for memory
ONE_SEARCH = threading.Lock()  # a search uses every core, and sets switches of the process while it lasts


def exact_search(
    query_descriptors: np.ndarray,
    database: np.ndarray | Descriptors,
    k: int,
    *,
    device: str = "cpu",
    max_memory_mib: float = 768,
) -> RankedRows:
    """The k database rows of largest inner product per query, equal scores by row.

    query_descriptors: (Q, D) float32. database: (N, D) float32 or float16 array, or an open descriptor file, of which
    each thread reads what it goes through, as it is stored. k: 1..N. max_memory_mib bounds what is used beside the
    inputs and the (Q, k) result. Uses as many threads as machine.n_threads says. Raises UltronError if k or the
    dimensions do not fit or a value is not finite.
    """
    n, dim = database_shape(database)
    check_search(query_descriptors, n, dim, k)
    on_cpu = device == "cpu"
    # In a database of random order a row is a candidate with probability k / (rows before it), or surely among the
    # first k: k (1 + ln(n / k)) candidates per query in all.
    dense = DENSE * k * (1 + math.log(n / k)) > n
    best_keys = np.full((len(query_descriptors), k), EMPTY)  # becomes the rows of the result, in place
    n_filled = np.zeros(len(query_descriptors), np.int64)
    largest_norm = UNIT_ROW_NORM
    work = n * dim * len(query_descriptors)
    with ONE_SEARCH, scanners_for(device, work) as scanner_of, worker_threads() as (n_workers, workers):
        sizes = block_sizes(
            len(query_descriptors),
            dim,
            k,
            n_threads=n_workers,
            dense=dense,
            in_place=on_cpu and gives_float32_rows(database),
            on_cpu=on_cpu,
            max_memory_mib=max_memory_mib,
        )
        for part in database_parts(database, sizes.disk_rows):
            for start, stop in chunks(len(query_descriptors), sizes.queries):
                queries = QueryBlock(query_descriptors[start:stop], sizes.exact_rows)
                best = BestKeys(best_keys[start:stop], n_filled[start:stop])
                search = PartSearch(scanner_of(queries, k), best, part, sizes, workers, largest_norm)
                largest_norm = search.run(n_workers, dense=dense)
                part = replace(part, is_checked=True, source=None)  # by the first queries, for those after them
    return unpacked(best_keys)


@contextlib.contextmanager
def scanners_for(device: str, work: int) -> Iterator[Callable[[QueryBlock, int], Scanner]]:
    """Yields what makes the scanner of some queries and k. The CPU's need no torch.

    work: multiplications to be done.
    """
    if device == "cpu":
        is_ready = search.is_ready(worth_building=work > WORTH_BUILDING)
        yield CompiledScanner if is_ready else NumpyScanner
        return
    from ultron_cli.retrieval.exact.device import full_float32, torch_scanners

    with full_float32():
        yield torch_scanners(device)


def gives_float32_rows(database: np.ndarray | Descriptors) -> bool:
    """Whether blocks of it are float32 rows that lie one behind the other, so that a product can read them as they
    are."""
    if not isinstance(database, np.ndarray):
        return database.stored_dtype == np.float32
    return database.dtype == np.float32 and database.flags.carray


def database_shape(database: np.ndarray | Descriptors) -> tuple[int, int]:
    """(N, D). Raises ValueError for an array of another kind, UltronError for more rows than keys can name."""
    if not isinstance(database, np.ndarray):
        n, dim = database.n, database.dim
    elif database.ndim == 2 and database.dtype in (np.float32, np.float16):
        n, dim = database.shape
    else:
        raise ValueError(f"database must be (N, D) float32 or float16, got {database.shape} {database.dtype}")
    if n >= 2**32:
        raise UltronError(f"exact search takes at most {2**32 - 1} database rows, found {n}; split the database")
    return n, dim


@contextlib.contextmanager
def worker_threads() -> Iterator[tuple[int, ThreadPoolExecutor]]:
    """Yields a number of threads, at most MOST_THREADS, and their pool; matrix products of NumPy in them take one
    thread each."""
    n_workers = min(n_threads(), MOST_THREADS)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_workers, "search") as workers:
        yield n_workers, workers


def database_parts(database: np.ndarray | Descriptors, rows_per_part: int) -> Iterator[DatabasePart]:
    """Consecutive parts: rows in memory whole; others in blocks, which share their memory and are read by who scans
    them."""
    if isinstance(database, MemoryDescriptors):
        yield DatabasePart(database.read_stored(), 0, is_checked=True)
        return
    if isinstance(database, np.ndarray):
        yield DatabasePart(database, 0, is_checked=False)
        return
    room = np.empty((min(database.n, rows_per_part), database.dim), database.stored_dtype)
    for start, stop in chunks(database.n, rows_per_part):
        yield DatabasePart(room[: stop - start], start, is_checked=True, source=database)
